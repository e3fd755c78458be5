"""`make figures`: one table of all areas, missed ones first."""

import argparse
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from personalize.reporting.figures import load, measured, record
from scripts import figures, setup_figure

ROOT = Path(__file__).resolve().parents[2]


def figure(name: str, value: float | None, goal: str | None = "≥ 0.9", **extra):
    return measured(name, value, unit="share", goal=goal, device="cpu", n=3, command="make x", **extra)


def test_missed_figures_come_first(tmp_path, capsys):
    rows = [figure("fine", 0.95), figure("bare", 1.0, goal=None), figure("unknown", None, reason="no GPU")]
    record("loop", rows, tmp_path)
    record("speed", [figure("short", 0.8)], tmp_path)
    assert figures.main(["--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.index("short") < out.index("unknown") < out.index("fine") < out.index("bare")
    assert "missed by 0.1" in out
    assert "no GPU" in out
    assert "4 figures: 1 missed, 1 not measured" in out


def test_a_broken_file_is_named_and_the_others_still_print(tmp_path, capsys):
    record("loop", [figure("fine", 0.95)], tmp_path)
    (tmp_path / "docs" / "figures" / "speed.json").write_text("[{}]")
    assert figures.main(["--root", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "speed.json" in shown.err
    assert "fine" in shown.out


def test_the_time_of_the_set_up_is_recorded(tmp_path):
    ready = tmp_path / ".ready"
    setup_figure.main(ready, tmp_path)
    ready.write_text("")
    setup_figure.main(ready, tmp_path)
    assert not (tmp_path / "docs").exists()
    ready.write_text("800\n")
    setup_figure.main(ready, tmp_path)
    (row,) = load(tmp_path / "docs" / "figures" / "loop.json")
    assert (row.figure, row.value, row.met, row.shortfall) == ("demo setup_s", 800, False, 80)


def test_no_figures_yet_is_an_empty_table(tmp_path, capsys):
    assert figures.main(["--root", str(tmp_path)]) == 0
    assert "0 figures" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "figures").glob("*.json")) or [None])
def test_the_files_in_the_tree_are_valid(path):
    assert path is not None, "no command has recorded a figure yet"
    assert load(path)


COMMANDS = sorted({row.command for file in (ROOT / "docs" / "figures").glob("*.json") for row in load(file)})


class Parsed(Exception):
    """A command's arguments were taken; nothing of it has run."""


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_that_a_figure_names_exists_and_takes_its_arguments(command, monkeypatch):
    program, *rest = shlex.split(command)
    if program == "make":
        targets = [word for word in rest if "=" not in word]
        phony = re.search(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert targets and phony and set(targets) <= set(phony[1].split())
        return
    assert (program, rest[0]) == ("python", "-m"), "a figure is measured by make or by a module"
    name, arguments = rest[1], rest[2:]
    parse = argparse.ArgumentParser.parse_args

    def only_parse(self, args=None, namespace=None):
        raise Parsed(parse(self, arguments if args is None else args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    package = importlib.util.find_spec(name)
    assert package is not None
    module = importlib.import_module(f"{name}.__main__" if package.submodule_search_locations else name)
    with pytest.raises(Parsed):
        module.main()
