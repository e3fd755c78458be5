"""Many lives at once as users of one service, one service after the other."""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from personalize.backends.echo import BASE_DIGEST
from personalize.config import EngineSettings, ServiceSettings, Settings
from personalize.evaluation.rates import MAX_REPLY_TOKENS
from personalize.evaluation.study.arms import ARMS, DEFAULT_ARM, Arm
from personalize.evaluation.study.cells import Cell
from personalize.evaluation.study.drift import Drift
from personalize.evaluation.study.life import Laboratory, Life
from personalize.evaluation.study.measurements import Meter
from personalize.evaluation.study.results import Results
from personalize.model.loading import load_base
from personalize.service import Personalizer

ECHO = "echo"
"""Name of the model that only repeats what it is told: it tries the wiring out, in no time."""
CELLS_AT_ONCE = 6
ROWS = 64
"""Rows of the engine: measurements come in hundreds of prompts."""


@dataclass(frozen=True, slots=True)
class StudiedModel:
    """The base model under study.

    Attributes:
        digest: of weights, tokenizer and chat template.
        drift: measures with a second copy of the weights; None for the echo.
    """

    name: str
    device: Literal["cpu", "cuda", "auto"]
    threads: int | None
    digest: str
    drift: Drift | None

    @classmethod
    def open(
        cls, name: str, device: Literal["cpu", "cuda", "auto"] = "auto", threads: int | None = None
    ) -> "StudiedModel":
        """Load a copy of the base.

        Raises:
            ModelError: the model cannot be used.
        """
        if name == ECHO:
            return cls(name, device, threads, BASE_DIGEST[:12], None)
        base = load_base(name, device=device)
        return cls(name, device, threads, base.base_digest[:12], Drift(base))

    def settings(self, arm: Arm, home: Path) -> Settings:
        """Return a service in ``home`` that personalizes as ``arm`` says."""
        return Settings(
            model=self.name,
            home=home,
            device=self.device,
            backend="echo" if self.name == ECHO else "local",
            lora=arm.lora,
            engine=EngineSettings(max_num_seqs=ROWS, num_threads=self.threads),
            service=ServiceSettings(learning=arm.learning, max_tokens=MAX_REPLY_TOKENS),
            recipe=arm.recipe,
        )


@dataclass(frozen=True, slots=True)
class Deadline:
    """When no new cell is begun any more, by the process's clock; None is never."""

    at_s: float | None = None

    @classmethod
    def after(cls, minutes: float | None) -> "Deadline":
        return cls(None if minutes is None else time.monotonic() + 60 * minutes)

    @property
    def passed(self) -> bool:
        return self.at_s is not None and time.monotonic() >= self.at_s


async def run(
    cells: Sequence[Cell], studied: StudiedModel, results: Results, num_prompts: int, deadline: Deadline | None = None
) -> int:
    """Measure what ``results`` lack of ``cells``; return how many cells are still not whole.

    A cell that was interrupted is lived again from its beginning; what had been measured of it stays.
    """
    deadline = deadline or Deadline()
    cells = [cell for cell in cells if cell.missing(results, studied.digest)]
    for arm, group in _by_service(cells):
        if deadline.passed:
            break
        with tempfile.TemporaryDirectory() as home:
            async with Personalizer.open(settings=studied.settings(arm, Path(home))) as app:
                meter = Meter(app, num_prompts, studied.drift)
                await _live(Laboratory(app, meter, results, studied.digest), group, deadline)
    return sum(bool(cell.missing(results, studied.digest)) for cell in cells)


async def _live(laboratory: Laboratory, cells: Sequence[Cell], deadline: Deadline) -> None:
    waiting = iter(cells)
    async with asyncio.TaskGroup() as together:
        for _ in range(min(CELLS_AT_ONCE, len(cells))):
            together.create_task(_take_turns(laboratory, waiting, deadline))


async def _take_turns(laboratory: Laboratory, waiting: Iterator[Cell], deadline: Deadline) -> None:
    """Live one cell after the other until there is none left, or no time for another."""
    while not deadline.passed and (cell := next(waiting, None)) is not None:
        await Life(laboratory, cell).play()


def _by_service(cells: Sequence[Cell]) -> list[tuple[Arm, list[Cell]]]:
    """Group cells that one service can have as users: same recipe, same adapters. References go with the default."""
    groups: dict[str, tuple[Arm, list[Cell]]] = {}
    for cell in cells:
        arm = cell.arm if cell.arm.trains else ARMS[DEFAULT_ARM]
        groups.setdefault(arm.name, (arm, []))[1].append(cell)
    return list(groups.values())
