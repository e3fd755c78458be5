"""The benchmarks' command line."""

import argparse
import gc
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from personalize.evaluation.bench.plan import BENCHMARKS, SIZES, Measure, Part
from personalize.evaluation.bench.plots import draw
from personalize.evaluation.bench.report import BENCHMARK, figures, load, loop_figures, merged, record_of, write
from personalize.evaluation.bench.rows import LEFT_OUT, Row
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.subject import SHAPES, Subject, load_subject
from personalize.reporting.figures import Figure, measured, record

_COMMANDS = {"short": "make bench", "full": "make bench-full"}


def main(argv: list[str] | None = None) -> int:
    """Measure, print as it goes, and write raw results, table, pictures and figures; 1 where a benchmark failed."""
    options = _parser().parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)  # as the device thread of a service has it
    began = time.monotonic()
    until = began + 60 * options.max_minutes
    fresh: list[dict[str, Any]] = []
    for part in _parts(options):
        subject = load_subject(part.model, options.device)
        for one in measure(subject, part, _command(options), until):
            fresh.append(one)
            print(_line(one), flush=True)
        del subject
        gc.collect()
    publish(fresh, options.out, options.figures)
    if _command(options) == _COMMANDS["short"]:
        record("speed", [_wall_time((time.monotonic() - began) / 60, fresh[-1]["device"])], options.figures)
    return int(any(one["value"] is None and (one["reason"] or "").startswith("failed") for one in fresh))


def measure(
    subject: Subject,
    part: Part,
    command: str,
    until: float = float("inf"),
    benchmarks: Mapping[str, Measure] = BENCHMARKS,
) -> Iterator[dict[str, Any]]:
    """Yield the records of one part; a benchmark that fails is a record without a value, and the next one begins.

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
        for row in rows:
            yield record_of(row, subject, command, time.monotonic() - began)


def publish(fresh: Sequence[dict[str, Any]], out: Path, root: Path) -> None:
    """Merge new records into the files of ``out``, and record figures below ``root``."""
    records = merged(load(out), fresh)
    write(records, out, draw(records, out))
    new = [one for one in records if any(one is mine for mine in fresh)]
    record("speed", figures(one for one in new if not one["figure"].startswith(BENCHMARK)), root)
    record("loop", loop_figures(fresh, SHAPES["pocket"][0]), root)


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
        first = {part.model: part for part in reversed(parts)}  # a model may come twice; then its first part's scale
        parts = [replace(part, names=[name for name in BENCHMARKS if name in options.only]) for part in first.values()]
    return [replace(part, scale=_scaled(part.scale, options)) for part in parts]


def _scaled(scale: Scale, options: argparse.Namespace) -> Scale:
    if options.rounds:
        scale = replace(scale, rounds=options.rounds, stream_runs=min(scale.stream_runs, options.rounds))
    if options.store_users:
        scale = replace(scale, store_users=options.store_users)
    return scale


def _command(options: argparse.Namespace) -> str:
    """Return what repeats the measurement."""
    changed = options.only or options.model or options.rounds or options.store_users or options.threads
    return " ".join(["python -m personalize.evaluation.bench", *options.words]) if changed else _COMMANDS[options.size]


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m personalize.evaluation.bench",
        description="What serving and learning cost, as ratios of one run.",
    )
    parser.set_defaults(words=sys.argv[1:])
    parser.add_argument(
        "--size", choices=tuple(SIZES), default="short", help="short: 8 minutes on 2 cores; full: hours"
    )
    parser.add_argument("--model", choices=tuple(SHAPES), help="only this one")
    parser.add_argument("--only", type=_names, metavar="NAMES", help=f"some of {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, help="rounds of every ratio")
    parser.add_argument("--store-users", type=int, help="users in the measured store")
    parser.add_argument("--threads", type=int, help="torch threads, of both sides of every ratio")
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="auto")
    parser.add_argument("--max-minutes", type=float, default=float("inf"), help="begin nothing more after these")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/benchmarks"), help="folder of results, table and pictures"
    )
    parser.add_argument("--figures", type=Path, default=Path("."), help="record figures in docs/figures of this folder")
    return parser
