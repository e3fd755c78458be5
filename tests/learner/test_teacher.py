"""The base teacher's kept keys: the same numbers bit for bit, bounded, and gone when their user is."""

import itertools
from dataclasses import replace

import pytest
import torch

import personalize.learner.teacher as teacher
from personalize.learner import HindsightLearner, Recipe
from personalize.learner.batch import Row, collate
from personalize.learner.passes import reply_log_probs
from personalize.learner.teacher import BaseTeacher, Told
from personalize.model.base import BaseModel
from tests.learner.conftest import Life, experience
from tests.model.tiny import FAMILIES, random_ids, tiny_base

BLOCK = 8
PLENTY = 1 << 30


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(teacher, "BLOCK", BLOCK)


@pytest.fixture
def read_tokens(monkeypatch):
    """Count the tokens of every pass."""
    counts: list[int] = []
    original = BaseModel.hidden

    def hidden(base, input_ids, *args, **kwargs):
        counts.append(input_ids.numel())
        return original(base, input_ids, *args, **kwargs)

    monkeypatch.setattr(BaseModel, "hidden", hidden)
    return counts


def told(length: int, block: int = 1, seed: int = 0, owner: str = "u") -> Told:
    """Return a reply of five tokens under ``length`` tokens of history and a hindsight block."""
    history = tuple(random_ids((length,), seed).tolist())
    prompt, reply = (*history, 100 + block, 101 + block, 3), tuple(random_ids((5,), seed + 1).tolist())
    return Told(owner, Row(prompt, reply, (1,) * 5), (*history, 3))


class Named(Life):
    """A user whom the lessons name."""

    def lesson(self, turn):
        return replace(super().lesson(turn), user_id="ada")


def plainly(base, *asked: Told) -> torch.Tensor:
    """No kept key, no block: the judge."""
    return reply_log_probs(base, collate([one.row for one in asked]), None)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_and_without_the_cache_the_teacher_says_the_same(family):
    """Cold, warm, under another block, and in a longer chat; rows of different lengths, one too short for a block."""
    base = tiny_base(family)
    cached = BaseTeacher(base, PLENTY)
    rounds = ([told(27), told(5, seed=7), told(16, seed=9)], [told(27, block=5)], [told(27), told(44)])
    for asked in (*rounds, rounds[0]):
        torch.testing.assert_close(cached.log_probs(asked), plainly(base, *asked), atol=1e-5, rtol=1e-5)


def test_a_warm_cache_changes_no_bit_and_reads_only_what_is_new(read_tokens):
    base, asked = tiny_base(), told(40)
    cached = BaseTeacher(base, PLENTY)
    cold = cached.log_probs([asked])
    assert read_tokens == [BLOCK] * 5 + [3 + 4]
    read_tokens.clear()
    assert torch.equal(cached.log_probs([asked]), cold)
    assert read_tokens == [3 + 4]
    read_tokens.clear()
    history = (*asked.plain_ids[:40], *range(20, 39))
    longer = Told("u", Row((*history, 39), (5, 6), (1, 1)), history)
    warm = cached.log_probs([longer])
    assert read_tokens == [BLOCK] * 2 + [4 + 1], "the chat has gone on: 59 tokens are the same, 7 blocks"
    assert torch.equal(warm, BaseTeacher(base, PLENTY).log_probs([longer]))


def test_what_does_not_fit_goes_least_recently_used_first_and_changes_no_bit():
    base = tiny_base()
    alone = [BaseTeacher(base, PLENTY).log_probs([told(40, seed=seed)]) for seed in range(4)]
    measure = BaseTeacher(base, PLENTY)
    measure.log_probs([told(40)])
    tight = BaseTeacher(base, int(2.5 * measure.num_bytes))
    for seed in (0, 1, 0, 2, 3, 0, 1):
        assert torch.equal(tight.log_probs([told(40, seed=seed, owner=str(seed))]), alone[seed])
        assert 0 < tight.num_bytes <= tight.max_bytes
    assert tight.owners() >= {"0", "1"}
    nearly_none = BaseTeacher(base, 1)
    assert torch.equal(nearly_none.log_probs([told(40)]), alone[0])
    assert not nearly_none.num_bytes


def test_users_share_nothing_and_forgetting_one_leaves_the_others(read_tokens):
    cached = BaseTeacher(tiny_base(), PLENTY)
    for owner in ("ada", "ben"):
        read_tokens.clear()
        cached.log_probs([told(16, owner=owner)])
        assert read_tokens[:2] == [BLOCK, BLOCK], "the same words of somebody else are read anew"
    half = cached.num_bytes // 2
    cached.forget("ada")
    assert cached.owners() == {"ben"} and cached.num_bytes == half
    cached.forget("ben")
    assert not cached.num_bytes and not cached.owners()
    cached.log_probs([told(16, owner="")])
    assert not cached.num_bytes, "what nobody can ask to have forgotten is not kept"


def test_planted_keys_of_other_weights_are_not_found():
    """The very tokens, read by another base: under the name of its weights they are nobody else's."""
    base, other = tiny_base(), tiny_base(seed=1)
    foreign = BaseTeacher(other, PLENTY)
    foreign.log_probs([told(40)])
    mine = BaseTeacher(base, PLENTY)
    mine._blocks.update(foreign._blocks)
    torch.testing.assert_close(mine.log_probs([told(40)]), plainly(base, told(40)), atol=1e-5, rtol=1e-5)


def test_planted_keys_under_a_false_name_would_be_seen():
    """The bound of 1e-5 has teeth: keys of other tokens under the right name are far from it."""
    base, asked = tiny_base(), told(40)
    mine, other = BaseTeacher(base, PLENTY), BaseTeacher(base, PLENTY)
    mine.log_probs([asked])
    other.log_probs([told(40, seed=3)])
    for name, wrong in zip(list(mine._blocks), other._blocks.values(), strict=True):
        mine._blocks[name] = wrong
    assert (mine.log_probs([asked]) - plainly(base, asked)).abs().max() > 1e-2


def test_updates_are_the_same_bit_for_bit_with_a_warm_cache_and_with_a_cold_one(base, tmp_path):
    recipe = Recipe(gate_nats=None, replay=2, num_steps=2, block_size=2)
    warm, cold = (
        Named(HindsightLearner(base, recipe, teacher_cache_bytes=size), tmp_path / str(size)) for size in (PLENTY, 1)
    )
    for number in range(4):
        reports = [life.learn(experience(number, follow_up=f"please {number}")) for life in (warm, cold)]
        assert [report.outcome for report in reports] == ["applied"] * 2
        pairs = itertools.zip_longest(*(report.tensors.parameters() for report in reports))
        assert all(torch.equal(*pair) for pair in pairs)
    assert warm.learner.base_teacher.num_bytes and not cold.learner.base_teacher.num_bytes
