"""What must hold on a GPU: alone = together, NaN stays where it is, graphs change nothing, learning disturbs nobody."""

import pytest
import torch
from torch.nn import functional

from personalize.engine.sequences import Phase
from personalize.model.rows import AdapterRows
from personalize.model.slot_rows import SlotRows
from tests.engine.stage import collect, drain, make_ref, prompt, request
from tests.gpu import stage
from tests.gpu.stage import HAS_TRITON, base_on, engine_on
from tests.model.tiny import random_adapter, random_ids

device = stage.device
RANKS = {1: 2, 2: 4, 3: 7}


def refs_in(engine):
    """Put three adapters of three ranks into slots; return their names, the base first."""
    for user, r in RANKS.items():
        tensors = random_adapter(engine.base, user, r=r).copy(device=engine.base.device)
        assert engine.prepare(make_ref(user), tensors)
    return [None, *(make_ref(user) for user in RANKS)]


def replies(engine, refs, max_tokens=4):
    """Serve one request per name, all at once; return their tokens."""
    sequences = [engine.add(request(prompt(5 + n, n), ref, max_tokens=max_tokens)) for n, ref in enumerate(refs)]
    results = drain(engine)
    return [results[sequence][0] for sequence in sequences]


@pytest.mark.slow  # Triton's interpreter runs every program of every kernel one by one
def test_together_is_alone(device):
    base = base_on(device)
    engine = engine_on(base, max_num_seqs=4)
    refs = refs_in(engine)
    alone = []
    for n, ref in enumerate(refs):
        sequence = engine.add(request(prompt(5 + n, n), ref, max_tokens=4))
        alone.append(drain(engine)[sequence][0])
    assert replies(engine, refs) == alone
    assert len({tuple(ids) for ids in alone}) > 1


def test_rows_are_those_of_the_plain_formulation(device):
    base, plain = base_on(device), base_on(torch.device("cpu"))
    plain.has_kernels = False
    engine = engine_on(base, max_num_seqs=4)
    refs_in(engine)
    slots = [0, *(engine.bank.acquire(make_ref(user).name) for user in RANKS)]
    if device.type == "cuda" and HAS_TRITON:
        assert isinstance(engine.bank.decode_rows(slots), SlotRows), "the kernels failed their trial on this GPU"
    ids = random_ids((4, 6))
    adapters = [None, *(random_adapter(plain, user, r=r) for user, r in RANKS.items())]
    with torch.no_grad():
        given = base.hidden(ids.to(device), rows=engine.bank.rows(slots)).cpu()
        expected = plain.hidden(ids, rows=AdapterRows.of(adapters))
    torch.testing.assert_close(given, expected, atol=2e-3, rtol=1e-3)


@pytest.mark.slow  # Triton's interpreter runs every program of every kernel one by one
@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
def test_neighbours_of_nan_keep_every_bit(device, graphs):
    def watched(poison):
        base = base_on(device)
        engine = engine_on(base, graphs=graphs, max_num_seqs=4)
        refs = refs_in(engine)
        sequences = [engine.add(request(prompt(6, n), refs[n], max_tokens=7)) for n in range(4)]
        results, seen = {}, []
        decode = engine.runner.decode
        engine.runner.decode = lambda running: seen.append(decode(running).clone()) or seen[-1]
        for step in range(6):
            if poison and step == 3:
                for victim in (sequences[1], sequences[3]):
                    assert victim.phase is Phase.DECODE
                    for a, b in engine.bank.tensors(victim.slot).values():
                        a.fill_(torch.nan), b.fill_(torch.inf)
                    engine.bank._kept.forget(victim.slot)
                    for layer in engine.runner.cache.rows:
                        layer.keys[victim.row].fill_(torch.nan)
            collect(engine.step(), results)
        return seen, results, sequences

    clean, _, _ = watched(poison=False)
    dirty, results, sequences = watched(poison=True)
    for step, (before, after) in enumerate(zip(clean[:3], dirty[:3], strict=True)):
        assert torch.equal(before[[0, 2]], after[[0, 2]]), f"decode step {step}"
    assert dirty[2][1].isnan().any(), "the victims must have been hit for this to mean anything"
    for victim in (sequences[1], sequences[3]):
        assert results[victim][2].code == "adapter_corrupt"


@pytest.mark.slow  # Triton's interpreter runs every program of every kernel one by one
def test_graphs_change_no_token(device):
    expected = None
    for graphs in (False, True):
        base = base_on(device)
        engine = engine_on(base, graphs=graphs, max_num_seqs=4, max_num_batched_tokens=16)
        refs = refs_in(engine)
        results, sequences = {}, []
        for n, length in enumerate((5, 30, 9)):  # the second one is prefilled in chunks beside the first one's steps
            sequences.append(engine.add(request(prompt(length, n), refs[n], max_tokens=6)))
            collect(engine.step(), results)
            collect(engine.step(), results)
        drain(engine, results)
        told = [results[sequence][0] for sequence in sequences]
        assert expected in (None, told)
        expected = told
        if graphs:
            known = engine.runner.graphs._known.values()
            assert any(one.recording is not None for one in known), "nothing was recorded"


@pytest.mark.slow  # Triton's interpreter runs every program of every kernel one by one
def test_learning_between_two_steps_disturbs_nobody_and_is_not_disturbed(device):
    base = base_on(device)
    learnt = random_adapter(base, 9, r=4).copy(device=device)
    ids = random_ids((2, 8), 3).to(device)

    def gradients():
        mine = [learnt.copy(requires_grad=True) for _ in range(2)]
        logits = base.head(base.hidden(ids, rows=AdapterRows.of(mine)))
        functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        return [tensor.grad for adapter in mine for tensor in adapter.parameters()]

    alone = gradients()
    served = replies(engine_on(base, graphs=True, max_num_seqs=4), [None, None], max_tokens=5)
    engine = engine_on(base, graphs=True, max_num_seqs=4)
    sequences = [engine.add(request(prompt(5 + n, n), None, max_tokens=5)) for n in range(2)]
    results: dict = {}
    while engine.has_work:
        collect(engine.step(), results)
        for got, expected in zip(gradients(), alone, strict=True):
            torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4)
    assert [results[sequence][0] for sequence in sequences] == served


def test_an_allocation_that_fails_ends_one_request_and_nothing_else(device, monkeypatch):
    base = base_on(device)
    engine = engine_on(base, graphs=True, max_num_seqs=4)
    expected = replies(engine_on(base, graphs=True, max_num_seqs=4), [None], max_tokens=6)[0]
    running, results = engine.add(request(prompt(5, 0), max_tokens=6)), {}
    for _ in range(3):
        collect(engine.step(), results)
    with monkeypatch.context() as patch:
        patch.setattr(engine.runner, "prefill", lambda _: torch.empty(1 << 55, device=device))
        doomed = engine.add(request(prompt(6, 2)))
        while doomed.phase is not Phase.ENDED:
            collect(engine.step(), results)
    assert results[doomed][2].code == "model_error"
    drain(engine, results)
    assert results[running][0] == expected
    again = engine.add(request(prompt(5, 0), max_tokens=6))
    assert drain(engine)[again][0] == expected
