"""The guard bench's command line."""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from personalize.config import EngineSettings, ServiceSettings, Settings
from personalize.evaluation.guard_bench.collapses import KINDS
from personalize.evaluation.guard_bench.healthy import GROUPS, Group
from personalize.evaluation.guard_bench.judging import Jury
from personalize.evaluation.guard_bench.report import Tables, write
from personalize.evaluation.rates import MAX_REPLY_TOKENS
from personalize.evaluation.study.arms import ARMS, DEFAULT_ARM, UNTRAINED
from personalize.evaluation.study.results import Results
from personalize.learner.recipe import Recipe
from personalize.model.base import BaseModel
from personalize.model.loading import load_base
from personalize.reporting.figures import record
from personalize.service import Personalizer

REVIEW_EVERY = 5
"""Closer than in a service: more healthy versions are looked at."""


def main(argv: list[str] | None = None) -> int:
    """Measure what is missing, print the table, write figures; 1 where a goal is missed."""
    options = _parser().parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    results, base = Results(options.out / "results.jsonl"), load_base(options.model, device=options.device)
    model = base.base_digest[:12]
    _collapses(results, base, model, options.seeds)
    for name in GROUPS:
        _healthy(results, name, model, options)
    tables = Tables([line for line in results.lines if line["model"] == model], Recipe())
    print(tables.text())
    print(f"report: {write(tables, options.out)}")
    figures = tables.figures(str(base.device))
    record("learning", figures, root=options.figures)
    for one in figures:
        print(f"  {one.figure}: {one.value} {f'({one.goal})' if one.goal else ''}")
    return int(any(one.met is False for one in figures))


def _collapses(results: Results, base: BaseModel, model: str, seeds: int | None) -> None:
    jury: Jury | None = None
    for key in _wanted(model, seeds):
        if not results.has(key):
            jury = jury or Jury(base, Recipe())
            began = time.perf_counter()
            line = jury.line(key["control"], key["seed"])
            results.add({**key, **line, "seconds": round(time.perf_counter() - began, 1)})
            print(f"{key['control']}, seed {key['seed']}: {line['breach']}", flush=True)


def _wanted(model: str, seeds: int | None) -> Iterator[dict[str, Any]]:
    """Yield the keys of all collapses; how they are built does not depend on the recipe."""
    for kind in KINDS.values():
        for seed in range(min(kind.num_seeds, seeds or kind.num_seeds)):
            yield _key(UNTRAINED, model, "collapse", kind.name, seed, 0)


def _healthy(results: Results, group: str, model: str, options: argparse.Namespace) -> None:
    key = _key(ARMS[DEFAULT_ARM].digest, model, "healthy", group, 0, options.turns)
    if results.has(key):
        return
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        found = asyncio.run(_chatted(group, _settings(options, Path(home)), options.turns))
    results.add({**key, **found, "seconds": round(time.perf_counter() - began, 1)})
    print(f"{group} users: {found['outcomes']}, taken back: {found['withdrawn']}", flush=True)


async def _chatted(group: str, settings: Settings, turns: int) -> dict[str, Any]:
    async with Personalizer.open(settings=settings) as app:
        return await Group(app, GROUPS[group](0, turns), 0).run(turns)


def _settings(options: argparse.Namespace, home: Path) -> Settings:
    return Settings(
        model=options.model,
        home=home,
        device=options.device,
        engine=EngineSettings(num_threads=options.threads),
        service=ServiceSettings(max_tokens=MAX_REPLY_TOKENS, review_every=REVIEW_EVERY),
    )


def _key(recipe: str, model: str, arm: str, control: str, seed: int, turn: int) -> dict[str, Any]:
    return {"recipe": recipe, "model": model, "arm": arm, "control": control, "profile": "", "seed": seed, "turn": turn}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m personalize.evaluation.guard_bench",
        description="Built collapses and healthy users against the guards; what was measured is not measured again.",
    )
    parser.add_argument("--model", default="pocket", help="pocket, a hub id or a local path")
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="auto")
    parser.add_argument("--threads", type=int, help="torch threads")
    parser.add_argument("--seeds", type=int, help="of every kind of collapse, the first ones")
    parser.add_argument("--turns", type=int, default=19, help="follow-ups of every healthy user")
    parser.add_argument("--out", type=Path, default=Path("docs/guards"), help="folder of results and report")
    parser.add_argument("--figures", type=Path, default=Path("."), help="record figures in docs/figures of this folder")
    return parser
