"""From the queue to a version: races, faults, leases, and what must never be shown to a learner."""

import asyncio

import pytest

from adapters_store.errors import StorageUnavailable
from personalize.backends.echo import EchoBackend, write_folder
from personalize.types import LearningState, Outcome, UpdateReport
from personalize.updates.batch import MAX_ATTEMPTS, MAX_RACES
from personalize.updates.lease import Lease
from tests.service.support import HeldUp, ask, made, opened, taught, until


async def queue(app, user="alice", first="hello"):
    reply = await ask(app, first, user=user)
    return await ask(app, first, reply.text, "shorter", user=user)


class Scripted(EchoBackend):
    """Runs ``before`` (number of the pass, lessons) ahead of every pass."""

    def __init__(self, before):
        super().__init__()
        self.before = before
        self.passes = []

    async def run_update(self, lessons, parents, out_dirs):
        self.passes.append([parent.number if parent else None for parent in parents])
        await self.before(len(self.passes), lessons, out_dirs)
        return await super().run_update(lessons, parents, out_dirs)


@pytest.mark.parametrize("num_races", [1, MAX_RACES, MAX_RACES + 1])
def test_a_lost_race_trains_again_from_the_new_head(tmp_path, num_races):
    write_folder(tmp_path / "other", "seed")

    async def main():
        async def move(number, lessons, out_dirs):
            if number <= num_races:
                await app.import_("alice", tmp_path / "other")

        backend = Scripted(move)
        async with opened(tmp_path / "home", backend) as app:
            after = await queue(app)
            assert await app.settled("alice", 20)
            won = num_races <= MAX_RACES
            assert await app.outcome(after.request_id) is (Outcome.APPLIED if won else Outcome.FAILED)
            head = (await app.versions("alice"))[0]
            assert head.origin == ("update" if won else "import")
            parents = [parent for (parent,) in backend.passes]
            assert len(parents) == min(num_races, MAX_RACES) + 1 and len(set(parents)) == len(parents)
            if won:
                assert head.parent == parents[-1]
        assert not list((tmp_path / "home" / "staging").glob("*/*"))

    asyncio.run(main())


def test_a_rollback_while_the_learner_runs_has_the_last_word(tmp_path):
    async def main():
        async def move(number, lessons, out_dirs):
            if number == 2:
                await app.reset("alice")

        backend = Scripted(move)
        async with opened(tmp_path, backend) as app:
            await taught(app)
            after = await queue(app, first="another")
            assert await app.settled("alice", 20)
            assert await app.outcome(after.request_id) is Outcome.CANCELLED_ROLLBACK
            assert (await app.user("alice")).head is None and len(backend.passes) == 2
            await until(lambda: app.status()["running_updates"] == 0)

    asyncio.run(main())


def test_a_fault_of_one_lesson_does_not_reach_the_others_and_ends_after_three_attempts(tmp_path):
    def judge(lesson):
        if "poison" in lesson.experience.messages[0].content:
            raise ValueError("poisoned")
        return Outcome.APPLIED

    async def main():
        async with opened(tmp_path, EchoBackend(judge), learns=False) as app:
            good = await queue(app)
            bad = await queue(app, "mallory", "poison")
            app.start()
            assert await app.settled(timeout_s=20)
            assert await app.outcome(good.request_id) is Outcome.APPLIED
            assert await app.outcome(bad.request_id) is Outcome.FAILED
            (update,) = app.store.updates(app.store.find_user("mallory").user_id)
            assert update.attempts == MAX_ATTEMPTS
            assert app.status()["updates"] == {"applied": 1, "failed": 1}
            assert app.status()["last_fault"] == "ValueError"
        assert not list((tmp_path / "staging").glob("*/*"))

    asyncio.run(main())


def test_a_fault_that_passes_is_forgiven(tmp_path):
    async def main():
        async def stumble(number, lessons, out_dirs):
            if number < MAX_ATTEMPTS:
                raise OSError("for a moment")

        async with opened(tmp_path, Scripted(stumble)) as app:
            after = await queue(app)
            assert await app.settled("alice", 20)
            assert await app.outcome(after.request_id) is Outcome.APPLIED

    asyncio.run(main())


def test_a_learner_that_writes_no_sound_folder_fails_and_publishes_nothing(tmp_path):
    class Careless(EchoBackend):
        async def run_update(self, lessons, parents, out_dirs):
            reports = await super().run_update(lessons, parents, out_dirs)
            for out in out_dirs:
                (out / "adapter_model.safetensors").write_bytes(b"nonsense")
            return reports

    async def main():
        async with opened(tmp_path, Careless()) as app:
            after = await queue(app)
            assert await app.settled("alice", 20)
            assert await app.outcome(after.request_id) is Outcome.FAILED
            assert await app.versions("alice") == ()
            assert (await ask(app, "hello")).adapter_version is None

    asyncio.run(main())


def test_an_engine_that_cannot_be_warmed_still_serves_the_version(tmp_path):
    class Cold(EchoBackend):
        async def publish(self, ref, tensors):
            raise RuntimeError("no spare slot")

    async def main():
        async with opened(tmp_path, Cold()) as app:
            await taught(app)
            assert (await ask(app, "hello")).adapter_version == 1
            assert app.status()["last_fault"] == "RuntimeError"

    asyncio.run(main())


def test_a_turn_of_somebody_else_in_a_state_is_not_shown_to_the_learner(tmp_path):
    lessons = []

    async def main():
        async def remember(number, given, out_dirs):
            lessons.extend(given)

        class Confused(Scripted):
            async def run_update(self, given, parents, out_dirs):
                reports = await super().run_update(given, parents, out_dirs)
                theirs = app.store.updates(app.store.find_user("bob").user_id)[0].turn_id
                state = LearningState(block=("0" * 32, theirs), replay=(reports[0].turn_id,))
                return tuple(UpdateReport(r.turn_id, r.outcome, state) for r in reports)

        async with opened(tmp_path, Confused(remember)) as app:
            await taught(app, "bob's own words", user="bob")
            await taught(app)
            await taught(app, "another")
            *_, last = lessons
            assert len(last.state.block) == 2
            assert [turn.messages[0].content for turn in last.memory] == ["hello"]

    asyncio.run(main())


def test_metrics_and_state_of_the_report_are_kept_with_the_version(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            await taught(app)
            (info,) = await app.versions("alice")
            assert info.metrics == {"signal": 1.0, "num_memory": 0.0}
            version = app.store.version(app.store.find_user("alice").user_id, 1)
            turn_id = (await app.updates("alice"))[0].turn_id
            assert LearningState.from_json(version.state) == LearningState((turn_id,), (turn_id,), 1)
            assert app.store.moments_path(version) is not None

    asyncio.run(main())


def test_a_store_that_fails_for_a_moment_costs_a_pause_and_no_update(tmp_path, monkeypatch):
    async def main():
        async with opened(tmp_path, learns=False) as app:
            after = await queue(app)
            real, calls = app.store.finish_update, []
            claims = app.store.claim_updates

            def shaky(*args, **kwargs):
                calls.append(1)
                if len(calls) < 3:
                    raise StorageUnavailable("for a moment")
                return claims(*args, **kwargs)

            monkeypatch.setattr(app.store, "claim_updates", shaky)
            app._consumer._poll_s = 0.02
            app.start()
            assert await app.settled("alice", 20)
            assert real and await app.outcome(after.request_id) is Outcome.APPLIED

    asyncio.run(main())


def test_one_users_broken_folder_does_not_keep_his_neighbour_from_learning(tmp_path):
    async def main():
        async with opened(tmp_path, learns=False) as app:
            app._consumer._poll_s = 0.02
            bad, good = [await queue(app, user) for user in ("mallory", "alice")]
            (tmp_path / "users" / app.store.find_user("mallory").user_id / "versions").write_text("no folder")
            app.start()
            assert await app.settled(timeout_s=20)
            assert await app.outcome(good.request_id) is Outcome.APPLIED
            assert await app.outcome(bad.request_id) is Outcome.FAILED
            assert app.status()["updates"] == {"applied": 1, "failed": 1}

    asyncio.run(main())


def test_metrics_that_cannot_be_stored_fail_one_update_only(tmp_path):
    class Talkative(EchoBackend):
        async def run_update(self, lessons, parents, out_dirs):
            reports = await super().run_update(lessons, parents, out_dirs)
            strange = {"signal": "strong"}
            return tuple(
                UpdateReport(report.turn_id, report.outcome, report.state, strange if lesson.memory else {})
                for lesson, report in zip(lessons, reports, strict=True)
            )

    async def main():
        async with opened(tmp_path, Talkative(), learns=False) as app:
            app._consumer._poll_s = 0.02
            app.start()
            await taught(app, user="mallory")
            bad, good = await queue(app, "mallory", "another"), await queue(app)
            assert await app.settled(timeout_s=20)
            assert await app.outcome(good.request_id) is Outcome.APPLIED
            assert await app.outcome(bad.request_id) is Outcome.FAILED

    asyncio.run(main())


def test_a_database_that_refuses_a_publish_costs_no_update_however_often(tmp_path, monkeypatch):
    async def main():
        async with opened(tmp_path, learns=False) as app:
            after = await queue(app)
            publish, num_calls = app.store.publish, 0

            def busy(*args, **kwargs):
                nonlocal num_calls
                num_calls += 1
                if num_calls <= MAX_ATTEMPTS + 1:
                    raise StorageUnavailable("the database does not work (busy)")
                return publish(*args, **kwargs)

            monkeypatch.setattr(app.store, "publish", busy)
            app._consumer._poll_s = 0.02
            app.start()
            assert await app.settled("alice", 20)
            assert await app.outcome(after.request_id) is Outcome.APPLIED

    asyncio.run(main())


def test_an_update_that_stumbles_over_its_users_erasure_is_cancelled(tmp_path):
    async def main():
        async def erased(number, lessons, out_dirs):
            app.store.forget(app.store.find_user("alice").user_id)
            raise FileExistsError("the folder goes while it is written")

        async with opened(tmp_path, Scripted(erased)) as app:
            await queue(app)
            await until(lambda: app.status()["updates"] == {"cancelled_erasure": 1})
            assert app.store.status().pending_updates == 0

    asyncio.run(main())


def test_who_is_forgotten_between_a_fault_and_the_next_try_stops_nobody(tmp_path):
    async def main():
        async def fail_together(number, lessons, out_dirs):
            if len(lessons) > 1:
                app.store.forget(app.store.find_user("mallory").user_id)
                raise ValueError("together they are too much")

        async with opened(tmp_path, Scripted(fail_together), learns=False) as app:
            await queue(app, "mallory")
            good = await queue(app)
            app.start()
            assert await app.settled(timeout_s=20)
            assert await app.outcome(good.request_id) is Outcome.APPLIED
            assert app.status()["updates"] == {"applied": 1, "cancelled_erasure": 1}
            assert [update.attempts for update in app.store.updates(app.store.find_user("alice").user_id)] == [1]

    asyncio.run(main())


def test_the_lease_is_held_only_as_long_as_it_is_renewed(tmp_path):
    async def main():
        async with opened(tmp_path, learns=False) as app:
            mine, other = Lease(app.store, ttl_s=0.2), Lease(app.store, ttl_s=0.2)
            assert not mine.held and mine.holder() is None
            assert await mine.renew() and mine.held and mine.holder() == mine.owner
            await asyncio.sleep(0.25)
            assert not mine.held and mine.holder() is None
            await mine.renew()
            await mine.give_up()
            assert not mine.held and mine.owner != other.owner

    asyncio.run(main())


def test_a_process_whose_lease_was_taken_trains_nothing(tmp_path):
    async def main():
        async with opened(tmp_path) as first, opened(tmp_path, learns=False) as second:
            await until(lambda: first.status()["lease_held"])
            first._consumer.lease._held_until_s = float("inf")  # it believes that it still holds the lease
            first.store.release_lease(first._consumer.lease.owner)
            assert await second._consumer.lease.renew()
            after = await queue(second)
            first._consumer.wake()
            await asyncio.sleep(0.2)
            assert await first.outcome(after.request_id) is Outcome.QUEUED
            assert not first.status()["lease_held"]
            second.start()
            assert await second.settled("alice", 20)
            assert second.status()["updates"] == {"applied": 1} and first.status()["updates"] == {}

    asyncio.run(main())


@pytest.mark.slow  # opens a store twice for every moment
def test_closing_at_any_moment_of_an_update_leaves_it_whole_or_waiting(tmp_path):
    """A cancelled process either published or gave the update back; the next one ends it; nothing is left staged."""

    async def main():
        finals = []
        for moment in range(8):
            home = tmp_path / str(moment)
            async with opened(home, learns=False) as app:
                after = await queue(app)
                app.start()
                await asyncio.sleep(moment * 0.015)
            assert not list((home / "staging").glob("*/*"))
            async with opened(home) as app:
                assert await app.settled("alice", 20)
                finals.append(await app.outcome(after.request_id))
                assert len(await app.versions("alice")) == 1
        assert set(finals) == {Outcome.APPLIED}

    asyncio.run(main())


def test_closing_in_the_very_moment_of_a_wake_is_not_lost(tmp_path):
    async def main():
        app = made(tmp_path)
        app.start()
        await until(lambda: bool(app._consumer._woken._waiters))  # it waits for the next follow-up
        app._consumer.wake()
        async with asyncio.timeout(20):
            await app.aclose()

    asyncio.run(main())


def test_what_is_being_claimed_at_the_end_is_given_back(tmp_path, monkeypatch):
    async def main():
        app = made(tmp_path)
        await queue(app)
        claim = HeldUp(app.store.claim_updates)
        monkeypatch.setattr(app.store, "claim_updates", claim)
        app.start()
        await claim.is_reached()
        assert app.store._claims
        for loop in app._loops:
            loop.cancel()
        claim.through.set()
        await asyncio.gather(*app._loops, return_exceptions=True)
        assert not app.store._claims and app.store.status().pending_updates == 1
        await app.aclose()

    asyncio.run(main())


def test_closing_ends_although_nothing_can_be_given_back(tmp_path, monkeypatch):
    def busy(update_id):
        raise StorageUnavailable("the database does not work (busy)")

    async def main():
        started = asyncio.Event()

        async def endless(number, lessons, out_dirs):
            started.set()
            await asyncio.Future()

        app = made(tmp_path, Scripted(endless))
        monkeypatch.setattr(app.store, "release_update", busy)
        await queue(app)
        app.start()
        await started.wait()
        async with asyncio.timeout(10):
            await app.aclose()
        assert app.status()["last_fault"] == "StorageUnavailable"

    asyncio.run(main())


def test_a_lease_that_is_being_taken_at_the_end_is_not_kept(tmp_path, monkeypatch):
    async def main():
        async with opened(tmp_path, learns=False) as app:
            lease = Lease(app.store)
            attempt = HeldUp(app.store.acquire_lease, first=True)
            monkeypatch.setattr(app.store, "acquire_lease", attempt)
            keeping = asyncio.create_task(lease.keep())
            await attempt.is_reached()
            keeping.cancel()
            asyncio.get_running_loop().call_later(0.05, attempt.through.set)
            await asyncio.gather(keeping, return_exceptions=True)
            await lease.give_up()
            await until(attempt.done.is_set)
            assert lease.holder() is None and not lease.held

    asyncio.run(main())
