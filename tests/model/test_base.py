import pytest
import torch
from transformers import DynamicCache

from personalize.errors import InvalidParameter, ModelError
from personalize.model.base import BaseModel
from personalize.model.digest import module_digest
from personalize.model.rows import AdapterRows
from tests.model.tiny import CONFIGS, FAMILIES, random_adapter, random_ids, tiny_base, tiny_module


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_and_head_are_the_stock_model(family):
    base, stock = tiny_base(family), tiny_module(family)
    ids = random_ids((3, 20))
    with torch.no_grad():
        logits = base.head(base.hidden(ids))
        expected = stock(input_ids=ids).logits
    assert torch.equal(logits, expected)
    base.check()


@pytest.mark.parametrize("family", FAMILIES)
def test_explicit_masks_are_the_models_own(family):
    base = tiny_base(family)
    ids, positions = random_ids((2, 20)), torch.arange(20).expand(2, 20)
    with torch.no_grad():
        masked = base.hidden(ids, positions, base.mask_form.masks(positions, 20, base.dtype))
        torch.testing.assert_close(masked, base.hidden(ids), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_pass_agrees_with_the_whole_pass(family):
    base, ids = tiny_base(family), random_ids((1, 24))
    rows = AdapterRows.of([random_adapter(base, 1)])
    cache = DynamicCache(config=base.config)
    with torch.no_grad():
        whole = base.hidden(ids, rows=rows)
        base.hidden(ids[:, :15], cache=cache, rows=rows)
        rest = base.hidden(ids[:, 15:], cache=cache, rows=rows)
    torch.testing.assert_close(rest, whole[:, 15:], atol=2e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_targets_are_all_linears_but_the_head(family):
    base, stock = tiny_base(family), tiny_module(family)
    head = stock.get_output_embeddings()
    linears = {n for n, m in stock.named_modules() if isinstance(m, torch.nn.Linear) and m is not head}
    assert set(base.targets) == linears
    assert list(base.module.state_dict()) == list(stock.state_dict())
    assert module_digest(base.module) == module_digest(stock) == base.base_digest
    assert not any(parameter.requires_grad for parameter in base.module.parameters())


def test_rows_are_cleared_after_an_error_and_refuse_nesting():
    base, ids = tiny_base(), random_ids((1, 4))
    rows = AdapterRows.of([random_adapter(base, 1)])
    with torch.no_grad():
        plain = base.hidden(ids)
        with pytest.raises(RuntimeError, match="midway"), base.using(rows):
            raise RuntimeError("midway")
        assert torch.equal(base.hidden(ids), plain)
        with base.using(rows), pytest.raises(AssertionError, match="nest"):
            base.hidden(ids, rows=rows)
        with base.using(rows):
            assert not torch.equal(base.hidden(ids), plain)


def test_check_refuses_a_model_whose_logits_we_cannot_follow():
    base = tiny_base()
    base.config.logits_scaling = 3.0
    with pytest.raises(ModelError, match="differs from the model's own"):
        base.check()


def test_context_is_what_the_model_was_made_for_and_never_lets_a_neighbour_turn_the_rotation():
    assert tiny_base().max_model_len == 256
    assert tiny_base(max_model_len=64).max_model_len == 64
    with pytest.raises(InvalidParameter, match="2 to 256"):
        tiny_base(max_model_len=512)
    config = CONFIGS["phi3"]()
    config.original_max_position_embeddings = 32
    config.rope_parameters = {
        "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 32,
        "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
    }  # fmt: skip
    module = type(tiny_module("phi3"))(config)
    assert BaseModel(module, base_digest="x").max_model_len == 32


def test_unknown_attention_is_refused():
    module = tiny_module("qwen3")
    module.config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(ModelError, match="linear_attention"):
        BaseModel(module, base_digest="x")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pause_may_run_other_rows_and_changes_no_bit(family):
    base, ids = tiny_base(family), random_ids((2, 12))
    other = AdapterRows.of([random_adapter(base, 9)])
    pauses = []

    def train(adapter):
        hidden = base.hidden(ids, rows=AdapterRows.of([adapter], [0, 0]))
        half = len(pauses)
        base.pausable(base.head(hidden)).square().mean().backward()
        return half, [hidden.detach(), *(tensor.grad for tensor in adapter.parameters())]

    def pause():
        assert not torch.is_grad_enabled()
        pauses.append(base.hidden(ids, rows=other))

    plain, paused = (random_adapter(base, 1).copy(requires_grad=True) for _ in range(2))
    _, expected = train(plain)
    with base.pausing(pause):
        half, got = train(paused)
    assert all(torch.equal(one, two) for one, two in zip(got, expected, strict=True))
    assert half == len(base.targets) and len(pauses) == 2 * half + 2
    with torch.no_grad():
        undisturbed = base.hidden(ids, rows=other)
    assert all(torch.equal(seen, undisturbed) for seen in pauses)


def test_a_fault_in_a_pause_ends_the_pass_and_nothing_stays_behind():
    base, ids = tiny_base(), random_ids((1, 4))
    rows = AdapterRows.of([random_adapter(base, 1)])

    def fail():
        raise ZeroDivisionError

    with torch.no_grad():
        plain, other = base.hidden(ids), base.hidden(ids, rows=rows)
        with pytest.raises(ZeroDivisionError), base.pausing(fail):
            base.hidden(ids, rows=rows)
        assert torch.equal(base.hidden(ids), plain) and torch.equal(base.hidden(ids, rows=rows), other)
        with base.pausing(lambda: None), pytest.raises(AssertionError, match="already"), base.pausing(lambda: None):
            pass
