"""The benchmarks of serving: rows decode on the adapters that are counted, and all sides give the same tokens."""

from dataclasses import replace

import pytest
import torch

from personalize.evaluation.bench import decode, peft_serving, prefill, throughput
from personalize.evaluation.bench.peers import Decoding, generate, peft_model
from personalize.evaluation.bench.samples import Samples, in_turn
from personalize.evaluation.bench.serving import decoding, load_adapters
from tests.evaluation.bench import SCALE, tiny


@pytest.fixture(scope="module")
def subject():
    return tiny()


@pytest.fixture()
def slots(monkeypatch):
    """Slots of every decode forward of every engine."""
    from personalize.model.bank import AdapterBank

    seen, real = [], AdapterBank.decode_rows

    def decode_rows(bank, slots):
        seen.append(tuple(slots))
        return real(bank, slots)

    monkeypatch.setattr(AdapterBank, "decode_rows", decode_rows)
    return seen


def values(rows):
    return {row.figure: row.value for row in rows}


def test_rounds_begin_with_another_side_and_ratios_are_taken_within_a_round():
    order = []
    sides = {name: lambda name=name: order.append(name) or float(len(order)) for name in "ab"}
    samples = in_turn(sides, 2)
    assert order == ["a", "b", "b", "a"] and samples.rounds == {"a": [1.0, 4.0], "b": [2.0, 3.0]}
    drifting = Samples({"mine": [2.0, 20.0, 200.0], "base": [1.0, 10.0, 100.0]})
    assert drifting.ratio("mine", "base") == 2.0 and drifting.medians() == {"mine": 20.0, "base": 10.0}


def test_every_count_of_distinct_adapters_is_what_the_rows_decode_with(subject, slots):
    rows = decode.measure_distinct(subject, SCALE)
    assert [row.curve[1] for row in rows] == [1, 4] and all(row.value > 0 for row in rows)
    distinct = [len(set(one)) for one in slots if any(one)]
    assert {1, 4} == set(distinct) and all(0 not in one for one in slots if any(one))
    assert any(not any(one) for one in slots), "the side without adapters decodes without any"
    (row,) = decode.measure_distinct(subject, replace(SCALE, distinct=(2, 16)))
    assert row.curve[1] == 2, "sixteen do not fit four rows"


def test_rows_that_do_not_decode_are_an_error(subject):
    engine = subject.engine(2)
    refs = load_adapters(engine, 2)
    with pytest.raises(RuntimeError, match="not every row decoded"), decoding(subject, engine, refs, 4, steps=3):
        engine.step()
    ended = replace(subject, vocabulary=EveryTokenEnds())
    engine = ended.engine(2)
    with pytest.raises(RuntimeError, match="do not decode"), decoding(ended, engine, [None, None], 4, steps=1):
        engine.step()


class EveryTokenEnds:
    end_ids = frozenset(range(8192))

    def decode(self, ids):
        return ""


def test_mixes_of_users():
    assert len(set(decode.users_of("uniform", 16))) > 4
    assert len(set(decode.users_of("zipf", 16))) < 16
    skewed = decode.users_of("skewed", 16)
    assert skewed.count(0) == 8 and len(set(skewed)) == 9 and max(skewed) < 16


def test_mixes_ranks_batches_and_prefill_are_measured(subject):
    rows = [
        *decode.measure_mixes(subject, SCALE), *decode.measure_ranks(subject, SCALE),
        *decode.measure_batches(subject, SCALE), *prefill.measure(subject, SCALE),
    ]  # fmt: skip
    assert len(rows) == 5 + 3 + 2 + 3 and len(values(rows)) == len(rows)
    assert all(row.value > 0 for row in rows)


def test_generate_gives_every_row_all_its_tokens(subject):
    prompts = [subject.prompt(length, length) for length in (3, 7)]
    given = generate(subject.stock, prompts, 9)
    assert given.shape == (2, 9)
    subject.stock.generation_config.eos_token_id = list(range(8192))
    try:
        with pytest.raises(RuntimeError, match="generate gave"):
            generate(subject.stock, prompts, 9)
    finally:
        subject.stock.generation_config.eos_token_id = None


def test_the_peers_are_the_same_model_on_the_same_weights(subject):
    ours = dict(subject.base.module.named_parameters())
    assert all(p.data_ptr() == ours[name].data_ptr() for name, p in subject.stock.named_parameters())
    ids = torch.tensor([subject.prompt(9, 1)])
    with torch.no_grad():
        expected = subject.base.head(subject.base.hidden(ids))
        assert torch.allclose(subject.stock(input_ids=ids).logits, expected, atol=1e-5)
        peer = peft_model(subject, 2)
        with peer.disable_adapter():
            assert torch.allclose(peer(input_ids=ids).logits, expected, atol=1e-5)
        named = [peer(input_ids=ids, adapter_names=[name]).logits for name in ("u0", "u1")]
    assert not torch.equal(named[0], named[1])


def test_every_side_gives_the_same_number_of_tokens(subject, monkeypatch):
    counts = {"engine": 0, "generate": 0}
    monkeypatch.setattr(throughput, "_check", lambda given, expected: counts.update(engine=(given, expected)))
    real = throughput.generate
    monkeypatch.setattr(throughput, "generate", lambda *a: counts.update(generate=real(*a).numel()))
    (row,) = throughput.measure_equal(subject, SCALE)
    tokens = SCALE.batch * SCALE.new_tokens
    assert counts == {"engine": (tokens, tokens), "generate": tokens} and row.value > 0


def test_a_reply_that_ends_early_is_an_error(subject):
    ended = replace(subject, vocabulary=EveryTokenEnds())
    with pytest.raises(RuntimeError, match="ended early"):
        throughput.measure_equal(ended, SCALE)


def test_staggered_requests_have_mixed_lengths_and_all_are_served(subject):
    load = throughput.arrivals(SCALE)
    assert [one.at_steps for one in load] == sorted(one.at_steps for one in load) and load[0].at_steps == 0
    assert len({one.prompt for one in load}) > 1 and len({one.new_tokens for one in load}) > 1
    (row,) = throughput.measure_staggered(subject, SCALE)
    assert row.value > 0 and set(row.samples) == {"ours", "generate", "requests (number)", "step"}


def test_the_same_load_is_served_with_the_users_adapters(subject, slots):
    (row,) = throughput.measure_zipf(subject, SCALE)
    assert row.value > 0 and row.goal is None
    assert len({slot for one in slots for slot in one if slot}) > 1


def test_continuous_batching_gives_as_many_tokens(subject):
    (row,) = throughput.measure_continuous(subject, SCALE)
    assert row.value > 0


def test_peft_serves_every_user(subject):
    rows = peft_serving.measure(subject, SCALE)
    assert len(rows) == 4 and all(row.value > 0 for row in rows)
    rows = Decoding(subject.stock, [subject.prompt(4, n) for n in range(3)])
    before = rows.last.clone()
    rows.step()
    assert rows.last.shape == (3, 1) and before.shape == (3, 1)
