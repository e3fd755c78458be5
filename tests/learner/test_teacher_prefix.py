"""A base teacher that reads the block itself and, before it, what the live model has read."""

from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache

from personalize.config import LoraSettings
from personalize.errors import InvalidParameter
from personalize.learner import Recipe
from personalize.learner.batch import Row
from personalize.learner.lesson import Pupil, open_pupil, told_row
from personalize.learner.prefixes import num_shared
from personalize.learner.training import Training
from personalize.model.base import BaseModel
from personalize.model.rows import AdapterRows
from personalize.types import Lesson
from tests.learner.conftest import experience
from tests.learner.test_passes import random_adapter

RECIPE = Recipe(gate_nats=None, replay=2, rehearse=0, num_steps=2, enough_nats=0.0, teacher_prefix="live")


def pupil_of(base, recipe: Recipe = RECIPE, user: int = 0, fresh: bool = False) -> Pupil:
    """Return a pupil with three turns, whose adapter already does something unless it is ``fresh``."""
    turns = tuple(experience(10 * user + n, follow_up="no lists" * (n + 1), length=4 + 3 * n) for n in range(3))
    pupil = open_pupil(base, Lesson(turns[0], user_id="a"), None, recipe, LoraSettings(r=4, lora_alpha=8))
    if not fresh:
        pupil.parent = random_adapter(base, user)
        pupil.tensors = pupil.parent.copy(requires_grad=True)
        pupil.optimizer = torch.optim.Adam(list(pupil.tensors.parameters()))
    pupil.block, pupil.turns, pupil.metrics["informative"] = (turns[0], turns[1]), turns, 1.0
    return pupil


def taught(base, *pupils: Pupil, recipe: Recipe = RECIPE) -> torch.Tensor:
    """Return what the teacher says before the first step."""
    training = Training(base, recipe, pupils)
    training._parents = training._read_prompts()
    return training._teach()


@torch.no_grad()
def by_hand(base, pupil: Pupil) -> torch.Tensor:
    """Read every turn alone, in two plain passes: up to the block with the adapter, and on without it."""
    found = []
    for turn in pupil.turns:
        row: Row = told_row(base, turn, pupil.block)
        shared, cache = num_shared(row.prompt_ids, turn.prompt_ids[:-1]), DynamicCache()
        assert shared > 3
        base.hidden(torch.tensor([row.prompt_ids[:shared]]), cache=cache, rows=AdapterRows.of([pupil.parent]))
        rest = (*row.prompt_ids[shared:], *row.completion_ids[:-1])
        hidden = base.hidden(torch.tensor([rest]), cache=cache)[0, -len(row.completion_ids) :]
        found.append(torch.log_softmax(base.head(hidden), -1)[torch.tensor(row.completion_mask).bool()])
    return torch.cat(found)


def test_it_is_the_base_from_the_block_on_and_the_live_model_before(base):
    pupils = [pupil_of(base, user=0), pupil_of(base, user=1)]
    expected = torch.cat([by_hand(base, pupil) for pupil in pupils])
    torch.testing.assert_close(taught(base, *pupils), expected, atol=1e-5, rtol=1e-5)


def test_it_is_an_approximation_that_is_exact_for_a_new_adapter(base):
    own = replace(RECIPE, teacher_prefix="own")
    old, new = pupil_of(base), pupil_of(base, fresh=True)
    torch.testing.assert_close(taught(base, new), taught(base, new, recipe=own), atol=1e-5, rtol=1e-5)
    assert (taught(base, old) - taught(base, old, recipe=own)).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["own", "live"])
def test_no_prompt_is_read_twice_by_the_parents_weights(base, monkeypatch, kind):
    """Before the first step the parents read the prompts; the student, and a teacher that borrows them, do not."""
    read: list[int] = []
    original = BaseModel.hidden

    def hidden(model, input_ids, *args, **kwargs):
        read.append(input_ids.numel())
        return original(model, input_ids, *args, **kwargs)

    pupil = pupil_of(base)
    longest = max(len(turn.prompt_ids) for turn in pupil.turns)
    told = max(len(told_row(base, turn, pupil.block).prompt_ids) for turn in pupil.turns)
    replies = max(len(turn.completion_ids) for turn in pupil.turns)
    monkeypatch.setattr(BaseModel, "hidden", hidden)
    steps = Training(base, replace(RECIPE, teacher_prefix=kind), [pupil]).run()
    for _ in range(3):  # the prompts, the teacher, the first step
        next(steps)
    assert read[0] == 3 * (longest - 1) and read[-1] == 3 * replies
    teacher = read[1:-1]
    assert len(teacher) == (1 if kind == "live" else 2)
    whole = 3 * (told - 1 + replies)
    assert sum(teacher) == whole if kind == "own" else sum(teacher) < whole - 3 * (longest // 2)


@pytest.mark.parametrize("values", [{"teacher": "live"}, {"teacher": "scaled"}])
def test_only_a_base_teacher_borrows(values):
    with pytest.raises(InvalidParameter, match="teacher_prefix"):
        Recipe(teacher_prefix="live", **values)


def test_an_unknown_kind_is_refused():
    with pytest.raises(InvalidParameter, match="own, live"):
        Recipe(teacher_prefix="shared")  # pyright: ignore
