import pytest
import torch

from personalize.errors import AdapterCorrupt, AdapterMismatch
from personalize.model.bank import AdapterBank
from personalize.model.rows import AdapterRows
from personalize.types import AdapterRef
from tests.model.tiny import random_adapter, random_ids, tiny_base


def ref(user: int, number: int = 1) -> AdapterRef:
    return AdapterRef(f"u_{user:032x}@{number}-{user:016x}", "/nowhere")


@pytest.fixture
def bank():
    return AdapterBank(tiny_base(), num_slots=3, max_rank=16, rank=4)


def is_zero(bank, slot):
    return all(not a.any() and not b.any() for a, b in bank.tensors(slot).values())


def test_versions_are_found_counted_and_evicted_by_recency(bank):
    adapters = {n: random_adapter(bank.base, n) for n in range(1, 6)}
    assert bank.acquire(ref(1).name) is None
    slots = [bank.load(ref(n), adapters[n]) for n in (1, 2, 3)]
    assert len(set(slots)) == 3 and 0 not in slots
    assert bank.acquire(ref(1).name) == slots[0]
    assert bank.load(ref(4), adapters[4]) == slots[1]  # 2 is the least recently used of the unused
    assert bank.acquire(ref(2).name) is None
    assert set(bank.names()) == {ref(1).name, ref(3).name, ref(4).name}
    for user in (3, 4):
        assert bank.acquire(ref(user).name)
    assert not bank.has_spare() and bank.num_used() == 3
    assert bank.load(ref(5), adapters[5]) is None  # every slot is pinned: nothing happens
    bank.release(slots[2])
    assert bank.load(ref(5), adapters[5]) == slots[2]


def test_a_slot_holds_the_adapter_with_its_scaling_and_is_zeroed_when_freed(bank):
    adapter = random_adapter(bank.base, 1, r=2)
    slot = bank.load(ref(1), adapter)
    for name, (a, b) in bank.tensors(slot).items():
        assert torch.equal(a[:2], adapter.a[name]) and not a[2:].any()
        assert torch.equal(b[:, :2], adapter.b[name] * 2.0) and not b[:, 2:].any()
    assert bank.acquire(ref(1).name) == slot
    bank.decode_rows([slot, 0])
    bank.unload(ref(1).name)
    assert not is_zero(bank, slot)  # still in use
    bank.release(slot)
    assert is_zero(bank, slot) and bank.acquire(ref(1).name) is None
    assert all(not a.any() and not b.any() for a, b in bank._kept.stacks.modules.values())


def test_releasing_too_often_is_a_bug_of_ours(bank):
    slot = bank.load(ref(1), random_adapter(bank.base, 1))
    with pytest.raises(AssertionError, match="released more often"):
        bank.release(slot)
    bank.release(0)


def test_what_cannot_be_served_is_refused_and_changes_nothing(bank):
    bad = random_adapter(bank.base, 1)
    next(iter(bad.a.values()))[0, 0] = float("inf")
    with pytest.raises(AdapterCorrupt):
        bank.load(ref(1), bad)
    with pytest.raises(AdapterMismatch, match="r = 17 is above the limit max_lora_rank = 16"):
        bank.load(ref(1), random_adapter(bank.base, 1, r=17))
    assert bank.names() == () and all(is_zero(bank, slot) for slot in range(4))


def test_a_higher_rank_grows_the_bank_once_and_keeps_what_is_loaded(bank):
    small, large = random_adapter(bank.base, 1), random_adapter(bank.base, 2, r=16)
    one = bank.load(ref(1), small)
    bank.decode_rows([one, one])
    two = bank.load(ref(2), large)
    assert bank.rank == 16
    ids = random_ids((3, 6))
    with torch.no_grad():
        served = bank.base.hidden(ids, rows=bank.decode_rows([one, two, 0]))
        expected = bank.base.hidden(ids, rows=AdapterRows.of([small, large, None]))
    torch.testing.assert_close(served, expected, atol=1e-5, rtol=1e-5)


def test_storage_that_is_left_behind_is_zero(bank):
    """A recorded step may hold it for a while, and with it the weights of somebody who was forgotten."""

    def rows_are_zero(rows) -> bool:
        return not any(tensor.any() for pair in rows.modules.values() for tensor in pair)

    one = bank.load(ref(1), random_adapter(bank.base, 1))
    held = [bank.decode_rows([one]), bank.decode_rows([one, one])]
    assert rows_are_zero(held[0]) and not rows_are_zero(held[1]), "more rows, another copy"
    held.append(bank.rows([one]))
    bank.load(ref(2), random_adapter(bank.base, 2, r=16))
    assert all(map(rows_are_zero, held)), "a higher rank, other storage"
    assert not rows_are_zero(bank.decode_rows([one]))


def test_kept_rows_follow_every_change_of_slots(bank):
    """The incremental copy against a fresh gather, over random loads, evictions and batches."""
    generator = torch.Generator().manual_seed(0)

    def draw(high):
        return int(torch.randint(high, (1,), generator=generator))

    for turn in range(60):
        if draw(2):
            bank.load(ref(draw(9) + 1, turn + 1), random_adapter(bank.base, turn))
        elif bank.names():
            bank.unload(bank.names()[draw(len(bank.names()))])
        slots = [draw(4) for _ in range(draw(5) + 1)]
        kept, fresh = bank.decode_rows(slots), bank.rows(slots)
        assert (kept is None) == (fresh is None) == (not any(slots))
        for name in kept.modules if kept else ():
            assert all(torch.equal(x, y) for x, y in zip(kept.modules[name], fresh.modules[name], strict=True))


def test_addresses_stay_the_same(bank):
    before = [(a.data_ptr(), b.data_ptr()) for a, b in bank.tensors(0).values()]
    for user in range(1, 9):
        bank.load(ref(user), random_adapter(bank.base, user))
    assert before == [(a.data_ptr(), b.data_ptr()) for a, b in bank.tensors(0).values()]
    assert is_zero(bank, 0)
