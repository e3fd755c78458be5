"""The demo's cast and its verdict; the play itself is run by `make demo`."""

import asyncio

import pytest
from rich.console import Console

from personalize.evaluation.demo import FOLLOW_UPS, GOALS, TYPING_S, Demo, cast, missed, summary
from personalize.evaluation.stage import Row, Stage
from personalize.evaluation.users import Said
from personalize.service import Personalizer
from personalize.types import Outcome, Reply, UpdateInfo, Usage

GOOD = {
    "preference_rate_before": 0.0, "preference_rate_after": 0.95, "preference_mean_after": 0.97,
    "worst_user_after": 0.9, "follow_ups": FOLLOW_UPS, "updates": 30, "update_ms_p50": 900.0, "cap_share": 0.0,
    "other_users_unchanged": True, "control_user_drift": 0.0,
}  # fmt: skip


def test_three_learners_share_no_dimension_and_one_does_not_learn():
    people = cast()
    learners = [person for person in people if person.learns]
    wanted = [set(person.user.preferences) for person in learners]
    dimensions = [{one.dimension for one in person.user.preferences} for person in learners]
    assert len(learners) == 3 and len(people) == 4
    assert not set.intersection(*dimensions) and all(len(own) == 2 for own in dimensions)
    assert not wanted[0] & wanted[1] and not wanted[0] & wanted[2] and not wanted[1] & wanted[2]


def test_a_good_run_misses_nothing():
    assert missed(GOOD) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("preference_rate_before", 0.11), ("preference_rate_after", 0.89), ("worst_user_after", 0.84),
        ("cap_share", 0.02), ("other_users_unchanged", False), ("control_user_drift", 0.04), ("follow_ups", 13),
    ],
)  # fmt: skip
def test_every_goal_can_be_missed(name, value):
    assert name in GOALS and missed(GOOD | {name: value}) == [name]


class ScriptedApp:
    """A stand-in for ``Personalizer``: answers at once, queues every follow-up, remembers what it was asked."""

    def __init__(self, texts: list[str]):
        self.texts, self.requests, self.waits = texts, [], []

    async def complete(self, request):
        self.requests.append(request)
        text = self.texts[len(self.requests) % len(self.texts)]
        first = len(request.messages) == 1
        outcome = (
            Outcome.SKIPPED_FIRST_MESSAGE if first else Outcome.QUEUED if request.learn else Outcome.SKIPPED_PAUSED
        )
        return (Reply(text, "stop", str(len(self.requests)), "t", None, outcome, Usage(3, 4)),)

    async def settled(self, user, timeout_s=None):
        self.waits.append(timeout_s)
        return True

    async def outcome(self, request_id):
        return Outcome.APPLIED

    async def updates(self, user, limit=100):
        return (UpdateInfo("u", "r", "t", Outcome.APPLIED, 1, 0.0, 1.0, {"update_ms": 5.0}),)

    async def fingerprint(self, users):
        return {user: "same" for user in users}


def play(people) -> tuple[Demo, ScriptedApp]:
    app = ScriptedApp(["Tea is a drink.", "- Tea is a drink.", "You are welcome."])
    demo = Demo(app, people, Stage(Console(quiet=True)))  # pyright: ignore[reportArgumentType]
    asyncio.run(demo.run())
    return demo, app


def test_chats_are_short_and_go_through_the_public_sdk():
    demo, app = play(cast())
    chats = [request for request in app.requests if request.learn]
    assert {person.follow_ups for person in demo.people} == {FOLLOW_UPS}
    assert max(sum(message.role == "user" for message in request.messages) for request in chats) <= 6
    assert all(hasattr(Personalizer, name) for name in ("complete", "settled", "outcome", "updates", "fingerprint"))


def test_waits_no_longer_than_a_person_types():
    _, app = play(cast())
    typing = [wait for wait in app.waits if wait is not None]
    assert typing and max(typing) <= 3.0 and TYPING_S <= 3.0


def test_the_closing_line_has_its_fields():
    demo, _ = play(cast())
    assert set(summary(demo)) == set(GOOD)
    assert summary(demo)["control_user_drift"] == 0.0 and summary(demo)["other_users_unchanged"] is True


def test_a_changed_neighbour_is_noticed():
    demo, app = play(cast())
    changed = {person.name: "other" for person in demo.people}

    async def fingerprint(users):
        return changed

    app.fingerprint = fingerprint
    asyncio.run(demo._check_others(demo.people[0]))
    assert demo.unchanged is False


def test_the_stage_prints_lines_where_there_is_no_terminal(capsys):
    reply = Reply("Tea is a drink.", "stop", "r", "t", 3, Outcome.QUEUED, Usage(5, 6))
    with Stage(Console(force_terminal=False, width=200)) as stage:
        stage.add(Row("ada", 2, Said("Shorter, please.", "complaint", None), reply, Outcome.APPLIED, 12.4, 840.2))
        stage.note("ada: after 4 follow-ups 50%")
    out = capsys.readouterr().out
    assert "ada | 2 | Shorter, please. | applied | v3 | 12 | 840" in out and "50%" in out
