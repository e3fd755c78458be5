"""Reviews as users and operators meet them: when, by whom, and what becomes of a breach."""

import asyncio
from itertools import count

import pytest

from personalize.backends.echo import EchoBackend
from personalize.types import Outcome, Review
from tests.service.support import ask, opened, taught, until


class Judging(EchoBackend):
    """Finds what ``verdicts`` says of a version's number; passes all others. ``go`` holds a review up."""

    def __init__(self, **verdicts: str):
        super().__init__()
        self.verdicts = {int(name[1:]): breach for name, breach in verdicts.items()}
        self.requests = []
        self.go = asyncio.Event()
        self.go.set()
        self.num_stopped = 0

    async def review(self, request):
        self.requests.append(request)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.num_stopped += 1
            raise
        breach = self.verdicts.get(request.adapter.number)
        return Review(breach, {"review_repetition": 0.9 if breach else 0.1})

    @property
    def reviewed(self):
        return [request.adapter.number for request in self.requests]


def run(work, tmp_path, backend, **service):
    async def main():
        async with opened(tmp_path, backend, **{"review_every": 2, **service}) as app:
            await work(app)

    asyncio.run(main())


NUMBERS = count()


async def learnt(app, versions, user="alice"):
    for _ in range(versions):
        await taught(app, f"question {next(NUMBERS)}", user=user)
    await until(lambda: app.status()["reviews"]["waiting"] == 0)


def test_every_so_many_versions_the_newest_is_reviewed_against_the_standing_wishes(tmp_path):
    backend = Judging()

    async def work(app):
        for number, wish in enumerate(("shorter", "with a greeting", "no lists", "in French", "formal")):
            await taught(app, f"question {number}", wish)
            await until(lambda: app.status()["reviews"]["waiting"] == 0)
        assert backend.reviewed == [2, 4]
        assert [request.told for request in backend.requests] == [
            ("shorter", "with a greeting"),
            ("shorter", "with a greeting", "no lists", "in French"),
        ]
        assert app.status()["reviews"] == {"waiting": 0, "passed": 2}
        passed = {info.number: info.metrics.get("review_passed") for info in await app.versions("alice")}
        assert passed == {5: None, 4: 1.0, 3: None, 2: 1.0, 1: None}

    run(work, tmp_path, backend)


def test_a_breach_takes_the_user_back_as_any_rollback_does_and_says_why(tmp_path):
    backend = Judging(v4="repetition")

    async def work(app):
        await learnt(app, 4)
        assert (await app.user("alice")).head == 2
        assert (await ask(app, "hello")).adapter_version == 2
        versions = {info.number: info for info in await app.versions("alice")}
        assert versions[2].is_head and not versions[4].is_head
        assert versions[4].metrics["review_passed"] == 0 and versions[4].metrics["review_repetition"] == 0.9
        assert (await app.updates("alice"))[0].metrics["review_passed"] == 0
        (line,) = [line for line in app.store.audit_log() if line.action == "version.rollback"]
        assert line.actor == "review" and line.detail["reason"] == "repetition" and line.detail["after"] == 2
        assert app.status()["reviews"] == {"waiting": 0, "passed": 1, "withdrawn": 1}
        await learnt(app, 1)
        assert [info.number for info in await app.versions("alice") if info.is_head] == [5], "learning goes on"
        assert (await app.versions("alice"))[0].parent == 2

    run(work, tmp_path, backend)


def test_one_users_breach_is_nobody_elses(tmp_path):
    backend = Judging(v2="blank")

    async def work(app):
        await learnt(app, 1, "bob")
        before = await app.fingerprint(["bob"])
        await learnt(app, 2)
        assert (await app.user("alice")).head is None and (await app.user("bob")).head == 1
        assert await app.fingerprint(["bob"]) == before

    run(work, tmp_path, backend)


def test_a_head_that_moved_meanwhile_is_judged_anew(tmp_path):
    backend = Judging(v2="length", v3="length")
    backend.go.clear()

    async def work(app):
        await taught(app, "first")
        await taught(app, "second")
        await until(lambda: backend.reviewed == [2])
        await taught(app, "third")
        backend.go.set()
        await until(lambda: app.status()["reviews"]["waiting"] == 0)
        assert backend.reviewed == [2, 3]
        assert (await app.user("alice")).head is None
        assert app.status()["reviews"] == {"waiting": 0, "overtaken": 1, "withdrawn": 1}

    run(work, tmp_path, backend)


def test_forgetting_the_user_stops_it(tmp_path):
    backend = Judging()
    backend.go.clear()

    async def work(app):
        await taught(app, "first")
        await taught(app, "second")
        await until(lambda: backend.reviewed == [2])
        assert app.status()["reviews"] == {"waiting": 1}
        await app.forget("alice")
        assert backend.num_stopped == 1 and app.status()["reviews"] == {"waiting": 0}
        backend.go.set()
        await learnt(app, 2, "bob")
        assert backend.reviewed == [2, 2] and app.status()["reviews"] == {"waiting": 0, "passed": 1}

    run(work, tmp_path, backend)


def test_stopping_one_users_review_leaves_the_next_users_alone(tmp_path):
    async def work(app):
        reviewer = app._consumer.reviewer
        first, second = (asyncio.create_task(asyncio.Event().wait()) for _ in range(2))
        reviewer._under_way = "alice", first
        first.add_done_callback(lambda _: setattr(reviewer, "_under_way", ("bob", second)))
        await reviewer.stop("alice")
        assert first.cancelled() and reviewer.users() == {"bob"}
        await reviewer.stop("bob")
        assert second.cancelled() and reviewer.users() == set()

    run(work, tmp_path, Judging(), learns=False)


def test_closing_stops_it(tmp_path):
    backend = Judging()
    backend.go.clear()

    async def work(app):
        await taught(app, "first")
        await taught(app, "second")
        await until(lambda: backend.reviewed == [2])
        await app.aclose()
        assert backend.num_stopped == 1

    run(work, tmp_path, backend)


def test_a_process_that_lost_the_lease_judges_nobody(tmp_path):
    backend = Judging(v2="blank")
    backend.go.clear()

    async def work(app):
        await taught(app, "first")
        await taught(app, "second")
        await until(lambda: backend.reviewed == [2])
        lease = app._consumer.lease
        app.store.release_lease(lease.owner)
        async with opened(tmp_path, learns=False) as other:
            assert await other._consumer.lease.renew()
            backend.go.set()
            await until(lambda: app.status()["reviews"]["waiting"] == 0)
            assert (await app.user("alice")).head == 2 and app.status()["reviews"] == {"waiting": 0}
            lease._held_until_s = 0.0
            app._consumer.reviewer.note((await app.user("alice")).user_id)
            await until(lambda: app.status()["reviews"]["waiting"] == 0)
            assert backend.reviewed == [2]

    run(work, tmp_path, backend)


def test_a_wish_that_is_gone_leaves_absolute_limits_only(tmp_path):
    backend = Judging()

    async def work(app):
        await taught(app, "first")
        (update,) = await app.updates("alice")
        user_id = (await app.user("alice")).user_id
        app.store._drop_conversation(user_id, update.turn_id)
        await taught(app, "second")
        await until(lambda: backend.reviewed == [2])
        assert backend.requests[0].told is None

    run(work, tmp_path, backend)


def test_a_fault_is_noted_and_the_next_version_is_looked_at(tmp_path):
    class Broken(Judging):
        async def review(self, request):
            self.requests.append(request)
            raise RuntimeError("no memory")

    backend = Broken()

    async def work(app):
        await learnt(app, 2)
        assert app.status()["last_fault"] == "RuntimeError" and app.status()["reviews"] == {"waiting": 0}
        await learnt(app, 1)
        assert backend.reviewed == [2, 3] and (await app.user("alice")).head == 3

    run(work, tmp_path, backend)


@pytest.mark.parametrize("outcome", [Outcome.SKIPPED_LOW_SIGNAL, Outcome.REJECTED_KL])
def test_what_made_no_version_is_not_looked_at(tmp_path, outcome):
    backend = Judging()
    backend.learner.judge = lambda lesson: outcome  # type: ignore[attr-defined]

    async def work(app):
        await learnt(app, 3)
        assert backend.reviewed == []

    run(work, tmp_path, backend, review_every=1)


def test_it_can_be_switched_off(tmp_path):
    backend = Judging()

    async def work(app):
        await learnt(app, 3)
        assert backend.reviewed == [] and app.status()["reviews"] == {"waiting": 0}

    run(work, tmp_path, backend, review_every=0)
