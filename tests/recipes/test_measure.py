"""The meter counts what the rules say; the card prints it."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from personalize.recipes import measure as measuring
from personalize.recipes import skills
from personalize.recipes.card import readme, share_row, wilson
from personalize.recipes.measure import Meter, card_facts, measure
from personalize.recipes.sampling import sample
from personalize.recipes.training import export
from personalize.world.chats import Message
from personalize.world.preferences import NON_DEFAULT
from personalize.world.topics import held_out_topics


@pytest.fixture
def meter(model, tokenizer, tmp_path: Path) -> Meter:
    export(model, tokenizer, tmp_path)
    return Meter(tmp_path)


def test_wilson_interval() -> None:
    assert wilson(98, 100) == pytest.approx((0.9300, 0.9945), abs=1e-3)
    assert wilson(0, 10)[0] == 0.0


def test_card_covers_every_skill(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    def default_reply(chats: Sequence[Sequence[Message]], name: str) -> list[str]:
        return [" ".join(held_out_topics()[0].facts[:3]) for _ in chats]

    monkeypatch.setattr(meter, "replies", default_reply)
    rows = measure(meter, n=5, n_idle=10)
    singles = [row for row in rows if row.skill.startswith("one preference")]
    assert len(singles) == len(NON_DEFAULT) * len(measuring.PLACES)
    assert all(row.value == 0 and row.met is False for row in singles)
    assert all(row.value == 0 and row.met for row in rows if row.goal_is == "at most")
    text = readme(rows, card_facts(meter))
    assert "What it is not" in text
    assert text.count("**no**") == sum(row.met is False for row in rows)


def test_row_meets_its_goal() -> None:
    assert share_row("a", "b", 98, 100, 0.98).met
    assert share_row("a", "b", 20, 100, 0.15, "at most").met is False
    assert share_row("a", "b", 20, 100).met is None


def test_sampling_is_repeatable_and_in_order(meter: Meter) -> None:
    rng = random.Random(0)
    chats = [skills.plain(rng).chat for _ in range(3)]
    first = sample(meter.model, meter.tokenizer, chats, seed=1)
    assert first == sample(meter.model, meter.tokenizer, chats, seed=1)
    assert len(first) == 3


@pytest.mark.parametrize("place", ["block", "system", "chat", "mixed"])
def test_situations_end_with_a_question_and_tell_what_they_say(place: skills.Place) -> None:
    rng = random.Random(1)
    for count in (1, 2, 3):
        asked = skills.told(place, skills.draw(count, rng), rng)
        assert asked.chat[-1].role == "user"
        assert len({one.dimension for one in asked.told}) == count
        assert asked.topic.name in asked.chat[-1].content
