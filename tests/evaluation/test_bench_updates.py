"""The benchmarks of learning: only applied updates are timed, and what is counted is what is computed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from personalize.evaluation.bench import load, many_updates, overload, publish, streams, update
from personalize.evaluation.bench.flops import Cost, flops_needed, gemm_rate
from personalize.evaluation.bench.lessons import (
    ONE_STEP,
    experience,
    lesson,
    num_student_tokens,
    num_teacher_tokens,
    parents,
    warm_learner,
)
from personalize.evaluation.bench.lessons import update as run_update
from personalize.evaluation.bench.peer_training import PeftTrainer
from personalize.evaluation.bench.peers import peft_model
from tests.evaluation.bench import SCALE, tiny


@pytest.fixture(scope="module")
def subject():
    return tiny()


def test_a_turn_has_the_lengths_that_were_asked_for(subject):
    turn = experience(subject.base, 3, 64, 6)
    assert 56 <= len(turn.prompt_ids) <= 64 and len(turn.completion_ids) == sum(turn.completion_mask) == 6
    assert num_student_tokens(turn) == (len(turn.prompt_ids) - 1, 6)
    assert num_teacher_tokens(subject.base, turn) > len(turn.prompt_ids) + 5, "the teacher reads the block as well"


def test_only_applied_updates_are_measured(subject, tmp_path):
    refusing = warm_learner(subject.base, replace(ONE_STEP, max_delta_norm=0.0))
    with pytest.raises(RuntimeError, match="rejected_norm"):
        run_update(refusing, [lesson(subject.base, 1, 64, 6, ONE_STEP)], [None], tmp_path)


def test_updates_begin_at_a_version(subject):
    with parents(subject, 2) as refs:
        names = [sorted(path.name for path in Path(ref.path).iterdir()) for ref in refs]
    assert names == [["adapter_config.json", "adapter_model.safetensors"]] * 2


def test_an_update_over_its_reply_and_over_its_flops(subject):
    rows = update.measure(subject, replace(SCALE, histories=(64, 9000), recipe_rounds=1))
    over_reply, over_flops, whole, too_long = rows
    assert over_reply.value > 0 and over_flops.value > 0 and whole.value > over_reply.value
    assert too_long.value is None and "context of 4096" in too_long.reason
    assert over_flops.samples["GFLOP needed"] > 0


def test_the_whole_recipe_can_be_left_out(subject):
    *_, whole = update.measure(subject, SCALE)
    assert whole.is_left_out and whole.value is None


def test_flops_are_those_of_a_count_by_hand(subject):
    base = subject.base
    weights = 2 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48)  # two layers: q, k and v, o, gate, up and down
    head, pair = 32 * 8192, 2 * 4 * 8  # pair: layers x heads x head size, one product
    cost = Cost.of(base)
    assert cost.forward(3, 2) == 2 * weights * 3 + 2 * head * 2 + 4 * pair * (1 + 2 + 3)
    assert cost.forward(2, 1, before=5) == 2 * weights * 2 + 2 * head + 4 * pair * (6 + 7)
    assert cost.backward(2, 1, before=5) == 2 * weights * 2 + 2 * head + 8 * pair * (6 + 7)
    turn, learner = experience(base, 1, 64, 6), warm_learner(base, ONE_STEP)
    dense = 2 * weights * (num_teacher_tokens(base, turn) + 2 * 6 + len(turn.prompt_ids) + 5)
    canaries = sum(len(one.prompt_ids) + len(one.completion_ids) - 1 for one in learner.canaries.rows)
    assert flops_needed(base, turn, learner) > dense + 2 * weights * canaries
    assert gemm_rate(subject, (6, 64)) > 1e6


def test_a_plain_peft_step_is_the_same_step(subject, tmp_path):
    """Same loss as ours on a new adapter, and it moves that user's weights only."""
    taught = lesson(subject.base, 1, 64, 6, ONE_STEP)
    (report,) = run_update(warm_learner(subject.base, replace(ONE_STEP, tolerance=None)), [taught], [None], tmp_path)
    model = peft_model(subject, 2)
    weights = {name: p for name, p in model.named_parameters() if "lora_" in name}
    for name, parameter in weights.items():
        if "lora_B" in name:
            parameter.data.zero_()
    before = {name: p.detach().clone() for name, p in weights.items()}
    loss = PeftTrainer(model, 2, ONE_STEP).step(1, subject.base, taught.experience)
    assert loss == pytest.approx(report.metrics["loss_first"], rel=1e-3)
    assert loss > 0.01, "teacher and student differ, so that agreeing says something"
    moved = {name for name, p in weights.items() if not torch.equal(p, before[name])}
    assert moved and all(".u1." in name for name in moved)


def test_many_users_together(subject):
    rows = many_updates.measure(subject, SCALE)
    assert [row.value > 0 for row in rows] == [True, True] and set(rows[0].samples) == {"together", "alone", "PEFT"}
    assert rows[0].reason is None, "all of them are timed"
    for row in many_updates.measure(subject, replace(SCALE, histories=(9000,))):
        assert row.value is None and "context" in row.reason


def test_a_user_timed_alone_counts_for_those_who_are_not(subject, monkeypatch):
    counts = {"ours": 0, "peer": 0}
    step, taught = PeftTrainer.step, many_updates.update

    def ours(learner, lessons, *others):
        counts["ours"] += len(lessons) == 1
        return taught(learner, lessons, *others)

    def peer(*words):
        counts["peer"] += 1
        return step(*words)

    def ten_ms(work, device):
        work()
        return 10.0

    monkeypatch.setattr(many_updates, "update", ours)
    monkeypatch.setattr(PeftTrainer, "step", peer)
    monkeypatch.setattr(many_updates, "elapsed_ms", ten_ms)
    over_peft, over_own = many_updates.measure(subject, replace(SCALE, users=3, alone=1))
    assert counts == {"ours": 1, "peer": 1} and over_peft.value == over_own.value == 3.0
    assert over_own.reason == "one after another: 1 of the 3 users timed"


def test_streams_run_beside_an_update(subject):
    beside, whole = streams.measure(subject, SCALE)
    assert beside.value > 0 and beside.samples["longest"] > 0 and whole.is_left_out


def test_a_stream_that_ends_is_an_error(subject, monkeypatch):
    monkeypatch.setattr(streams, "_room", lambda *_: 2)
    with pytest.raises(RuntimeError, match="a stream ended"):
        streams.measure(subject, SCALE)


def test_the_load_learns_from_every_reply(subject):
    kept, p50, p95 = load.measure(subject, SCALE)
    assert kept.n == 4 and kept.samples["updates (number)"] == 4, "two users, two replies each"
    assert kept.value > 0 and kept.samples["kept (share)"] > 0 and 0 < kept.samples["bound (share)"] < 1
    assert 0 < p50.value <= p95.value and p50.n == 4


def test_publishing_cold_starts_and_first_tokens(subject):
    (swap,) = publish.measure_swap(subject, SCALE)
    (cold,) = publish.measure_cold(subject, SCALE)
    first, idle = publish.measure_first_token(subject, SCALE)
    assert swap.value > 0 and cold.value is not None and cold.unit == "ms" and first.value > 0
    assert idle.value > 0 and idle.figure.endswith("after idle re-prefill")
    assert idle.samples["prefilled again"] > 0


def test_an_overloaded_service_leaves_no_update_without_an_outcome(subject, monkeypatch):
    monkeypatch.setattr(overload, "_MIN_LIMIT_S", 1.2)
    monkeypatch.setattr(overload, "MAX_BATCH", 1)
    monkeypatch.setattr(overload, "_LIMITS", 2)
    (row,) = overload.measure(subject, SCALE)
    assert (
        row.n >= 4 and row.value > 0 and row.samples["longest wait"] == pytest.approx(row.value * row.samples["limit"])
    )
    assert "applied" in row.reason
