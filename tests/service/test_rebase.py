"""An adapter made again for another base: whole or not at all, the old one kept."""

import asyncio
import json

import pytest

from personalize.backends.echo import EchoBackend, write_folder
from personalize.errors import Cancelled, Conflict, NotFound
from personalize.types import Outcome
from tests.service.support import Watched, ask, opened, says, staged

OTHER = "f" * 64
CHAT = says("one", "reply one", "shorter", "reply two", "even shorter", "reply three", "a haiku").messages


def user_id(app) -> str:
    return app.store.find_user("alice").user_id


async def lived(home, messages=CHAT, **options) -> None:
    """Alice has learnt from a conversation on the first base."""
    async with opened(home, **options) as app:
        await app.learn_from("alice", messages)
        assert await app.settled("alice", 20)


def test_every_kept_turn_is_learnt_again_in_order_and_one_version_is_published(tmp_path):
    async def main():
        await lived(tmp_path)
        backend = Watched()
        async with opened(tmp_path, backend, base_digest=OTHER) as app:
            report = await app.rebase("alice")
            assert (report.status, report.source, report.version) == ("rebuilt", 3, 4)
            assert (report.num_turns, report.num_lost, report.outcomes) == (3, 0, {"applied": 3})
            told = [lesson.experience.follow_up for lesson in backend.lessons]
            assert told == ["shorter", "even shorter", "a haiku"]
            assert [len(lesson.memory) for lesson in backend.lessons] == [0, 1, 2]
            assert backend.parents[0] is None and backend.parents[2].path != backend.parents[1].path
            version = app.store.version(user_id(app), 4)
            assert (version.origin, version.parent, version.base_digest) == ("rebase", None, OTHER)
            assert len(version.state["replay"]) == 3 and app.store.moments_path(version) is not None
            app.store.verify(version)
            assert (await ask(app, "fresh")).adapter_version == 4
            assert not staged(tmp_path)
        async with opened(tmp_path) as app:  # switching back is unharmed
            assert (await ask(app, "fresh")).adapter_version == 3

    asyncio.run(main())


def test_afterwards_the_user_learns_on_and_remembers_the_turns_of_the_old_base(tmp_path):
    async def main():
        await lived(tmp_path)
        backend = Watched()
        async with opened(tmp_path, backend, base_digest=OTHER) as app:
            await app.rebase("alice")
            first = await ask(app, "hello")
            after = await ask(app, "hello", first.text, "no lists")
            assert after.outcome is Outcome.QUEUED and await app.settled("alice", 20)
            assert await app.outcome(after.request_id) is Outcome.APPLIED
            memory = backend.lessons[-1].memory
            assert [turn.follow_up for turn in memory] == ["shorter", "even shorter", "a haiku"]
            assert (await app.user("alice")).head == 5

    asyncio.run(main())


def test_a_dry_run_says_the_same_and_changes_nothing(tmp_path):
    async def main():
        await lived(tmp_path)
        backend = Watched()
        async with opened(tmp_path, backend, base_digest=OTHER) as app:
            before = app.store.change_counter()
            report = await app.rebase("alice", dry_run=True)
            assert (report.status, report.num_turns, report.num_lost, report.version) == ("planned", 3, 0, None)
            assert not backend.lessons and app.store.change_counter() == before
            assert len(await app.versions("alice")) == 3

    asyncio.run(main())


def test_it_is_done_once(tmp_path):
    async def main():
        await lived(tmp_path)
        async with opened(tmp_path, base_digest=OTHER) as app:
            await app.rebase("alice")
            assert (await app.rebase("alice")).status == "current"
            await app.reset("alice")  # begun anew: that is the user's own choice
            assert (await app.rebase("alice")).status == "current"
        async with opened(tmp_path) as app:
            assert (await app.rebase("alice")).status == "current"

    asyncio.run(main())


@pytest.mark.parametrize("stops", [1, 2, 3])
def test_a_stop_in_the_middle_leaves_no_trace_and_can_be_done_again(tmp_path, stops):
    def crash(number):
        if number == stops:
            raise SystemError("crash")

    async def main():
        await lived(tmp_path)
        async with opened(tmp_path, Watched(crash), base_digest=OTHER) as app:
            with pytest.raises(SystemError):
                await app.rebase("alice")
            assert (await app.user("alice")).head is None and not staged(tmp_path)
            assert len(await app.versions("alice")) == 3
        async with opened(tmp_path, base_digest=OTHER) as app:
            assert (await app.rebase("alice")).status == "rebuilt"

    asyncio.run(main())


@pytest.mark.parametrize("moves", ["old", "new"])
def test_a_head_that_moves_meanwhile_is_a_conflict(tmp_path, moves):
    write_folder(tmp_path / "other", "seed")

    async def main():
        home = tmp_path / "home"
        await lived(home)

        def move(number):
            if number == 2 and moves == "old":
                app.store.rollback(user_id(app), 2)
            elif number == 2:
                app.store.import_version(user_id(app), tmp_path / "other", OTHER)

        async with opened(home, Watched(move), base_digest=OTHER) as app:
            with pytest.raises(Conflict):
                await app.rebase("alice")
            assert not [one for one in await app.versions("alice") if one.origin == "rebase"]
            assert not staged(home)

    asyncio.run(main())


@pytest.mark.parametrize("last", [2, 3])
def test_a_user_who_is_forgotten_meanwhile_is_not_brought_back(tmp_path, last):
    async def main():
        await lived(tmp_path)

        def forget(number):
            if number == last:
                app.store.forget(user_id(app))

        async with opened(tmp_path, Watched(forget), base_digest=OTHER) as app:
            with pytest.raises(NotFound, match="forgotten meanwhile"):
                await app.rebase("alice")
            assert (
                await app.users() == () and not staged(tmp_path) and not list((tmp_path / "users").glob("*/versions/*"))
            )
            with pytest.raises(NotFound):
                await app.rebase("alice")

    asyncio.run(main())


def test_what_was_taken_back_is_not_taught_again(tmp_path):
    async def main():
        await lived(tmp_path)
        async with opened(tmp_path) as app:
            await app.undo("alice")
            log = says("two", "reply", "no emoji").messages
            await app.learn_from("alice", log)
            assert await app.settled("alice", 20)
        backend = Watched()
        async with opened(tmp_path, backend, base_digest=OTHER) as app:
            report = await app.rebase("alice")
            assert [one.experience.follow_up for one in backend.lessons] == ["shorter", "even shorter", "no emoji"]
            assert (report.num_turns, report.num_lost) == (3, 0)

    asyncio.run(main())


def test_turns_that_are_gone_are_counted(tmp_path):
    async def main():
        await lived(tmp_path)
        async with opened(tmp_path) as app:
            await app.learn_from("alice", says("two", "reply", "no emoji").messages)
            assert await app.settled("alice", 20)
            *_, oldest = await app.updates("alice")
            app.store._drop_conversation(user_id(app), oldest.turn_id)
        backend = Watched()
        async with opened(tmp_path, backend, base_digest=OTHER) as app:
            report = await app.rebase("alice")
            assert (report.status, report.num_turns, report.num_lost) == ("rebuilt", 1, 3)
            *_, newest = await app.updates("alice", 1)
            app.store._drop_conversation(user_id(app), newest.turn_id)
        async with opened(tmp_path, base_digest="e" * 64) as app:
            report = await app.rebase("alice")
            assert (report.status, report.num_turns, report.source) == ("no_turns", 0, 5)

    asyncio.run(main())


def test_a_rebuilt_adapter_can_be_rebuilt_once_more(tmp_path):
    async def main():
        await lived(tmp_path)
        async with opened(tmp_path, base_digest=OTHER) as app:
            await app.rebase("alice")
        backend = Watched()
        async with opened(tmp_path, backend, base_digest="e" * 64) as app:
            report = await app.rebase("alice")
            assert (report.source, report.version, report.num_turns, report.num_lost) == (4, 5, 3, 0)
            assert [one.experience.follow_up for one in backend.lessons] == ["shorter", "even shorter", "a haiku"]

    asyncio.run(main())


def test_turns_of_which_the_versions_are_pruned_are_known_by_the_memory_of_those_that_are_left(tmp_path):
    texts = [text for number in range(15) for text in (f"question {number}", f"reply {number}")]

    async def main():
        await lived(tmp_path, says(*texts).messages)
        async with opened(tmp_path, base_digest=OTHER) as app:
            assert len(await app.versions("alice")) == 10  # retention keeps the newest ten
            report = await app.rebase("alice", dry_run=True)
            assert (report.num_turns, report.num_lost) == (14, 0)

    asyncio.run(main())


def test_nothing_is_published_where_nothing_was_learnt(tmp_path):
    async def main():
        await lived(tmp_path)
        backend = Watched(judge=lambda lesson: Outcome.REJECTED_KL)
        async with opened(tmp_path, backend, base_digest=OTHER) as app:
            report = await app.rebase("alice")
            assert (report.status, report.version, report.outcomes) == ("nothing_learnt", None, {"rejected_kl": 3})
            assert len(await app.versions("alice")) == 3 and not staged(tmp_path)

    asyncio.run(main())


def test_a_rejected_turn_does_not_break_the_row(tmp_path):
    verdicts = iter([Outcome.APPLIED, Outcome.SKIPPED_LOW_SIGNAL, Outcome.APPLIED])

    async def main():
        await lived(tmp_path)
        backend = Watched(judge=lambda lesson: next(verdicts))
        async with opened(tmp_path, backend, base_digest=OTHER) as app:
            report = await app.rebase("alice")
            assert report.outcomes == {"applied": 2, "skipped_low_signal": 1}
            assert backend.parents[1].path == backend.parents[2].path and not staged(tmp_path)
            manifest = json.loads((app.store.path(app.store.version(user_id(app), 4)) / "manifest.json").read_text())
            assert (manifest["state"]["num_updates"], manifest["origin"]) == (2, "rebase")

    asyncio.run(main())


def test_a_turn_that_does_not_fit_the_new_context_is_left_out_and_counted(tmp_path):
    async def main():
        await lived(tmp_path, says("one", "reply one", "shorter", "reply two " * 40, "even shorter").messages)
        async with opened(tmp_path, EchoBackend(max_model_len=420), base_digest=OTHER) as app:
            report = await app.rebase("alice")
            assert report.status == "rebuilt" and report.outcomes == {"applied": 1, "skipped_too_long": 1}

    asyncio.run(main())


def test_imported_paused_and_new_users_are_left_alone(tmp_path):
    write_folder(tmp_path / "other", "seed")

    async def main():
        home = tmp_path / "home"
        await lived(home)
        async with opened(home) as app:
            await app.import_("bob", tmp_path / "other")
            await ask(app, "hello", user="carol")
            await app.pause("alice")
        async with opened(home, base_digest=OTHER) as app:
            found = {user: (await app.rebase(user)).status for user in ("alice", "bob", "carol")}
            assert found == {"alice": "refused", "bob": "imported", "carol": "no_adapter"}
            with pytest.raises(NotFound):
                await app.rebase("dave")

    asyncio.run(main())


class Endless(EchoBackend):
    """A learner that never ends, and counts the lessons that it has."""

    def __init__(self):
        super().__init__()
        self.started, self.num_running = asyncio.Event(), 0

    async def run_update(self, lessons, parents, out_dirs):
        self.num_running += len(lessons)
        self.started.set()
        try:
            return await asyncio.Future()
        finally:
            self.num_running -= len(lessons)


@pytest.mark.parametrize("ends", ["forget", "close"])
def test_forgetting_the_user_and_closing_stop_it(tmp_path, ends):
    async def main():
        await lived(tmp_path)
        backend = Endless()
        async with opened(tmp_path, backend, base_digest=OTHER) as app:
            work = asyncio.create_task(app.rebase("alice"))
            await backend.started.wait()
            await (app.forget("alice") if ends == "forget" else app.aclose())
            assert backend.num_running == 0 and not staged(tmp_path)
            with pytest.raises(Cancelled):
                await work

    asyncio.run(main())
