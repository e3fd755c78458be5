"""The rolling block: who stays, who goes."""

from dataclasses import replace

import pytest
import torch

from personalize.errors import ContextTooLong
from personalize.learner import HindsightLearner, Recipe
from personalize.learner.gate import hindsight_gap, next_block
from personalize.types import Experience, Message, Outcome
from tests.learner.conftest import EVERY_TURN, CharacterRenderer, Life, experience

TOPICS = {"short": 0, "shorter": 0, "emoji": 1, "list": 2}


def told(block) -> torch.Tensor:
    """A teacher whose every token of probability depends on which wishes it was told, whoever says them."""
    wishes = {TOPICS[turn.follow_up] for turn in block}
    return torch.log_softmax(torch.tensor([[5.0 if i in wishes else 0.0 for i in range(4)]]), -1)


def turn(number: int, wish: str) -> Experience:
    return experience(number, follow_up=wish)


def wishes(block) -> list[str]:
    return [member.follow_up for member in block]


def test_grows_until_it_is_full():
    block = next_block((), turn(1, "short"), 2, told)
    block = next_block(block, turn(2, "emoji"), 2, told)
    assert wishes(block) == ["short", "emoji"]


def test_of_two_that_say_the_same_the_older_goes():
    block = (turn(1, "emoji"), turn(2, "short"))
    assert wishes(next_block(block, turn(3, "shorter"), 2, told)) == ["emoji", "shorter"]


def test_the_newest_always_stays():
    block = (turn(1, "short"),)
    assert wishes(next_block(block, turn(2, "emoji"), 1, told)) == ["emoji"]


def test_a_turn_is_in_it_once():
    block = (turn(1, "short"), turn(2, "emoji"))
    assert wishes(next_block(block, turn(1, "short"), 4, told)) == ["emoji", "short"]


def test_gap_is_zero_for_nothing_new_and_large_for_a_change():
    plain = torch.log_softmax(torch.tensor([[3.0, 0.0], [0.0, 3.0]]), -1)
    changed = torch.log_softmax(torch.tensor([[0.0, 3.0], [0.0, 3.0]]), -1)
    gap = hindsight_gap(plain, changed)
    assert gap[0] > 2 and gap[1] == 0
    assert hindsight_gap(plain, plain).abs().max() == 0


@pytest.fixture
def narrow(base, monkeypatch):
    """The base with a renderer that refuses what has no room in its context, as the real one does."""
    plain = CharacterRenderer.render

    def render(self, messages, follow_ups=()):
        ids = plain(self, messages, follow_ups)
        if len(ids) >= base.max_model_len:
            raise ContextTooLong("no room")
        return ids

    monkeypatch.setattr(CharacterRenderer, "render", render)
    return base


def test_what_has_no_room_beside_a_long_turn_still_stands_behind_it(narrow, tmp_path):
    render = CharacterRenderer().render
    life = Life(HindsightLearner(narrow, EVERY_TURN), tmp_path)
    for number in (1, 2, 3):
        life.learn(experience(number, follow_up=str(number) * 60))
    room = narrow.max_model_len - len(render((Message("user", ""),), ["1" * 60])) - 20
    messages = (Message("user", "q" * room),)
    long = replace(experience(4, "thanks"), messages=messages, prompt_ids=render(messages))
    for recipe, block in ((replace(EVERY_TURN, gate_nats=1e9), [1, 2, 3]), (EVERY_TURN, [1, 2, 3, 4])):
        life.learner = HindsightLearner(narrow, recipe)
        report = life.learn(long)
        assert report.outcome is Outcome.APPLIED
        assert report.state.block == tuple(f"{number:032x}" for number in block)


def test_a_full_block_of_long_follow_ups_makes_room_for_the_newest(narrow, tmp_path):
    """Told all at once, two of them that stand and the newest are beyond the context."""
    life = Life(HindsightLearner(narrow, Recipe(gate_nats=None, block_size=2, rehearse=0, num_steps=1)), tmp_path)
    blocks = [life.learn(experience(number, follow_up=str(number) * 150)).state.block for number in (1, 2, 3)]
    assert blocks[1] == (f"{1:032x}", f"{2:032x}")
    assert blocks[2] == (f"{2:032x}", f"{3:032x}")
