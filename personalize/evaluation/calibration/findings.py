"""Everything that was measured, as plain numbers; what was not reached is missing, never made up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True, slots=True)
class WishRates:
    """How often a wish holds in replies to the same questions.

    Attributes:
        plain: nobody asked for it.
        told: the hindsight block told it: the most that learning can reach with the base as its teacher.
        asked: the question itself asked for it.
        win: share of pairs (told, plain) that told wins; a draw counts half.
        num_replies: replies of each of the three sorts.
    """

    name: str
    plain: float
    told: float
    asked: float
    win: float
    num_replies: int


@dataclass(frozen=True, slots=True)
class FollowUpSignals:
    """What follow-ups of one kind do to replies.

    Attributes:
        kind: a wish's name, or an idle kind.
        is_wish: whether there was something to learn.
        sizes: mean |A| of every reply, in nats.
        signals: what the gate sees of every reply, in nats.
        reaches: how far the follow-up after every reply moves answers to other questions, in nats, infinity where it
            leaves no room for them; empty where no reach could be measured.
    """

    kind: str
    is_wish: bool
    sizes: tuple[float, ...]
    signals: tuple[float, ...]
    reaches: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Together:
    """Several follow-ups told in one block.

    Attributes:
        size: follow-ups in the block; of different wishes as far as one reply can fulfil them.
        rate: share of the told wishes that hold.
        alone: the same wishes, each told alone.
    """

    size: int
    rate: float
    alone: float
    num_replies: int


@dataclass(frozen=True, slots=True)
class Trial:
    """One update on trial, mean over its users; losses are those before the first and before the last step."""

    lr: float
    num_turns: int
    num_applied: int
    outcomes: tuple[str, ...]
    loss_first: float
    loss_last: float
    grad_norm: float
    reply_kl: float

    @property
    def is_sound(self) -> bool:
        """Whether the guards let every user's update through."""
        return self.num_applied == self.num_turns

    @property
    def fall(self) -> float:
        """Share of the loss that the steps before the last took away; nan where there was none."""
        return 1 - self.loss_last / self.loss_first if self.loss_first > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class Findings:
    """All numbers about one model, in the order in which they are measured.

    Attributes:
        block_removed: share of prompts that are the plain prompt again when the block is taken away.
        room: tokens that the context leaves for a reply beside the longest block.
        agreement: share of served tokens that the learner's pass agrees with.
        new_adapter_change: largest change of a log-probability by an untrained adapter.
        blamed_after_wish: mean A of the tokens that went against a wish, after the wish was told; one per reply.
        blamed_after_praise: mean A of the same tokens after praise.
        layer_gain: how much the median layer stretches its input.
    """

    block_removed: float | None = None
    room: int | None = None
    agreement: float | None = None
    new_adapter_change: float | None = None
    wishes: tuple[WishRates, ...] = ()
    signals: tuple[FollowUpSignals, ...] = ()
    blamed_after_wish: tuple[float, ...] = ()
    blamed_after_praise: tuple[float, ...] = ()
    together: tuple[Together, ...] = ()
    layer_gain: float | None = None
    trials: tuple[Trial, ...] = ()

    def sizes(self, *kinds: str) -> tuple[float, ...]:
        """Return mean |A| of every reply that such a follow-up came after; of all wishes for no kinds."""
        return tuple(
            size
            for one in self.signals
            if (one.kind in kinds if kinds else one.is_wish)
            for size in one.sizes
        )  # fmt: skip

    def gate_signals(self, *, wishes: bool) -> tuple[float, ...]:
        """Return the gate's signals of all wishes, or of everything else."""
        return tuple(signal for one in self.signals if one.is_wish is wishes for signal in one.signals)

    def reaches(self, *, wishes: bool) -> tuple[float, ...]:
        """Return the reach of all wishes, or of everything else, in the order of ``gate_signals``."""
        return tuple(reach for one in self.signals if one.is_wish is wishes for reach in one.reaches)


def mean(values: tuple[float, ...]) -> float | None:
    """Return the mean, or None of nothing."""
    return fmean(values) if values else None


@dataclass(frozen=True, slots=True)
class Spread:
    """Quartiles, in nats."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """Return those of ``values``, or None of nothing."""
        ordered = sorted(values)
        return cls(*(ordered[round(share * (len(ordered) - 1))] for share in (0.25, 0.5, 0.75))) if ordered else None


@dataclass(frozen=True, slots=True)
class Summary:
    """What one kind of follow-up did.

    Attributes:
        size: mean |A|.
        reach: None where it could not be measured.
    """

    size: float
    signal: Spread
    reach: Spread | None


def summary(findings: Findings) -> Mapping[str, Summary]:
    """Return kind -> its numbers, for every kind of follow-up that was read."""
    spreads = ((one, Spread.of(one.signals)) for one in findings.signals)
    return {
        one.kind: Summary(fmean(one.sizes), signal, Spread.of(one.reaches))
        for one, signal in spreads
        if signal is not None
    }
