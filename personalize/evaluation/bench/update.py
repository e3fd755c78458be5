"""One user's update over generating the reply that it learns from, and over what it has to compute."""

import tempfile
from dataclasses import replace
from pathlib import Path

from personalize.engine.engine import Engine
from personalize.evaluation.bench.flops import flops_needed, gemm_rate
from personalize.evaluation.bench.lessons import (
    ONE_STEP,
    WHOLE,
    lesson,
    num_student_tokens,
    num_teacher_tokens,
    parents,
    update,
    warm_learner,
)
from personalize.evaluation.bench.rows import LEFT_OUT, Row, missing
from personalize.evaluation.bench.samples import Samples, Side, elapsed_ms, in_turn
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.serving import load_adapters
from personalize.evaluation.bench.subject import Subject
from personalize.learner import Recipe
from personalize.types import AdapterRef, Experience, GenerateRequest, SamplingParams

HEADROOM = 128
"""Tokens that the hindsight block and the template may add to a history and its reply."""
_GOALS = {256: "≤ 1.0", 1024: "≤ 1.5"}


def measure(subject: Subject, scale: Scale) -> list[Row]:
    """Measure one inner step at every history, then the default recipe's whole update at the first one."""
    rows: list[Row] = []
    for place, history in enumerate(scale.histories):
        if not fits(subject, history, scale.reply):
            rows += missing([_name(history, scale)], _too_short(subject, history), goal=_goal(subject, history))
            continue
        with parents(subject, 1) as (parent,):
            rows += _one_step(subject, scale, history, parent)
            if not place:
                rows += _whole(subject, scale, history, parent)
    return rows


def fits(subject: Subject, history: int, reply: int) -> bool:
    return history + reply + HEADROOM <= subject.base.max_model_len


def update_side(subject: Subject, recipe: Recipe, turn: Experience, parent: AdapterRef) -> Side:
    """Return a side that trains one user's update on ``turn``, from ``parent``."""
    learner = warm_learner(subject.base, recipe)
    memory = lesson(subject.base, 7, len(turn.prompt_ids), len(turn.completion_ids), recipe)
    taught = replace(memory, experience=turn)

    def measure() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return elapsed_ms(lambda: update(learner, [taught], [parent], Path(folder)), subject.device)

    return measure


def reply_side(subject: Subject, engine: Engine, ref: AdapterRef, turn: Experience) -> Side:
    """Return a side that generates a reply of the turn's length to its prompt, under the user's adapter."""
    length = len(turn.completion_ids)

    def generate() -> None:
        sampling = SamplingParams(temperature=1.0, max_tokens=length, seed=1)
        sequence = engine.add(GenerateRequest("reply", turn.prompt_ids, sampling, ref))
        while engine.has_work:
            engine.step()
        if sequence.num_new != length:
            raise RuntimeError(f"the reply has {sequence.num_new} tokens, not {length}")

    return lambda: elapsed_ms(generate, subject.device)


def _one_step(subject: Subject, scale: Scale, history: int, parent: AdapterRef) -> list[Row]:
    engine = subject.engine(1)
    (ref,) = load_adapters(engine, 1)
    turn = lesson(subject.base, 1, history, scale.reply, ONE_STEP).experience
    prefix, window = num_student_tokens(turn)
    counts = (window, prefix, num_teacher_tokens(subject.base, turn))
    rates: list[float] = []

    def rate() -> float:
        rates.append(gemm_rate(subject, counts))
        return 1.0

    sides = {
        "update": update_side(subject, ONE_STEP, turn, parent),
        "reply": reply_side(subject, engine, ref, turn),
        "rate": rate,
    }
    samples = in_turn(sides, scale.rounds)
    engine.close()
    flops = flops_needed(subject.base, turn, warm_learner(subject.base, ONE_STEP))
    return [_over_reply(subject, scale, history, samples), _over_flops(subject, scale, history, samples, rates, flops)]


def _over_reply(subject: Subject, scale: Scale, history: int, samples: Samples) -> Row:
    return Row(
        figure=_name(history, scale),
        value=samples.ratio("update", "reply"),
        goal=_goal(subject, history),
        n=scale.rounds,
        samples={side: samples.median(side) for side in ("update", "reply")},
        curve=("one update over its reply, by history", history),
    )


def _over_flops(subject: Subject, scale: Scale, history: int, samples: Samples, rates: list[float], flops: int) -> Row:
    needed = [flops / rate * 1000 for rate in rates]
    against = Samples({"update": samples.rounds["update"], "needed": needed})
    return Row(
        figure=f"one update over (FLOPs needed / GEMM rate), {history}-token history",
        value=against.ratio("update", "needed"),
        goal=subject.goal("≤ 1.6"),
        n=scale.rounds,
        samples={**against.medians(), "GFLOP needed": flops / 1e9, "GFLOP/s": flops / against.median("needed") / 1e6},
    )


def _whole(subject: Subject, scale: Scale, history: int, parent: AdapterRef) -> list[Row]:
    figure = f"the default recipe's whole update over its reply, {history}-token history"
    if not scale.recipe_rounds:
        return missing([figure], LEFT_OUT)
    engine = subject.engine(1)
    (ref,) = load_adapters(engine, 1)
    turn = lesson(subject.base, 2, history, scale.reply, ONE_STEP).experience
    sides = {
        "update": update_side(subject, WHOLE, turn, parent),
        "reply": reply_side(subject, engine, ref, turn),
    }
    samples = in_turn(sides, scale.recipe_rounds)
    engine.close()
    words = f"{WHOLE.num_steps} steps, {WHOLE.replay} replayed turns"
    return [
        Row(
            figure=figure,
            value=samples.ratio("update", "reply"),
            n=scale.recipe_rounds,
            reason=words,
            samples=samples.medians(),
        )
    ]


def _name(history: int, scale: Scale) -> str:
    return f"one update over its reply of {scale.reply} tokens, {history}-token history"


def _goal(subject: Subject, history: int) -> str | None:
    return subject.goal(_GOALS[history]) if history in _GOALS else None


def _too_short(subject: Subject, history: int) -> str:
    return f"a history of {history} tokens does not fit the model's context of {subject.base.max_model_len}"
