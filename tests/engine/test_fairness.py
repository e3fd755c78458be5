"""Hundreds of waiting requests: who gets the next row, and what finding that out costs."""

from collections import Counter

import pytest

from personalize.engine.waiting import WaitingLine
from tests.engine.stage import collect, drain, engine_for, make_ref, prompt, request, write_version
from tests.model.tiny import tiny_base


def add(engine, user, seed=0, **sampling):
    one = request(prompt(4, seed), temperature=0.0, **({"max_tokens": 2} | sampling))
    return engine.add(type(one)(one.request_id, one.prompt_ids, one.sampling, one.adapter, user))


def served(engine) -> list:
    """Step until nothing is left; return the sequences in the order in which they ended."""
    ended = []
    while engine.has_work:
        ended += [output.sequence for output in engine.step() if output.error or output.chunk.finish_reason]
    return ended


@pytest.fixture
def engine():
    return engine_for(tiny_base(), end_ids=(), max_num_seqs=4)


def test_one_user_with_hundreds_of_requests_keeps_nobody_waiting(engine):
    """200 requests of one user lie there before 50 others send one each."""
    flood = [add(engine, "flood", n) for n in range(200)]
    others = [add(engine, f"user{n}", n) for n in range(50)]
    order = served(engine)
    assert len(order) == 250 and set(order) == {*flood, *others}
    # Each round of four rows has at most one of the flood's while others wait, after the first round was given away.
    last_other = max(order.index(one) for one in others)
    assert last_other < 50 + 4 + 50 / 3
    assert [one for one in order if one.user == "flood"] == flood, "a user's own requests keep their order"


def test_rows_are_shared_between_users_and_not_between_requests(engine):
    """A user whose replies are ten times as long does not get ten times the rows."""
    for n in range(6):
        add(engine, "long", n, max_tokens=40)
    for n in range(40):
        add(engine, "short", n, max_tokens=4)
    shares = Counter()
    for _ in range(60):
        engine.step()
        shares.update(Counter(sequence.user for sequence in engine.scheduler.running()))
    # Between two of its replies a row is nobody's for a step; by requests the short ones would have a tenth.
    assert shares["short"] >= 0.4 * shares.total()


def test_who_has_gone_without_for_longest_is_next(engine):
    for user in "abcab":
        add(engine, user)
    line = engine.scheduler.waiting
    assert [one.user for one in line.in_turn({})] == ["a", "b", "c", "a", "b"]
    assert [one.user for one in line.in_turn({"a": 1, "b": 2})] == ["c", "a", "a", "b", "b"]
    first = next(line.in_turn({}))
    line.serve(first)
    assert [one.user for one in line.in_turn({})] == ["b", "c", "a", "b"]


def test_those_who_name_nobody_share_one_line(engine):
    for n in range(8):
        add(engine, None, n)
    named = add(engine, "ann")
    assert served(engine).index(named) <= 5


def test_an_adapter_names_its_user(tmp_path):
    base = tiny_base()
    engine = engine_for(base, max_num_seqs=2)
    ref = write_version(tmp_path, base, 1)
    assert engine.add(request(prompt(4, 1), ref)).user == ref.user_id
    assert all(last.finish_reason for _, _, last in drain(engine).values())


def test_the_cost_of_an_admission_does_not_grow_with_the_line(engine, monkeypatch):
    """Looks at requests, counted: one for each admission, whether 40 or 400 wait."""

    def looks(num: int) -> int:
        counted = 0
        real = WaitingLine.in_turn

        def counting(self, held):
            nonlocal counted
            for sequence in real(self, held):
                counted += 1
                yield sequence

        monkeypatch.setattr(WaitingLine, "in_turn", counting)
        for n in range(num):
            add(engine, f"user{n % 5}", n, max_tokens=1)
        assert len(served(engine)) == num
        monkeypatch.undo()
        return counted

    # One look to read its adapter ahead (up to as many as there are rows), one to admit it.
    few, many = looks(40), looks(400)
    assert few <= 40 * (4 + 1) and many <= 400 * (4 + 1)
    assert many <= 10.5 * few


def test_cancelled_requests_leave_no_gap(engine):
    sequences = [add(engine, f"user{n % 3}", n) for n in range(30)]
    for one in sequences[::2]:
        engine.cancel(one)
    results: dict = {}
    while engine.has_work:
        collect(engine.step(), results)
    assert set(results) == set(sequences[1::2])
    assert len(engine.scheduler.waiting) == 0 and not list(engine.scheduler.waiting)


def test_among_equals_a_user_who_was_just_served_comes_last():
    """Within one round: b holds a row and has waited longer than a, who gets one now."""
    engine = engine_for(tiny_base(), end_ids=(), max_num_seqs=3)
    running = [add(engine, "b", max_tokens=9)]
    engine.step()
    first, second, third = add(engine, "a"), add(engine, "a"), add(engine, "b")
    engine.step()
    assert engine.scheduler.running() == [*running, first, third]
    assert list(engine.scheduler.waiting) == [second]


def test_versions_that_nobody_waits_for_any_more_are_not_remembered(engine):
    sequences = [engine.add(request(prompt(4, n), make_ref(n))) for n in (1, 2, 2)]
    line = engine.scheduler.waiting
    assert line.names() == tuple(one.adapter_name for one in sequences[:2])
    for one in sequences[:2]:
        engine.cancel(one)
    assert line.names() == (sequences[2].adapter_name,), "another request waits for this one"
    engine.cancel(sequences[2])
    assert line.names() == ()
