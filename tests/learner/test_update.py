"""The update as a whole: exact, isolated, repeatable, and honest about what it did."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import personalize.learner.hindsight as hindsight
import personalize.learner.training as training
from personalize.config import LoraSettings
from personalize.learner import HindsightLearner, Recipe
from personalize.learner.recipe import OFFICIAL_LIVE, PAPER
from personalize.model.folder import read_adapter
from personalize.types import Lesson, Outcome
from tests.learner.conftest import EVERY_TURN, Life, experience, run


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "adapter_model.safetensors")


def test_moves_towards_the_told_model(base, tmp_path):
    life = Life(HindsightLearner(base, Recipe(gate_nats=None, num_steps=8)), tmp_path)
    report = life.learn(experience(1))
    assert report.outcome is Outcome.APPLIED
    assert report.metrics["loss_last"] < 0.7 * report.metrics["loss_first"]
    assert report.metrics["signal"] > 0 and report.metrics["delta_norm"] > 0 and report.metrics["reply_kl"] > 0
    assert report.state.block == report.state.replay == (f"{1:032x}",)
    assert sorted(path.name for path in (tmp_path / "user0" / "1").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_report_carries_the_weights_that_were_written(base, tmp_path):
    life = Life(HindsightLearner(base, EVERY_TURN), tmp_path)
    report = life.learn(experience(1))
    written = read_adapter(tmp_path / "user0" / "1", base)
    for (name, ours), (_, theirs) in zip(report.tensors.named_parameters(), written.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
        assert not ours.requires_grad


def test_base_weights_stay_bit_identical(base, tmp_path):
    before = copy.deepcopy(base.module.state_dict())
    Life(HindsightLearner(base, EVERY_TURN), tmp_path).learn(experience(1))
    assert all(torch.equal(before[name], tensor) for name, tensor in base.module.state_dict().items())


REHEARSING = replace(EVERY_TURN, name="rehearsing", rehearse=1, rehearse_tokens=4)


@pytest.mark.parametrize("recipe", [EVERY_TURN, REHEARSING, PAPER, OFFICIAL_LIVE], ids=lambda recipe: recipe.name)
def test_together_equals_alone(base, tmp_path, recipe):
    """One pass for several users: the same adapters as each user trained alone.

    A large eps, because Adam would blow up the rounding of a gradient that is nearly zero to a whole step.
    """
    learner = HindsightLearner(base, replace(recipe, eps=1e-3))
    alone = [Life(learner, tmp_path / "alone", user) for user in range(3)]
    together = [Life(learner, tmp_path / "together", user) for user in range(3)]
    for round_ in range(3):
        turns = [experience(10 * user + round_, follow_up="no lists" * (user + 1)) for user in range(3)]
        for life, turn in zip(alone, turns, strict=True):
            life.learn(turn)
        paths = [life.out_dir() for life in together]
        lessons = [life.lesson(turn) for life, turn in zip(together, turns, strict=True)]
        reports = run(learner, lessons, [life.head for life in together], paths)
        for life, turn, report, path in zip(together, turns, reports, paths, strict=True):
            life.accept(turn, report, path)
    for one, other in zip(alone, together, strict=True):
        assert one.head and other.head
        ours, theirs = weights(Path(one.head.path)), weights(Path(other.head.path))
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], atol=2e-5, rtol=2e-4)


def test_fifty_steps_from_disk_equal_fifty_in_memory(base, tmp_path, monkeypatch):
    """Every step reloads weights and moments from the last version's folder, and loses not one bit by it."""
    learner = HindsightLearner(base, Recipe(gate_nats=None, num_steps=1, replay=1, rehearse=0, keep_moments=True))
    from_disk, in_memory = Life(learner, tmp_path / "disk"), Life(learner, tmp_path / "memory")
    for number in range(50):
        from_disk.learn(experience(number))
    kept = {}
    original = hindsight.open_pupil

    def open_kept(base, lesson, parent, recipe, settings):
        if "pupil" not in kept:
            kept["pupil"] = original(base, lesson, parent, recipe, settings)
            return kept["pupil"]
        last = kept["pupil"]
        parent_tensors = last.tensors.copy()
        kept["pupil"] = type(last)(lesson, last.tensors, parent_tensors, last.optimizer)
        return kept["pupil"]

    monkeypatch.setattr(hindsight, "open_pupil", open_kept)
    for number in range(50):
        in_memory.learn(experience(number))
    assert from_disk.head and in_memory.head and from_disk.head.number == 50
    disk, memory = weights(Path(from_disk.head.path)), weights(Path(in_memory.head.path))
    assert all(torch.equal(tensor, memory[name]) for name, tensor in disk.items())


def test_a_user_keeps_rank_alpha_and_targets(base, tmp_path):
    """Settings are for new adapters: who began with rank 2 on one module goes on so."""
    first = LoraSettings(r=2, lora_alpha=6, target_modules=("q_proj",))
    life = Life(HindsightLearner(base, EVERY_TURN, first), tmp_path)
    life.learn(experience(1))
    life.learner = HindsightLearner(base, EVERY_TURN, LoraSettings(r=16, lora_alpha=16))
    assert life.learn(experience(2)).outcome is Outcome.APPLIED
    kept = read_adapter(tmp_path / "user0" / "2", base)
    assert (kept.r, kept.lora_alpha) == (2, 6)
    assert all(name.endswith("q_proj") for name in kept.target_modules) and len(kept.target_modules) == 2


def test_lost_moments_start_anew(base, tmp_path):
    life = Life(HindsightLearner(base, EVERY_TURN), tmp_path)
    life.learn(experience(1))
    (tmp_path / "user0" / "1" / "optimizer.safetensors").unlink()
    assert life.learn(experience(2)).outcome is Outcome.APPLIED
    moments = load_file(tmp_path / "user0" / "2" / "optimizer.safetensors")
    assert moments["step"].item() == EVERY_TURN.num_steps


def test_moments_are_taken_from_wherever_they_are_kept(base, tmp_path):
    """Publishing moves them out of the version's folder; the lesson then says where they are."""
    beside, together = (Life(HindsightLearner(base, EVERY_TURN), tmp_path / name) for name in "ab")
    for life in (beside, together):
        life.learn(experience(1))
    moved = (tmp_path / "a" / "user0" / "1" / "optimizer.safetensors").rename(tmp_path / "moved.safetensors")
    lesson, path = replace(beside.lesson(experience(2)), moments=str(moved)), beside.out_dir()
    run(beside.learner, [lesson], [beside.head], [path])
    together.learn(experience(2))
    ours, theirs = (load_file(folder / "optimizer.safetensors") for folder in (path, tmp_path / "b" / "user0" / "2"))
    assert ours["step"].item() == 2 * EVERY_TURN.num_steps
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_no_signal_and_no_block_changes_nothing(base, tmp_path):
    life = Life(HindsightLearner(base, Recipe(gate_nats=1e9)), tmp_path)
    report = life.learn(experience(1))
    assert report.outcome is Outcome.SKIPPED_LOW_SIGNAL
    assert report.tensors is None and report.metrics["signal"] > 0
    assert list((tmp_path / "user0" / "1").iterdir()) == []


def test_a_quiet_turn_trains_under_the_standing_block(base, tmp_path):
    life = Life(HindsightLearner(base, EVERY_TURN), tmp_path)
    life.learn(experience(1))
    life.learner = HindsightLearner(base, Recipe(gate_nats=1e9, num_steps=1, replay=2))
    report = life.learn(experience(2))
    assert report.outcome is Outcome.APPLIED and report.state.block == (f"{1:032x}",)
    assert report.state.replay == (f"{1:032x}",), "a turn on which hindsight changes nothing is not worth a replay"
    life.learner = HindsightLearner(base, Recipe(gate_nats=1e9, lapse_nats=None))
    assert life.learn(experience(3)).outcome is Outcome.SKIPPED_LOW_SIGNAL


def test_steps_end_once_the_teacher_is_near_enough(base, tmp_path):
    patient = Recipe(gate_nats=None, lr=1e-2, num_steps=64, replay=0, rehearse=0, enough_nats=0.0)
    full = Life(HindsightLearner(base, patient), tmp_path / "full").learn(experience(1))
    report = Life(HindsightLearner(base, replace(patient, enough_nats=0.2)), tmp_path / "near").learn(experience(1))
    assert full.metrics["num_steps"] == 64
    assert 1 < report.metrics["num_steps"] < 64
    per_reply = report.metrics["loss_last"] * report.metrics["num_trained_tokens"]
    assert full.metrics["loss_last"] * full.metrics["num_trained_tokens"] < per_reply <= 0.2


def test_who_answers_as_the_teacher_would_is_left_alone(base, tmp_path):
    life = Life(HindsightLearner(base, EVERY_TURN), tmp_path)
    first = life.learn(experience(1))
    assert first.outcome is Outcome.APPLIED
    for number, gate_nats in ((2, None), (3, 1e9)):
        life.learner = HindsightLearner(base, replace(EVERY_TURN, gate_nats=gate_nats, enough_nats=1e6))
        report = life.learn(experience(number))
        assert report.outcome is Outcome.SKIPPED_LOW_SIGNAL
        assert report.tensors is None and report.metrics["num_steps"] == 0
        assert report.state == first.state


def test_everybody_ends_alone(base, tmp_path):
    """One user is done long before another in the same pass; both get what they would get alone."""
    recipe = Recipe(gate_nats=None, lr=1e-2, num_steps=24, replay=0, rehearse=0, enough_nats=0.4, eps=1e-3)
    learner = HindsightLearner(base, recipe)
    turns = [experience(user, follow_up="x" * (1 + 3 * user)) for user in range(3)]
    alone = [Life(learner, tmp_path / "alone", user) for user in range(3)]
    reports = [life.learn(turn) for life, turn in zip(alone, turns, strict=True)]
    assert len({report.metrics["num_steps"] for report in reports}) > 1
    paths = [Life(learner, tmp_path / "together", user).out_dir() for user in range(3)]
    together = run(learner, [Lesson(turn, (), type(reports[0].state)()) for turn in turns], [None] * 3, paths)
    for life, report, other, path in zip(alone, reports, together, paths, strict=True):
        assert other.metrics["num_steps"] == report.metrics["num_steps"]
        assert life.head
        ours, theirs = weights(Path(life.head.path)), weights(path)
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], atol=2e-5, rtol=2e-4)


def test_erased_turns_are_left_out(base, tmp_path):
    life = Life(HindsightLearner(base, EVERY_TURN), tmp_path)
    for number in (1, 2, 3):
        life.learn(experience(number))
    life.turns = [turn for turn in life.turns if turn.turn_id != f"{2:032x}"]
    report = life.learn(experience(4))
    assert report.outcome is Outcome.APPLIED
    assert f"{2:032x}" not in report.state.block


@pytest.mark.parametrize(
    ("recipe", "outcome"),
    [
        (Recipe(gate_nats=None, max_delta_norm=1e-6), Outcome.REJECTED_NORM),
        (Recipe(gate_nats=None, max_reply_kl=1e-9), Outcome.REJECTED_KL),
    ],
)
def test_guards_reject_before_anything_is_written(base, tmp_path, recipe, outcome):
    life = Life(HindsightLearner(base, recipe), tmp_path)
    report = life.learn(experience(1))
    assert report.outcome is outcome and report.tensors is None
    assert list((tmp_path / "user0" / "1").iterdir()) == []


def test_an_adapter_that_finds_the_canaries_implausible_is_rejected(base, tmp_path, monkeypatch):
    monkeypatch.setattr("personalize.learner.canaries.FALL_NATS", 1.0)  # a random model is sure of nothing
    recipe = Recipe(gate_nats=None, lr=1.0, max_reply_kl=1e9, max_delta_norm=1e9, max_canary_loss=0.1)
    report = Life(HindsightLearner(base, recipe), tmp_path).learn(experience(1))
    assert report.outcome is Outcome.REJECTED_CANARY
    assert report.metrics["canary_loss"] > 0.1


@pytest.mark.parametrize("enough_nats", [0.0, 1e-3])
def test_a_poisoned_loss_is_rejected_for_its_user_alone(base, tmp_path, monkeypatch, enough_nats):
    learner = HindsightLearner(base, replace(EVERY_TURN, enough_nats=enough_nats))
    first, second = experience(1), experience(2)
    original = training.forward_kl

    def poisoned(student_NV, teacher_NV):
        factor = torch.ones(len(student_NV))
        factor[: len(first.completion_ids)] = torch.nan
        return original(student_NV, teacher_NV) * factor

    monkeypatch.setattr(training, "forward_kl", poisoned)
    paths = [tmp_path / "0", tmp_path / "1"]
    for path in paths:
        path.mkdir()
    reports = run(learner, [Lesson(first), Lesson(second)], [None, None], paths)
    assert [report.outcome for report in reports] == [Outcome.REJECTED_NONFINITE, Outcome.APPLIED]
    assert list(paths[0].iterdir()) == []
    assert all(tensor.isfinite().all() for tensor in weights(paths[1]).values())


def test_oversized_and_untrainable_turns(base, tmp_path):
    learner = HindsightLearner(base, EVERY_TURN)
    long = experience(1, follow_up="x" * 600)
    silent = experience(2)
    silent = type(silent)(**{**{f: getattr(silent, f) for f in silent.__slots__}, "completion_mask": (0,) * 11})
    good = experience(3)
    paths = [tmp_path / str(i) for i in range(3)]
    for path in paths:
        path.mkdir()
    reports = run(learner, [Lesson(long), Lesson(silent), Lesson(good)], [None] * 3, paths)
    assert [report.outcome for report in reports] == [
        Outcome.SKIPPED_TOO_LONG,
        Outcome.SKIPPED_LOW_SIGNAL,
        Outcome.APPLIED,
    ]


def test_an_abandoned_update_leaves_no_trace(base, tmp_path):
    windows = HindsightLearner(base, EVERY_TURN).update([Lesson(experience(1))], [None], [tmp_path])
    for _ in range(3):
        assert next(windows).reports is None
    windows.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("objective", ["forward_kl", "reverse_kl", "top_k", "sampled"])
@pytest.mark.parametrize("teacher", ["base", "live", "scaled"])
def test_every_arm_runs_and_moves(base, tmp_path, objective, teacher):
    recipe = Recipe(
        objective=objective, teacher=teacher, gate_nats=None, replay=1, rehearse=1, rehearse_tokens=4, num_steps=2
    )
    life = Life(HindsightLearner(base, recipe), tmp_path)
    for number in (1, 2):
        report = life.learn(experience(number))
        assert report.outcome is Outcome.APPLIED
        assert report.metrics["delta_norm"] > 0
