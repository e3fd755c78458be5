"""The benchmarks' command line."""

import argparse
import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from personalize.evaluation.bench.plan import BENCHMARKS, SIZES, Measure, Part
from personalize.evaluation.bench.report import BENCHMARK, record_of
from personalize.evaluation.bench.results import illustrate, publish
from personalize.evaluation.bench.rows import LEFT_OUT, Row
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.subject import SHAPES, Subject, load_subject
from personalize.reporting.figures import Figure, measured, record

_COMMANDS = {"short": "make bench", "full": "make bench-full"}
_WHAT = ("model", "only", "rounds", "loads", "store_users", "threads", "device")
"""Options, beside the size, that say what is measured."""


def main(argv: list[str] | None = None) -> int:
    """Measure, and after every benchmark print and write what it came to; 1 where one failed, 130 when interrupted."""
    options = _parser().parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)  # as the device thread of a service has it
    began = time.monotonic()
    try:
        fresh = _run(options, began + 60 * options.max_minutes)
    except KeyboardInterrupt:
        print("interrupted: what was measured before is written", flush=True)
        return 130
    is_whole = not any(one["figure"].startswith(BENCHMARK) for one in fresh)
    if _command(options) == _COMMANDS["short"] and is_whole:  # else it is the time of something else
        record("speed", [_wall_time((time.monotonic() - began) / 60, fresh[-1]["device"])], options.figures)
    return int(any(one["value"] is None and (one["reason"] or "").startswith("failed") for one in fresh))


def _run(options: argparse.Namespace, until: float) -> list[dict[str, Any]]:
    """Measure all parts and return their records, each of which is in the files by then."""
    fresh: list[dict[str, Any]] = []
    subject: Subject | None = None
    for part in _parts(options):
        if subject is None or subject.name != part.model:
            subject = None  # two models need not be in memory at once
            gc.collect()
            subject = load_subject(part.model, options.device)
        for records in measure(subject, part, _command(options), until):
            publish(records, options.out, options.figures)
            fresh += records
            for one in records:
                print(_line(one), flush=True)
        illustrate(options.out)
    return fresh


def measure(
    subject: Subject,
    part: Part,
    command: str,
    until: float = float("inf"),
    benchmarks: Mapping[str, Measure] = BENCHMARKS,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the records of every benchmark of a part; one that fails is a record without a value, and the next begins.

    Args:
        until: moment of the monotonic clock from which on nothing more is begun.
        benchmarks: what the names of the part mean.
    """
    for name in part.names:
        began = time.monotonic()
        if began >= until:
            rows = [Row(f"{BENCHMARK}{name}", None, reason=f"{LEFT_OUT}: the time was over")]
        else:
            rows = _measured(name, benchmarks[name], subject, part.scale)
        seconds = time.monotonic() - began
        yield [record_of(row, subject, command, seconds, name) for row in rows]


def _measured(name: str, benchmark: Measure, subject: Subject, scale: Scale) -> list[Row]:
    try:
        return benchmark(subject, scale)
    except Exception as error:  # one benchmark's trouble is not the others'
        return [Row(f"{BENCHMARK}{name}", None, reason=f"failed: {type(error).__name__}: {error}")]
    finally:
        gc.collect()


def _parts(options: argparse.Namespace) -> list[Part]:
    """Return what the options leave of the size that was asked for."""
    parts = [part for part in SIZES[options.size] if options.model in (None, part.model)]
    if options.model and not parts:
        parts = [Part(options.model, [*BENCHMARKS], Scale())]
    if options.only:
        parts = _only(parts, options.only)
    return [replace(part, scale=_scaled(part.scale, options)) for part in parts]


def _only(parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """Return the parts where they measure ``names``; what none of them does, every model at its first part's scale."""
    planned = [replace(part, names=[name for name in part.names if name in names]) for part in parts]
    missing = [name for name in BENCHMARKS if name in names and not any(name in part.names for part in parts)]
    first = {part.model: replace(part, names=missing) for part in reversed(parts)}
    return [part for part in (*planned, *first.values()) if part.names]


def _scaled(scale: Scale, options: argparse.Namespace) -> Scale:
    if options.rounds:
        scale = replace(scale, rounds=options.rounds, stream_runs=min(scale.stream_runs, options.rounds))
    if options.store_users:
        scale = replace(scale, store_users=options.store_users)
    if options.loads:
        scale = replace(scale, loads=tuple(options.loads))
    return scale


def _command(options: argparse.Namespace) -> str:
    """Return what repeats the measurement; where its files lie and when it would have been cut are no part of it.

    It is a target of the Makefile, which settles how memory is kept and how many threads there are.
    """
    plain = _parser().parse_args([])
    changed = [name for name in _WHAT if getattr(options, name) != getattr(plain, name)]
    if not changed:
        return _COMMANDS[options.size]
    words = (f"--{name.replace('_', '-')} {_word(getattr(options, name))}" for name in changed)
    return f"{_COMMANDS[options.size]} ARGS='{' '.join(words)}'"


def _word(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _line(one: dict[str, Any]) -> str:
    value = f"{one['value']:.4g} {one['unit']}" if one["value"] is not None else "not run"
    return f"{one['model']}: {one['figure']}: {value} {one['goal'] or ''} {one['reason'] or ''}".rstrip()


def _wall_time(minutes: float, device: str) -> Figure:
    return measured(
        "wall time of the short benchmarks", round(minutes, 2), unit="min", goal="≤ 8", n=1, device=device,
        command=_COMMANDS["short"],
    )  # fmt: skip


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in BENCHMARKS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(BENCHMARKS)}")
    return names


def _counts(text: str) -> list[int]:
    counts = [int(word) for word in text.split(",")]
    if min(counts) < 1:
        raise argparse.ArgumentTypeError(f"{min(counts)} is not at least 1")
    return counts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m personalize.evaluation.bench",
        description="What serving and learning cost, as ratios of one run.",
    )
    parser.add_argument(
        "--size", choices=tuple(SIZES), default="short", help="short: 8 minutes on 2 cores; full: hours"
    )
    parser.add_argument("--model", choices=tuple(SHAPES), help="only this one")
    parser.add_argument("--only", type=_names, metavar="NAMES", help=f"some of {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, help="rounds of every ratio")
    parser.add_argument("--loads", type=_counts, metavar="COUNTS", help="streams of the mixed load, such as 1,4,16")
    parser.add_argument("--store-users", type=int, help="users in the measured store")
    parser.add_argument("--threads", type=int, help="torch threads, of both sides of every ratio")
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="auto")
    parser.add_argument("--max-minutes", type=float, default=float("inf"), help="begin nothing more after these")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/benchmarks"), help="folder of results, table and pictures"
    )
    parser.add_argument("--figures", type=Path, default=Path("."), help="record figures in docs/figures of this folder")
    return parser
