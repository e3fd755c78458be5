"""What is prefilled again after a publish: read under its version only, right to the last bit that matters, bounded."""

import pytest
import torch

from personalize.config import EngineSettings
from personalize.engine import prefixes
from personalize.engine.engine import Engine
from tests.engine.stage import Letters, drain, engine_for, make_ref, prompt, request
from tests.model.tiny import FAMILIES, random_adapter, tiny_base


def published(engine, user=1, number=2):
    ref = make_ref(user, number)
    assert engine.prepare(ref, random_adapter(engine.base, 100 * user + number))
    return ref


def prefill_again(engine, ref, ids):
    engine.prefill_again(ref, [ids])
    while engine.prefixes.has_work:
        engine.prefixes.advance()


def first_logits(engine, ids, ref):
    """Return the logits that the first token of a reply is drawn from, and how many tokens were computed for it."""
    seen: list[torch.Tensor] = []
    widths: list[int] = []
    head, hidden = engine.base.head, engine.base.hidden
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.base, "head", lambda states: seen.append(head(states)) or seen[-1])
        patch.setattr(engine.base, "hidden", lambda ids, *rest: widths.append(ids.shape[1]) or hidden(ids, *rest))
        sequence = engine.add(request(ids, ref, max_tokens=1))
        drain(engine)
    assert sequence.num_new == 1
    return seen[0], sum(widths)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_next_turn_reads_it_and_says_what_a_plain_prefill_says(family, monkeypatch):
    monkeypatch.setattr(prefixes, "CHUNK_TOKENS", 24)
    engine = engine_for(tiny_base(family), end_ids=(), max_num_seqs=2)
    ref = published(engine)
    talk = prompt(90, 1)
    following = [*talk, *prompt(10, 2)]
    plain, num_plain = first_logits(engine, following, ref)
    prefill_again(engine, ref, talk)
    (kept,) = engine.prefixes
    assert kept.is_complete and kept.num_cached == 90
    assert engine.prefixes.num_bytes == sum(
        part.numel() * part.element_size() for layer in kept.cache.rows for part in (layer.keys, layer.values)
    )
    warm, num_warm = first_logits(engine, following, ref)
    assert num_plain >= 100 and num_warm == 10
    assert (warm - plain).abs().max() <= 1e-5
    again, _ = first_logits(engine, following, ref)
    assert torch.equal(again, warm), "reading it leaves it as it is"


def test_a_conversation_that_took_another_turn_shares_its_beginning():
    engine = engine_for(tiny_base(), end_ids=(), max_num_seqs=1)
    ref = published(engine)
    talk = prompt(60, 1)
    edited = [*talk[:40], (talk[40] + 1) % 100 + 3, *prompt(20, 5)]
    plain, _ = first_logits(engine, edited, ref)
    prefill_again(engine, ref, talk)
    warm, computed = first_logits(engine, edited, ref)
    assert computed == 21 and (warm - plain).abs().max() <= 1e-5
    _, computed = first_logits(engine, talk, ref)
    assert computed == 1, "the last token of a prompt is always computed"
    _, computed = first_logits(engine, prompt(50, 9), ref)
    assert computed >= 50


def test_nobody_else_and_no_other_version_reads_it():
    engine = engine_for(tiny_base(), end_ids=(), max_num_seqs=2)
    mine, theirs, talk = published(engine, 1), published(engine, 2), prompt(60, 1)
    prefill_again(engine, mine, talk)
    for ref in (theirs, None):
        assert first_logits(engine, [*talk, 5], ref)[1] >= 61
    assert len(engine.prefixes) == 1
    newer = published(engine, 1, 3)
    assert len(engine.prefixes) == 0, "a newer version: what was computed under the old one goes"
    assert first_logits(engine, [*talk, 5], newer)[1] >= 61
    assert first_logits(engine, [*talk, 5], mine)[1] >= 61


def test_a_rollback_a_reset_and_an_unload_let_go_of_it():
    engine = engine_for(tiny_base(), end_ids=(), max_num_seqs=2)
    first, second, talk = published(engine, 1, 1), published(engine, 1, 2), prompt(60, 1)

    def keep():
        prefill_again(engine, second, talk)
        (kept,) = engine.prefixes
        return kept

    kept = keep()
    assert first_logits(engine, [*talk, 5], first)[1] >= 61
    assert len(engine.prefixes) == 0 and not any(layer.keys.any() for layer in kept.cache.rows)
    keep()
    plain = request([*talk, 5], max_tokens=1)
    engine.add(type(plain)("r", plain.prompt_ids, plain.sampling, None, second.user_id))
    assert len(engine.prefixes) == 0
    drain(engine)
    kept = keep()
    engine.unload(second.name)
    assert len(engine.prefixes) == 0 and not any(layer.values.any() for layer in kept.cache.rows)
    engine.prefill_again(second, [talk])
    assert not engine.prefixes.has_work, "a version that is not loaded is not worth loading for this"


def test_a_superseded_version_is_not_computed_to_its_end(monkeypatch):
    monkeypatch.setattr(prefixes, "CHUNK_TOKENS", 16)
    engine = engine_for(tiny_base(), end_ids=(), max_num_seqs=2)
    old, talk = published(engine, 1, 1), prompt(60, 1)
    engine.prefill_again(old, [talk])
    engine.prefixes.advance()
    assert [one.num_cached for one in engine.prefixes] == [16]
    published(engine, 1, 2)
    assert not engine.prefixes.has_work and len(engine.prefixes) == 0


def test_number_and_bytes_are_bounded_and_the_least_recently_used_goes():
    base = tiny_base()
    settings = EngineSettings(max_num_seqs=4, max_prefixes=3)
    engine = Engine(base, settings, vocabulary=Letters(), rank=4)
    refs = {user: published(engine, user) for user in range(1, 6)}
    for user in (1, 2, 3):
        prefill_again(engine, refs[user], prompt(60, user))
    first_logits(engine, [*prompt(60, 1), 5], refs[1])
    prefill_again(engine, refs[4], prompt(60, 4))
    assert {one.ref.name for one in engine.prefixes} == {refs[user].name for user in (1, 3, 4)}
    each = engine.prefixes.num_bytes // 3
    for max_bytes, fit in ((each * 2, 2), (each, 1), (each - 1, 0)):
        small = Engine(base, EngineSettings(max_num_seqs=4, max_prefix_bytes=max_bytes), vocabulary=Letters(), rank=4)
        for user in range(1, 5):
            prefill_again(small, published(small, user), prompt(60, user))
        assert len(small.prefixes) == fit and small.prefixes.num_bytes <= max_bytes
    off = Engine(base, EngineSettings(max_num_seqs=4, max_prefixes=0), vocabulary=Letters(), rank=4)
    off.prefill_again(published(off, 1), [prompt(60, 1)])
    assert not off.prefixes.has_work and len(off.prefixes) == 0


def test_what_is_too_short_or_fills_the_context_is_left_alone():
    engine = engine_for(tiny_base(max_model_len=64), end_ids=(), max_num_seqs=1)
    ref = published(engine)
    engine.prefill_again(ref, [prompt(8, 1), prompt(64, 2)])
    assert not engine.prefixes.has_work


def test_a_failed_pass_or_copy_costs_the_prefix_and_no_reply(monkeypatch):
    engine = engine_for(tiny_base(), end_ids=(), max_num_seqs=1)
    ref, talk = published(engine), prompt(60, 1)
    plain, _ = first_logits(engine, [*talk, 5], ref)
    with monkeypatch.context() as patch:
        patch.setattr(engine.base, "hidden", lambda *args: 1 / 0)
        prefill_again(engine, ref, talk)
    assert len(engine.prefixes) == 0 and engine.bank.num_used() == 0
    prefill_again(engine, ref, talk)
    with monkeypatch.context() as patch:
        patch.setattr(engine.runner.cache, "copy_row", lambda *args: 1 / 0)
        again, computed = first_logits(engine, [*talk, 5], ref)
    assert computed >= 61 and torch.equal(again, plain) and len(engine.prefixes) == 0


def test_an_evicted_version_is_left_alone():
    engine = engine_for(tiny_base(), end_ids=(), max_num_seqs=1, max_loras=1)
    ref = published(engine)
    engine.prefill_again(ref, [prompt(60, 1)])
    published(engine, 2)
    engine.prefixes.advance()
    assert not engine.prefixes.has_work and len(engine.prefixes) == 0
