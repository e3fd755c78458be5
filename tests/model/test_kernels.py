"""The Triton kernels against the slow, obvious version: one row, one token, one product at a time."""

import logging

import pytest
import torch
from torch.nn import functional

from tests.model.interpreted import DEVICE  # isort: split

from personalize.errors import ModelError
from personalize.model import base as base_module
from personalize.model import kernels
from personalize.model.bank import AdapterBank
from personalize.model.kernels import functions, products, trial
from personalize.model.rows import AdapterRows
from personalize.model.sharing import sharing
from personalize.model.slot_rows import SharedShrink, SlotRows
from personalize.types import AdapterRef
from tests.model.tiny import random_adapter, random_ids, tiny_base

R = 8
SLOTS = [2, -1, 0, 2, 1]
RANKS = [8, 3, 1]
TOLERANCE = {torch.float32: dict(atol=1e-4, rtol=1e-4), torch.bfloat16: dict(atol=0.25, rtol=2e-2)}


def draw(*shape, seed, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def obvious(slots, ranks, w):
    """Return the weights that each row may read, [U, K, D] in fp64: its slot's places in use, zero for the base."""
    rows = []
    for slot in slots:
        mine = torch.zeros_like(w[0], dtype=torch.float64)
        for place in range(w.shape[1]):
            if slot >= 0 and place % R < ranks[slot]:
                mine[place] = w[slot, place]
        rows.append(mine)
    return torch.stack(rows)


def index(slots=SLOTS, ranks=RANKS):
    return torch.tensor(slots, device=DEVICE), torch.tensor(ranks, device=DEVICE), R


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("modules", [1, 3])
@pytest.mark.parametrize("num_tokens", [1, 5, 70])
def test_rows_of_mixed_ranks_are_the_formula(num_tokens, modules, dtype):
    x, h = draw(5, num_tokens, 72, seed=1, dtype=dtype), draw(5, num_tokens, modules * R, seed=2, dtype=dtype)
    w, y = draw(3, modules * R, 72, seed=3, dtype=dtype), draw(5, num_tokens, 72, seed=4, dtype=dtype)
    mine = obvious(SLOTS, RANKS, w)
    shrunk = products.shrink(x, w, *index())
    torch.testing.assert_close(shrunk.double(), torch.bmm(x.double(), mine.mT), **TOLERANCE[dtype])
    expected = y.double() + torch.bmm(h.double(), mine)
    before = y.clone()
    products.expand(y, h, w, *index())
    torch.testing.assert_close(y.double(), expected, **TOLERANCE[dtype])
    assert torch.equal(y[1], before[1]) and not shrunk[1].any(), "a base row keeps every bit"


@pytest.mark.parametrize("num_tokens", [1, 20])
def test_gradients_are_those_of_the_formula(num_tokens):
    x, a, b = draw(5, num_tokens, 40, seed=1), draw(3, R, 40, seed=2), draw(3, R, 24, seed=3)
    mine, theirs = ([tensor.clone().requires_grad_() for tensor in (x, a, b)] for _ in range(2))
    functions.expand(functions.shrink(mine[0], mine[1], *index()), mine[2], *index()).square().sum().backward()
    x, a, b = theirs
    total = x.sum() * 0.0
    for row, slot in enumerate(SLOTS):
        if slot >= 0:
            total = total + (x[row] @ a[slot, : RANKS[slot]].T @ b[slot, : RANKS[slot]]).square().sum()
    total.backward()
    for got, expected in zip(mine, theirs, strict=True):
        torch.testing.assert_close(got.grad, expected.grad, atol=2e-2, rtol=1e-3)


@pytest.mark.parametrize("num_tokens", [1, 20])
def test_nothing_of_another_slot_or_row_is_read(num_tokens):
    """NaN in other slots, in places beyond a slot's rank and in other rows changes no bit, in all three products."""
    x, h = draw(5, num_tokens, 40, seed=1), draw(5, num_tokens, R, seed=2)
    w = draw(3, R, 40, seed=3)

    def everything(x, h, w):
        y = torch.zeros_like(x)
        products.expand(y, h, w, *index())
        return products.shrink(x, w, *index()), y, products.weight_gradient(h, x, *index())

    clean = everything(x, h, w)
    for tensor in (x, h):
        tensor[1:3] = torch.nan  # the base's row, and the one of slot 0
    w[0], w[1, RANKS[1] :], w[2, RANKS[2] :] = torch.nan, torch.inf, torch.nan
    dirty = everything(x, h, w)
    for before, after in zip(clean[:2], dirty[:2], strict=True):
        assert torch.equal(before[[0, 3, 4]], after[[0, 3, 4]])
    assert torch.equal(clean[2][1:], dirty[2][1:]) and torch.isfinite(clean[2]).all()


def test_a_rows_bits_do_not_depend_on_its_neighbours():
    x, w = draw(5, 1, 72, seed=1), draw(3, R, 72, seed=3)
    mixed = products.shrink(x, w, *index())
    alike = products.shrink(x[[0] * 5].contiguous(), w, *index([2] * 5))
    assert torch.equal(mixed[0], alike[3])


def test_tensors_that_do_not_belong_together_are_never_given_to_a_kernel():
    x, w, y = draw(5, 2, 40, seed=1), draw(3, R, 40, seed=2), draw(5, 2, 40, seed=3)
    with pytest.raises(AssertionError, match="slots for"):
        products.shrink(x, w, *index([0, 1]))
    with pytest.raises(AssertionError, match="does not fit"):
        products.shrink(x[:, :, :39], w, *index())
    with pytest.raises(AssertionError, match="no multiple"):
        products.shrink(x, w[:, :7], *index())
    with pytest.raises(AssertionError, match="shape of the product"):
        products.expand(y[:, :1], draw(5, 2, R, seed=4), w, *index())
    with pytest.raises(AssertionError, match="not dense"):
        products.shrink(x.mT.contiguous().mT, w, *index())


# -- in a model -----------------------------------------------------------------------------------------------------


@pytest.fixture
def with_kernels(monkeypatch):
    """Return a maker of tiny models that read their adapters through the kernels."""
    monkeypatch.setattr(base_module, "usable", lambda device, dtype: True)

    def make(family="llama"):
        base = tiny_base(family)
        base.module.to(DEVICE)
        return base

    return make


def ref(user):
    return AdapterRef(f"u_{user:032x}@1-{user:016x}", "/nowhere")


def filled(base):
    """Return a bank with adapters of three ranks in its slots, and the adapters by slot."""
    bank = AdapterBank(base, num_slots=4, max_rank=16, rank=4)
    some = next(reversed(base.targets)).rpartition(".")[2]
    adapters = [random_adapter(base, 1, r=2), random_adapter(base, 2, r=7), random_adapter(base, 3, only=some)]
    return bank, {bank.load(ref(n), adapter): adapter for n, adapter in enumerate(adapters)}


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt_neox"])
@pytest.mark.parametrize("length", [1, 18])
def test_serving_through_the_kernels_is_the_plain_formulation(family, length, with_kernels):
    base, plain = with_kernels(family), tiny_base(family)
    bank, adapters = filled(base)
    slots = [0, *adapters, next(iter(adapters))]
    ids = random_ids((len(slots), length))
    with torch.no_grad():
        expected = plain.hidden(ids, rows=AdapterRows.of([adapters.get(slot) for slot in slots]))
        for rows in (bank.rows(slots), bank.decode_rows(slots)):
            assert isinstance(rows, SlotRows)
            given = base.hidden(ids.to(DEVICE), rows=rows)
            torch.testing.assert_close(given.cpu(), expected, atol=2e-5, rtol=1e-4)
        without = base.hidden(ids.to(DEVICE))
    assert torch.equal(given[0], without[0]), "the base's row keeps every bit"


def test_modules_with_one_input_share_a_shrink(with_kernels, monkeypatch):
    base = with_kernels()
    bank, adapters = filled(base)
    calls, real = [], products.shrink
    monkeypatch.setattr(
        products, "shrink", lambda x, w, *rest: calls.append(w.shape[1] // rest[2]) or real(x, w, *rest)
    )
    with torch.no_grad():
        base.hidden(random_ids((2, 3)).to(DEVICE), rows=bank.decode_rows([*adapters][:2]))
    assert calls == [3, 1, 2, 1] * 2, "q, k and v; o; gate and up; down; twice"


def test_layers_that_share_an_input_have_one_parent_and_one_width():
    wide = {"a.q_proj": (8, 8), "a.k_proj": (8, 4), "b.q_proj": (8, 8), "a.v_proj": (16, 4), "a.up_proj": (8, 9)}
    assert sharing(wide) == (("a.q_proj", "a.k_proj"), ("b.q_proj",), ("a.v_proj",), ("a.up_proj",))


def test_another_input_or_a_changed_one_is_shrunk_again():
    a, expands = draw(1, 2 * R, 16, seed=1), {name: draw(1, R, 6, seed=2) for name in ("q", "k")}
    slots, ranks, _ = index([0], [R])
    rows = SlotRows([SharedShrink(("q", "k"), a)], expands, slots, ranks)
    first, second = draw(1, 2, 16, seed=3), draw(1, 2, 16, seed=4)

    def expected(x, name):
        place = ("q", "k").index(name)
        return x @ a[0, place * R : (place + 1) * R].T @ expands[name][0]

    def given(x, name):
        return rows.add_to(name, x, torch.zeros(1, 2, 6, device=DEVICE))

    with torch.no_grad():
        torch.testing.assert_close(given(first, "q"), expected(first, "q"), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(given(second, "k"), expected(second, "k"), atol=1e-4, rtol=1e-4)
        given(first, "q")
        first.mul_(3.0)
        torch.testing.assert_close(given(first, "k"), expected(first, "k"), atol=1e-4, rtol=1e-4)
        assert rows.add_to("other", first, first) is first
        with pytest.raises(ModelError, match="3 rows"):
            SlotRows([SharedShrink(("q",), a[:, :R])], expands, *index([0, 0], [R])[:2]).add_to(
                "q", draw(3, 1, 16, seed=1), draw(3, 1, 6, seed=1)
            )


@pytest.mark.slow  # Triton's interpreter runs every program of every kernel one by one
def test_training_through_the_kernels_gives_each_adapter_the_gradient_it_has_alone(with_kernels):
    base, plain, ids = with_kernels(), tiny_base(), random_ids((4, 9))
    adapters, which = [random_adapter(plain, 1, r=3), random_adapter(plain, 2, r=6)], [1, -1, 0, 1]

    def gradients(model, device):
        mine = [adapter.copy(device=device, requires_grad=True) for adapter in adapters]
        logits = model.head(model.hidden(ids.to(device), rows=AdapterRows.of(mine, which)))
        functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].to(device).flatten()).backward()
        return [tensor.grad.cpu() for adapter in mine for tensor in adapter.parameters()]

    for got, expected in zip(gradients(base, DEVICE), gradients(plain, "cpu"), strict=True):
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-3)


def test_a_freed_slot_is_read_by_nobody(with_kernels):
    base = with_kernels()
    bank, adapters = filled(base)
    slot, name = next(iter(adapters)), bank.names()[0]
    bank.unload(name)
    assert bank._stacks.ranks[slot] == 0
    with torch.no_grad():
        ids = random_ids((1, 4)).to(DEVICE)
        assert torch.equal(base.hidden(ids, rows=bank.rows([slot])), base.hidden(ids))


def test_a_batch_of_one_size_reads_one_index_that_is_rewritten(with_kernels):
    bank, adapters = filled(with_kernels())
    one, two, three = adapters
    first = bank.decode_rows([one, 0])
    again = bank.decode_rows([two, three])
    assert again is first and first._slots.tolist() == [two, three]
    assert bank.decode_rows([one]) is not first and bank.decode_rows([0, 0]) is None
    assert bank.decode_rows([0, one])._slots.tolist() == [-1, one]


# -- whether they are used ------------------------------------------------------------------------------------------


def test_the_trial_finds_sound_kernels_sound():
    assert trial.largest_error(DEVICE, torch.float32) < 1e-4
    assert trial.largest_error(DEVICE, torch.bfloat16) < 2e-2


@pytest.mark.parametrize("failure", ["wrong", "nan", "raises"])
def test_kernels_that_fail_the_trial_are_not_used(failure, monkeypatch, caplog):
    def broken(y, *_):
        if failure == "raises":
            raise RuntimeError("out of shared memory")
        y.add_(0.5 if failure == "wrong" else torch.nan)

    monkeypatch.setattr(products, "expand", broken)
    with caplog.at_level(logging.WARNING):
        assert not trial.agrees.__wrapped__(DEVICE, torch.float32)
    assert "plain products are used" in caplog.text
    assert not trial.agrees.__wrapped__(DEVICE, torch.int8)


def test_without_cuda_the_plain_products_stay():
    assert not kernels.usable(torch.device("cpu"), torch.float32)
    assert not tiny_base().has_kernels
