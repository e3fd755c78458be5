"""The population adapter through the service: built from logs, off by default, named by ``forget``."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from personalize import Settings, SyncPersonalizer
from personalize.access import Access
from personalize.backends.echo import EchoBackend
from personalize.errors import Cancelled, Conflict, InvalidParameter, NotFound, StorageUnavailable
from personalize.reporting.explanation import parent_name
from personalize.service import Administration
from personalize.types import Outcome, Review, UserId
from tests.service.support import Disk, ask, opened, says, store_on, taught

ON = {"population": True}


def line(user: str | None, *texts: str) -> str:
    messages = [{"role": one.role, "content": one.content} for one in says(*texts).messages]
    return json.dumps({"messages": messages, "user": user})


def written(folder: Path, *lines: str, name: str = "log.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(f"{one}\n" for one in lines))
    return path


@pytest.fixture()
def log(tmp_path) -> Path:
    return written(
        tmp_path,
        line("alice", "one", "reply one", "shorter", "reply two", "even shorter"),
        "{broken",
        line("bob", "hello", "reply", "no emoji"),
        line(None, "hello", "reply", "a list"),
        line("alice", "one", "reply one", "shorter"),
    )


@pytest.fixture()
def home(tmp_path) -> Path:
    return tmp_path / "home"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def owner_of(app) -> UserId:
    return UserId(app.store.ensure_population_owner().user_id)


# --- building ------------------------------------------------------------------------------------------------------


def test_a_build_is_one_version_with_a_manifest_of_its_sources(home, log):
    async def main():
        async with opened(home) as app:
            report = await app.build_population([log])
            assert report.version == 1 and report.outcomes == {"applied": 3, "skipped_duplicate": 1}
            assert (report.num_people, report.num_anonymous) == (2, 1)
            assert [reason.partition(":")[0] for reason in report.first_broken] == ["log 1 line 2"]
            (known,) = await app.population()
            (source,) = known.sources
            assert known.sources == report.sources and known.is_head and known.kept
            assert (source.digest, source.num_bytes) == (digest(log), log.stat().st_size)
            assert (source.num_lines, source.num_broken, source.num_conversations) == (5, 1, 3)
            assert (source.num_people, source.num_lessons) == (2, 3)
            assert await app.users() == ()
            assert not any(b"shorter" in path.read_bytes() for path in home.rglob("*") if path.is_file())

    asyncio.run(main())


def test_every_conversation_is_told_by_itself_and_goes_on_from_the_weights_before(home, log):
    seen: list[tuple[str, list[str]]] = []
    parents: list[Any] = []

    class Watching(EchoBackend):
        async def run_update(self, lessons, starts, out_dirs):
            parents.extend(starts)
            return await super().run_update(lessons, starts, out_dirs)

    def judge(lesson):
        seen.append((lesson.experience.follow_up, [turn.follow_up for turn in lesson.memory]))
        return Outcome.APPLIED

    async def main():
        async with opened(home, Watching(judge)) as app:
            await app.build_population([log])
            assert seen == [("shorter", []), ("even shorter", ["shorter"]), ("no emoji", [])]
            assert parents[0] is None and None not in parents[1:]
            parents.clear()
            await app.build_population([log])
            assert parents[0] is None, "the next version is made of its logs, not of the version before"

    asyncio.run(main())


def test_several_logs_are_one_adapter_and_each_has_its_digest(home, tmp_path, log):
    other = written(tmp_path, line("carol", "hi", "reply", "in French"), name="other.jsonl")

    async def main():
        async with opened(home) as app:
            report = await app.build_population([log, other])
            assert [source.digest for source in report.sources] == [digest(log), digest(other)]
            assert [source.num_lessons for source in report.sources] == [3, 1]
            (use,) = await app.population_uses("carol")
            assert (use.in_sources, use.num_lessons) == ((digest(other),), 1)

    asyncio.run(main())


def test_people_can_be_left_out_and_given_to(home, log):
    async def main():
        async with opened(home) as app:
            report = await app.build_population([log], without=["alice"], user="nobody in particular")
            assert (report.num_left_out, report.num_anonymous, report.outcomes) == (2, 0, {"applied": 2})
            assert await app.population_uses("alice") == ()
            assert len(await app.population_uses("bob")) == 1

    asyncio.run(main())


def test_a_dry_run_changes_nothing(home, log):
    async def main():
        async with opened(home) as app:
            report = await app.build_population([log], dry_run=True)
            assert (report.version, report.outcomes) == (None, {"queued": 3, "skipped_duplicate": 1})
            assert await app.population() == () and not list(home.glob("staging/*/*"))

    asyncio.run(main())


def test_nothing_is_learnt_from_users_who_have_refused(home, log):
    async def main():
        async with opened(home) as app:
            await app.consent("alice", False)
            await ask(app, "hello", user="bob")
            await app.pause("bob")
            report = await app.build_population([log])
            assert report.version is None
            assert report.outcomes == {"skipped_no_consent": 3, "skipped_paused": 1} and report.num_people == 0
            await app.resume("bob")
            assert (await app.build_population([log])).outcomes["applied"] == 1
            assert await app.population_uses("alice") == ()
        async with opened(home, learning="ask") as app:
            assert (await app.build_population([log])).outcomes == {"skipped_no_consent": 4}

    asyncio.run(main())


def test_guards_are_those_of_live_follow_ups_and_nothing_learnt_is_no_version(home, log):
    async def main():
        async with opened(home, EchoBackend(lambda lesson: Outcome.REJECTED_KL)) as app:
            report = await app.build_population([log])
            assert (report.version, report.outcomes["rejected_kl"]) == (None, 3)
            assert await app.population() == () and not list(home.glob("staging/*/*"))

    asyncio.run(main())


def test_a_review_that_finds_a_fault_keeps_it_unpublished(home, log):
    class Strict(EchoBackend):
        async def review(self, request):
            return Review("repetition")

    async def main():
        async with opened(home, Strict()) as app:
            report = await app.build_population([log])
            assert (report.version, report.breach) == (None, "repetition")
            assert await app.population() == () and not list(home.glob("staging/*/*"))
        async with opened(home, Strict(), review_every=0) as app:
            assert (await app.build_population([log])).version == 1

    asyncio.run(main())


def test_a_log_that_changes_meanwhile_is_not_published(home, log):
    async def main():
        async with opened(home) as app:
            calls: list[tuple[int, int]] = []

            def grown(num_bytes: int, num_lessons: int) -> None:
                if not calls:
                    with open(log, "a") as file:
                        file.write(line("carol", "late", "reply", "shorter") + "\n")
                calls.append((num_bytes, num_lessons))

            with pytest.raises(Conflict, match="has changed"):
                await app.build_population([log], progress=grown)
            assert calls[-1] == (log.stat().st_size, 4)
            assert await app.population() == () and not list(home.glob("staging/*/*"))

    asyncio.run(main())


def test_somebody_who_is_forgotten_meanwhile_is_not_published(home, log):
    async def main():
        async with opened(home) as app:
            await ask(app, "hello", user="alice")
            build = app.store.publish_population

            def late(staged, **how):
                app.store.forget(app.store.find_user("alice").user_id)
                return build(staged, **how)

            app.store.publish_population = late
            with pytest.raises(Conflict, match="forgotten"):
                await app.build_population([log])
            assert await app.population() == () and not list(home.glob("staging/*/*"))

    asyncio.run(main())


def test_what_cannot_be_built_from_is_refused_before_anything_is_done(home, tmp_path, log):
    copy = written(tmp_path, *log.read_text().splitlines(), name="copy.jsonl")

    async def main():
        async with opened(home) as app:
            for logs in ([], [tmp_path / "nothing"], [tmp_path], [log, copy], [log] * 65):
                with pytest.raises(InvalidParameter, match="log"):
                    await app.build_population(logs)
            for how in ({"user": " "}, {"without": ["x" * 300]}):
                with pytest.raises(InvalidParameter, match="user"):
                    await app.build_population([log], **how)
            assert await app.population() == ()
        await app.aclose()
        with pytest.raises(Cancelled):
            await app.build_population([log])

    asyncio.run(main())


def test_a_line_that_names_nobody_possible_or_cannot_be_shown_is_broken_as_a_whole(home, tmp_path):
    log = written(
        tmp_path,
        line("x" * 300, "hello", "reply", "shorter"),
        line("alice", "hello", "reply", "shorter", "x", "y"),
        line("alice", "hello", "fine", "shorter", "refused", "longer"),
    )

    async def main():
        async with opened(home) as app:
            told = app._opened.renderer.reply_ids

            def strict(text):
                if text == "refused":
                    raise InvalidParameter("reply", text, "another one")
                return told(text)

            app._opened.renderer.reply_ids = strict
            report = await app.build_population([log])
            assert report.sources[0].num_broken == 2 and report.outcomes == {"applied": 2}

    asyncio.run(main())


def test_of_two_builds_at_once_one_is_published(home, log):
    async def main():
        async with opened(home) as app:
            builds = (app.build_population([log]), app.build_population([log]))
            ends = await asyncio.gather(*builds, return_exceptions=True)
            (lost,) = [end for end in ends if isinstance(end, Conflict)]
            assert "another build ended first" in lost.message
            assert len([one for one in await app.population() if one.kept]) == 1 and not list(home.glob("staging/*/*"))

    asyncio.run(main())


def test_a_service_that_closes_ends_a_build_without_a_trace(home, log):
    class Slow(EchoBackend):
        started = asyncio.Event()

        async def run_update(self, lessons, starts, out_dirs):
            reports = await super().run_update(lessons, starts, out_dirs)
            self.started.set()
            await asyncio.Event().wait()
            return reports

    async def main():
        backend = Slow()
        async with opened(home, backend) as app:
            building = asyncio.create_task(app.build_population([log]))
            await backend.started.wait()
        with pytest.raises(Cancelled, match="closing"):
            await building
        assert not list(home.glob("staging/*/*"))
        async with opened(home) as app:
            assert await app.population() == ()

    asyncio.run(main())


def test_a_full_disk_stops_it(home, log):
    disk = Disk()

    async def main():
        home.mkdir()
        async with opened(home, store=store_on(disk, home)) as app:
            disk.used = 0.95
            with pytest.raises(StorageUnavailable, match="nothing can be learnt now"):
                await app.build_population([log])

    asyncio.run(main())


# --- the reserved owner --------------------------------------------------------------------------------------------


def test_nobody_is_the_owner(home, log, tmp_path):
    async def main():
        async with opened(home, **ON) as app:
            await app.build_population([log])
            owner = await owner_of(app)
            calls = (
                lambda: app.chat(owner, "hello"),
                lambda: app.complete(says("hello", user=owner, version=1)),
                lambda: app.learn_from(owner, says("one", "reply", "two").messages),
                lambda: app.user(owner),
                lambda: app.versions(owner),
                lambda: app.updates(owner),
                lambda: app.rollback(owner, 1),
                lambda: app.undo(owner),
                lambda: app.reset(owner),
                lambda: app.pin(owner, 1),
                lambda: app.pause(owner),
                lambda: app.resume(owner),
                lambda: app.consent(owner, True),
                lambda: app.export(owner, tmp_path / "out.zip"),
                lambda: app.export_version(owner, 1, tmp_path / "out.zip"),
                lambda: app.import_(owner, tmp_path),
                lambda: app.rebase(owner),
                lambda: app.explain(owner),
                lambda: app.settled(owner),
                lambda: app.forget(owner),
                lambda: Access(app).create_key("user", owner),
            )
            for number, call in enumerate(calls):
                with pytest.raises(NotFound):
                    await call()
                    pytest.fail(f"call {number} reached the owner")
            with pytest.raises(NotFound):
                async with app.workspace(owner):
                    pass
            assert (await app.fingerprint([owner]))[owner].startswith("base:")
            assert (await ask(app, "hello", user=str(owner))).population_version == 1, "as a name it is just a name"
            assert [one.number for one in await app.population()] == [1]
        with Administration.open(app.settings) as store:
            assert owner not in {user.user_id for user in store.users()}
            for look in (store.user, store.versions, store.forget):
                with pytest.raises(NotFound):
                    look(owner)

    asyncio.run(main())


# --- serving -------------------------------------------------------------------------------------------------------


def test_off_by_default_nobody_is_served_with_it(home, log):
    async def main():
        async with opened(home) as app:
            before = await app.fingerprint(["alice", "new"])
            await app.build_population([log])
            assert await app.fingerprint(["alice", "new"]) == before
            reply = await ask(app, "hello", user="new")
            assert (reply.text, reply.population_version) == ("[base] You said: hello", None)
            await taught(app, user="new")
            assert "population" not in (await app.versions("new"))[0].metrics

    asyncio.run(main())


def test_on_who_has_no_version_is_served_with_it_and_begins_with_it(home, log):
    beginnings: list[Any] = []

    class Watching(EchoBackend):
        async def run_update(self, lessons, starts, out_dirs):
            beginnings.extend(
                (start.name if start else None, lesson.state) for start, lesson in zip(starts, lessons, strict=True)
            )
            return await super().run_update(lessons, starts, out_dirs)

    async def main():
        async with opened(home, Watching(), **ON) as app:
            await taught(app, user="before")
            await ask(app, "hello", user="other")
            own = await app.fingerprint(["before"])
            await app.build_population([log])
            (known,) = await app.population()
            assert await app.fingerprint(["before"]) == own, "who has a version keeps it"
            reply = await ask(app, "hello", user="new")
            assert (reply.adapter_version, reply.population_version) == (None, 1)
            assert reply.text == "[v1] You said: hello"
            assert app.store.load_turn(reply.turn_id).adapter_number is None
            others = await app.fingerprint(["other"])
            assert others["other"].startswith(known.name)
            beginnings.clear()
            await taught(app, "hi", user="new")
            await taught(app, "again", user="new")
            assert beginnings[0][0] == known.name and beginnings[0][1].block == ()
            assert beginnings[1][0] != known.name
            second, first = await app.versions("new")
            assert (first.number, first.parent, second.parent) == (1, None, 1)
            assert first.metrics["population"] == second.metrics["population"] == 1
            assert (await ask(app, "fresh", user="new")).adapter_version == 2
            assert await app.fingerprint(["before"]) == own and await app.fingerprint(["other"]) == others
            await app.build_population([log], without=["bob"])
            assert (await ask(app, "fresh", user="other")).population_version == 2
            assert (await ask(app, "fresh", user="new")).adapter_version == 2

    asyncio.run(main())


def test_anonymous_temporary_and_base_requests_do_not_use_it(home, log):
    async def main():
        async with opened(home, **ON) as app:
            await app.build_population([log])
            for how in ({"user": None}, {"temporary": True}, {"version": "base"}):
                assert (await ask(app, "hello", **how)).text == "[base] You said: hello"
            with pytest.raises(NotFound):
                await ask(app, "hello", version=1)

    asyncio.run(main())


def test_undo_leads_back_to_it_reset_to_the_base(home, log):
    async def main():
        async with opened(home, **ON) as app:
            await app.build_population([log])
            await taught(app)
            assert await app.undo("alice") is None
            assert (await ask(app, "fresh")).population_version == 1
            await app.rollback("alice", 1)
            assert (await ask(app, "fresh")).adapter_version == 1
            await app.reset("alice")
            assert (await ask(app, "fresh")).text == "[base] You said: fresh"
            await taught(app, "anew")
            assert "population" not in (await app.versions("alice"))[0].metrics

    asyncio.run(main())


def test_the_first_turn_undone_leaves_a_line_that_began_with_it(home, log):
    beginnings: list[Any] = []

    class Watching(EchoBackend):
        async def run_update(self, lessons, starts, out_dirs):
            beginnings.extend(start.name if start else None for start in starts)
            return await super().run_update(lessons, starts, out_dirs)

    async def main():
        async with opened(home, Watching(), **ON) as app:
            await app.build_population([log])
            (known,) = await app.population()
            await taught(app, "one")
            await taught(app, "two")
            *_, first = await app.updates("alice")
            beginnings.clear()
            report = await app.undo_turn("alice", first.turn_id)
            assert report.status == "recomputed" and beginnings == [known.name]
            (newest, *_) = await app.versions("alice")
            assert (newest.number, newest.metrics["population"]) == (report.version, 1)
            assert (await app.forget("alice")).population[0].in_line

    asyncio.run(main())


def test_a_first_version_is_explained_against_what_it_began_with(home, log):
    async def main():
        async with opened(home, **ON) as app:
            await app.build_population([log])
            await taught(app)
            told = await app.explain("alice")
            assert told.parent is None and parent_name(told) == "version 1 of the population adapter"
            assert told.probe.before.startswith("[v1]") and told.probe.base.startswith("[base]")
            await app.remove_population()
            with pytest.raises(NotFound, match="population adapter"):
                await app.explain("alice")

    asyncio.run(main())


def test_another_process_sees_a_build_and_a_removal_at_its_next_request(home, log):
    async def main():
        async with opened(home, **ON) as app, opened(home, learns=False, **ON) as other:
            assert (await ask(other, "hello")).population_version is None
            await app.build_population([log])
            assert (await ask(other, "hello")).population_version == 1
            with Administration.open(app.settings) as store:
                store.population.remove()
            for one in (app, other):
                assert (await ask(one, "hello")).text == "[base] You said: hello"

    asyncio.run(main())


# --- forgetting and removing ---------------------------------------------------------------------------------------


def test_the_receipt_names_every_version_that_the_user_is_part_of(home, log):
    async def main():
        async with opened(home, **ON) as app:
            await app.build_population([log])
            await ask(app, "hello", user="bob")
            await taught(app, user="new")
            await taught(app, user="alice")
            (use,) = (await app.forget("alice")).population
            assert (use.number, use.in_sources, use.in_line) == (1, (digest(log),), True)
            assert (use.num_conversations, use.num_lessons) == (2, 2)
            (use,) = (await app.forget("new")).population
            assert (use.in_sources, use.in_line, use.sources) == ((), True, (digest(log),))
            report = await app.build_population([log], without=["alice"])
            assert report.version == 2 and report.num_left_out == 2
            await app.remove_population(1)
            (use,) = (await app.forget("bob")).population[1:]
            assert (use.number, use.in_line) == (2, False)
            assert [(one.number, one.kept, one.num_forgotten) for one in await app.population()] == [
                (2, True, 1),
                (1, False, 2),
            ]
            await ask(app, "hello", user="carol")
            assert (await app.forget("carol")).population == ()

    asyncio.run(main())


def test_a_person_can_be_asked_for_without_being_forgotten(home, log):
    async def main():
        async with opened(home) as app:
            await app.build_population([log])
            assert [use.number for use in await app.population_uses("alice")] == [1]
            assert await app.population_uses("nobody") == ()
            for name in ("", " ", None, UserId("0" * 32)):
                with pytest.raises(InvalidParameter):
                    await app.population_uses(name)

    asyncio.run(main())


def test_removal_serves_the_base_again_and_lets_the_engine_go_of_it(home, log):
    backend = EchoBackend()

    async def main():
        async with opened(home, backend, **ON) as app:
            await app.build_population([log])
            await ask(app, "hello", user="new")
            await taught(app)
            own = await app.fingerprint(["alice"])
            owner = await owner_of(app)
            assert any(owner in name for name in backend._loaded)
            for number in (0, True, "1"):
                with pytest.raises(InvalidParameter):
                    await app.remove_population(number)
            with pytest.raises(NotFound):
                await app.remove_population(7)
            assert await app.remove_population() == 1
            assert not any(owner in name for name in backend._loaded)
            assert (await ask(app, "hello", user="new")).text == "[base] You said: hello"
            assert await app.fingerprint(["alice"]) == own
            assert await app.remove_population() == 0

    asyncio.run(main())


def test_the_blocking_twin_has_it_too(home, log):
    with SyncPersonalizer.open(settings=Settings(backend="echo", home=home)) as app:
        assert app.build_population([log]).version == 1
        assert len(app.population()) == 1 and len(app.population_uses("bob")) == 1
        assert app.remove_population(1) == 1
