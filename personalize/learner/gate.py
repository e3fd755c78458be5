"""Is there something to learn, and what is the teacher told?

The gate asks the *live* model: how far would it move some token of its own reply, had it known the follow-up? That is
large for a complaint, small for praise once the wish is learned, and, unlike the base model's own gap, large again for
a wish to go back to the default. A new question can move its own reply as far; what it cannot is in ``probes``.

Shape letters: N trained positions, V vocabulary.
"""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from personalize.functional import forward_kl, reachable
from personalize.learner.batch import Batch, collate
from personalize.learner.kept import Kept
from personalize.learner.lesson import Pupil, fits, row, told
from personalize.learner.passes import by_position, read_prefix, reply_log_probs
from personalize.learner.prefixes import Weights, cut, load
from personalize.learner.probes import Alone, Probes
from personalize.learner.recipe import Recipe
from personalize.learner.teacher import BaseTeacher
from personalize.model.base import BaseModel
from personalize.model.rows import AdapterRows
from personalize.types import Experience, Outcome, Window


class Gate:
    """Measures follow-ups and settles their users' blocks; what it asks the base it asks once.

    Args:
        base_teacher: says what the base thinks of a reply under some block.
        readings_kept: most follow-ups of which it is kept how the base reads the probes when told them.
    """

    def __init__(self, base: BaseModel, base_teacher: BaseTeacher, readings_kept: int = 0):
        self._base, self._base_teacher = base, base_teacher
        self._probes: Probes | None = None
        self._readings: Kept[str, Tensor | None] = Kept(readings_kept)

    def forget(self, owner: str) -> None:
        """Let go of everything that was read with this user's follow-ups."""
        self._readings.forget(owner)

    def owners(self) -> frozenset[str]:
        """Return the users of whom something is kept."""
        return self._readings.owners()

    def settle(self, pupils: Sequence[Pupil], recipe: Recipe) -> Iterator[Window]:
        """Set every pupil's ``block``, and its ``outcome`` where there is nothing to learn; yields after every pass."""
        if not pupils:
            return
        yield from self._measure_signals(pupils)
        if recipe.gate_nats is not None and recipe.reach_nats is not None:
            for pupil in pupils:
                if pupil.metrics["signal"] >= recipe.gate_nats:
                    yield from self._measure_reach(pupil, recipe.reach_nats)
        for pupil in pupils:
            yield from self._settle_block(pupil, recipe)
            yield Window()
            if not pupil.metrics["informative"]:
                self._look_for_lapse(pupil, recipe)
                yield Window()
            pupil.live = None

    def _measure_signals(self, pupils: Sequence[Pupil]) -> Iterator[Window]:
        """Measure how far the live models, told their follow-ups, move their own replies."""
        plain = collate([row(pupil.lesson.experience) for pupil in pupils], self._base.device)
        live = AdapterRows.of([pupil.parent for pupil in pupils])
        student_NV = self._read_plain(pupils, plain, live)
        yield Window()
        gap_N = by_position(self._base, hindsight_gap, student_NV, self._read_told(pupils, live))
        yield Window()
        for index, pupil in enumerate(pupils):
            pupil.live, gap = student_NV[plain.row == index], gap_N[plain.row == index]
            pupil.metrics |= {"signal": float(gap.max()), "signal_mean": float(gap.mean())}

    def _read_plain(self, pupils: Sequence[Pupil], plain: Batch, live: AdapterRows) -> Tensor:
        """Return what the live models say, and keep their prompts for the passes that follow."""
        cache = read_prefix(self._base, plain, live)
        student_NV = reply_log_probs(self._base, plain, live, cache=cache)
        for index, pupil in enumerate(pupils):
            ids = pupil.lesson.experience.prompt_ids[:-1]
            pupil.prefix = cut(cache, plain, index, Weights.of(self._base, pupil.parent), ids)
        return student_NV

    def _read_told(self, pupils: Sequence[Pupil], live: AdapterRows) -> Tensor:
        """Return what the live models say, each told the newest follow-up; what stands before it has been read."""
        newest = [(pupil.lesson.user_id, pupil.lesson.experience) for pupil in pupils]
        each = [told(self._base, owner, turn, [turn]) for owner, turn in newest]
        shared = [one.num_shared for one in each]
        batch = collate([one.row for one in each], self._base.device, prefix_lengths=shared)
        weights = [Weights.of(self._base, pupil.parent) for pupil in pupils]
        cache = load(batch, [pupil.prefix for pupil in pupils], weights)
        return reply_log_probs(self._base, batch, live, cache=cache)

    def _measure_reach(self, pupil: Pupil, enough_nats: float) -> Iterator[Window]:
        """Measure how far a follow-up reaches, and where that is not enough, whether it takes back what stands."""
        probes = yield from self._asked()
        follow_up, standing = pupil.lesson.experience.follow_up, pupil.remembered(pupil.lesson.state.block)
        alone = self._alone(probes, pupil)
        (pupil.metrics["reach"],) = probes.reach(self._base, [follow_up], alone)
        yield Window()
        if standing and not pupil.metrics["reach"] >= enough_nats:
            told = [turn.follow_up for turn in standing]
            pupil.metrics["reversal"] = yield from probes.reversal(self._base, told, follow_up, enough_nats, alone)

    def _asked(self) -> Generator[Window, None, Probes]:
        """Return the probes; whoever needs them first asks the base."""
        if self._probes is None:
            self._probes = yield from Probes.asking(self._base)
        return self._probes

    def _alone(self, probes: Probes, pupil: Pupil) -> Alone:
        """Return what reads the probes for who is told one of the pupil's follow-ups, each text once."""
        owner = pupil.lesson.user_id
        return lambda text: self._readings.get(owner, text, lambda: probes.read(self._base, text))

    def _settle_block(self, pupil: Pupil, recipe: Recipe) -> Iterator[Window]:
        newest, standing = pupil.lesson.experience, pupil.remembered(pupil.lesson.state.block)
        informative = is_informative(pupil.metrics, recipe)
        pupil.metrics["informative"] = float(informative)
        pupil.block = standing
        if informative:
            standing = yield from self._without_moot(pupil, standing, recipe)
            while standing and not fits(self._base, newest, [*standing, newest]):  # the teacher is asked about them all
                standing = pupil.pass_over(standing)
            pupil.block = next_block(standing, newest, recipe.block_size, partial(self._base_told, pupil))

    def _without_moot(
        self, pupil: Pupil, standing: tuple[Experience, ...], recipe: Recipe
    ) -> Generator[Window, None, tuple[Experience, ...]]:
        """Return what still stands once the newest has been said: not said again, taken back, or in its way."""
        least, enough = recipe.moot_share, recipe.reach_nats
        if not standing or least is None or enough is None or recipe.block_size == 1:
            return standing
        if not pupil.metrics.get("reach", math.inf) >= enough:
            least = recipe.moot_share_back
        probes = yield from self._asked()
        earlier, newer = [turn.follow_up for turn in standing], pupil.lesson.experience.follow_up
        shares = yield from probes.shares(self._base, earlier, newer, enough, self._alone(probes, pupil))
        left = tuple(turn for turn, share in zip(standing, shares, strict=True) if not share < least)
        pupil.metrics["num_moot"] = float(len(standing) - len(left))
        return left

    def _look_for_lapse(self, pupil: Pupil, recipe: Recipe) -> None:
        """Decide whether a turn whose follow-up says nothing new is trained on: where its reply went against the block.

        The distance is that of the first step: from the live model to the base that is told the standing block, summed
        over the reply.
        """
        if not pupil.block or recipe.lapse_nats is None:
            pupil.outcome = Outcome.SKIPPED_LOW_SIGNAL
            return
        newest = pupil.lesson.experience
        if not recipe.lapse_nats or not fits(self._base, newest, pupil.block):
            return
        assert pupil.live is not None
        pupil.metrics["lapse"] = distance(pupil.live, self._base_told(pupil, pupil.block), newest, recipe.tolerance)
        if pupil.metrics["lapse"] < recipe.lapse_nats:
            pupil.outcome = Outcome.SKIPPED_LOW_SIGNAL

    def _base_told(self, pupil: Pupil, block: Sequence[Experience]) -> Tensor:
        """Return what the base, told ``block``, thinks of the newest reply, [N, V]."""
        return self._base_teacher.log_probs([told(self._base, pupil.lesson.user_id, pupil.lesson.experience, block)])


def is_informative(metrics: Mapping[str, float], recipe: Recipe) -> bool:
    """Tell whether a follow-up joins the block: it moves its own reply, and others.

    Args:
        metrics: needs ``signal``, and where that passes ``reach`` or ``reversal``; one that is not a number passes not.
    """
    if recipe.gate_nats is None:
        return True
    if not metrics["signal"] >= recipe.gate_nats:
        return False
    if recipe.reach_nats is None:
        return True
    return metrics.get("reach", 0.0) >= recipe.reach_nats or metrics.get("reversal", 0.0) >= recipe.reversal_share


def hindsight_gap(student_NV: Tensor, told_NV: Tensor) -> Tensor:
    """KL(model told the follow-up ‖ model) at every position of the reply, [N] in nats; from log-probabilities."""
    return forward_kl(student_NV, told_NV)


def distance(student_NV: Tensor, told_NV: Tensor, experience: Experience, tolerance: float | None) -> float:
    """KL(told ‖ student) of one reply in nats, positions behind a break counting less; see ``functional.reachable``."""
    gap_N = hindsight_gap(student_NV, told_NV)
    if tolerance is None:
        return float(gap_N.sum())
    trained = [
        token for token, counts in zip(experience.completion_ids, experience.completion_mask, strict=True) if counts
    ]
    target_N = torch.tensor(trained, device=told_NV.device)
    return float((gap_N * reachable(told_NV, target_N, torch.zeros_like(target_N), tolerance)).sum())


def next_block(
    block: Sequence[Experience],
    newest: Experience,
    size: int,
    told: Callable[[Sequence[Experience]], Tensor],
) -> tuple[Experience, ...]:
    """Return the block after ``newest`` has entered it, at most ``size`` follow-ups, oldest first.

    Where one too many is in it, the one goes whose removal moves the teacher least on the newest reply: of two that
    say the same, the older. The newest always stays.

    Args:
        told: teacher log-probabilities [N, V] on the newest reply, when told these follow-ups.
    """
    members = [member for member in block if member.turn_id != newest.turn_id]
    while len(members) >= size:
        whole = told([*members, newest])
        moved = [
            float(forward_kl(told([*members[:i], *members[i + 1 :], newest]), whole).max()) for i in range(len(members))
        ]
        del members[moved.index(min(moved))]
    return (*members, newest)
