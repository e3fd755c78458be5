"""Raw results, a table, and figures; what was measured earlier stays until it is measured again."""

import json
import os
import platform
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from personalize.config import keeps_freed_memory
from personalize.evaluation.bench.rows import Row, left_out
from personalize.evaluation.bench.subject import Subject
from personalize.reporting.figures import Figure, measured

FILE = "speed.json"
BENCHMARK = "benchmark "
"""Begins the row of a benchmark that failed or was left out as a whole; it lasts until that benchmark runs again."""
Record = Mapping[str, Any]
"""A row as it is stored: the row's fields, and benchmark, model, device, machine, date and command."""

LOOP = {
    **{
        f"decode step, 16 rows, {num} distinct adapters r = 8, over no adapters": (
            f"decode step, 16 rows, {num} distinct adapters, over no adapters"
        )
        for num in (1, 4, 16)
    },
    "one update over its reply of 128 tokens, 256-token history": "one update over its reply, 256-token history",
    "the default recipe's whole update over its reply, 256-token history": (
        "whole update of the default recipe over its reply"
    ),
}
"""Rows of the embedded model that the area "loop" shows under names of its own."""


def machine(device: torch.device) -> dict[str, Any]:
    """Return what the numbers depend on: hardware, threads, versions."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "processor": _processor(), "architecture": platform.machine(), "cores": os.cpu_count(), "gpu": gpu,
        "threads": torch.get_num_threads(), "keeps_freed_memory": keeps_freed_memory(),
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
        "peft": peft.__version__,
    }  # fmt: skip


def record_of(row: Row, subject: Subject, command: str, seconds: float, benchmark: str) -> dict[str, Any]:
    """Return the row with everything that it was measured with; ``seconds`` is the whole benchmark's time."""
    return {
        **asdict(row), "benchmark": benchmark, "model": subject.label, "device": str(subject.device),
        "machine": machine(subject.device), "date": time.strftime("%Y-%m-%d", time.gmtime()), "command": command,
        "seconds": round(seconds, 1),
    }  # fmt: skip


def merged(old: Iterable[Record], new: Iterable[Record]) -> list[Record]:
    """Return old and new records, the new ones instead of old ones of the same figure, model and device.

    A row that was only left out does not take the place of a measurement, nor does it stand beside those of its own
    benchmark; a failure takes the place of a measurement of the same figure.
    """
    new = list(new)
    again = {_benchmark(one) for one in new if not _is_left_out(one)}
    found = {_key(one): one for one in old if not (_is_whole(one) and _benchmark(one) in again)}
    measured = {_benchmark(one) for one in found.values() if one["value"] is not None}
    for one in new:
        stands = _key(one) in found or (_is_whole(one) and _benchmark(one) in measured)
        if not (_is_left_out(one) and stands):
            found[_key(one)] = one
    return list(found.values())


def load(folder: Path) -> list[Record]:
    """Return the records of an earlier run, if there was one."""
    path = folder / FILE
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def write(records: Sequence[Record], folder: Path, pictures: Sequence[Path]) -> None:
    """Write the raw file and the table into ``folder``, each as a whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = json.dumps({"rows": list(records)}, indent=1, ensure_ascii=False)
    _replace(folder / FILE, raw + "\n")
    _replace(folder / "README.md", table(records, pictures))


def table(records: Sequence[Record], pictures: Sequence[Path] = ()) -> str:
    """Return the results as Markdown, one table per model and device, goals first."""
    parts = [_HEAD]
    for model, device in sorted({(one["model"], one["device"]) for one in records}):
        mine = [one for one in records if (one["model"], one["device"]) == (model, device)]
        parts += [f"## {model}, {device}", "", _where(mine), "", *_lines(mine), ""]
    if not any(str(one["device"]).startswith("cuda") for one in records):
        parts += ["## GPU", "", "Not run: the tables above were measured on a CPU. `--device cuda` is written.", ""]
    parts += [f"![{path.stem}]({path.name})" for path in pictures]
    return "\n".join(parts) + "\n"


def figures(records: Iterable[Record]) -> list[Figure]:
    """Return one figure per record, named after what was measured and the model."""
    return [_figure(one, f"{one['figure']}, {one['model']}", one["goal"]) for one in records]


def loop_figures(records: Iterable[Record], model: str) -> list[Figure]:
    """Return the figures of the area "loop" that ``records`` of the embedded model hold; without goals."""
    wanted = (one for one in records if one["model"] == model and one["figure"] in LOOP)
    return [_figure(one, LOOP[one["figure"]], None) for one in wanted]


_HEAD = """# Benchmarks

Written by `make bench`, which measures what has a goal as far as eight minutes go, and by `make bench-full`; each of
them alone is `make bench ARGS='--only NAME --model MODEL'`. Every value is taken side by side with what it is compared
with, in turn, in one run; ratios are the median over the rounds. Times are only there to be compared within their row.
No token ends a reply; both sides of a ratio use the same number of threads. Raw values: [speed.json](speed.json).
"""


def _figure(one: Record, name: str, goal: str | None) -> Figure:
    value = None if one["value"] is None else float(f"{one['value']:.4g}")
    return measured(
        name, value, unit=one["unit"], goal=goal, device=one["device"], n=one["n"], command=one["command"],
        reason=one["reason"],
    )  # fmt: skip


def _lines(records: Sequence[Record]) -> list[str]:
    ordered = sorted(records, key=lambda one: one["goal"] is None)
    head = ["| figure | value | goal | met | n | medians | remark |", "|---" * 7 + "|"]
    return [*head, *("| " + " | ".join(_cells(one)) + " |" for one in ordered)]


def _cells(one: Record) -> list[str]:
    figure = _figure(one, one["figure"], one["goal"])
    value = "not run" if figure.value is None else f"{figure.value:g} {one['unit']}".strip()
    met = {True: "yes", False: "**no**", None: ""}[figure.met]
    medians = ", ".join(f"{name} {_number(value)}" for name, value in one["samples"].items())
    return [one["figure"], value, one["goal"] or "", met, str(one["n"] or ""), medians, one["reason"] or ""]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _where(records: Sequence[Record]) -> str:
    """Return the machine in a sentence; of several the newest measurement's."""
    newest = max(records, key=lambda one: one["date"])
    told = newest["machine"]
    return (
        f"{told['gpu'] or told['processor']}, {told['cores']} cores, {told['threads']} threads, torch {told['torch']}, "
        f"transformers {told['transformers']}, peft {told['peft']}; {newest['date']}. Medians in ms."
    )


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _replace(path: Path, text: str) -> None:
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _key(one: Record) -> Hashable:
    return one["figure"], one["model"], one["device"]


def _is_left_out(one: Record) -> bool:
    return left_out(one["value"], one["reason"])


def _is_whole(one: Record) -> bool:
    return one["figure"].startswith(BENCHMARK)


def _benchmark(one: Record) -> Hashable:
    """Return which benchmark a record belongs to; those of earlier versions do not say it."""
    name = one["figure"].removeprefix(BENCHMARK) if _is_whole(one) else one.get("benchmark")
    return name, one["model"], one["device"]
