"""The guard bench's wiring: what is built is broken, what is judged is counted, what is there is not measured again."""

import asyncio
import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from personalize.config import LoraSettings
from personalize.evaluation.guard_bench import command, driving, showing
from personalize.evaluation.guard_bench.collapses import KINDS, ROWS, sound_rows, told
from personalize.evaluation.guard_bench.driving import damage, driven, poisoned, shaken
from personalize.evaluation.guard_bench.healthy import GROUPS, Group
from personalize.evaluation.guard_bench.judging import Jury, breach, refused
from personalize.evaluation.guard_bench.report import Tables
from personalize.evaluation.guard_bench.showing import Answered
from personalize.evaluation.study.results import Results
from personalize.learner import Recipe, review
from personalize.learner.greedy import Greedy
from personalize.model.folder import new_adapter
from personalize.model.loading import load_base
from personalize.types import Outcome
from personalize.world.topics import held_out_topics
from tests.service.support import opened
from tests.templates import VOCAB_SIZE, tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer("trimmed").save_pretrained(folder)
    return load_base(folder, device="cpu")


def test_there_are_enough_collapses_of_every_kind_and_each_has_a_wish():
    assert sum(kind.num_seeds for kind in KINDS.values()) >= 50
    assert all(kind.num_seeds >= 2 for kind in KINDS.values())
    assert len({told(seed) for seed in range(6)}) > 1 and told(3) == told(3)


def test_driving_ends_when_the_adapter_shows_it(base):
    rows = sound_rows(base, 1)
    short = [type(row)(row.prompt_ids, row.completion_ids[:2], (1, 1)) for row in rows]

    def shows(version) -> bool:
        return damage(base, short, version) < -1.0  # much more likely than before

    found = driven(base, lambda: short, shows, 1)
    assert found.built and shows(found.version)
    other = driven(base, lambda: short, shows, 1)
    assert all(torch.equal(found.version.b[name], b) for name, b in other.version.b.items())
    short_step = max(float((found.version.b[name] - b).abs().max()) for name, b in found.parent.b.items())
    assert 0 < short_step < 0.1, "the parent is one step before"


def test_what_never_shows_is_not_built(base, monkeypatch):
    monkeypatch.setattr(driving, "MAX_STEPS", 5)
    looks = []
    found = driven(base, lambda: sound_rows(base, 1)[:1], lambda version: bool(looks.append(version)), 1)
    assert not found.built and len(looks) == 2, "once on the way and once at the end"


def replied(text: str, *, question: str = "Tell me about tea.", ended: bool = True, ids: list[int] | None = None):
    reply = Greedy((1,), ids or [5, 6, 7, 8], [0.1] * 4, ended)
    return Answered(question, held_out_topics()[0], text, reply)


@pytest.mark.parametrize(
    ("broken", "bad", "good"),
    [
        (showing.is_mostly_one_token, replied("a a a b", ids=[5, 5, 5, 6]), replied("a b c d")),
        (showing.runs_on, replied("on and on", ended=False), replied("over.")),
        (showing.is_blank, replied(" \n"), replied(".")),
        (showing.is_echo, replied("Tell me about tea, please."), replied("Tea is a drink.")),
        (showing.is_wrong, replied("No such thing is known."), replied(held_out_topics()[0].facts[0])),
        (showing.says("Of course, here it is."), replied("Of course here it is!"), replied("Of course not.")),
    ],
)
def test_a_broken_reply_is_told_from_a_sound_one(broken, bad, good):
    assert broken(bad) and not broken(good)


def test_an_exam_is_about_topics_that_no_step_is_about(base, monkeypatch):
    asked = []
    monkeypatch.setattr(showing, "MAX_TOKENS", 4)
    fresh = new_adapter(base, LoraSettings(), 0)
    assert not showing.about_topics(base, 1, lambda one: bool(asked.append(one)))(fresh)
    assert len(asked) == showing.NUM_QUESTIONS and {one.topic for one in asked} <= set(held_out_topics())
    assert showing.about_rules(base, 1, lambda one: one is not None)(fresh)
    half = iter([True, False] * showing.NUM_QUESTIONS)
    assert showing.about_topics(base, 1, lambda _: next(half))(fresh), "half of the replies is enough"


def test_noise_is_as_large_as_it_takes_and_a_poisoned_value_is_one(base, monkeypatch):
    rows = sound_rows(base, 1)
    assert len(rows) == ROWS
    monkeypatch.setattr(driving, "DAMAGE_NATS", 0.02)  # a random model has little to lose
    weak = shaken(base, rows[:1], 1, 1.0)
    assert weak.built and damage(base, rows[:1], weak.version) >= 0.02
    monkeypatch.setattr(driving, "DAMAGE_NATS", 50.0)
    monkeypatch.setattr(driving, "MAX_NOISE", 1e-2)
    assert not shaken(base, rows[:1], 1, 1.0).built
    spoilt = poisoned(base, 1, math.nan).version
    assert not spoilt.is_finite()
    assert sum(int((~b.isfinite()).sum()) for b in spoilt.b.values()) == 1
    assert damage(base, rows[:1], spoilt) == math.inf


def test_what_is_not_finite_is_caught_by_both_classes(base, monkeypatch):
    monkeypatch.setattr(review, "MAX_TOKENS", 6)
    line = Jury(base, Recipe()).line("not a number", 0)
    assert line["built"] and line["breach"] == "nonfinite"
    assert refused(line["drifting"], Recipe()) and refused(line["at_once"], Recipe()) and breach(line, Recipe())


def test_stored_numbers_are_judged_by_the_limits_of_today(base, monkeypatch):
    monkeypatch.setattr(review, "MAX_TOKENS", 6)
    line = Jury(base, Recipe()).line("diverged", 0)
    assert breach(line, Recipe(max_review_rise=0.0, min_review_kept=1.0)) is not None
    loose = Recipe(
        max_review_rise=1.0, max_review_sameness=1.0, max_review_length_ratio=1000.0, max_review_entropy=100.0,
        min_review_kept=0.0,
    )  # fmt: skip
    assert breach(line, loose) is None
    assert refused(line["at_once"], Recipe(max_delta_norm=1e-6)) and not refused(
        line["at_once"], Recipe(max_delta_norm=1e9, max_reply_kl=1e9, max_canary_loss=1.0)
    )


def test_the_table_counts_what_was_built_and_what_was_refused():
    fine = {"loss_last": 0.1, "grad_norm": 1.0, "delta_norm": 1.0, "reply_kl": 1.0, "canary_loss": 0.0}
    sound = {f"review_{name}": 0.0 for name in ("blank", "repetition", "sameness", "echo")} | {"review_kept": 1.0}
    key = {"arm": "collapse", "control": "noise", "seed": 0, "built": True, "breach": None}
    lines = [
        {**key, "drifting": fine, "at_once": {**fine, "reply_kl": None}, "review": sound},
        {**key, "seed": 1, "drifting": {**fine, "canary_loss": 0.9}, "at_once": fine, "review": sound},
        {**key, "seed": 2, "drifting": fine, "at_once": fine, "review": {**sound, "review_repetition": 0.9}},
        {**key, "seed": 3, "built": False, "drifting": fine, "at_once": fine, "review": sound},
        {
            "arm": "healthy", "control": "terse", "passed": 3, "withdrawn": 1, "breaches": {"echo": 1},
            "outcomes": {"applied": 97, "rejected_kl": 2, "skipped_low_signal": 5},
        },
    ]  # fmt: skip
    tables = Tables(lines, Recipe())
    assert (len(tables.built), tables.updates, tables.refusals) == (3, 99, 3)
    figures = {one.figure: one for one in tables.figures("cpu")}
    caught = figures["guards: built collapses caught"]
    assert caught.value == pytest.approx(2 / 3, abs=1e-4) and caught.met is False and caught.n == 3
    wrong = figures["guards: healthy updates refused or taken back"]
    assert wrong.value == pytest.approx(3 / 99, abs=1e-4) and wrong.met is False
    text = tables.text()
    assert "Missed: noise, seed 0." in text and "noise, seed 3" in text and "| terse | 99 | 2 | 4 | 1 | echo |" in text


def test_nothing_measured_is_said_so():
    figures = Tables([], Recipe()).figures("cpu")
    assert {one.reason for one in figures if one.value is None} == {"not measured yet"}


@pytest.mark.parametrize("name", GROUPS)
def test_healthy_users_chat_through_the_service(tmp_path, name):
    async def main():
        async with opened(tmp_path, review_every=1) as app:
            people = GROUPS[name](0, 2)
            return len(people), await Group(app, people, 0).run(2)

    num_people, found = asyncio.run(main())
    assert found["outcomes"] == {Outcome.APPLIED.value: 2 * num_people}
    assert found["passed"] >= num_people and found["withdrawn"] == 0 and found["breaches"] == {}


def test_what_is_there_is_not_measured_again(base, tmp_path, monkeypatch):
    built = []

    class Quick(Jury):
        def line(self, kind, seed):
            built.append((kind, seed))
            return {"built": True, "breach": "nonfinite", "drifting": {}, "at_once": {}, "review": {}}

    monkeypatch.setattr(command, "Jury", Quick)
    path = tmp_path / "results.jsonl"
    command._collapses(Results(path), base, "m", 1)
    assert len(built) == len(KINDS)
    command._collapses(Results(path), base, "m", 1)
    assert len(built) == len(KINDS)
