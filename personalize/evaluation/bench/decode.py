"""A decode step with other people's adapters over the same engine's step without any."""

import random
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median

from personalize.engine.engine import Engine
from personalize.evaluation.bench.rows import Row
from personalize.evaluation.bench.samples import Side, elapsed_ms, in_turn
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.serving import decoding, load_adapters
from personalize.evaluation.bench.subject import Subject
from personalize.types import AdapterRef

RANK = 8
RANKS = (4, 8, 16)
BATCHES = (1, 4, 16)
MIXES = ("uniform", "zipf", "skewed")
GOAL = "≤ 1.15"
_GOAL_DISTINCT = 16
_BASE = "no adapters"
_ZIPF = 1.2


def step_side(
    subject: Subject, engine: Engine, refs: Sequence[AdapterRef | None], scale: Scale, prompt: int | None = None
) -> Side:
    """Return a side that measures the median step of these rows; every round begins at the same cache length."""

    def measure() -> float:
        with decoding(subject, engine, refs, prompt or scale.prompt, scale.steps):
            return median([elapsed_ms(engine.step, subject.device) for _ in range(scale.steps)])

    return measure


def measure_distinct(subject: Subject, scale: Scale) -> list[Row]:
    """Measure every number of distinct adapters of ``scale.distinct`` in one batch."""
    engine = subject.engine(scale.batch)
    refs = load_adapters(engine, scale.batch, RANK)
    counts = [count for count in scale.distinct if count <= scale.batch]
    sides = {_BASE: step_side(subject, engine, [None] * scale.batch, scale)}
    sides |= {
        str(count): step_side(subject, engine, [refs[row % count] for row in range(scale.batch)], scale)
        for count in counts
    }
    samples = in_turn(sides, scale.rounds)
    engine.close()
    return [
        Row(
            figure=f"decode step, {scale.batch} rows, {count} distinct adapters r = {RANK}, over no adapters",
            value=samples.ratio(str(count), _BASE),
            goal=subject.goal(GOAL) if count == _GOAL_DISTINCT else None,
            n=scale.rounds * scale.steps,
            samples={"with": samples.median(str(count)), "without": samples.median(_BASE)},
            curve=("decode step by distinct adapters", count),
        )
        for count in counts
    ]


def measure_mixes(subject: Subject, scale: Scale) -> list[Row]:
    """Measure rows whose users are drawn as a service's are; ``identical`` and ``distinct`` are the ends."""
    engine = subject.engine(scale.batch)
    refs = load_adapters(engine, scale.batch, RANK)
    mixes: Mapping[str, Sequence[int]] = {
        "identical": [0] * scale.batch,
        "distinct": range(scale.batch),
        **{mix: users_of(mix, scale.batch) for mix in MIXES},
    }
    sides = {_BASE: step_side(subject, engine, [None] * scale.batch, scale)}
    sides |= {name: step_side(subject, engine, [refs[u] for u in users], scale) for name, users in mixes.items()}
    samples = in_turn(sides, scale.rounds)
    engine.close()
    return [
        Row(
            figure=f"decode step, {scale.batch} rows, {name} users, over no adapters",
            value=samples.ratio(name, _BASE),
            n=scale.rounds * scale.steps,
            reason=f"{len(set(users))} distinct adapters",
            samples={"with": samples.median(name), "without": samples.median(_BASE)},
        )
        for name, users in mixes.items()
    ]


def measure_ranks(subject: Subject, scale: Scale) -> list[Row]:
    """Measure every row with an adapter of its own, by rank; an engine per rank, because storage has one rank."""
    engines = {rank: subject.engine(scale.batch, rank=rank) for rank in RANKS}
    plain = next(iter(engines.values()))
    sides = {_BASE: step_side(subject, plain, [None] * scale.batch, scale)}
    sides |= {
        str(rank): step_side(subject, engine, load_adapters(engine, scale.batch, rank), scale)
        for rank, engine in engines.items()
    }
    samples = in_turn(sides, scale.rounds)
    for engine in engines.values():
        engine.close()
    return [
        Row(
            figure=f"decode step, {scale.batch} rows, {scale.batch} distinct adapters by rank, r = {rank}",
            value=samples.ratio(str(rank), _BASE),
            n=scale.rounds * scale.steps,
            samples={"with": samples.median(str(rank)), "without": samples.median(_BASE)},
            curve=("decode step by rank", rank),
        )
        for rank in RANKS
    ]


def measure_batches(subject: Subject, scale: Scale) -> list[Row]:
    """Measure 1, 4 and 16 rows, each with an adapter of its own."""
    engine = subject.engine(scale.batch)
    refs = load_adapters(engine, scale.batch, RANK)
    batches = [batch for batch in BATCHES if batch <= scale.batch]
    side = partial(step_side, subject, engine, scale=scale)
    sides = {f"{batch} with": side(refs[:batch]) for batch in batches}
    sides |= {f"{batch} without": side([None] * batch) for batch in batches}
    samples = in_turn(sides, scale.rounds)
    engine.close()
    return [
        Row(
            figure=f"decode step by batch, {batch} rows, as many distinct adapters r = {RANK}, over no adapters",
            value=samples.ratio(f"{batch} with", f"{batch} without"),
            n=scale.rounds * scale.steps,
            samples={word: samples.median(f"{batch} {word}") for word in ("with", "without")},
            curve=("decode step by batch", batch),
        )
        for batch in batches
    ]


def users_of(mix: str, rows: int) -> list[int]:
    """Return which of ``rows`` users each row belongs to: uniform draws, zipf draws, or half of the rows one user's."""
    draws = random.Random(0)
    if mix == "uniform":
        return draws.choices(range(rows), k=rows)
    if mix == "zipf":
        return draws.choices(range(rows), [1 / (user + 1) ** _ZIPF for user in range(rows)], k=rows)
    return [0] * (rows // 2) + list(range(1, rows - rows // 2 + 1))
