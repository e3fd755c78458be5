"""The study's command line."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from personalize.evaluation.study import plans
from personalize.evaluation.study.arms import ARMS
from personalize.evaluation.study.book import Book
from personalize.evaluation.study.cells import Cell
from personalize.evaluation.study.goals import NOISY, must_reach
from personalize.evaluation.study.report import write
from personalize.evaluation.study.results import Results
from personalize.evaluation.study.running import Deadline, StudiedModel, run
from personalize.evaluation.study.scribe import Scribe
from personalize.evaluation.study.scripts import names
from personalize.evaluation.study.shares import Share, start_helpers, threads_each, wait_for
from personalize.reporting.figures import Figure, record


def main(argv: list[str] | None = None) -> int:
    """Run what is missing, then write the report; 1 where a smoke run shows the wrong direction."""
    words = sys.argv[1:] if argv is None else argv
    options = _parser().parse_args(words)
    deadline = Deadline.after(options.max_minutes)
    helpers = start_helpers(words, options.workers)
    results = Results(options.out)
    studied = StudiedModel.open(options.model, options.device, options.threads or threads_each(options.workers))
    cells, prompts = _cells(options)
    share = options.share or Share(0, options.workers)
    asyncio.run(run(share.of(cells), studied, results, prompts, deadline))
    if options.share:  # whoever started this process writes the report
        return 0
    wait_for(helpers)
    results = Results(options.out)
    left = sum(bool(cell.missing(results, studied.digest)) for cell in cells)
    figures = _report(results, studied, options)
    _summarise(len(cells), left, figures)
    if options.size == "smoke" and not plans.rises(Book(results.lines, studied.digest)):
        print("the mean preference rate has not risen")
        return 1
    return 0


def _cells(options: argparse.Namespace) -> tuple[list[Cell], int]:
    """Return what is to be run, and the prompts of a measurement."""
    extent = plans.changed(
        plans.EXTENTS[options.size],
        profiles=options.profiles, seeds=options.seeds, turns=options.turns, prompts=options.prompts,
    )  # fmt: skip
    cells = plans.part(options.arm, options.control, extent) if options.arm or options.control else plans.whole(extent)
    return cells, extent.prompts


def _report(results: Results, studied: StudiedModel, options: argparse.Namespace) -> list[Figure]:
    book = Book(results.lines, studied.digest)
    device = "cpu" if options.device == "cpu" else _device_name(options.device)
    command = f"make study-{options.size}" if options.size in ("smoke", "full") else "make study"
    model = NOISY if options.size == "noisy" else options.model
    figures = must_reach(Scribe(book, model, device, command))
    print(f"report: {write(book, figures, options.out.parent, model)}")
    if options.figures is not None:
        record("learning", figures, root=options.figures)
    return figures


def _device_name(asked: str) -> str:
    """Return what the figures call the device."""
    import torch

    return "cuda" if asked == "cuda" or torch.cuda.is_available() else "cpu"


def _summarise(num_cells: int, left: int, figures: Sequence[Figure]) -> None:
    print(f"{num_cells - left} of {num_cells} cells are whole" + ("; the next run goes on" if left else ""))
    for one in sorted(figures, key=lambda one: (one.met is not False, one.met is None)):
        if one.goal is not None:
            said = {True: "met", False: "missed", None: "not measured"}[one.met]
            print(f"  {said:12s}  {one.figure}: {one.value} ({one.goal})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m personalize.evaluation.study",
        description="Learning curves and controls of simulated users; what the file holds is not measured again.",
    )
    parser.add_argument("--size", choices=tuple(plans.EXTENTS), default="standard")
    parser.add_argument(
        "--arm", action="append", default=[], choices=tuple(ARMS), help="only this one; may be repeated"
    )
    parser.add_argument(
        "--control", action="append", default=[], choices=tuple(names()), help="only this one; may be repeated"
    )
    parser.add_argument("--profiles", type=_count, help="how many of the profiles, the first ones")
    parser.add_argument("--seeds", type=_count, help="seeds per profile")
    parser.add_argument("--turns", type=_count, help="follow-ups of the learning curves")
    parser.add_argument("--prompts", type=_count, help="fresh prompts per measurement")
    parser.add_argument("--model", default="pocket", help="pocket, a hub id, a local path, or echo")
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="auto")
    parser.add_argument("--threads", type=_count, help="torch threads of the device thread")
    parser.add_argument(
        "--workers",
        type=_count,
        default=1,
        help="processes that share the cells; small models learn faster in several with one thread each",
    )
    parser.add_argument("--share", type=Share.parse, help=argparse.SUPPRESS)
    parser.add_argument("--max-minutes", type=float, help="begin no new cell after that; the next run goes on")
    parser.add_argument("--out", type=Path, default=Path("docs/study/results.jsonl"), help="the report goes beside it")
    parser.add_argument("--figures", type=Path, help="also record the goals in docs/figures of this folder")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not allowed; allowed: 1 or more")
    return value
