"""Several processes on one study."""

import os
import subprocess
import sys

import pytest

from personalize.evaluation.study import command, plans
from personalize.evaluation.study.results import Results
from personalize.evaluation.study.shares import Share, start_helpers, threads_each, wait_for


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shares_are_all_cells_and_no_cell_twice(count):
    cells = plans.whole(plans.EXTENTS["smoke"])
    parts = [Share(index, count).of(cells) for index in range(count)]
    assert sorted(cell.user for part in parts for cell in part) == sorted(cell.user for cell in cells)
    assert all(part[0] in cells[:count] for part in parts), "every share begins with what tells most"


def test_a_share_is_said_in_one_word():
    assert Share.parse(str(Share(1, 3))) == Share(1, 3)
    for wrong in ("3/3", "-1/2", "1", "a/b"):
        with pytest.raises(ValueError):
            Share.parse(wrong)


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert (threads_each(1), threads_each(2), threads_each(3), threads_each(20)) == (None, 4, 2, 1)


def test_the_others_get_the_same_command_line_and_their_own_share(monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: started.append(command))
    assert start_helpers(["--size", "smoke"], 1) == [] and not started
    start_helpers(["--size", "smoke", "--workers", "3"], 3)
    assert [line[-1] for line in started] == ["1/3", "2/3"]
    for line in started:
        options = command._parser().parse_args(line[3:])
        assert (options.size, options.workers, options.share.count) == ("smoke", 1, 3)


def test_a_worker_that_failed_is_said():
    worker = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(RuntimeError, match="1 of 1 workers failed, with exit code 3"):
        wait_for([worker])


def test_a_helper_measures_its_share_and_writes_no_report(tmp_path):
    out = tmp_path / "results.jsonl"
    words = ["--model", "echo", "--arm", "none", "--arm", "last-k", "--turns", "2", "--prompts", "2", "--seeds", "1"]
    cells, _ = command._cells(command._parser().parse_args(words))
    assert command.main([*words, "--out", str(out), "--share", "1/2"]) == 0
    found = {(line["arm"], line["profile"]) for line in Results(out).lines}
    assert found == {(cell.arm.name, cell.profile.name) for cell in Share(1, 2).of(cells)}
    assert not (tmp_path / "report.md").exists()
