"""The two-part pass (prefix without gradient, window with) against one plain forward."""

import torch

from personalize.config import LoraSettings
from personalize.functional import forward_kl
from personalize.learner import passes
from personalize.learner.batch import Row, collate
from personalize.learner.passes import by_position, reply_log_probs
from personalize.model.folder import new_adapter
from personalize.model.rows import AdapterRows
from tests.learner.conftest import experience


def rows_of(*numbers: int) -> list[Row]:
    turns = [experience(number, length=3 + 4 * number) for number in numbers]
    return [Row(turn.prompt_ids + tuple(range(number)), turn.completion_ids, turn.completion_mask)
            for number, turn in zip(numbers, turns, strict=True)]  # fmt: skip


def random_adapter(base, seed: int):
    tensors = new_adapter(base, LoraSettings(r=4, lora_alpha=8), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for b in tensors.b.values():
        b.copy_(torch.randn(b.shape, generator=generator) * 0.1)
    return tensors


def reference(base, row: Row, adapter) -> torch.Tensor:
    """One sequence, no padding, no cache, the model's own forward."""
    ids = torch.tensor([row.prompt_ids + row.completion_ids])
    with torch.no_grad(), base.using(AdapterRows.of([adapter]) if adapter else None):
        log_p = torch.log_softmax(base.module(input_ids=ids).logits[0], -1)
    first = len(row.prompt_ids) - 1
    return log_p[first : first + len(row.completion_ids)][torch.tensor(row.completion_mask).bool()]


def test_batched_rows_equal_one_plain_forward_each(base):
    rows = rows_of(1, 4, 2)
    adapters = [random_adapter(base, 1), None, random_adapter(base, 2)]
    batch = collate(rows)
    got = reply_log_probs(base, batch, AdapterRows.of(adapters))
    expected = torch.cat([reference(base, row, adapter) for row, adapter in zip(rows, adapters, strict=True)])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_masked_tokens_are_left_out_but_read(base):
    (row,) = rows_of(3)
    mask = tuple(int(i % 2 == 0) for i in range(len(row.completion_ids)))
    batch = collate([Row(row.prompt_ids, row.completion_ids, mask)])
    assert batch.target_ids.tolist() == [t for t, m in zip(row.completion_ids, mask, strict=True) if m]
    whole = reply_log_probs(base, collate([row]), None)
    torch.testing.assert_close(reply_log_probs(base, batch, None), whole[::2], atol=1e-6, rtol=1e-6)


def test_a_prompt_of_one_token_has_no_prefix(base):
    row = Row((5,), (7, 8, 9), (1, 1, 1))
    torch.testing.assert_close(reply_log_probs(base, collate([row]), None), reference(base, row, None))


def test_layout_by_hand():
    batch = collate([Row((1, 2, 3), (4, 5), (1, 1)), Row((6, 7), (8, 9, 10), (0, 1, 1))], pad_id=0)
    assert batch.prefix_ids.tolist() == [[1, 2], [0, 6]]
    assert batch.window_ids.tolist() == [[3, 4, 0], [7, 8, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]]
    assert batch.position_ids.tolist()[1] == [0, 0, 1, 2, 3]
    assert batch.row.tolist() == [0, 0, 1, 1]
    assert batch.column.tolist() == [0, 1, 1, 2]
    assert batch.target_ids.tolist() == [4, 5, 9, 10]


def test_gradient_reaches_the_adapter_and_only_it(base):
    adapter = random_adapter(base, 3).copy(requires_grad=True)
    batch = collate(rows_of(1, 2))
    loss = reply_log_probs(base, batch, AdapterRows.of([adapter], [0, 0]), grad=True).exp()[:, 0].sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in adapter.parameters())
    assert all(p.grad is None for p in base.module.parameters())


def test_positions_in_parts_are_the_whole_with_a_pause_behind_each(base, monkeypatch):
    adapter, batch = random_adapter(base, 3), collate(rows_of(1, 2))
    count = len(batch.target_ids)

    def loss_and_gradients():
        trained = adapter.copy(requires_grad=True)
        student = reply_log_probs(base, batch, AdapterRows.of([trained], [0, 0]), grad=True)
        loss_N = by_position(base, forward_kl, student, reply_log_probs(base, batch, None))
        loss_N.sum().backward()
        return [loss_N.detach(), *(tensor.grad for tensor in trained.parameters())]

    whole = loss_and_gradients()
    monkeypatch.setattr(passes, "MAX_VALUES", 5 * base.vocab_size)
    monkeypatch.setattr(passes, "MAX_LOGITS", 7 * base.vocab_size)
    for one, two in zip(loss_and_gradients(), whole, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    pauses = []
    with base.pausing(lambda: pauses.append(1)):
        by_position(base, torch.neg, torch.zeros(count, base.vocab_size))
    assert len(pauses) == -(-count // 5) > 1
