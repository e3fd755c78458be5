"""The population adapter: what it was made from, and whom it concerns."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogSource:
    """One log that a population adapter was made from.

    Attributes:
        digest: SHA-256 of the file, hex; its path is not kept.
        num_broken: lines that no conversation could be read from, or whose conversation this model cannot be shown.
        num_conversations: those that were used.
        num_people: who held them.
        num_lessons: follow-ups that moved the adapter.
    """

    digest: str
    num_bytes: int
    num_lines: int
    num_broken: int
    num_conversations: int
    num_people: int
    num_lessons: int


@dataclass(frozen=True, slots=True)
class PopulationInfo:
    """One version of the population adapter: the manifest of what it was made from.

    Attributes:
        name: of the version.
        num_people: people whose conversations were used.
        num_forgotten: those of them who were forgotten since.
        is_head: it serves who has not begun, where the setting ``population`` is on.
        kept: its weights still exist.
    """

    number: int
    name: str
    base_digest: str
    created_s: float
    sources: tuple[LogSource, ...]
    num_people: int
    num_forgotten: int
    is_head: bool
    kept: bool


@dataclass(frozen=True, slots=True)
class PopulationReport:
    """What building the population adapter from logs came to.

    Attributes:
        version: number of the new version; None in a dry run, where nothing was learnt, and after a breach.
        sources: one per log, in their order.
        first_broken: the first few broken lines, as ``<place of the log> line <number>: <reason>``.
        num_people: people whose conversations were used.
        num_anonymous: conversations that name nobody.
        num_left_out: conversations of those who were to be left out.
        outcomes: how many follow-ups came to which outcome; in a dry run ``queued`` counts what would be learnt from.
        breach: why the review of what it says kept it from being published.
    """

    version: int | None
    sources: tuple[LogSource, ...]
    first_broken: tuple[str, ...]
    num_people: int
    num_anonymous: int
    num_left_out: int
    outcomes: Mapping[str, int]
    breach: str | None = None


@dataclass(frozen=True, slots=True)
class PopulationUse:
    """How one version of the population adapter concerns a person.

    Attributes:
        number: of the version.
        name: of the version.
        sources: SHA-256 of the logs that it was made from.
        in_sources: those of them that hold conversations of the person.
        num_conversations: of the person, in those.
        num_lessons: follow-ups of the person that moved the adapter.
        in_line: the person's own versions began with it.
    """

    number: int
    name: str
    sources: tuple[str, ...]
    in_sources: tuple[str, ...]
    num_conversations: int
    num_lessons: int
    in_line: bool
