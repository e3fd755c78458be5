"""Taking back an older turn: the later ones are learnt again without it, and everybody can see that they were."""

import asyncio
import json

import pytest

from adapters_store import LocalBlobs, Store
from adapters_store.limits import Limits
from personalize.backends.echo import EchoBackend, write_folder
from personalize.errors import (
    AdapterMismatch,
    Cancelled,
    Conflict,
    Gone,
    InvalidParameter,
    NotFound,
    Overloaded,
)
from personalize.service import undo as undoing
from personalize.types import LearningState, Outcome
from personalize.updates.lineage import lineage_of
from tests.service.support import Watched, ask, opened, says, staged, taught, until

OTHER = "f" * 64
WISHES = ("shorter", "no lists", "more examples", "a haiku")


def run(work, home, *args, **options):
    async def main():
        async with opened(home, *args, **options) as app:
            return await work(app)

    return asyncio.run(main())


def store_with(home, **limits) -> Store:
    home.mkdir(parents=True, exist_ok=True)
    return Store.open(f"sqlite:///{home / 'index.sqlite'}", LocalBlobs(home), limits=Limits(**limits))


async def learnt(app, *wishes, user="alice") -> list[str]:
    """Teach one turn per wish; return the ids of all turns that have taught the user anything, oldest first."""
    for wish in wishes:
        await app.learn_from(user, says(f"question before {wish}", "a long reply", wish).messages)
    assert await app.settled(user, 20)
    return [update.turn_id for update in reversed(await app.updates(user)) if update.outcome is Outcome.APPLIED]


def version(app, number, user="alice"):
    return app.store.version(app.store.find_user(user).user_id, number)


def remembered(state) -> set[str]:
    found = LearningState.from_json(state)
    return {*found.block, *found.replay}


def told(lessons) -> list[str]:
    return [lesson.experience.follow_up for lesson in lessons]


async def standing(app, user="alice"):
    """What must not change where nothing is done: heads, versions, updates."""
    return await app.user(user), await app.versions(user), await app.updates(user)


# --- what it does ----------------------------------------------------------------------------------------------------


def test_the_later_turns_are_learnt_again_from_the_version_that_the_turn_began_with(tmp_path):
    backend = Watched()

    async def work(app):
        turns = await learnt(app, *WISHES)
        backend.lessons.clear()
        backend.parents.clear()
        report = await app.undo_turn("alice", turns[1])
        assert (report.status, report.turn_id, report.num_turns) == ("recomputed", turns[1], 2)
        assert (report.replaced, report.start, report.version) == (4, 1, 5)
        assert report.outcomes == {"applied": 2}
        assert told(backend.lessons) == ["more examples", "a haiku"]
        assert backend.parents[0].name == version(app, 1).name, "the exact version, not a copy of its weights"
        memory = [[turn.follow_up for turn in lesson.memory] for lesson in backend.lessons]
        assert memory == [["shorter"], ["shorter", "more examples"]]
        assert (await app.user("alice")).head == 5 and not staged(tmp_path)
        assert (await ask(app, "fresh")).adapter_version == 5

    run(work, tmp_path, backend)


def test_the_result_is_a_new_version_that_says_what_it_is(tmp_path):
    async def work(app):
        turns = await learnt(app, *WISHES)
        before = {one.number: one.digest for one in await app.versions("alice")}
        report = await app.undo_turn("alice", turns[1])
        found = version(app, report.version)
        assert (found.origin, found.parent, found.trained_from) == ("recomputation", 4, 1)
        assert found.metrics["recomputed_from"] == 1 and found.metrics["without"] == 2
        assert lineage_of(app.store, found).steps == (1, 3, 4)
        app.store.verify(found)
        assert app.store.moments_path(found) is not None
        (line, *_) = app.store.audit_log(1)
        assert (line.action, line.object_id) == ("version.recomputation", found.user_id)
        expected = {"turn": turns[1], "before": 4, "from": 1, "steps": 2, "number": 5, "digest": found.digest}
        assert line.detail == expected and app.store.audit_intact()
        after = {one.number: one.digest for one in await app.versions("alice")}
        assert before.items() < after.items(), "versions are only ever added"
        for number in before:
            app.store.verify(version(app, number))

    run(work, tmp_path)


def test_the_undone_turn_is_in_no_later_block_replay_or_memory(tmp_path):
    backend = Watched()

    async def work(app):
        turns = await learnt(app, *WISHES)
        assert turns[1] in remembered(version(app, 4).state)
        report = await app.undo_turn("alice", turns[1])
        backend.lessons.clear()
        await learnt(app, "bullet points", "formal")
        for number in (report.version, 6, 7):
            assert turns[1] not in remembered(version(app, number).state)
            assert 2 not in lineage_of(app.store, version(app, number)).steps
        assert all(turn.turn_id != turns[1] for lesson in backend.lessons for turn in lesson.memory)
        assert {turn.turn_id for turn in backend.lessons[-1].memory} >= {turns[0], turns[2], turns[3]}
        # Told once more by a client that goes on from the same reply, the turn does not train a second time.
        turn = app.store.load_turn(turns[1])
        again = await ask(app, turn.messages[-1][1], turn.reply_text, "no lists")
        assert again.outcome is Outcome.SKIPPED_DUPLICATE

    run(work, tmp_path, backend)


def test_the_last_turn_is_undone_exactly_and_nothing_is_learnt(tmp_path):
    backend = Watched()

    async def work(app):
        turns = await learnt(app, *WISHES)
        backend.lessons.clear()
        report = await app.undo_turn("alice", turns[-1])
        assert (report.status, report.start, report.version, report.num_turns) == ("exact", 3, 3, 0)
        assert not backend.lessons and len(await app.versions("alice")) == 4
        (line, *_) = app.store.audit_log(1)
        assert (line.action, line.detail["before"], line.detail["after"]) == ("version.undo", 4, 3)
        assert line.detail["turn"] == turns[-1]

    run(work, tmp_path, backend)


def test_without_the_first_turn_a_new_adapter_is_begun(tmp_path):
    backend = Watched()

    async def work(app):
        turns = await learnt(app, *WISHES[:3])
        backend.parents.clear()
        report = await app.undo_turn("alice", turns[0])
        assert (report.start, report.version) == (None, 4)
        assert backend.parents[0] is None and version(app, 4).trained_from is None

    run(work, tmp_path, backend)


def test_without_the_only_turn_the_base_serves_again(tmp_path):
    async def work(app):
        (turn,) = await learnt(app, "shorter")
        report = await app.undo_turn("alice", turn)
        assert (report.status, report.start, report.version) == ("exact", None, None)
        assert (await ask(app, "fresh")).adapter_version is None

    run(work, tmp_path)


def test_an_update_names_its_turn(tmp_path):
    async def work(app):
        await learnt(app, *WISHES)
        *_, first = await app.updates("alice")
        report = await app.undo_turn("alice", first.update_id)
        assert (report.turn_id, report.status) == (first.turn_id, "recomputed")

    run(work, tmp_path)


def test_turns_are_undone_one_after_the_other(tmp_path):
    backend = Watched()

    async def work(app):
        turns = await learnt(app, *WISHES)
        await app.undo_turn("alice", turns[1])
        await learnt(app, "formal")
        backend.lessons.clear()
        report = await app.undo_turn("alice", turns[2])
        assert (report.start, report.version) == (1, 7), "version 5 has learnt from the turn, version 1 has not"
        assert told(backend.lessons) == ["a haiku", "formal"]
        assert lineage_of(app.store, version(app, 7)).steps == (1, 4, 6)
        report = await app.undo_turn("alice", (await app.updates("alice"))[0].turn_id)
        assert (report.status, report.start, report.num_turns) == ("recomputed", 1, 1)
        assert lineage_of(app.store, version(app, 8)).steps == (1, 4)

    run(work, tmp_path, backend)


def test_a_recomputation_can_be_taken_back_and_made_once_more(tmp_path):
    backend = Watched()

    async def work(app):
        turns = await learnt(app, *WISHES)
        await app.undo_turn("alice", turns[1])
        backend.lessons.clear()
        assert (await app.undo("alice")).number == 4
        report = await app.undo_turn("alice", turns[1])
        assert (report.status, report.version) == ("exact", 5) and not backend.lessons

    run(work, tmp_path, backend)


def test_a_dry_run_says_the_same_and_changes_nothing(tmp_path):
    backend = Watched()

    async def work(app):
        turns = await learnt(app, *WISHES)
        backend.lessons.clear()
        before, counter = await standing(app), app.store.change_counter()
        older = await app.undo_turn("alice", turns[1], dry_run=True)
        last = await app.undo_turn("alice", turns[-1], dry_run=True)
        assert (older.status, older.start, older.num_turns, older.version) == ("planned", 1, 2, None)
        assert (last.status, last.start, last.num_turns) == ("planned", 3, 0)
        assert await standing(app) == before and app.store.change_counter() == counter
        assert not backend.lessons and not staged(tmp_path)

    run(work, tmp_path, backend)


def test_other_users_are_untouched(tmp_path):
    async def work(app):
        await learnt(app, *WISHES[:2], user="bob")
        turns = await learnt(app, *WISHES)
        before, served = await standing(app, "bob"), await app.fingerprint(["bob"])
        files = {path: path.read_bytes() for path in app.store.path(version(app, 2, "bob")).iterdir()}
        await app.undo_turn("alice", turns[0])
        assert await standing(app, "bob") == before and await app.fingerprint(["bob"]) == served
        assert {path: path.read_bytes() for path in files} == files

    run(work, tmp_path)


# --- steps that come to something else -------------------------------------------------------------------------------


def test_a_step_that_is_rejected_this_time_is_left_out_and_counted(tmp_path):
    verdicts = iter([Outcome.APPLIED] * 4 + [Outcome.REJECTED_KL, Outcome.APPLIED])
    backend = Watched(judge=lambda lesson: next(verdicts))

    async def work(app):
        turns = await learnt(app, *WISHES)
        report = await app.undo_turn("alice", turns[1])
        assert report.outcomes == {"rejected_kl": 1, "applied": 1}
        assert lineage_of(app.store, version(app, 5)).steps == (1, 4)
        assert remembered(version(app, 5).state) == {turns[0], turns[3]}
        assert backend.parents[-1].name == version(app, 1).name

    run(work, tmp_path, backend)


def test_where_nothing_is_left_to_learn_the_start_serves(tmp_path):
    verdicts = iter([Outcome.APPLIED] * 3 + [Outcome.SKIPPED_LOW_SIGNAL])
    backend = Watched(judge=lambda lesson: next(verdicts))

    async def work(app):
        turns = await learnt(app, *WISHES[:3])
        report = await app.undo_turn("alice", turns[1])
        assert (report.status, report.version, report.outcomes) == ("recomputed", 1, {"skipped_low_signal": 1})
        assert (await app.user("alice")).head == 1 and not staged(tmp_path)

    run(work, tmp_path, backend)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_turn_that_cannot_be_undone_is_a_typed_error(tmp_path):
    backend = Watched(judge=lambda lesson: Outcome.REJECTED_KL if told([lesson]) == ["boo"] else Outcome.APPLIED)

    async def work(app):
        turns = await learnt(app, *WISHES[:3])
        await taught(app, "one more", "boo")
        rejected = (await app.updates("alice"))[0].turn_id
        plain = await ask(app, "without a follow-up")
        (theirs,) = await learnt(app, "shorter", user="bob")
        before = await standing(app)
        for asked, error, words in (
            ("0" * 32, NotFound, "no such turn"),
            (theirs, NotFound, "no such turn"),
            ("newest", InvalidParameter, "32 hex digits"),
            (rejected, Conflict, "'rejected_kl'"),
            (str(plain.turn_id), Conflict, "no follow-up"),
        ):
            with pytest.raises(error, match=words):
                await app.undo_turn("alice", asked)
        with pytest.raises(NotFound):
            await app.undo_turn("nobody", turns[0])
        assert await standing(app) == before

    run(work, tmp_path, backend)


def test_an_undone_turn_is_undone_once(tmp_path):
    async def work(app):
        turns = await learnt(app, *WISHES[:3])
        await app.undo_turn("alice", turns[0])
        for _ in range(2):
            with pytest.raises(Conflict, match="undone already"):
                await app.undo_turn("alice", turns[0])
        await app.rollback("alice", 1)
        with pytest.raises(Conflict, match="went back behind it"):
            await app.undo_turn("alice", turns[1])
        await app.reset("alice")
        with pytest.raises(Conflict, match="no version"):
            await app.undo_turn("alice", turns[1])

    run(work, tmp_path)


def test_a_paused_user_can_go_back_but_not_be_learnt_from(tmp_path):
    async def work(app):
        turns = await learnt(app, *WISHES[:3])
        await app.pause("alice")
        before = await standing(app)
        with pytest.raises(Conflict, match="skipped_paused"):
            await app.undo_turn("alice", turns[0])
        assert await standing(app) == before
        assert (await app.undo_turn("alice", turns[2])).version == 2

    run(work, tmp_path)


def test_a_turn_of_another_base_is_named_as_such(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            (turn,) = await learnt(app, "shorter")
        async with opened(tmp_path, base_digest=OTHER) as app:
            with pytest.raises(Conflict, match="no version on this base"):
                await app.undo_turn("alice", turn)
            await app.reset("alice")
            await learnt(app, "no lists")
            with pytest.raises(AdapterMismatch):
                await app.undo_turn("alice", turn)

    asyncio.run(main())


# --- what retention has removed --------------------------------------------------------------------------------------


def test_from_an_earlier_version_where_the_exact_one_is_gone(tmp_path):
    backend = Watched()

    async def work(app):
        turns = await learnt(app, "one", "two")
        await app.pin("alice", 2)
        turns = await learnt(app, "three", "four", "five", "six", "seven")
        assert [one.number for one in await app.versions("alice")] == [7, 6, 2]
        backend.lessons.clear()
        report = await app.undo_turn("alice", turns[3])
        assert (report.start, report.num_turns) == (2, 4)
        assert told(backend.lessons) == ["three", "five", "six", "seven"]
        assert lineage_of(app.store, version(app, 8)).steps == (1, 2, 3, 5, 6, 7)

    run(work, tmp_path, backend, store=store_with(tmp_path, keep_newest=2, keep_daily_days=0))


def test_from_the_beginning_where_no_version_before_the_turn_is_left(tmp_path):
    backend = Watched()

    async def work(app):
        turns = await learnt(app, *WISHES)
        backend.lessons.clear()
        report = await app.undo_turn("alice", turns[1])
        assert (report.start, report.num_turns) == (None, 3) and backend.parents[-3] is None
        assert told(backend.lessons) == ["shorter", "more examples", "a haiku"]

    run(work, tmp_path, backend, store=store_with(tmp_path, keep_newest=1, keep_daily_days=0))


def test_a_version_without_its_folder_is_no_start(tmp_path):
    async def work(app):
        turns = await learnt(app, *WISHES)
        (app.store.path(version(app, 2)) / "adapter_model.safetensors").unlink()
        assert (await app.undo_turn("alice", turns[2], dry_run=True)).start == 1

    run(work, tmp_path)


def test_texts_that_are_gone_are_named(tmp_path):
    async def work(app):
        turns = await learnt(app, *WISHES)
        app.store._drop_conversation(app.store.find_user("alice").user_id, turns[2])
        before = await standing(app)
        for dry_run in (True, False):
            with pytest.raises(Gone, match=turns[2]) as caught:
                await app.undo_turn("alice", turns[1], dry_run=dry_run)
            assert turns[3] not in caught.value.message
        assert await standing(app) == before and not staged(tmp_path)
        # The turn's own text is not needed, nor are those of turns that a kept version has learnt.
        report = await app.undo_turn("alice", turns[2])
        assert (report.status, report.start, report.num_turns) == ("recomputed", 2, 1)

    run(work, tmp_path)


def test_an_imported_adapter_is_the_root_and_cannot_be_done_without(tmp_path):
    write_folder(tmp_path / "in", "seed")
    home = tmp_path / "home"

    async def work(app):
        await app.import_("alice", tmp_path / "in")
        turns = await learnt(app, "one")
        report = await app.undo_turn("alice", turns[0])
        assert (report.status, report.version) == ("exact", 1)
        turns = await learnt(app, "two", "three", "four", "five")
        assert 1 not in [one.number for one in await app.versions("alice")]
        with pytest.raises(Gone, match="version 1"):
            await app.undo_turn("alice", turns[1])

    run(work, home, store=store_with(home, keep_newest=2, keep_daily_days=0))


# --- with others at work ---------------------------------------------------------------------------------------------


class Slow(Watched):
    """Holds every update up while ``go`` is not set."""

    def __init__(self):
        super().__init__()
        self.go = asyncio.Event()
        self.go.set()

    async def run_update(self, lessons, parents, out_dirs):
        reports = await super().run_update(lessons, parents, out_dirs)
        await self.go.wait()
        return reports


def test_new_follow_ups_wait_in_the_queue_and_are_learnt_on_top(tmp_path):
    backend = Slow()

    async def work(app):
        turns = await learnt(app, *WISHES[:3])
        first = await ask(app, "hello")
        backend.go.clear()
        undoing_it = asyncio.create_task(app.undo_turn("alice", turns[0]))
        await until(lambda: len(backend.lessons) == 4)
        after = await ask(app, "hello", first.text, "formal")
        assert after.outcome is Outcome.QUEUED and after.adapter_version == 3, "answered at once, by the old head"
        backend.go.set()
        report = await undoing_it
        assert await app.settled("alice", 20)
        assert (await app.outcome(after.request_id), report.version) == (Outcome.APPLIED, 4)
        assert (version(app, 5).parent, lineage_of(app.store, version(app, 5)).steps) == (4, (2, 3, 5))

    run(work, tmp_path, backend)


def test_an_update_under_way_is_finished_first_and_learnt_again(tmp_path):
    backend = Slow()

    async def work(app):
        turns = await learnt(app, *WISHES[:3])
        first = await ask(app, "hello")
        backend.go.clear()
        await ask(app, "hello", first.text, "formal")
        await until(lambda: len(backend.lessons) == 4)
        undoing_it = asyncio.create_task(app.undo_turn("alice", turns[0]))
        await until(lambda: len(app._undo.tasks) == 1)
        backend.go.set()
        report = await undoing_it
        assert (report.replaced, report.num_turns, report.version) == (4, 3, 5)
        assert lineage_of(app.store, version(app, 5)).steps == (2, 3, 4)

    run(work, tmp_path, backend)


def test_others_learn_on_meanwhile(tmp_path):
    backend = Slow()

    async def work(app):
        turns = await learnt(app, *WISHES[:3])
        backend.go.clear()
        undoing_it = asyncio.create_task(app.undo_turn("alice", turns[0]))
        await until(lambda: len(backend.lessons) == 4)
        first = await ask(app, "hello", user="bob")
        await ask(app, "hello", first.text, "formal", user="bob")
        await until(lambda: len(backend.lessons) == 5)  # while alice's first step is not over
        backend.go.set()
        assert (await undoing_it).status == "recomputed" and await app.settled("bob", 20)
        assert (await app.user("bob")).head == 1

    run(work, tmp_path, backend)


def test_a_head_that_moves_meanwhile_is_a_conflict(tmp_path):
    async def work(app):
        turns = await learnt(app, *WISHES)
        before = {one.number for one in await app.versions("alice")}
        backend.before = lambda number: number == 6 and app.store.rollback(version(app, 1).user_id, 3)
        with pytest.raises(Conflict):
            await app.undo_turn("alice", turns[1])
        assert {one.number for one in await app.versions("alice")} == before and not staged(tmp_path)
        assert (await app.user("alice")).head == 3, "who moved it wins"

    backend = Watched()
    run(work, tmp_path, backend)


@pytest.mark.parametrize("step", [5, 6])
def test_a_stop_in_the_middle_leaves_the_old_head_and_can_be_done_again(tmp_path, step):
    def crash(number):
        if number == step:
            raise SystemError("crash")

    backend = Watched(crash)

    async def work(app):
        turns = await learnt(app, *WISHES)
        before = await standing(app)
        with pytest.raises(SystemError):
            await app.undo_turn("alice", turns[1])
        assert await standing(app) == before and not staged(tmp_path)
        report = await app.undo_turn("alice", turns[1])
        assert (report.status, report.version) == ("recomputed", 5)
        assert await learnt(app, "formal"), "the user is not held for ever"

    run(work, tmp_path, backend)


@pytest.mark.parametrize("point", ["publish.staged", "publish.folder_stored", "publish.before_commit"])
def test_a_crash_while_it_is_published_leaves_the_old_head(tmp_path, monkeypatch, point):
    async def work(app):
        turns = await learnt(app, *WISHES[:3])
        before = await standing(app)

        def crash(name):
            if name == point:
                raise SystemError("crash")

        with monkeypatch.context() as patch:
            patch.setattr("adapters_store.crash.hook", crash)
            with pytest.raises(SystemError):
                await app.undo_turn("alice", turns[0])
        assert await standing(app) == before and (await ask(app, "fresh")).adapter_version == 3
        assert (await app.undo_turn("alice", turns[0])).status == "recomputed"

    run(work, tmp_path)


def test_a_user_who_is_forgotten_meanwhile_stays_forgotten(tmp_path):
    backend = Slow()

    async def work(app):
        turns = await learnt(app, *WISHES[:3])
        backend.go.clear()
        undoing_it = asyncio.create_task(app.undo_turn("alice", turns[0]))
        await until(lambda: len(backend.lessons) == 4)
        await app.forget("alice")
        with pytest.raises(Cancelled, match="forgotten"):
            await undoing_it
        assert not list((tmp_path / "users").glob("*/versions/*")) and not staged(tmp_path)
        assert not app._consumer._held

    run(work, tmp_path, backend)


@pytest.mark.parametrize("step", [4, 5])
def test_a_user_whom_another_process_forgets_is_not_brought_back(tmp_path, step):
    async def work(app):
        turns = await learnt(app, *WISHES[:3])
        user_id = app.store.find_user("alice").user_id
        backend.before = lambda number: number == step and app.store.forget(user_id)
        with pytest.raises((NotFound, Cancelled), match="forgotten"):  # as it happens, or as this process notices
            await app.undo_turn("alice", turns[0])
        assert await app.users() == () and not staged(tmp_path)

    backend = Watched()
    run(work, tmp_path, backend)


def test_closing_ends_it(tmp_path):
    backend = Slow()

    async def main():
        async with opened(tmp_path, backend) as app:
            turns = await learnt(app, *WISHES[:3])
            backend.go.clear()
            undoing_it = asyncio.create_task(app.undo_turn("alice", turns[0]))
            await until(lambda: len(backend.lessons) == 4)
        with pytest.raises(Cancelled, match="closing"):
            await undoing_it
        assert not staged(tmp_path)
        async with opened(tmp_path, EchoBackend()) as app:
            assert (await app.user("alice")).head == 3

    asyncio.run(main())


def test_too_many_at_a_time_are_refused_early(tmp_path, monkeypatch):
    monkeypatch.setattr(undoing, "MAX_PENDING", 1)
    backend = Slow()

    async def work(app):
        turns = await learnt(app, *WISHES[:3])
        backend.go.clear()
        undoing_it = asyncio.create_task(app.undo_turn("alice", turns[0]))
        await until(lambda: len(backend.lessons) == 4)
        with pytest.raises(Overloaded):
            await app.undo_turn("alice", turns[1])
        assert (await app.undo_turn("alice", turns[2], dry_run=True)).num_turns == 0
        backend.go.set()
        await undoing_it

    run(work, tmp_path, backend)


# --- beside a rebase -------------------------------------------------------------------------------------------------


def test_a_turn_of_a_rebased_adapter_is_undone_from_the_beginning(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            turns = await learnt(app, *WISHES[:3])
        backend = Watched()
        async with opened(tmp_path, backend, base_digest=OTHER) as app:
            assert (await app.rebase("alice")).version == 4
            backend.lessons.clear()
            backend.parents.clear()
            report = await app.undo_turn("alice", turns[1])
            assert (report.start, report.version, backend.parents[0]) == (None, 5, None)
            assert told(backend.lessons) == ["shorter", "more examples"]

    asyncio.run(main())


def test_a_rebase_does_not_teach_what_was_undone(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            turns = await learnt(app, *WISHES)
            await app.undo_turn("alice", turns[1])
        backend = Watched()
        async with opened(tmp_path, backend, base_digest=OTHER) as app:
            report = await app.rebase("alice")
            assert (report.source, report.num_turns, report.num_lost) == (5, 3, 0)
            assert told(backend.lessons) == ["shorter", "more examples", "a haiku"]

    asyncio.run(main())


# --- beside the population adapter -----------------------------------------------------------------------------------


def test_a_line_that_began_with_the_population_adapter_begins_with_it_again(tmp_path):
    log = tmp_path / "log.jsonl"
    said = [{"role": one.role, "content": one.content} for one in says("one", "reply one", "formal").messages]
    log.write_text(json.dumps({"messages": said, "user": "somebody"}) + "\n")
    backend = Watched()

    async def work(app):
        await app.build_population([log])
        turns = await learnt(app, *WISHES[:2])
        beginning = backend.parents[-2]
        assert beginning is not None and beginning.user_id != version(app, 1).user_id
        report = await app.undo_turn("alice", turns[0])
        assert (report.status, report.start, report.version) == ("recomputed", None, 3)
        assert backend.parents[-1] == beginning
        assert version(app, 3).metrics["population"] == version(app, 1).metrics["population"]
        await app.rollback("alice", 1)
        assert (await app.undo_turn("alice", turns[0])).status == "exact"
        fresh = await ask(app, "fresh")
        assert (fresh.adapter_version, fresh.population_version) == (None, 1), "as before the first turn"
        await app.rollback("alice", 2)
        await app.remove_population(1)
        assert (await app.undo_turn("alice", turns[0])).version == 3, "the re-computation is kept, and needs it no more"
        with pytest.raises(Gone, match="population adapter"):
            await app.undo_turn("alice", (await learnt(app, "in French"))[1])

    run(work, tmp_path / "home", backend, population=True)
