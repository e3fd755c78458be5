"""Slots under pressure: publishing never waits, waiting never starves, nobody is mixed."""

from personalize.engine import scheduler
from personalize.engine.sequences import Phase
from tests.engine import stage
from tests.engine.stage import collect, drain, engine_for, greedy_by_transformers, prompt, request
from tests.model.tiny import random_adapter, tiny_base


def publish(engine, folder, user, number):
    """Write a version as a commit would, then offer it to the bank."""
    tensors = random_adapter(engine.base, 100 * user + number)
    ref = stage.publish(folder, engine.base, tensors, user, number)
    return ref, engine.prepare(ref, tensors)


def test_every_slot_pinned_while_each_user_publishes_twice(tmp_path):
    users, length = (1, 2, 3), 24
    base = tiny_base()
    engine = engine_for(base, end_ids=(), max_num_seqs=3, max_loras=3)
    heads = {user: publish(engine, tmp_path, user, 1)[0] for user in users}
    streams = {user: engine.add(request(prompt(6, user), heads[user], max_tokens=length)) for user in users}
    results: dict = {}
    for _ in range(5):
        collect(engine.step(), results)
    assert engine.bank.num_used() == 3 and not engine.bank.has_spare()
    later = {}
    for number in (2, 3):
        for user in users:
            before = {u: results[streams[u]][0][:] for u in users}
            heads[user], prepared = publish(engine, tmp_path, user, number)
            assert not prepared  # no spare slot, and no waiting for one
            later[user, number] = engine.add(request(prompt(6, 50 + user), heads[user], max_tokens=5))
            collect(engine.step(), results)
            # Every stream went on by one token in the very next step.
            assert all(len(results[streams[u]][0]) == len(before[u]) + 1 for u in users)
    drain(engine, results)
    for user in users:
        ref = streams[user].request.adapter
        assert ref.number == 1
        expected = greedy_by_transformers("llama", prompt(6, user), ref, length)
        assert results[streams[user]][0][: len(expected)] == expected
    for (user, number), sequence in later.items():
        ref = sequence.request.adapter
        assert ref.number == number
        expected = greedy_by_transformers("llama", prompt(6, 50 + user), ref, 5)
        assert results[sequence][0][: len(expected)] == expected
    assert engine.bank.num_used() == 0


def test_a_request_without_a_slot_lets_others_pass_but_does_not_starve(tmp_path, monkeypatch):
    """Two users renew their pins for ever; a third gets the slot that drains."""
    monkeypatch.setattr(scheduler, "DRAIN_AFTER", 16)
    base = tiny_base()
    engine = engine_for(base, end_ids=(), max_num_seqs=4, max_loras=2)
    refs = {user: publish(engine, tmp_path, user, 1)[0] for user in (1, 2, 3)}
    talking = [engine.add(request(prompt(4, u), refs[u], max_tokens=12)) for u in (1, 2)]
    for _ in range(6):
        engine.step()
    starved = engine.add(request(prompt(4, 3), refs[3], max_tokens=3))
    passed = engine.add(request(prompt(4, 9), max_tokens=3))
    results: dict = {}
    for step in range(6 * 16):
        if step % 6 == 0:  # a new overlapping request keeps each user's slot pinned
            talking.append(engine.add(request(prompt(4, step), refs[1 + step // 6 % 2], max_tokens=20)))
        if engine.is_blocked:
            engine.wait_ready(5.0)
        collect(engine.step(), results)
        if starved in results and results[starved][2] is not None:
            break
    assert len(results[starved][0]) == 3 and step > 8
    assert results[passed][2] is not None
    drain(engine, results)
    assert all(results[sequence][2].finish_reason == "length" for sequence in talking[2:])


def test_draining_ends_with_the_request_that_needed_it(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "DRAIN_AFTER", 16)
    base = tiny_base()
    engine = engine_for(base, end_ids=(), max_num_seqs=3, max_loras=1)
    one, two = (publish(engine, tmp_path, user, 1)[0] for user in (1, 2))
    talking = engine.add(request(prompt(4, 1), one, max_tokens=200))
    while talking.num_new < 2:
        engine.wait_ready(5.0)
        engine.step()
    starved = engine.add(request(prompt(4, 2), two))
    while engine.scheduler._draining is None:
        engine.wait_ready(5.0)
        engine.step()
        assert talking.phase is Phase.DECODE
    engine.cancel(starved)
    follower = engine.add(request(prompt(4, 3), one, max_tokens=2))
    results: dict = {}
    for _ in range(8):
        collect(engine.step(), results)
    assert results[follower][2] is not None


def test_freed_slots_are_zero(tmp_path):
    base = tiny_base()
    engine = engine_for(base, max_num_seqs=2, max_loras=2)
    ref, prepared = publish(engine, tmp_path, 1, 1)
    assert prepared
    sequence = engine.add(request(prompt(5, 1), ref, max_tokens=50))
    engine.step()
    engine.step()
    slot = sequence.slot
    engine.unload(ref.name)
    assert any(a.any() for a, _ in engine.bank.tensors(slot).values())
    engine.cancel(sequence)
    assert not any(a.any() or b.any() for a, b in engine.bank.tensors(slot).values())
    assert not any(a.any() or b.any() for a, b in engine.bank._kept.stacks.modules.values())
