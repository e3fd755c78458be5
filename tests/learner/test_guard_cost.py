"""What the guards of every publish cost, in token-passes: one for a forward, two more for a backward."""

import pytest
import torch

from personalize.learner import HindsightLearner, Recipe
from personalize.model.base import BaseModel
from tests.learner.conftest import Life, experience

REPLY = 40
"""Tokens of a plain reply: three short sentences."""


class Meter:
    """Counts token-passes of the base, inside and outside the guards."""

    def __init__(self, monkeypatch, learner):
        self.spent = {"update": 0, "guards": 0}
        self._where = "update"
        original, check = BaseModel.hidden, learner._check

        def hidden(base, input_ids, *args, **kwargs):
            self.spent[self._where] += input_ids.numel() * (3 if torch.is_grad_enabled() else 1)
            return original(base, input_ids, *args, **kwargs)

        def checked(*args):
            self._where = "guards"
            try:
                return check(*args)
            finally:
                self._where = "update"

        monkeypatch.setattr(BaseModel, "hidden", hidden)
        monkeypatch.setattr(learner, "_check", checked)

    def share(self):
        """Return the guards' part of one update, and begin to count anew."""
        guards, rest = self.spent["guards"], self.spent["update"]
        self.spent = {"update": 0, "guards": 0}
        return guards / (guards + rest)


def shares(base, tmp_path, monkeypatch, recipe, length, count):
    learner = HindsightLearner(base, recipe)
    assert learner.canaries.rows  # asked once in a learner's life, not in every update
    meter, life, found = Meter(monkeypatch, learner), Life(learner, tmp_path), []
    for number in range(count):
        life.learn(experience(number, length=length))
        found.append(meter.share())
    assert all(share > 0 for share in found)
    return found


@pytest.mark.parametrize(("length", "begin"), [(REPLY, 0), (4, 1)])
def test_guards_take_a_quarter_of_an_update_at_most(base, tmp_path, monkeypatch, length, begin):
    """From the very first update on for a plain reply; for a reply of four tokens once there is a turn to replay."""
    found = shares(base, tmp_path, monkeypatch, Recipe(gate_nats=None, rehearse=0), length, 4)
    assert max(found[begin:]) <= 0.25
    assert found[-1] < found[0], "the more is replayed, the less the guards weigh"


def test_they_do_not_grow_with_the_turns_that_are_replayed(base, tmp_path, monkeypatch):
    learner = HindsightLearner(base, Recipe(gate_nats=None, replay=7, rehearse=0))
    assert learner.canaries.rows
    meter, life, spent = Meter(monkeypatch, learner), Life(learner, tmp_path), []
    for number in (1, 9, 17, 25):  # the same lengths each time
        life.learn(experience(number, length=REPLY - number % 3))
        spent.append(meter.spent["guards"])
        meter.share()
    assert max(spent) - min(spent) <= 4
