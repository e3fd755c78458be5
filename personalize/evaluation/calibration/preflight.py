"""Measure a model, gate by gate; the first required gate that fails ends it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from personalize.config import LoraSettings
from personalize.errors import ContextTooLong, InvalidParameter
from personalize.evaluation.calibration import reading, template
from personalize.evaluation.calibration.findings import Findings, Together, WishRates
from personalize.evaluation.calibration.follow_ups import complain, different, read_follow_ups
from personalize.evaluation.calibration.gates import follows, gates
from personalize.evaluation.calibration.proposal import first_rate
from personalize.evaluation.calibration.questions import question
from personalize.evaluation.calibration.sampling import Answer, Prompt, Sampler
from personalize.evaluation.calibration.trials import try_rates
from personalize.evaluation.calibration.wishes import WISHES, Wish, said, together
from personalize.learner.recipe import Recipe
from personalize.model.base import BaseModel

Note = Callable[[str], None]
NUM_GREEDY, GREEDY_TOKENS = 4, 32
NUM_TRIAL_TURNS = 4


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured, and the settings that stand before it.

    Args:
        samples: replies per wish and sort; all other numbers follow from it.
        max_tokens: cap of a reply.
        recipe: what the proposal changes; its ``block_size`` is the largest that is tried.
        lora: shape of the adapters on trial.
    """

    samples: int = 12
    max_tokens: int = 128
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    lora: LoraSettings = field(default_factory=LoraSettings)

    def __post_init__(self):
        for name, low, high in (("samples", 1, 10_000), ("max_tokens", 8, 4096), ("seed", 0, 2**40)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidParameter(name, value, f"{low} to {high}")


def measure(base: BaseModel, extent: Extent, note: Note = lambda text: None) -> Findings:
    """Return what could be measured of ``base`` before a required gate failed.

    Args:
        note: told what comes next; for people who wait.

    Raises:
        ModelError: the model's output is not finite.
        TemplateError: the chat template refuses a user message.
    """
    assert base.renderer is not None
    note("template and context")
    found = Findings(room=template.room(base.renderer))
    if found.room:
        found = replace(found, block_removed=template.block_removed(base.renderer))
    if _stopped(found):
        return found
    assert found.room is not None
    with Sampler(base, max_tokens=min(extent.max_tokens, found.room), seed=extent.seed) as sampler:
        found, plain = _sampled(base, sampler, found, extent, note)
    if _stopped(found):
        return found
    note("signals of follow-ups")
    complaints = complain(plain, _followed(found))
    found = read_follow_ups(base, found, plain, complaints)
    if _stopped(found) or not complaints:
        return found
    note("updates on trial")
    turns = different(complaints, NUM_TRIAL_TURNS)
    gain = reading.layer_gain(base)
    first = first_rate(gain, extent.lora.lora_alpha)
    return replace(found, layer_gain=gain, trials=tuple(try_rates(base, extent.recipe, extent.lora, turns, first)))


def _stopped(found: Findings) -> bool:
    return any(gate.stops for gate in gates(found))


def _followed(found: Findings) -> tuple[Wish, ...]:
    names = {rates.name for rates in found.wishes if follows(rates)}
    return tuple(wish for wish in WISHES if wish.name in names)


# --- replies ---------------------------------------------------------------------------------------------------------


def _sampled(
    base: BaseModel, sampler: Sampler, found: Findings, extent: Extent, note: Note
) -> tuple[Findings, tuple[Answer, ...]]:
    """Return the findings that need replies, and the replies to the plain questions."""
    questions = [question(number) for number in range(extent.samples)]
    note("serving against learning")
    prompts = [Prompt(question(number)) for number in range(NUM_GREEDY)]
    greedy = _readable(sampler.replies(prompts, temperature=0.0, max_tokens=GREEDY_TOKENS))
    if greedy:
        found = replace(
            found,
            agreement=reading.agreement(base, greedy),
            new_adapter_change=reading.new_adapter_change(base, greedy[:2], extent.lora),
        )
    if _stopped(found):
        return found, ()
    note("replies without wishes")
    plain = sampler.replies([Prompt(text) for text in questions])
    rates = []
    for wish in WISHES:
        note(f"replies with the wish: {wish.name}")
        rates.append(_rates(sampler, wish, plain))
    found = replace(found, wishes=tuple(rates))
    if _stopped(found):
        return found, plain
    return replace(found, together=_together(sampler, found, questions, extent.recipe.block_size, note)), plain


def _readable(answers: Sequence[Answer]) -> tuple[Answer, ...]:
    """Return the replies that have a token to read: a model may end at once, or only think."""
    return tuple(answer for answer in answers if answer.trained_ids)


def _rates(sampler: Sampler, wish: Wish, plain: Sequence[Answer]) -> WishRates:
    questions = [answer.prompt.question for answer in plain]
    told = [Prompt(text, (said(wish, number),)) for number, text in enumerate(questions)]
    asked = [Prompt(f"{text} {wish.asked}") for text in questions]
    answers = sampler.replies([*told, *asked])
    in_plain, in_told, in_asked = (
        [wish.holds(answer.text) for answer in part] for part in (plain, answers[: len(told)], answers[len(told) :])
    )
    wins = [(1 + with_it - without) / 2 for with_it, without in zip(in_told, in_plain, strict=True)]
    return WishRates(wish.name, fmean(in_plain), fmean(in_told), fmean(in_asked), fmean(wins), len(questions))


def _together(
    sampler: Sampler, found: Findings, questions: Sequence[str], largest: int, note: Note
) -> tuple[Together, ...]:
    """Tell two, three … follow-ups at once, up to ``largest``."""
    wishes, alone = _followed(found), {rates.name: rates.told for rates in found.wishes}
    measured = []
    for size in range(2, largest + 1):
        note(f"replies with {size} follow-ups at once")
        choices = _choices(wishes, size)
        chosen = [choices[number % len(choices)] for number in range(len(questions))]
        told = [_block(choice, size, number) for number, choice in enumerate(chosen)]
        try:
            answers = sampler.replies([Prompt(text, block) for text, block in zip(questions, told, strict=True)])
        except ContextTooLong:  # a block of this size does not fit, so it is not proposed
            break
        held = [wish.holds(answer.text) for answer, choice in zip(answers, chosen, strict=True) for wish in choice]
        single = fmean(alone[wish.name] for choice in chosen for wish in choice)
        measured.append(Together(size, fmean(held), single, len(answers)))
    return tuple(measured)


def _choices(wishes: Sequence[Wish], size: int) -> list[tuple[Wish, ...]]:
    """Return every choice of ``size`` wishes that one reply can fulfil; of as many as possible where there is none."""
    found = (list(together(wishes, count)) for count in range(size, 0, -1))
    return next(choices for choices in found if choices)


def _block(choice: tuple[Wish, ...], size: int, number: int) -> tuple[str, ...]:
    """Return ``size`` follow-ups that state these wishes in turn, in other words each time."""
    turned = choice[number % len(choice) :] + choice[: number % len(choice)]
    return tuple(said(turned[place % len(turned)], number + place // len(turned)) for place in range(size))
