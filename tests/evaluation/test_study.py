"""The study on the echo: every cell is lived as a user of one service, measured once, and goes on after a stop."""

import asyncio
import json

import pytest

from personalize.errors import InvalidParameter
from personalize.evaluation.study import plans
from personalize.evaluation.study.arms import ARMS, BASE, DEFAULT_ARM, LAST, ORACLE, UNTRAINED
from personalize.evaluation.study.cells import Cell
from personalize.evaluation.study.command import main
from personalize.evaluation.study.contexts import LAST_K
from personalize.evaluation.study.profiles import CONTRADICTING, PROFILES, elsewhere, opposite
from personalize.evaluation.study.results import KEY, Results
from personalize.evaluation.study.running import Deadline, StudiedModel, run
from personalize.evaluation.study.scripts import CONTROLS, LIFE, checkpoints, plain
from personalize.evaluation.users import Said
from personalize.learner import Recipe
from personalize.types import Message
from personalize.world.preferences import DEFAULT, NON_DEFAULT

ECHO = StudiedModel.open("echo")


def studied(cells, path, **options):
    results = Results(path)
    left = asyncio.run(run(cells, ECHO, results, options.pop("num_prompts", 2), **options))
    return results, left


def cell(arm: str = DEFAULT_ARM, turns: int = 3, profile: int = 0, seed: int = 0) -> Cell:
    return Cell(ARMS[arm], plain(turns), PROFILES[profile], seed)


# --- what is run ------------------------------------------------------------------------------------------------


def test_every_arm_is_a_recipe_and_only_trained_ones_depend_on_it():
    digests = {}
    for name, arm in ARMS.items():
        assert Recipe(**arm.recipe).lr > 0, name
        digests.setdefault(arm.digest, []).append(name)
    assert digests.pop(UNTRAINED) == [BASE, ORACLE, LAST]
    assert all(len(names) == 1 for names in digests.values()), digests


def test_profiles_want_what_is_not_the_default_once_per_dimension():
    assert len({profile.name for profile in PROFILES}) == len(PROFILES) == 8
    assert {len(profile.preferences) for profile in PROFILES} == {1, 2, 3}
    assert {profile.wordy for profile in PROFILES} == {True, False}
    for profile in (*PROFILES, CONTRADICTING):
        assert set(profile.preferences) <= set(NON_DEFAULT)
        dimensions = [one.dimension for one in profile.preferences]
        assert len(set(dimensions)) == len(dimensions)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_others_wishes_are_opposite_or_elsewhere(profile):
    turned, other = opposite(profile.preferences), elsewhere(profile)
    assert [one.dimension for one in turned] == [one.dimension for one in profile.preferences]
    assert not set(turned) & set(profile.preferences)
    assert len({one.dimension for one in (*profile.preferences, *other)}) == len(profile.preferences) + 2
    assert all(one.value != DEFAULT[one.dimension] for one in other)


def test_lives_are_measured_closely_at_first_and_then_every_64():
    assert checkpoints(64) == (0, 2, 5, 10, 16, 24, 32, 64)
    assert LIFE.measured == (0, 2, 5, 10, 16, 24, 32, 64, 128, 192, 256, 320, 384, 448, 500)


def test_sizes():
    standard = plans.whole(plans.EXTENTS["standard"])
    learning = [one for one in standard if one.arm.name == DEFAULT_ARM and not one.script.name]
    assert len(learning) == 24 and all(one.script.measured[-1] == 64 for one in learning)
    assert sum(one.script is LIFE for one in standard) == 6
    for name, control in CONTROLS.items():
        cells = [one for one in standard if one.script is control]
        assert len(cells) == (2 if control.contradicting else 8), name
    assert len({one.user for one in plans.whole(plans.EXTENTS["full"])}) == len(plans.whole(plans.EXTENTS["full"]))
    smoke = plans.whole(plans.EXTENTS["smoke"])
    assert {one.script.name for one in smoke} == {"", LIFE.name, *CONTROLS}


def test_a_part_is_the_named_arms_or_the_named_controls():
    extent = plans.changed(plans.EXTENTS["standard"], profiles=4, seeds=3, turns=32, prompts=None)
    arms = plans.part(["always", ORACLE], [], extent)
    assert len(arms) == 24 and {one.script.measured[-1] for one in arms} == {32, 0}
    controls = plans.part([], ["flip"], extent)
    assert len(controls) == 12 and {one.arm.name for one in controls} == {DEFAULT_ARM}


# --- running it -------------------------------------------------------------------------------------------------


def test_a_cell_is_measured_once_and_at_its_turns(tmp_path):
    path = tmp_path / "study" / "results.jsonl"
    assert studied([cell(), cell(seed=1)], path)[1] == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted((line["seed"], line["turn"]) for line in lines) == [(s, t) for s in (0, 1) for t in (0, 2, 3)]
    last = next(line for line in lines if line["turn"] == 3)
    assert last["follow_ups"] == 3 == sum(sum(counts.values()) for counts in last["outcomes"].values())
    assert last["bytes"] > 0 and last["num_prompts"] == 2 and len(last["styles"]) == 21
    assert last["recipe"] == ARMS[DEFAULT_ARM].digest and last["model"] == ECHO.digest
    before = path.read_bytes()
    assert studied([cell(), cell(seed=1)], path)[1] == 0
    assert path.read_bytes() == before


def test_an_interrupted_cell_goes_on_with_what_is_missing(tmp_path):
    path = tmp_path / "results.jsonl"
    studied([cell()], path)
    whole = path.read_text().splitlines()
    path.write_text("\n".join(whole[:2]) + "\n" + whole[2][:30])  # torn while the last line was written
    results, left = studied([cell()], path)
    assert left == 0
    assert [line["turn"] for line in results.lines] == [0, 2, 3]
    assert path.read_text().splitlines()[:2] == whole[:2]


def test_no_new_cell_after_the_deadline(tmp_path):
    results, left = studied([cell(), cell(seed=1)], tmp_path / "r.jsonl", deadline=Deadline.after(0))
    assert left == 2 and not results.lines


def test_references_learn_nothing_and_last_k_only_remembers(tmp_path):
    cells = [cell(BASE, 0), cell(ORACLE, 0), cell(LAST, 5)]
    results, left = studied(cells, tmp_path / "r.jsonl")
    assert left == 0 and {line["recipe"] for line in results.lines} == {UNTRAINED}
    assert {line["bytes"] for line in results.lines} == {0}
    outcomes = [kind for line in results.lines for counts in line["outcomes"].values() for kind in counts]
    assert set(outcomes) == {"skipped_learning_off"}


def test_last_k_shows_the_last_follow_ups_in_order():
    context = ARMS[LAST].context(PROFILES[0], 0)
    assert context.messages() == ()
    for number in range(LAST_K + 2):
        context.hear(Said(f"follow-up {number}", "complaint", None))
    said = [message.content for message in context.messages() if message.role == "user"]
    assert said == [f"follow-up {number}" for number in range(2, LAST_K + 2)]
    oracle = ARMS[ORACLE].context(PROFILES[0], 0).messages()
    assert len(oracle) == 1 and oracle[0].role == "system" and isinstance(oracle[0], Message)


@pytest.mark.slow  # seventeen lives, each update a folder that is synced to the disk
def test_every_control_is_wired(tmp_path):
    names = [*CONTROLS, LIFE.name]
    cells = plans.part([], names, plans.EXTENTS["smoke"])
    results, left = studied(cells, tmp_path / "r.jsonl", num_prompts=1)
    assert left == 0
    for name in names:
        measured = {turn for one in cells if one.script.name == name for turn in one.script.measured}
        assert measured and {line["turn"] for line in results.lines if line["control"] == name} == measured


def test_controls_say_what_they_are_named_for(tmp_path):
    said = {
        "after-praise": "praise",
        "after-remarks": "remark",
        "after-questions": "new_topic",
        "fresh-empty": "empty",
        "first-only": "complaint",
    }
    results, _ = studied(plans.part([], list(said), plans.EXTENTS["smoke"]), tmp_path / "r.jsonl")
    last = {line["control"]: set(line["outcomes"]) for line in results.lines if line["turn"]}
    assert last == {name: {kind} for name, kind in said.items()}


def test_a_stage_ends_after_its_complaints(tmp_path):
    flip = CONTROLS["flip"].stages[1]
    assert flip.max_complaints == 10 and flip.measured == (0, 10)
    script = plain(0).__class__("flip", (flip,))
    results, _ = studied([Cell(ARMS[DEFAULT_ARM], script, PROFILES[0], 0)], tmp_path / "r.jsonl")
    last = results.lines[-1]
    assert last["turn"] == 10 and sum(last["outcomes"]["complaint"].values()) <= 10


# --- the file and the command -------------------------------------------------------------------------------------


def test_results_refuse_a_second_measurement_and_broken_lines(tmp_path):
    key = dict.fromkeys(KEY, 0)
    results = Results(tmp_path / "r.jsonl")
    results.add({**key, "joint": 0.5})
    with pytest.raises(InvalidParameter, match="no measurement yet"):
        results.add(key)
    assert Results(results.path).has(key) and not Results(results.path).has({**key, "turn": 1})
    results.path.write_text('{"joint": 1}\n')
    with pytest.raises(InvalidParameter, match=r"r\.jsonl:1"):
        Results(results.path)


def test_the_command_writes_lines_report_pictures_and_figures(tmp_path, capsys):
    arguments = ["--model", "echo", "--profiles", "1", "--seeds", "1", "--turns", "2", "--prompts", "2"]
    places = ["--out", str(tmp_path / "study" / "results.jsonl"), "--figures", str(tmp_path)]
    assert main([*arguments, "--arm", DEFAULT_ARM, *places]) == 0
    assert "1 of 1 cells are whole" in capsys.readouterr().out
    assert (tmp_path / "study" / "curves-echo.png").stat().st_size > 1000
    assert "# Learning study" in (tmp_path / "study" / "report-echo.md").read_text()
    rows = json.loads((tmp_path / "docs" / "figures" / "learning.json").read_text())
    assert len(rows) > 40 and all(row["reason"] for row in rows if row["value"] is None)
    with pytest.raises(SystemExit):
        main(["--arm", "no such arm"])
