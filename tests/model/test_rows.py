import pytest
import torch
from torch.nn import functional

from personalize.errors import ModelError
from personalize.model.layers import ActiveRows, MultiLoraLinear
from personalize.model.rows import AdapterRows
from tests.model.tiny import random_adapter, random_ids, tiny_base


def reference(layer, x, adapters, index):
    """One row at a time, one matrix product at a time."""
    rows = []
    for row, which in zip(x, index, strict=True):
        y = functional.linear(row, layer.weight, layer.bias)
        adapter = None if which < 0 else adapters[which]
        if adapter is not None and layer.name in adapter.a:
            y = y + adapter.scaling * (row @ adapter.a[layer.name].T) @ adapter.b[layer.name].T
        rows.append(y)
    return torch.stack(rows)


INDEXES = [[0], [1, 1, 1], [0, 1, 2], [0, 0, 1, 1], [1, 0, 0, 2, 2, 2], [-1, 0, -1, 2], [2, 2, -1, -1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_any_assignment_of_rows_is_the_formula(index):
    base = tiny_base()
    layer = base.module.model.layers[0].mlp.down_proj
    adapters = [random_adapter(base, 1, r=2), random_adapter(base, 2, r=5), random_adapter(base, 3, only="q_proj")]
    x = torch.randn(len(index), 3, layer.in_features)
    with base.using(AdapterRows.of(adapters, index)):
        torch.testing.assert_close(layer(x), reference(layer, x, adapters, index), atol=1e-5, rtol=1e-5)


def test_base_rows_are_bit_identical_to_the_base_model():
    base, ids = tiny_base(), random_ids((3, 7))
    with torch.no_grad():
        plain = base.hidden(ids)
        mixed = base.hidden(ids, rows=AdapterRows.of([None, random_adapter(base, 1), None]))
    assert torch.equal(mixed[0], plain[0]) and torch.equal(mixed[2], plain[2])
    assert not torch.equal(mixed[1], plain[1])


def test_rows_of_the_base_alone_do_no_work():
    assert not AdapterRows.of([None, None])
    base = tiny_base()
    with base.using(AdapterRows.of([None])):
        assert base._active.rows is None


@pytest.mark.parametrize("index", [[0, 0, 1, 1], [0, 1, 1, 0], [1, -1, 0, 1]], ids=str)
def test_gradients_are_those_of_each_adapter_alone(index):
    base, ids = tiny_base("gemma3"), random_ids((4, 9))
    adapters = [random_adapter(base, 1, r=3), random_adapter(base, 2, r=6)]

    def loss(rows, chosen):
        logits = base.head(base.hidden(ids[chosen], rows=rows))
        return sum(functional.cross_entropy(row[:-1], ids[n, 1:]) for n, row in zip(chosen, logits, strict=True))

    together = [adapter.copy(requires_grad=True) for adapter in adapters]
    loss(AdapterRows.of(together, index), [n for n, u in enumerate(index) if u >= 0 or u == -1]).backward()
    for number, adapter in enumerate(adapters):
        alone = adapter.copy(requires_grad=True)
        chosen = [n for n, which in enumerate(index) if which == number]
        loss(AdapterRows.of([alone], [0] * len(chosen)), chosen).backward()
        for mine, expected in zip(together[number].parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, expected.grad, atol=2e-5, rtol=1e-4)


def test_a_neighbour_without_finite_weights_reaches_no_other_gradient():
    base, ids = tiny_base(), random_ids((2, 9))
    mine, bad = random_adapter(base, 1).copy(requires_grad=True), random_adapter(base, 2).copy(requires_grad=True)
    with torch.no_grad():
        next(iter(bad.b.values())).fill_(float("nan"))
    logits = base.head(base.hidden(ids, rows=AdapterRows.of([mine, bad])))
    logits.square().mean(dim=(1, 2)).sum().backward()
    assert all(torch.isfinite(tensor.grad).all() for tensor in mine.parameters())
    assert not all(torch.isfinite(tensor.grad).all() for tensor in bad.parameters())


def test_a_layer_that_does_not_see_whole_rows_refuses():
    active = ActiveRows()
    layer = MultiLoraLinear(torch.nn.Linear(4, 6), "some", active)
    active.rows = AdapterRows({"some": (torch.zeros(2, 4, 1), torch.zeros(2, 1, 6))})
    with pytest.raises(ModelError, match="5 rows"):
        layer(torch.randn(5, 4))
