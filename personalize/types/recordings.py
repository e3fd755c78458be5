"""Conversations recorded elsewhere, as lessons."""

from dataclasses import dataclass

from personalize.types.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class LoggedLesson:
    """What became of one interaction of a recorded conversation.

    Attributes:
        outcome: ``queued``, or why it is not; a dry run says ``queued`` where the real one would queue.
        update_id: the update that will say what was learnt; None where nothing was queued.
    """

    outcome: Outcome
    update_id: str | None = None
