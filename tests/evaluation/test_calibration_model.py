"""Calibration on tiny random models: they cannot be personalized, and are told so; every pass is that of production."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from personalize.config import LoraSettings, Settings
from personalize.errors import InvalidParameter, ModelError
from personalize.evaluation.calibration import preflight, reading, template
from personalize.evaluation.calibration.command import calibrate
from personalize.evaluation.calibration.gates import gates, reasons
from personalize.evaluation.calibration.preflight import Extent, measure
from personalize.evaluation.calibration.sampling import Answer, Prompt, Sampler
from personalize.evaluation.calibration.trials import FACTOR, try_rates
from personalize.evaluation.calibration.wishes import IDLE, WISHES
from personalize.learner import Recipe, probes
from personalize.learner.lesson import row, told_row
from personalize.model.base import BaseModel
from personalize.model.loading import load_base
from personalize.rendering import Renderer
from personalize.types import Completion, Message
from tests.templates import VOCAB_SIZE, plain_tokenizer, source, tokenizer

SMALL = Extent(samples=2, max_tokens=12, lora=LoraSettings(r=2, lora_alpha=4))


def make_model(folder: Path, context: int = 512) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=context, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer("trimmed").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def base(folder) -> BaseModel:
    return load_base(folder, device="cpu")


@pytest.fixture(scope="module")
def answers(base) -> tuple[Answer, ...]:
    with Sampler(base, max_tokens=12) as sampler:
        return sampler.replies([Prompt("Tell me about tea."), Prompt("Tell me about bread.")], temperature=0.0)


class Scripted:
    """Stands for ``Sampler``: a model that does what it is told, in replies that a rule can read."""

    def __init__(self, base: BaseModel, *, max_tokens: int, seed: int = 0):
        assert base.renderer is not None
        self.base, self.renderer = base, base.renderer

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def replies(self, prompts, *, temperature=1.0, max_tokens=None):
        if temperature == 0.0:  # how serving and learning agree is asked of the model itself
            with Sampler(self.base, max_tokens=8) as sampler:
                return sampler.replies(prompts, temperature=0.0)
        return tuple(self.answer(prompt) for prompt in prompts)

    def answer(self, prompt: Prompt) -> Answer:
        wanted = {wish.name for wish in WISHES if {*wish.said} & {*prompt.told} or wish.asked in prompt.question}
        text = "A drink. It is hot."
        if "one sentence" in wanted:
            text = "It is a hot drink."
        if wanted & {"bullet list", "numbered list"}:
            marks = ("-", "-") if "bullet list" in wanted else ("1.", "2.")
            text = f"{marks[0]} A hot drink.\n{marks[1]} It is hot."
        text = f"Hello!\n{text}" if "greeting first" in wanted else text
        text = f"{text} More?" if "closing question" in wanted else text
        ids = self.renderer.reply_ids(text.upper() if "capital letters" in wanted else text)
        completion = Completion(ids, (1,) * len(ids), self.renderer.decode(ids), "stop", "end_token")
        return Answer(prompt, self.renderer.render(prompt.messages, prompt.told), completion)


# --- verdicts --------------------------------------------------------------------------------------------------------


def test_a_random_model_is_told_that_it_cannot_be_personalized(folder):
    found = calibrate(Settings(model=str(folder), device="cpu"), SMALL)
    assert not found.is_usable and found.recipe is None
    (reason,) = found.reasons
    assert reason.startswith("G4: ") and "nothing to distil" in reason
    verdicts = {gate.what: gate.verdict for gate in found.gates}
    assert [gate.verdict for gate in found.gates if gate.name in ("G1", "G2")] == ["passed"] * 4
    assert set(verdicts.values()) == {"passed", "failed", "not measured"}
    assert len(found.findings.wishes) == len(WISHES)
    assert all(rates.told == 0 and rates.win == 0.5 for rates in found.findings.wishes)
    assert not found.findings.trials and not found.findings.signals, "measuring ends at the gate that fails"


def test_the_same_seed_gives_the_same_findings(base):
    with Sampler(base, max_tokens=8, seed=1) as one, Sampler(base, max_tokens=8, seed=1) as same:
        first = one.replies([Prompt("Tell me about tea.")] * 3)
        assert first == same.replies([Prompt("Tell me about tea.")] * 3)
        assert len({answer.completion.token_ids for answer in first}) == 3, "every reply has draws of its own"
        assert first != one.replies([Prompt("Tell me about tea.")] * 3)
    with Sampler(base, max_tokens=8, seed=2) as other:
        assert first != other.replies([Prompt("Tell me about tea.")] * 3)


def test_a_context_without_room_ends_it_at_once(tmp_path):
    found = measure(load_base(make_model(tmp_path / "short", context=64), device="cpu"), SMALL)
    assert found.room == 0 and found.agreement is None and not found.wishes
    assert "context is too short" in reasons(gates(found))[0]


def test_a_template_that_hides_the_block_ends_it_at_once(base, monkeypatch):
    first_line_only = source("trimmed").replace("message.content | trim", 'message.content.split("\n")[0]')
    assert first_line_only != source("trimmed")
    monkeypatch.setattr(base, "renderer", Renderer(plain_tokenizer(first_line_only), max_model_len=512))
    found = measure(base, SMALL)
    assert found.block_removed == 0 and not found.wishes
    assert "chat template" in reasons(gates(found))[0]


def test_a_folder_without_a_chat_model_is_an_error(tmp_path):
    with pytest.raises(ModelError):
        calibrate(Settings(model=str(tmp_path), device="cpu"), SMALL)


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"max_tokens": 7}, {"seed": -1}])
def test_an_extent_outside_its_range_is_refused(wrong):
    with pytest.raises(InvalidParameter, match=next(iter(wrong))):
        Extent(**wrong)


# --- a model that obeys, read by one that does not -------------------------------------------------------------------


@pytest.fixture(scope="module")
def obeying(base) -> preflight.Findings:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight, "Sampler", Scripted)
        return measure(base, replace(SMALL, samples=3))


def test_a_model_that_obeys_follows_every_wish(obeying):
    assert {rates.name for rates in obeying.wishes} == {wish.name for wish in WISHES}
    assert all((rates.plain, rates.told, rates.asked, rates.win) == (0, 1, 1, 1) for rates in obeying.wishes)
    assert [(one.size, one.rate, one.alone) for one in obeying.together] == [(2, 1, 1), (3, 1, 1), (4, 1, 1)]


def test_a_block_of_few_wishes_says_them_again_in_other_words():
    sentence, bullets, _, greeting, *_ = WISHES
    (only,) = preflight._choices([sentence, greeting], 1)[:1]
    assert preflight._choices([sentence, greeting], 4) == [(sentence,), (greeting,)]
    assert preflight._block(only, 3, 0) == sentence.said
    assert preflight._choices([bullets, greeting], 4) == [(bullets, greeting)]
    assert preflight._block((bullets, greeting), 3, 1) == (greeting.said[1], bullets.said[1], greeting.said[2])


def test_every_kind_of_follow_up_is_read(obeying):
    assert {one.kind for one in obeying.signals} == {wish.name for wish in WISHES} | set(IDLE)
    assert all(len(one.signals) == len(one.sizes) == len(one.reaches) == 3 for one in obeying.signals)
    assert len(obeying.blamed_after_wish) == len(obeying.blamed_after_praise) == 3 * len(WISHES)
    assert any(gate.verdict != "not measured" for gate in gates(obeying) if gate.name == "G6")


# --- passes ----------------------------------------------------------------------------------------------------------


def log_probs(base: BaseModel, ids, prompt) -> torch.Tensor:
    """Return the stock model's log-probabilities [n, V] of ``ids`` after ``prompt``."""
    with torch.no_grad():
        logits = base.module(input_ids=torch.tensor([[*prompt, *ids]])).logits[0]
    return torch.log_softmax(logits[len(prompt) - 1 : -1].float(), -1)


def test_a_reading_is_that_of_a_hand_computation(base, answers, monkeypatch):
    turns = [answer.followed_by("shorter, please", number) for number, answer in enumerate(answers)]
    together = reading.read(base, turns)
    for turn, one in zip(turns, together, strict=True):
        ids = turn.completion_ids
        plain = log_probs(base, ids, row(turn).prompt_ids)
        told = log_probs(base, ids, told_row(base, turn, [turn]).prompt_ids)
        advantages = (told - plain)[torch.arange(len(ids)), torch.tensor(ids)]
        assert one.advantages == pytest.approx(advantages.tolist(), abs=1e-3)
        assert one.signal == pytest.approx(float((told.exp() * (told - plain)).sum(-1).max()), rel=1e-3, abs=1e-4)
        assert one.size == pytest.approx(float(advantages.abs().mean()), rel=1e-3)
    monkeypatch.setattr(reading, "_MAX_NUMBERS", 1)
    alone = reading.read(base, turns)
    assert [one.signal for one in alone] == pytest.approx([one.signal for one in together], rel=1e-4)


def greedily(base: BaseModel, prompt, max_tokens: int) -> list[int]:
    """Return the stock model's likeliest reply, its end token included."""
    assert base.renderer is not None
    ids: list[int] = []
    while len(ids) < max_tokens and not base.renderer.end_ids.intersection(ids):
        with torch.no_grad():
            ids.append(int(base.module(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, -1].argmax()))
    return ids


def test_a_reach_is_that_of_a_hand_computation(base, monkeypatch):
    monkeypatch.setattr(probes, "MAX_TOKENS", 12)
    falls = {"shorter, please": [], "What is 7 plus 5?": []}
    for question in base.probes[: probes.NUM_QUESTIONS]:
        messages = (Message("user", question),)
        prompt = base.renderer.render(messages)
        ids = greedily(base, prompt, 12)
        at_ids = torch.arange(len(ids)), torch.tensor(ids)
        for follow_up, found in falls.items():
            told = log_probs(base, ids, base.renderer.render(messages, (follow_up,)))
            found.append(float((log_probs(base, ids, prompt) - told)[at_ids].sum()))
    second_lowest = {follow_up: sorted(found)[1] for follow_up, found in falls.items()}
    assert reading.reaches(base, [*falls, *falls]) == pytest.approx(second_lowest, abs=1e-3)
    monkeypatch.setattr(reading, "_MAX_NUMBERS", 1)
    assert reading.reaches(base, list(falls)) == pytest.approx(second_lowest, abs=1e-3)


def test_without_room_for_its_questions_no_reach_is_measured(tmp_path):
    short = load_base(make_model(tmp_path / "short", context=16), device="cpu")
    assert reading.reaches(short, ["shorter, please"]) == {}


def test_served_tokens_are_the_learners_best_and_others_are_not(base, answers):
    assert reading.agreement(base, answers) == 1.0
    shifted = [
        replace(one, completion=replace(one.completion, token_ids=(7, *one.completion.token_ids[:-1])))
        for one in answers
    ]
    assert reading.agreement(base, shifted) < 0.99


def test_an_untrained_adapter_changes_nothing(base, answers):
    assert reading.new_adapter_change(base, answers, LoraSettings()) == 0.0


def test_the_gain_is_that_of_the_median_layer(base):
    norms = [base.module.get_submodule(name).weight.norm() / d_out**0.5 for name, (_, d_out) in base.targets.items()]
    assert reading.layer_gain(base) == pytest.approx(float(torch.stack(norms).median()))


def written(base: BaseModel, text: str, ended: bool = True) -> Answer:
    assert base.renderer is not None
    ids = base.renderer.reply_ids(text)
    ids = ids if ended else ids[:-1]
    return Answer(Prompt("Tell me about tea."), (5,), Completion(ids, (1,) * len(ids), text, "stop", "end_token"))


@pytest.mark.parametrize(
    ("place", "blamed"), [("start", "Bread"), ("rest", " It is hot."), ("end", "")]
)  # fmt: skip
def test_blame_falls_on_the_tokens_that_went_wrong(base, place, blamed):
    answer = written(base, "Bread is baked. It is hot.")
    tokens = reading.blamed(base, answer, place)
    ids = [answer.trained_ids[token] for token in tokens]
    assert base.renderer.decode(ids) == blamed
    assert place != "end" or (ids and base.renderer.end_ids.issuperset(ids))


def test_a_reply_without_an_end_has_none_to_blame(base):
    assert reading.blamed(base, written(base, "Bread is baked", ended=False), "end") == ()
    assert reading.blamed(base, written(base, "Bread is baked.", ended=False), "rest") == ()


@pytest.mark.parametrize("name", ["no_system", "strict_alternation", "think", "trimmed", "dated", "folded"])
def test_every_template_of_the_field_carries_the_block(name):
    renderer = Renderer(tokenizer(name), max_model_len=4096)
    assert template.block_removed(renderer) == 1.0
    assert 3000 < template.room(renderer) < 4096


# --- updates on trial ------------------------------------------------------------------------------------------------


def test_trials_rise_until_one_update_is_enough(base, answers):
    turns = [answer.followed_by("shorter, please", number) for number, answer in enumerate(answers)]
    trials = list(try_rates(base, Recipe(max_canary_loss=1.0), SMALL.lora, turns, 1e-3))
    assert [one.lr for one in trials] == pytest.approx([1e-3 * FACTOR**place for place in range(len(trials))])
    assert all(one.is_sound and one.num_turns == 2 and one.grad_norm > 0 for one in trials[:-1])
    assert trials[-1].fall > trials[0].fall > 0


def test_a_trial_that_a_guard_refuses_is_the_last(base, answers):
    turns = [answers[0].followed_by("shorter, please")]
    (only,) = try_rates(base, Recipe(max_reply_kl=0.0), SMALL.lora, turns, 1e-2)
    assert not only.is_sound and only.outcomes == ("rejected_kl",)


def test_a_reply_that_is_near_already_says_nothing_about_a_rate(base, answers):
    turns = [answer.followed_by("shorter, please", number) for number, answer in enumerate(answers)]
    once = Recipe(num_steps=1, enough_nats=0.0, max_canary_loss=1.0)
    alone = [next(try_rates(base, once, SMALL.lora, [turn], 1e-3)) for turn in turns]
    nats = sorted(one.loss_first * sum(turn.completion_mask) for one, turn in zip(alone, turns, strict=True))
    assert nats[0] < nats[1]
    first = next(try_rates(base, replace(once, enough_nats=(nats[0] + nats[1]) / 2), SMALL.lora, turns, 1e-3))
    assert first.is_sound and first.num_turns == 1 and first.grad_norm > 0
    (none,) = try_rates(base, replace(once, enough_nats=1e9), SMALL.lora, turns, 1e-3)
    assert not none.is_sound and none.outcomes == ("skipped_low_signal",)
