from personalize.runtime import pace
from personalize.runtime.pace import Pace


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(pace.time, "perf_counter", lambda: self.now)


def step(pace, clock, duration_s):
    with pace.step():
        clock.now += duration_s


def test_a_step_is_due_when_the_update_has_had_as_long(monkeypatch):
    clock, shares = Clock(monkeypatch), Pace()
    assert shares.is_due(), "before the first step nothing is known, and somebody waits"
    step(shares, clock, 2.0)
    step(shares, clock, 2.0)
    assert not shares.is_due()
    clock.now += 1.75
    assert not shares.is_due()
    clock.now += 0.25
    assert shares.is_due()


def test_somebodys_long_prompt_does_not_lengthen_everybodys_next_wait(monkeypatch):
    clock, shares = Clock(monkeypatch), Pace()
    step(shares, clock, 2.0)
    step(shares, clock, 16.0)
    clock.now += 2.0
    assert shares.is_due()


def test_a_step_that_fails_is_timed_as_well(monkeypatch):
    clock, shares = Clock(monkeypatch), Pace()
    step(shares, clock, 4.0)
    try:
        with shares.step():
            clock.now += 4.0
            raise ValueError
    except ValueError:
        pass
    assert not shares.is_due()
    clock.now += 4.0
    assert shares.is_due()
