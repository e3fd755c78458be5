import random
import threading

import pytest

from personalize.engine import reading, row_cache
from personalize.errors import AdapterCorrupt, ContextTooLong, InvalidParameter, Overloaded
from personalize.model import folder
from personalize.model.folder import WEIGHTS_FILE, write_adapter
from tests.engine.stage import collect, drain, engine_for, greedy_by_transformers, prompt, request, write_version
from tests.model.tiny import FAMILIES, random_adapter, tiny_base


@pytest.fixture
def held_reads(monkeypatch):
    """Reads of folders end only when this is set."""
    go, real = threading.Event(), reading.read_version
    monkeypatch.setattr(reading, "read_version", lambda *args, **kwargs: (go.wait(20), real(*args, **kwargs))[1])
    yield go
    go.set()


@pytest.mark.parametrize("family", FAMILIES)
def test_staggered_mixed_requests_are_each_their_own_generate(family, tmp_path):
    base = tiny_base(family)
    engine = engine_for(base, max_num_seqs=4, max_num_batched_tokens=32)
    refs = [None, *(write_version(tmp_path, base, user, r=r) for user, r in ((1, 2), (2, 4), (3, 7)))]
    lengths = [5, 17, 40, 3, 70, 9]
    results, sequences = {}, []
    for n, length in enumerate(lengths):
        sequences.append(engine.add(request(prompt(length, n), refs[n % 4], max_tokens=6 + 3 * (n % 4))))
        for _ in range(n % 3):
            collect(engine.step(), results)
    drain(engine, results)
    for sequence in sequences:
        expected = greedy_by_transformers(family, sequence.prompt_ids, sequence.request.adapter, sequence.max_new)
        ids, _, last = results[sequence]
        assert ids == expected
        assert last.completion.token_ids == tuple(ids)
        assert last.finish_reason == ("stop" if ids[-1] == 2 else "length")
    assert not any(engine.scheduler.rows) and engine.bank.num_used() == 0


def test_the_context_ends_a_reply_and_a_longer_prompt_is_refused():
    engine = engine_for(tiny_base(max_model_len=64), end_ids=(), max_num_seqs=2)
    sequence = engine.add(request(prompt(50, 1), max_tokens=1000))
    ids, _, last = drain(engine)[sequence]
    assert len(ids) == 14 and last.finish_reason == "length" and last.completion.stopped_by == "length"
    one = engine.add(request(prompt(63, 1), max_tokens=None))
    assert len(drain(engine)[one][0]) == 1
    with pytest.raises(ContextTooLong, match="64 tokens; at most 63 fit"):
        engine.add(request(prompt(64, 1)))


def test_requests_that_make_no_sense_are_refused():
    engine = engine_for(tiny_base(), max_num_seqs=1, max_waiting=2)
    for bad in ([], [3, -1], [3, 160]):
        with pytest.raises(InvalidParameter):
            engine.add(request(bad))
    for n in range(2):
        engine.add(request(prompt(4, n)))
    with pytest.raises(Overloaded):
        engine.add(request(prompt(4, 9)))


def test_end_tokens_and_stop_strings_end_a_reply():
    engine = engine_for(tiny_base(), end_ids=(), max_num_seqs=2)
    plain = engine.add(request(prompt(8, 3), max_tokens=20))
    ids, text, _ = drain(engine)[plain]
    assert len(set(ids)) > 4, "the model must say something for this test to mean anything"
    middle = next(n for n in range(3, len(ids)) if text.index(text[n]) == n)
    stopped = engine.add(request(prompt(8, 3), max_tokens=20, stop=(text[middle],)))
    again, seen, last = drain(engine)[stopped]
    assert again == ids[: middle + 1] and seen == text[:middle]
    assert last.finish_reason == "stop" and last.completion.stopped_by == "stop_string"
    assert last.completion.token_ids == tuple(ids[:middle])
    engine._vocabulary.end_ids = frozenset({ids[middle]})
    ended = engine.add(request(prompt(8, 3), max_tokens=20))
    again, _, last = drain(engine)[ended]
    assert again == ids[: middle + 1] and last.completion.stopped_by == "end_token"
    assert last.completion.token_ids == tuple(again)


def test_seeds_repeat_whoever_the_neighbours_are():
    engine = engine_for(tiny_base(), max_num_seqs=4)
    alone = engine.add(request(prompt(9, 1), temperature=1.0, seed=7))
    first = drain(engine)[alone][0]
    others = [engine.add(request(prompt(9 + n, n), temperature=0.7, seed=n, top_p=0.9)) for n in range(2, 4)]
    again = engine.add(request(prompt(9, 1), temperature=1.0, seed=7))
    results = drain(engine)
    assert results[again][0] == first
    assert all(results[other][0] != first for other in others)
    other_seed = engine.add(request(prompt(9, 1), temperature=1.0, seed=8))
    assert drain(engine)[other_seed][0] != first


def test_a_negative_seed_is_a_seed_of_its_own():
    engine = engine_for(tiny_base(), end_ids=(), max_num_seqs=4)
    seeds = (-(2**63), -1, 1, 2**63 - 1)
    sequences = [engine.add(request(prompt(9, 1), temperature=2.0, seed=seed)) for seed in seeds]
    states = {sequence.rng.getstate() for sequence in sequences}
    assert len(states) == 4 and {random.Random(seed).getstate() for seed in seeds[2:]} <= states
    results = drain(engine)
    assert len({tuple(results[sequence][0]) for sequence in sequences}) == 4


def test_a_bad_adapter_fails_only_its_own_request(tmp_path):
    base = tiny_base()
    engine = engine_for(base, max_num_seqs=4)
    good, bad = write_version(tmp_path, base, 1), write_version(tmp_path, base, 2)
    weights = tmp_path / "2-1" / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-10])
    sequences = [engine.add(request(prompt(6, n), ref)) for n, ref in enumerate((good, bad, None, bad))]
    results = drain(engine)
    for n in (1, 3):
        assert isinstance(results[sequences[n]][2], AdapterCorrupt)
    for n in (0, 2):
        expected = greedy_by_transformers("llama", prompt(6, n), sequences[n].request.adapter, 12)
        assert results[sequences[n]][0] == expected


def test_a_folder_that_is_not_what_was_published_fails_only_its_own_requests(tmp_path, monkeypatch):
    """Sound and finite, but changed: found on the reader's thread; its owner's other version is served."""
    base = tiny_base()
    engine = engine_for(base, max_num_seqs=4)
    good, changed, earlier = (write_version(tmp_path, base, user, number) for user, number in ((1, 1), (2, 2), (2, 1)))
    write_adapter(tmp_path / "2-2", random_adapter(base, 999), base)
    threads, real = set(), folder.content_digest
    monkeypatch.setattr(
        folder, "content_digest", lambda *words: threads.add(threading.current_thread().name) or real(*words)
    )
    refs = (good, changed, None, changed, earlier)
    sequences = [engine.add(request(prompt(6, n), ref)) for n, ref in enumerate(refs)]
    results = drain(engine)
    assert threads and all(name.startswith("adapter-digest") for name in threads), "never the thread of the steps"
    for n in (1, 3):
        error = results[sequences[n]][2]
        assert isinstance(error, AdapterCorrupt) and "it was changed" in str(error)
    for n in (0, 2, 4):
        expected = greedy_by_transformers("llama", prompt(6, n), refs[n], 12)
        assert results[sequences[n]][0] == expected
    assert changed.name not in engine.bank and good.name in engine.bank


def test_random_aborts_give_everything_back_exactly_once(tmp_path):
    """Rows, slots and counts under random arrivals, cancellations and unloads; survivors still match the judge."""
    base = tiny_base()
    engine = engine_for(base, max_num_seqs=3, max_loras=2, max_num_batched_tokens=16)
    refs = [None, *(write_version(tmp_path, base, user) for user in (1, 2, 3))]
    rng, results, alive, cancelled = random.Random(0), {}, [], set()
    for n in range(40):
        alive.append(engine.add(request(prompt(rng.randint(1, 40), n), rng.choice(refs), max_tokens=rng.randint(1, 9))))
        for _ in range(rng.randint(0, 4)):
            if engine.is_blocked:
                engine.wait_ready(5.0)
            collect(engine.step(), results)
        if rng.random() < 0.4:
            victim = rng.choice(alive)
            output = engine.cancel(victim)
            assert engine.cancel(victim) is None
            if output is not None:
                cancelled.add(victim)
                assert output.chunk.finish_reason == "cancel"
        if rng.random() < 0.2:
            engine.unload(rng.choice(refs[1:]).name)
    drain(engine, results)
    assert cancelled and all(s in cancelled or results[s][2].finish_reason for s in alive)
    assert engine.bank.num_used() == 0 and not any(engine.scheduler.rows) and not engine.scheduler.waiting
    for layer in engine.runner.cache.rows:
        assert not layer.keys.any() and not layer.values.any()
    for survivor in [s for s in alive if s not in cancelled][:5]:
        expected = greedy_by_transformers("llama", survivor.prompt_ids, survivor.request.adapter, survivor.max_new)
        assert results[survivor][0] == expected


def test_a_failed_forward_ends_its_sequences_and_nothing_else(tmp_path, monkeypatch):
    engine = engine_for(tiny_base(), max_num_seqs=2)
    running = engine.add(request(prompt(6, 1), max_tokens=30))
    results: dict = {}
    for _ in range(3):
        collect(engine.step(), results)
    real = engine.runner.prefill
    monkeypatch.setattr(engine.runner, "prefill", lambda sequences: 1 / 0)
    doomed = engine.add(request(prompt(6, 2)))
    collect(engine.step(), results)
    collect(engine.step(), results)
    assert results[doomed][2].code == "model_error"
    monkeypatch.setattr(engine.runner, "prefill", real)
    after = engine.add(request(prompt(6, 2)))
    drain(engine, results)
    for sequence in (running, after):
        assert results[sequence][0] == greedy_by_transformers("llama", sequence.prompt_ids, None, sequence.max_new)


def test_an_out_of_memory_while_the_cache_grows_ends_its_sequences_and_nothing_else(monkeypatch):
    engine = engine_for(tiny_base(), max_num_seqs=4)
    running = engine.add(request(prompt(6, 1), max_tokens=30))
    results: dict = {}
    collect(engine.step(), results)
    monkeypatch.setattr(row_cache, "_copied", lambda *args: 1 / 0)
    doomed = engine.add(request(prompt(6, 2)))
    while doomed not in results:
        collect(engine.step(), results)
    assert results[doomed][2].code == "model_error"
    monkeypatch.undo()
    after = engine.add(request(prompt(6, 2)))
    drain(engine, results)
    for sequence in (running, after):
        assert results[sequence][0] == greedy_by_transformers("llama", sequence.prompt_ids, None, sequence.max_new)


def test_a_long_prompt_never_holds_up_a_reply_for_more_than_one_chunk():
    engine = engine_for(tiny_base(), end_ids=(), max_num_seqs=2, max_num_batched_tokens=16)
    talking = engine.add(request(prompt(4, 1), max_tokens=30))
    engine.step()
    engine.add(request(prompt(120, 2)))
    gaps, gap = [], 0
    for _ in range(16):
        spoke = any(output.sequence is talking for output in engine.step())
        gap = 0 if spoke else gap + 1
        gaps.append(gap)
    assert max(gaps) == 1


def test_a_warm_version_is_there_before_its_first_request(tmp_path):
    base = tiny_base()
    engine = engine_for(base, max_num_seqs=2)
    ref = write_version(tmp_path, base, 1)
    engine.warm(ref)
    drain(engine)
    assert ref.name in engine.bank
    engine.unload(ref.name)
    assert ref.name not in engine.bank


def test_prompts_of_much_other_lengths_are_not_padded_to_each_other(monkeypatch):
    engine = engine_for(tiny_base("llama"), max_num_seqs=8)
    lengths, read = (20, 4, 19, 5, 20, 4), []
    for number, length in enumerate(lengths):
        engine.add(request(prompt(length, number), name=f"r{number}", max_tokens=1))
    prefill = engine.runner.prefill
    monkeypatch.setattr(
        engine.runner, "prefill", lambda some: (read.append([len(s.prompt_ids) for s in some]), prefill(some))[1]
    )
    results = drain(engine)
    assert read == [[20, 19, 20], [4, 5, 4]], "the oldest prompt comes first, with those it costs little to pad"
    assert len(results) == len(lengths)


def test_an_engine_is_not_blocked_while_it_could_serve_anybody(tmp_path, held_reads):
    base = tiny_base()
    engine = engine_for(base, max_num_seqs=2)
    for user in (1, 2, 3):  # the third one's turn to be read has not come
        engine.add(request(prompt(6, user), write_version(tmp_path, base, user)))
    engine.step()
    assert engine.is_blocked and not engine.step()
    last = engine.add(request(prompt(6, 4), user_id="ann"))
    assert not engine.is_blocked
    assert [output.sequence for output in engine.step()] == [last]


def test_what_is_read_for_nobody_goes_with_the_version(tmp_path, held_reads):
    base = tiny_base()
    engine = engine_for(base)
    ref = write_version(tmp_path, base, 1)
    sequence = engine.add(request(prompt(6, 1), ref))
    engine.step()
    engine.cancel(sequence)
    assert engine._reader.names() == (ref.name,)
    engine.unload(ref.name)
    assert engine._reader.names() == ()


def test_what_is_read_for_somebody_stays_without_the_version(tmp_path):
    base = tiny_base()
    engine = engine_for(base)
    ref = write_version(tmp_path, base, 1)
    sequence = engine.add(request(prompt(6, 1), ref))
    engine.step()
    engine.unload(ref.name)
    assert engine._reader.names() == (ref.name,)
    assert drain(engine)[sequence][2].finish_reason
