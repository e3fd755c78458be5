"""The benchmarks on one GPU inside ten minutes; on a CPU the same code with tiny shapes, as a smoke test.

    python -m personalize.evaluation.bench.gpu

Every cell of the GPU's goals is printed at the end. What was not measured says "not run", and on a CPU nothing is: what
a tiny model does there is no figure, so it is written next to nothing that is kept.
"""

import argparse
import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, Qwen3Config

from personalize.evaluation.bench.command import measure
from personalize.evaluation.bench.gpu_serving import (
    compiled_figure,
    measure_compiled,
    measure_traffic,
    traffic_figure,
)
from personalize.evaluation.bench.plan import BENCHMARKS, Measure, Part
from personalize.evaluation.bench.results import illustrate, publish
from personalize.evaluation.bench.rows import LEFT_OUT, Row
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.subject import SHAPES, Subject, load_subject, random_subject

COMMAND = "make bench-gpu"
NOT_RUN = "not run"
GPU_BENCHMARKS: Mapping[str, Measure] = {**BENCHMARKS, "traffic": measure_traffic, "compiled": measure_compiled}

QWEN3_4B = Qwen3Config(
    vocab_size=151936, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32,
    num_key_value_heads=8, head_dim=128, max_position_embeddings=40960, tie_word_embeddings=True,
)  # fmt: skip
_TINY = LlamaConfig(
    vocab_size=8192, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True, initializer_range=0.2,
)  # fmt: skip
_LABEL_135M, _LABEL_600M = SHAPES["135m"][0], SHAPES["0.6b"][0]


@dataclass(frozen=True, slots=True)
class Cell:
    """A goal of the table's column for a GPU: the model's label, the row's figure, and the goal."""

    model: str
    figure: str
    goal: str


_LEARNING = [
    Cell(_LABEL_135M, figure, goal)
    for streams in (1, 4, 16)
    for figure, goal in (
        (f"throughput kept with learning, {streams} streams, over the bound", "≥ 0.8"),
        (f"freshness p50 with learning, {streams} streams, in replies", "≤ 0.5"),
        (f"freshness p95 with learning, {streams} streams, in replies", "≤ 1"),
    )
]
_FIRST = "first token after a publish, 1024-token history, over a plain prefill"
CELLS: Sequence[Cell] = (
    Cell(_LABEL_600M, traffic_figure(64), "≤ 1.10"),
    Cell(_LABEL_135M, compiled_figure(16), "≥ 1.0"),
    Cell(
        _LABEL_135M,
        "engine without adapters, staggered arrivals and mixed lengths, tokens/s over padded generate",
        "≥ 2",
    ),
    Cell(_LABEL_135M, "8 PEFT steps with the full prompt graph over 8 users' updates together", "≥ 6"),
    Cell(_LABEL_135M, "8 updates one after another over 8 users' updates together", "≥ 3"),
    Cell(_LABEL_135M, "one update over its reply of 128 tokens, 256-token history", "≤ 0.10"),
    Cell(_LABEL_135M, "one update over its reply of 128 tokens, 1024-token history", "≤ 0.15"),
    Cell(_LABEL_135M, "8 users' updates together over (FLOPs needed / GEMM rate)", "≤ 3"),
    Cell(_LABEL_600M, "longest gap of 16 streams beside an update over their median gap without", "≤ 2"),
    *_LEARNING,
    Cell(_LABEL_135M, "commit to served, 4 streams running, in decode steps", "≤ 1"),
    Cell(_LABEL_135M, _FIRST, "≤ 1.1"),
    Cell(_LABEL_135M, f"{_FIRST}, after idle re-prefill", "≤ 0.2"),
    Cell(_LABEL_135M, "first token with a cold adapter, later than with a warm one", "≤ 20"),
)
"""Updates of 8 users over the FLOPs they need have no measurement yet, on any device: that cell stays "not run"."""

_SCALE = Scale(rounds=3, new_tokens=64, recipe_rounds=0, stream_runs=3, load_replies=2)
PARTS: Sequence[Part] = (
    Part("0.6b", ("traffic", "distinct"), replace(_SCALE, batch=64)),
    Part("135m", ("compiled", "throughput", "staggered", "update", "swap", "cold", "first-token", "distinct"), _SCALE),
    Part("135m", ("users",), replace(_SCALE, histories=(1024,))),
    Part("0.6b", ("streams",), replace(_SCALE, num_streams=16)),
    Part("135m", ("load", "zipf", "batches", "ranks", "peft"), _SCALE),
    Part("4b", ("traffic", "update"), replace(_SCALE, batch=16, histories=(1024,))),
)
"""In this order, as long as there is time: what has a goal comes first."""

_TINY_SCALE = Scale(
    rounds=1, steps=2, batch=4, prompt=4, new_tokens=5, requests=5, reply=6, histories=(64,), users=2, recipe_rounds=0,
    num_streams=2, stream_runs=1, stream_tokens=2, loads=(2,), load_replies=2, long_prompt=48,
)  # fmt: skip
SMOKE = Part("tiny", [*dict.fromkeys(name for part in PARTS for name in part.names)], _TINY_SCALE)


def main(argv: list[str] | None = None) -> int:
    """Measure, print every cell, and on a GPU write results and figures as they come; 1 where a benchmark failed."""
    options = _parser().parse_args(argv)
    on_gpu = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    parts, load = (PARTS, _load) if on_gpu else ((SMOKE,), _load_tiny)
    keep = partial(publish, out=options.out, root=options.figures) if on_gpu else _forget
    fresh = run(parts, load, time.monotonic() + 60 * options.max_minutes, keep)
    told = cells(fresh)
    for one in told:
        print(_line(one), flush=True)
    if on_gpu:
        keep([one for one in told if one not in fresh])
        illustrate(options.out)
    else:
        print("no GPU: the code ran with tiny shapes, and no figure was measured or written")
    return int(any((one["reason"] or "").startswith("failed") for one in fresh))


def _forget(records: Sequence[dict[str, Any]]) -> None:
    del records


def run(
    parts: Iterable[Part],
    load: Callable[[str], Subject],
    until: float,
    keep: Callable[[Sequence[dict[str, Any]]], None] = _forget,
) -> list[dict[str, Any]]:
    """Return the records of all parts, with the GPU's goals; nothing is begun after ``until``.

    Args:
        keep: given the records of every benchmark as soon as it has ended.
    """
    goals = {(cell.model, cell.figure): cell.goal for cell in CELLS}
    fresh: list[dict[str, Any]] = []
    for part in parts:
        subject = load(part.model)
        for measured in measure(subject, part, COMMAND, until, GPU_BENCHMARKS):
            records = [{**one, "goal": goals.get((one["model"], one["figure"]))} for one in measured]
            keep(records)
            fresh += records
            for one in records:
                print(_line(one), flush=True)
        del subject
        gc.collect()
        torch.cuda.empty_cache()
    return fresh


def cells(fresh: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one record per cell of the goals: the measured one, else one without a value that says why."""
    measured = {(one["model"], one["figure"]): one for one in fresh}
    return [measured.get((cell.model, cell.figure)) or _not_run(cell, fresh[0]) for cell in CELLS]


def _not_run(cell: Cell, other: dict[str, Any]) -> dict[str, Any]:
    """Return the cell's record; machine, date and command are those of ``other``."""
    row = Row(cell.figure, None, goal=cell.goal, reason=f"{LEFT_OUT}: it was not measured in this run")
    return {**other, **asdict(row), "benchmark": None, "model": cell.model, "seconds": 0.0}


def _line(one: Mapping[str, Any]) -> str:
    value = NOT_RUN if one["value"] is None else f"{one['value']:.4g} {one['unit']}"
    return f"{one['model']}: {one['figure']}: {value} {one['goal'] or ''} {one['reason'] or ''}".rstrip()


def _load(name: str) -> Subject:
    if name == "4b":
        return random_subject("4b", "Qwen3-4B shape", QWEN3_4B, "cuda")
    return load_subject(name, "cuda")


def _load_tiny(name: str) -> Subject:
    return random_subject(name, "tiny model", _TINY, "cpu")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m personalize.evaluation.bench.gpu", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="auto")
    parser.add_argument("--max-minutes", type=float, default=8.0, help="begin nothing more after these")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"), help="folder of results, table, pictures")
    parser.add_argument("--figures", type=Path, default=Path("."), help="record figures in docs/figures of this folder")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
