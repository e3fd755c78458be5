"""What versions of the population adapter were made from, as plain values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogSource:
    """One log that a population adapter was made from; its path is not kept.

    Attributes:
        digest: SHA-256 of the file, hex.
        num_broken: lines that nothing could be read from.
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
class LogPerson:
    """What one person contributed to one log.

    Attributes:
        person: hash of the external id, as ``Store.person`` returns it.
        source: place of the log among the sources.
        is_user: the person was a user of this store when the conversations were read.
    """

    person: str
    source: int
    num_conversations: int
    num_lessons: int
    is_user: bool = False


@dataclass(frozen=True, slots=True)
class Population:
    """One version of the population adapter and what it was made from; it is known for longer than the version.

    Attributes:
        name: of the version.
        num_forgotten: people of its logs who were forgotten since.
        is_head: it serves who has not begun.
        kept: the version still exists.
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
class PopulationUse:
    """How one version of the population adapter concerns a person.

    Attributes:
        name: of the version.
        sources: digests of the logs that it was made from.
        in_sources: digests of those that hold conversations of the person.
        num_conversations, num_lessons: of the person, in those.
        in_line: the line of the person's own versions began with it.
    """

    number: int
    name: str
    sources: tuple[str, ...]
    in_sources: tuple[str, ...]
    num_conversations: int
    num_lessons: int
    in_line: bool
