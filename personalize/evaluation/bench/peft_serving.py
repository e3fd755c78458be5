"""PEFT's two ways of serving many users, beside our engine: a mixed batch by name, and one adapter at a time."""

from collections.abc import Callable
from statistics import median
from typing import Any

from personalize.evaluation.bench.decode import RANK, step_side
from personalize.evaluation.bench.peers import Decoding, peft_model
from personalize.evaluation.bench.rows import Row
from personalize.evaluation.bench.samples import Side, elapsed_ms, in_turn
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.serving import load_adapters
from personalize.evaluation.bench.subject import Subject

_TITLES = {
    "ours": "this engine, a mixed batch",
    "mixed": "PEFT adapter_names, a mixed batch",
    "single": "PEFT, one adapter for all rows",
    "in turn": "PEFT one adapter at a time, a row each",
}


def measure(subject: Subject, scale: Scale) -> list[Row]:
    """Measure one token for each of 16 users, over transformers' own step of as many rows without adapters."""
    engine = subject.engine(scale.batch)
    model = peft_model(subject, scale.batch, RANK)
    prompts = [subject.prompt(scale.prompt, row) for row in range(scale.batch)]
    names = [f"u{user}" for user in range(scale.batch)]
    sides = {
        "stock": _batch(subject, scale, lambda: Decoding(subject.stock, prompts)),
        "mixed": _batch(subject, scale, lambda: Decoding(model, prompts, adapter_names=names)),
        "single": _batch(subject, scale, lambda: _alone(model, "u0", prompts)),
        "in turn": _in_turn(subject, scale, model, prompts),
        "ours without": step_side(subject, engine, [None] * scale.batch, scale),
        "ours": step_side(subject, engine, load_adapters(engine, scale.batch, RANK), scale),
    }
    samples = in_turn(sides, scale.rounds)
    engine.close()
    return [
        Row(
            figure=f"one token for each of {scale.batch} users, {title}, over no adapters",
            value=samples.ratio(side, "ours without" if side == "ours" else "stock"),
            n=scale.rounds * scale.steps,
            samples=samples.medians(),
        )
        for side, title in _TITLES.items()
    ]


def _batch(subject: Subject, scale: Scale, begin: Callable[[], Decoding]) -> Side:
    def measure() -> float:
        rows = begin()
        rows.step()
        return median([elapsed_ms(rows.step, subject.device) for _ in range(scale.steps)])

    return measure


def _alone(model: Any, name: str, prompts: list[tuple[int, ...]]) -> Decoding:
    model.set_adapter(name)
    return Decoding(model, prompts)


def _in_turn(subject: Subject, scale: Scale, model: Any, prompts: list[tuple[int, ...]]) -> Side:
    """Return the time of one token for everybody, user after user; the switches between them are not counted."""

    def measure() -> float:
        total = 0.0
        for user, prompt in enumerate(prompts):
            row = _alone(model, f"u{user}", [prompt])
            total += median([elapsed_ms(row.step, subject.device) for _ in range(scale.steps)])
        return total

    return measure
