"""What the logs of one build came to: counts of lines, of follow-ups, and of what each person gave."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from adapters_store import sources as stored
from personalize.service.population import as_source
from personalize.types import Outcome, PopulationReport

MAX_REASONS = 5
REFUSED = (Outcome.SKIPPED_NO_CONSENT, Outcome.SKIPPED_PAUSED)


@dataclass(slots=True)
class Tally:
    """Counts, by log and by person.

    Attributes:
        conversations, lessons: by (place of the log, hash of the person); lessons moved the adapter.
        users: persons who were users when they were read.
    """

    num_lines: Counter[int] = field(default_factory=Counter)
    num_broken: Counter[int] = field(default_factory=Counter)
    reasons: list[str] = field(default_factory=list)
    num_anonymous: int = 0
    num_left_out: int = 0
    conversations: Counter[tuple[int, str]] = field(default_factory=Counter)
    lessons: Counter[tuple[int, str]] = field(default_factory=Counter)
    users: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)

    def refuse(self, source: int, line: int, reason: str) -> None:
        """Count a line of which nothing is used."""
        self.num_broken[source] += 1
        if len(self.reasons) < MAX_REASONS:
            self.reasons.append(f"log {source + 1} line {line}: {' '.join(reason.split())}")

    def count(self, source: int, person: str, outcomes: Sequence[Outcome], *, is_user: bool) -> None:
        """Count a conversation; of whom nothing may be learnt, nothing but the outcomes is written down."""
        self.outcomes.update(outcome.value for outcome in outcomes)
        if any(outcome in REFUSED for outcome in outcomes):
            return
        self.conversations[source, person] += 1
        self.lessons[source, person] += outcomes.count(Outcome.APPLIED)
        if is_user:
            self.users.add(person)

    def sources(self, files: Sequence[tuple[str, int]]) -> tuple[stored.LogSource, ...]:
        """Return the manifest's lines for files of these digests and sizes."""
        return tuple(self._source(place, *file) for place, file in enumerate(files))

    def people(self) -> list[stored.LogPerson]:
        """Return what every person gave to every log."""
        return [
            stored.LogPerson(person, source, count, self.lessons[source, person], person in self.users)
            for (source, person), count in self.conversations.items()
        ]

    def report(self, sources: Sequence[stored.LogSource]) -> PopulationReport:
        return PopulationReport(
            version=None,
            sources=tuple(map(as_source, sources)),
            first_broken=tuple(self.reasons),
            num_people=len({person for _, person in self.conversations}),
            num_anonymous=self.num_anonymous,
            num_left_out=self.num_left_out,
            outcomes=dict(sorted(self.outcomes.items())),
        )

    def _source(self, place: int, digest: str, num_bytes: int) -> stored.LogSource:
        mine = [key for key in self.conversations if key[0] == place]
        return stored.LogSource(
            digest=digest,
            num_bytes=num_bytes,
            num_lines=self.num_lines[place],
            num_broken=self.num_broken[place],
            num_conversations=sum(self.conversations[key] for key in mine),
            num_people=len(mine),
            num_lessons=sum(self.lessons[key] for key in mine),
        )
