"""The logic around recorded decode steps, with a recorder that calls the step again: shapes, buffers, what it drops."""

import logging

import pytest
import torch

from personalize.engine import graphs
from personalize.engine.graphs import DecodeGraphs, EveryRow, key_bucket
from personalize.engine.row_cache import NextTokens
from tests.engine.stage import collect, drain, engine_for, make_ref, prompt, request
from tests.model.tiny import random_adapter, tiny_base


class Recorder:
    """Instead of kernels it keeps the call; replaying writes into one tensor, as a graph does."""

    def __init__(self):
        self.recordings: list[Again] = []

    def __call__(self, work):
        self.recordings.append(Again(work))
        return self.recordings[-1]


class Again:
    def __init__(self, work):
        self.work, self.output, self.num_replays = work, None, 0

    def replay(self):
        self.num_replays += 1
        logits = self.work()
        self.output = logits if self.output is None else self.output.copy_(logits)
        return self.output


def engine_with_graphs(base, record=None, **settings):
    engine = engine_for(base, end_ids=(), **settings)
    recorder = record or Recorder()
    engine.runner.graphs = DecodeGraphs(base, engine.bank, engine.runner.cache, recorder)
    return engine, recorder


def talk(engine, base, lengths=(5, 9, 17, 3, 30, 7)):
    """Serve requests that come one by one, with and without adapters; return everybody's tokens in order."""
    refs = [None, make_ref(1), make_ref(2)]
    for ref, seed in ((refs[1], 1), (refs[2], 2)):
        engine.prepare(ref, random_adapter(base, seed, r=2 + seed))
    results, sequences = {}, []
    for n, length in enumerate(lengths):
        sequences.append(engine.add(request(prompt(length, n), refs[n % 3], max_tokens=8 + n)))
        for _ in range(n % 3 + 1):
            collect(engine.step(), results)
    drain(engine, results)
    return [results[sequence][0] for sequence in sequences]


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_neox"])
def test_replayed_steps_say_what_eager_ones_say(family):
    base = tiny_base(family)
    expected = talk(engine_for(base, end_ids=(), max_num_seqs=4, max_num_batched_tokens=16), base)
    engine, recorder = engine_with_graphs(base, max_num_seqs=4, max_num_batched_tokens=16)
    assert talk(engine, base) == expected
    assert sum(one.num_replays for one in recorder.recordings) > 10
    for layer in engine.runner.cache.rows:
        assert not layer.keys.any() and not layer.values.any(), "steps wrote into rows that nobody had"


def test_the_second_step_of_a_shape_is_recorded_and_the_third_one_replayed():
    engine, recorder = engine_with_graphs(tiny_base(), max_num_seqs=2)
    engine.add(request(prompt(5, 1), max_tokens=9))
    engine.step()
    counts = []
    for _ in range(5):
        engine.step()
        counts.append((len(recorder.recordings), sum(one.num_replays for one in recorder.recordings)))
    assert counts == [(0, 0), (1, 1), (1, 2), (1, 3), (1, 4)]


def test_rows_that_do_not_decode_keep_every_bit():
    stored = torch.randn(3, 2, 8, 4)
    new, positions, active = torch.randn(3, 2, 1, 4), torch.tensor([2, 0, 5]), torch.tensor([True, False, True])
    mine, theirs = stored.clone(), stored.clone()
    read = EveryRow(positions, active, 6).place(mine, new)
    expected = NextTokens(positions, torch.tensor([0, 2]), 6).place(theirs, new)
    assert torch.equal(mine, theirs) and torch.equal(read, expected)
    assert torch.equal(mine[1], stored[1]) and not torch.equal(mine[0], stored[0])


def test_nan_of_a_row_that_does_not_decode_stays_there():
    stored, new = torch.zeros(2, 1, 4, 2), torch.ones(2, 1, 1, 2)
    stored[1] = torch.nan
    EveryRow(torch.tensor([1, 0]), torch.tensor([True, False]), 4).place(stored, new)
    assert torch.isfinite(stored[0]).all() and stored[1].isnan().all()


def test_lengths_fall_into_few_buckets():
    assert [key_bucket(n, 4096) for n in (1, 256, 257, 512, 513, 4096)] == [256, 256, 512, 512, 1024, 4096]
    assert key_bucket(300, 320) == 320
    assert len({key_bucket(n, 4096) for n in range(1, 4097)}) == 5


def test_storage_that_has_grown_is_recorded_again_and_the_old_one_let_go():
    base = tiny_base()
    engine, recorder = engine_with_graphs(base, max_num_seqs=2, max_lora_rank=16)
    engine.prepare(make_ref(1), random_adapter(base, 1, r=4))
    first = engine.add(request(prompt(5, 1), make_ref(1), max_tokens=40))
    results: dict = {}
    for _ in range(5):
        collect(engine.step(), results)
    before = len(recorder.recordings)
    engine.prepare(make_ref(2), random_adapter(base, 2, r=16))  # the bank grows to its rank
    for _ in range(4):
        collect(engine.step(), results)
    assert before == 1 and len(recorder.recordings) == 2
    known = engine.runner.graphs._known
    assert [one.adapters for one in known.values()] == [engine.bank.decode_rows([first.slot])]
    engine.add(request(prompt(5, 2), make_ref(2), max_tokens=40))  # a second row: the cache grows too
    drain(engine, results)
    assert {one.keys is engine.runner.cache.rows[0].keys for one in known.values()} == {True}
    plain = engine_for(base, end_ids=(), max_num_seqs=2, max_lora_rank=16)
    plain.prepare(make_ref(1), random_adapter(base, 1, r=4))
    again = plain.add(request(prompt(5, 1), make_ref(1), max_tokens=40))
    assert drain(plain)[again][0] == results[first][0]


def test_only_so_many_recordings_are_kept(monkeypatch):
    monkeypatch.setattr(graphs, "MAX_RECORDINGS", 2)
    base = tiny_base()
    engine, _ = engine_with_graphs(base, max_num_seqs=4)
    talk(engine, base)
    assert len(engine.runner.graphs._known) == 2


@pytest.mark.parametrize("failure", ["raises", "differs", "nan"])
def test_what_cannot_be_recorded_runs_eagerly(failure, caplog):
    base = tiny_base()
    expected = talk(engine_for(base, end_ids=(), max_num_seqs=2), base)
    attempts = []

    def record(work):
        attempts.append(work)
        if failure == "raises":
            raise torch.OutOfMemoryError("no memory for the pool")
        off = 1.0 if failure == "differs" else torch.nan
        return Again(lambda: work() + off)

    engine, _ = engine_with_graphs(base, record, max_num_seqs=2)
    with caplog.at_level(logging.WARNING):
        assert talk(engine, base) == expected
    assert len(attempts) == 1 and "run eagerly from now on" in caplog.text


def test_on_a_cpu_nothing_is_recorded():
    assert engine_for(tiny_base(), max_num_seqs=1, cuda_graphs=True).runner.graphs is None
