"""Several processes that share the cells of one study and write into one file.

A small model gains little from a second thread, and a second process with one thread gains nearly all of its core.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from personalize.evaluation.study.cells import Cell


@dataclass(frozen=True, slots=True)
class Share:
    """Every ``count``-th cell, from ``index`` on: all shares go from the most telling cells to the others."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what ``str`` gave.

        Raises:
            ValueError: it is not ``index/count`` with an index from 0 to count - 1.
        """
        index, count = map(int, text.split("/"))
        if not 0 <= index < count:
            raise ValueError(f"share {text!r}; allowed: index/count, the index from 0 to count - 1")
        return cls(index, count)

    def of(self, cells: Sequence[Cell]) -> Sequence[Cell]:
        return cells[self.index :: self.count]

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def start_helpers(words: Sequence[str], workers: int) -> list["subprocess.Popen[bytes]"]:
    """Start all workers but this one, on the same command line; of one worker there are none."""
    command = [sys.executable, "-m", "personalize.evaluation.study", *words]
    command += ["--threads", str(threads_each(workers)), "--workers", "1", "--share"]
    return [
        subprocess.Popen([*command, str(Share(index, workers))], stdout=subprocess.DEVNULL)
        for index in range(1, workers)
    ]


def threads_each(workers: int) -> int | None:
    """Return the torch threads that a worker has; None leaves one process to torch."""
    return None if workers == 1 else max(1, len(os.sched_getaffinity(0)) // workers)


def wait_for(helpers: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Wait until all have ended.

    Raises:
        RuntimeError: one of them failed; what it had measured is in the file.
    """
    failed = [helper.returncode for helper in helpers if helper.wait()]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(helpers)} workers failed, with exit code {failed[0]}")
