"""Replies that are near enough leave a user's steps one by one: against the same steps taken by hand, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import pytest
import torch

from personalize.config import LoraSettings
from personalize.errors import InvalidParameter
from personalize.functional import forward_kl, reachable, reverse_kl
from personalize.learner import HindsightLearner, Recipe
from personalize.learner.batch import Row, collate
from personalize.learner.lesson import Exercise, Pupil, open_pupil
from personalize.learner.moments import new_optimizer
from personalize.learner.passes import reply_log_probs
from personalize.learner.rehearsal import Rehearsals
from personalize.learner.training import Training
from personalize.model.lora import LoraTensors
from personalize.model.rows import AdapterRows
from personalize.types import Experience, LearningState, Lesson, Outcome
from tests.learner.conftest import experience, run

RECIPE = Recipe(gate_nats=None, lr=1e-2, eps=1e-3, num_steps=12, enough_nats=0.4, rehearse=0)
"""A large eps, because Adam would blow up the rounding of a gradient that is nearly zero to a whole step."""
LENGTHS = (12, 3, 7, 5)
"""Replies of several lengths: the shorter one is, the sooner it is near."""


@dataclass
class ByHand:
    """What one user's steps come to.

    Attributes:
        left_at: exercise -> the step before which it left; those that never did are not in it.
        losses: exercise -> mean over its reply, when it was read last.
        first: the same when they were read first.
        num_steps: optimizer steps that were taken.
    """

    tensors: LoraTensors
    left_at: dict[int, int]
    losses: dict[int, float]
    first: list[float]
    num_steps: int


def turns_of(user: int, order: Sequence[int] = (0, 1, 2, 3)) -> tuple[Experience, ...]:
    """Return one user's turns, the newest first."""
    return tuple(experience(10 * user + n, follow_up="no lists" * (user + 1), length=LENGTHS[n]) for n in order)


def pupil_of(base, recipe: Recipe, turns: Sequence[Experience]) -> Pupil:
    """Return a pupil whose block and turns are chosen."""
    pupil = open_pupil(base, Lesson(turns[0], user_id="a"), None, recipe, LoraSettings())
    pupil.block, pupil.turns = (turns[0],), tuple(turns)
    pupil.metrics["informative"] = 1.0
    return pupil


def alone(base, row: Row, tensors: LoraTensors | None, grad: bool = False) -> torch.Tensor:
    """Return what one model says to one reply, in a batch of its own."""
    rows = None if tensors is None else AdapterRows.of([tensors], [0])
    return reply_log_probs(base, collate([row]), rows, grad=grad)


def teacher_of(recipe: Recipe, tensors: LoraTensors) -> LoraTensors | None:
    factor = {"base": None, "live": 1.0, "scaled": recipe.teacher_scale}[recipe.teacher]
    return None if factor is None else replace(tensors.copy(), lora_alpha=tensors.lora_alpha * factor)


def distance(base, recipe: Recipe, exercise: Exercise, tensors: LoraTensors) -> torch.Tensor:
    """Return how far the student is from the teacher at every position of one reply, [N]."""
    teacher_NV = alone(base, exercise.told.row, teacher_of(recipe, tensors))
    loss_N = forward_kl(alone(base, exercise.student, tensors, grad=True), teacher_NV)
    if recipe.tolerance is None:
        return loss_N
    targets = collate([exercise.student]).target_ids
    return loss_N * reachable(teacher_NV, targets, torch.zeros_like(targets), recipe.tolerance)


def by_hand(base, recipe: Recipe, pupil: Pupil) -> ByHand:
    """Take the steps of one user, one reply after another, with a list of who is left."""
    tensors = pupil.parent.copy(requires_grad=True)
    optimizer = new_optimizer(list(tensors.parameters()), recipe)
    left = dict(enumerate(pupil.exercises(base)))
    found = ByHand(tensors, {}, {}, [], 0)
    for step in range(recipe.num_steps):
        with torch.enable_grad():
            losses = {place: distance(base, recipe, one, tensors) for place, one in left.items()}
        found.losses |= {place: float(loss.detach().mean()) for place, loss in losses.items()}
        found.first = found.first or list(found.losses.values())
        far = {place for place, loss in losses.items() if float(loss.detach().sum()) > recipe.enough_nats}
        found.left_at |= dict.fromkeys(set(left) - far, step + 1)
        if not far:
            break
        torch.stack([loss.mean() for loss in losses.values()]).mean().backward()
        torch.nn.utils.clip_grad_norm_(list(tensors.parameters()), recipe.max_grad_norm)
        if recipe.full_step_nats is not None:
            share = fmean(found.losses.values()) / recipe.full_step_nats
            optimizer.param_groups[0]["lr"] = recipe.lr * min(1.0, share**0.5)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        found.num_steps += 1
        left = {place: one for place, one in left.items() if place in far}
    return found


def train(base, recipe: Recipe, pupils: Sequence[Pupil]) -> Training:
    training = Training(base, recipe, pupils)
    for _ in training.run():
        pass
    return training


def assert_equal(pupil: Pupil, hand: ByHand) -> None:
    assert pupil.metrics["num_steps"] == hand.num_steps
    assert pupil.metrics["loss_first"] == pytest.approx(fmean(hand.first), rel=1e-3)
    assert pupil.metrics["loss_last"] == pytest.approx(fmean(hand.losses.values()), rel=1e-2, abs=1e-5)
    for (name, ours), (_, theirs) in zip(
        pupil.tensors.named_parameters(), hand.tensors.named_parameters(), strict=True
    ):
        torch.testing.assert_close(
            ours.detach(), theirs.detach(), atol=2e-5, rtol=2e-4, msg=lambda m, n=name: f"{n} {m}"
        )


@pytest.mark.parametrize("teacher", ["base", "live", "scaled"])
def test_one_users_replies_leave_one_by_one(base, teacher):
    recipe = replace(RECIPE, teacher=teacher)
    pupil = pupil_of(base, recipe, turns_of(0))
    hand = by_hand(base, recipe, pupil)
    assert len(set(hand.left_at.values())) >= 2, "the replies leave at different steps"
    train(base, recipe, [pupil])
    assert_equal(pupil, hand)


def test_two_users_replies_leave_as_if_each_were_alone(base):
    pupils = [pupil_of(base, RECIPE, turns_of(0)), pupil_of(base, RECIPE, turns_of(1, (2, 0, 3)))]
    hands = [by_hand(base, RECIPE, pupil) for pupil in pupils]
    assert all(len(set(hand.left_at.values())) >= 2 for hand in hands)
    assert hands[0].left_at != hands[1].left_at
    train(base, RECIPE, pupils)
    for pupil, hand in zip(pupils, hands, strict=True):
        assert_equal(pupil, hand)


def test_rehearsed_answers_leave_like_replies(base):
    recipe = replace(RECIPE, rehearse=2, rehearse_tokens=6)
    pupil = pupil_of(base, recipe, turns_of(0, (1, 2)))
    for _ in Rehearsals(base).give([pupil], recipe):
        pass
    hand = by_hand(base, recipe, pupil)
    assert len(hand.losses) == 4 and len(set(hand.left_at.values())) >= 2
    train(base, recipe, [pupil])
    assert_equal(pupil, hand)


def test_what_has_left_is_read_no_more(base, monkeypatch):
    """The batch of every step has as many rows as replies are left."""
    pupil = pupil_of(base, RECIPE, turns_of(0))
    hand, rows = by_hand(base, RECIPE, pupil), []
    training = Training(base, RECIPE, [pupil])
    step = training._step

    def seen(teacher_NV):
        rows.append(len(training._students.window_ids))
        return step(teacher_NV)

    monkeypatch.setattr(training, "_step", seen)
    for _ in training.run():
        pass
    assert rows == [
        sum(hand.left_at.get(place, RECIPE.num_steps) > number for place in range(len(LENGTHS)))
        for number in range(len(rows))
    ]
    assert rows[0] == len(LENGTHS) and rows[-1] < rows[0]


def test_who_is_near_from_the_beginning_takes_no_step_beside_one_who_is_not(base):
    pupils = [pupil_of(base, RECIPE, turns_of(0, (n,))) for n in range(len(LENGTHS))]
    one_step = replace(RECIPE, num_steps=1)
    nats = [by_hand(base, one_step, one).first[0] * sum(one.turns[0].completion_mask) for one in pupils]
    near, far = pupils[nats.index(min(nats))], pupils[nats.index(max(nats))]
    recipe = replace(RECIPE, enough_nats=(min(nats) + max(nats)) / 2)
    hand = by_hand(base, recipe, far)
    train(base, recipe, [near, far])
    assert near.metrics["num_steps"] == 0 and hand.num_steps
    assert_equal(far, hand)
    assert all(
        torch.equal(ours.detach(), theirs)
        for ours, theirs in zip(near.tensors.parameters(), near.parent.parameters(), strict=True)
    )


def test_a_reply_that_is_not_finite_never_leaves(base, monkeypatch):
    """Its user is rejected for it; the other user's replies leave as ever."""
    import personalize.learner.training as training

    pupils = [pupil_of(base, RECIPE, turns_of(0, (1, 2))), pupil_of(base, RECIPE, turns_of(1, (2, 0, 3)))]
    hand, original = by_hand(base, RECIPE, pupils[1]), training.forward_kl
    number = sum(pupils[0].turns[0].completion_mask)

    def poisoned(student_NV, teacher_NV):
        factor = torch.ones(len(student_NV))
        factor[:number] = torch.nan
        return original(student_NV, teacher_NV) * factor

    monkeypatch.setattr(training, "forward_kl", poisoned)
    train(base, RECIPE, pupils)
    assert pupils[0].metrics["num_steps"] == RECIPE.num_steps
    assert pupils[0].metrics["loss_last"] != pupils[0].metrics["loss_last"]
    assert_equal(pupils[1], hand)


@pytest.mark.parametrize("enough_nats", [0.0, 0.4])
def test_without_a_distance_to_judge_by_every_reply_stays(base, enough_nats):
    recipe = replace(RECIPE, objective="sampled" if enough_nats else "forward_kl", enough_nats=enough_nats, num_steps=3)
    pupil = pupil_of(base, recipe, turns_of(0))
    training = train(base, recipe, [pupil])
    assert pupil.metrics["num_steps"] == 3
    assert len(training._students.window_ids) == len(LENGTHS)


# --- the guards ------------------------------------------------------------------------------------------------------


def lesson_of(user: int, order: Sequence[int]) -> Lesson:
    """Return a lesson whose earlier turns are replayed, under the follow-up of one of them."""
    newest, *earlier = turns_of(user, order)
    ids = tuple(turn.turn_id for turn in reversed(earlier))
    return Lesson(newest, tuple(earlier), LearningState(block=ids[-1:], replay=ids))


def test_a_newest_reply_that_left_early_is_guarded_by_what_the_finished_adapter_says(base, tmp_path, monkeypatch):
    """Beside a user whose newest reply left last, which the last pass has read."""
    recipe = replace(RECIPE, gate_nats=1e9, max_reply_kl=1e9)
    lessons = [lesson_of(0, (1, 0, 2)), lesson_of(2, (0, 1, 3))]
    read, original = [], HindsightLearner._read_newest

    def read_newest(self, pupils):
        read.append([pupil.lesson.experience.turn_id for pupil in pupils])
        return original(self, pupils)

    monkeypatch.setattr(HindsightLearner, "_read_newest", read_newest)
    paths = [tmp_path / str(place) for place in range(2)]
    for path in paths:
        path.mkdir()
    reports = run(HindsightLearner(base, recipe), lessons, [None, None], paths)
    assert read == [[lessons[0].experience.turn_id]], "only one newest reply has been left out before the last step"
    for lesson, report in zip(lessons, reports, strict=True):
        assert report.outcome is Outcome.APPLIED and report.metrics["num_steps"] < recipe.num_steps
        newest = lesson.experience
        row = Row(newest.prompt_ids, newest.completion_ids, newest.completion_mask)
        moved = float(reverse_kl(alone(base, row, report.tensors), alone(base, row, None)).sum())
        assert moved > 0.01
        assert report.metrics["reply_kl"] == pytest.approx(moved, rel=1e-3, abs=1e-4)


def rates_of(base, recipe: Recipe, monkeypatch) -> tuple[list[float], list[float]]:
    """Return the rate of every step of one user's update, and how far the replies were before it."""
    rates, losses = [], []
    pupil = pupil_of(base, recipe, turns_of(0))
    step = pupil.optimizer.step

    def noted() -> None:
        rates.append(pupil.optimizer.param_groups[0]["lr"])
        losses.append(pupil.metrics["loss_last"])
        step()

    monkeypatch.setattr(pupil.optimizer, "step", noted)
    train(base, recipe, [pupil])
    return rates, losses


def test_a_step_is_as_long_as_the_way_that_is_left(base, monkeypatch):
    recipe = replace(RECIPE, lr=2e-2, full_step_nats=0.2)
    rates, losses = rates_of(base, recipe, monkeypatch)
    assert rates == [pytest.approx(2e-2 * min(1.0, (loss / 0.2) ** 0.5)) for loss in losses]
    assert max(rates) == 2e-2 and min(rates) < 0.8 * 2e-2, "full steps at first, shorter ones near the goal"


@pytest.mark.parametrize("change", [{"full_step_nats": None}, {"objective": "sampled"}])
def test_without_a_distance_every_step_has_the_whole_rate(base, monkeypatch, change):
    rates, losses = rates_of(base, replace(RECIPE, num_steps=4, **change), monkeypatch)
    assert rates == [RECIPE.lr] * 4 and len(losses) == 4


@pytest.mark.parametrize("nats", [0.0, -1.0, "0.1"])
def test_a_distance_out_of_range_is_refused(nats):
    with pytest.raises(InvalidParameter, match="full_step_nats"):
        Recipe(full_step_nats=nats)
