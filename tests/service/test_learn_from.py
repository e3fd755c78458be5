"""Recorded conversations as lessons: through the live queue, in order, once for ever."""

import asyncio

import pytest

from personalize import errors
from personalize.backends.echo import END, EchoBackend
from personalize.errors import InvalidParameter, NotFound, StorageUnavailable, TemplateError
from personalize.service import recordings
from personalize.types import Message, Outcome, UserId
from tests.service.support import Disk, HeldUp, ask, made, opened, says, store_on, taught, until

CHAT = says("one", "reply one", "shorter", "reply two", "even shorter", "reply three").messages


def outcomes(lessons) -> list[Outcome]:
    return [lesson.outcome for lesson in lessons]


async def learnt(app, messages=CHAT, user="alice", **options):
    lessons = await app.learn_from(user, messages, **options)
    assert await app.settled(user, 20)
    return lessons


def user_id(app, name="alice") -> str:
    return app.store.find_user(name).user_id


def test_every_answered_reply_becomes_a_turn_and_a_version_in_order(tmp_path):
    seen = []

    def judge(lesson):
        seen.append(lesson.experience)
        return Outcome.APPLIED

    async def main():
        async with opened(tmp_path, EchoBackend(judge)) as app:
            lessons = await learnt(app)
            assert outcomes(lessons) == [Outcome.QUEUED] * 2
            ends = [await app.update(lesson.update_id) for lesson in lessons]
            assert [(end.outcome, end.version) for end in ends] == [(Outcome.APPLIED, 1), (Outcome.APPLIED, 2)]
            assert [turn.follow_up for turn in seen] == ["shorter", "even shorter"]
            assert seen[1].messages == CHAT[:3]
            assert seen[1].completion_ids == (*b"reply two", END) and set(seen[1].completion_mask) == {1}
            turn = app.store.load_turn(seen[1].turn_id)
            assert turn.parent_turn_id == seen[0].turn_id and turn.reply_text == "reply two"
            assert await app.outcome(turn.request_id) is Outcome.APPLIED
            assert (await ask(app, "fresh")).adapter_version == 2

    asyncio.run(main())


def test_handed_in_again_it_teaches_nothing_even_after_its_turns_are_pruned(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            await learnt(app)
            assert outcomes(await learnt(app)) == [Outcome.SKIPPED_DUPLICATE] * 2
            other = (Message("system", "be kind"), *CHAT)  # system messages make no other conversation
            assert outcomes(await learnt(app, other)) == [Outcome.SKIPPED_DUPLICATE] * 2
            *_, oldest = await app.updates("alice")
            app.store._drop_conversation(user_id(app), oldest.turn_id)
            assert (await app.user("alice")).num_turns == 0
            assert outcomes(await learnt(app)) == [Outcome.SKIPPED_DUPLICATE] * 2
            assert len(await app.versions("alice")) == 2

    asyncio.run(main())


def test_a_longer_log_of_the_same_conversation_teaches_what_is_new(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            await learnt(app, CHAT[:3])
            lessons = await learnt(app, (*CHAT, Message("user", "thanks")))
            assert outcomes(lessons) == [Outcome.SKIPPED_DUPLICATE, Outcome.QUEUED, Outcome.QUEUED]
            assert len(await app.versions("alice")) == 3

    asyncio.run(main())


def test_what_waits_when_the_process_ends_is_learnt_by_the_next_one(tmp_path):
    async def main():
        async with opened(tmp_path, learns=False) as app:
            first = await app.learn_from("alice", CHAT, max_lessons=1)
            assert outcomes(first) == [Outcome.QUEUED] and app.store.status().pending_updates == 1
        async with opened(tmp_path) as app:
            lessons = await learnt(app)
            assert outcomes(lessons) == [Outcome.SKIPPED_DUPLICATE, Outcome.QUEUED]
            updates = await app.updates("alice")
            assert [(one.outcome, one.version) for one in reversed(updates)] == [
                (Outcome.APPLIED, 1),
                (Outcome.APPLIED, 2),
            ]

    asyncio.run(main())


def test_a_stop_between_turn_and_queue_leaves_nothing_half(tmp_path, monkeypatch):
    async def main():
        async with opened(tmp_path) as app:
            with monkeypatch.context() as patch:
                patch.setattr(app.store, "queue_follow_up", lambda *a, **k: (_ for _ in ()).throw(SystemError("crash")))
                with pytest.raises(SystemError):
                    await app.learn_from("alice", CHAT)
            assert (await app.user("alice")).num_turns == 1 and not await app.updates("alice")
            assert outcomes(await learnt(app)) == [Outcome.QUEUED] * 2
            assert (await app.user("alice")).num_turns == 2 and len(await app.versions("alice")) == 2

    asyncio.run(main())


def test_two_processes_with_the_same_log_teach_it_once(tmp_path):
    async def main():
        async with opened(tmp_path) as app, opened(tmp_path, learns=False) as other:
            await app.learn_from("alice", CHAT[:3])  # so that neither makes the user
            both = await asyncio.gather(app.learn_from("alice", CHAT), other.learn_from("alice", CHAT))
            assert sorted(lessons[1].outcome for lessons in both) == [Outcome.QUEUED, Outcome.SKIPPED_DUPLICATE]
            assert await app.settled("alice", 20)
            assert len(await app.versions("alice")) == 2

    asyncio.run(main())


def test_no_lesson_is_pushed_out_of_the_queue(tmp_path):
    texts = [text for number in range(12) for text in (f"question {number}", f"reply {number}")]

    async def main():
        async with opened(tmp_path, max_queued_updates=4) as app:
            lessons = await learnt(app, says(*texts).messages)
            assert outcomes(lessons) == [Outcome.QUEUED] * 11
            assert {one.outcome for one in await app.updates("alice")} == {Outcome.APPLIED}

    asyncio.run(main())


def test_it_waits_while_the_user_has_lessons_in_the_queue(tmp_path):
    texts = [text for number in range(8) for text in (f"question {number}", f"reply {number}")]

    async def main():
        async with opened(tmp_path, learns=False) as app:
            task = asyncio.create_task(app.learn_from("alice", says(*texts).messages))
            await until(lambda: app.store.status().pending_updates == recordings.MAX_WAITING)
            await asyncio.sleep(4 * recordings.POLL_S)
            assert not task.done() and app.store.status().pending_updates == recordings.MAX_WAITING
            app.start()
            assert outcomes(await asyncio.wait_for(task, 20)) == [Outcome.QUEUED] * 7

    asyncio.run(main())


def test_a_dry_run_changes_nothing(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            assert outcomes(await app.learn_from("alice", CHAT, dry_run=True)) == [Outcome.QUEUED] * 2
            assert await app.users() == ()
            await learnt(app, max_lessons=1)
            before = await app.user("alice")
            lessons = await app.learn_from("alice", CHAT, dry_run=True)
            assert outcomes(lessons) == [Outcome.SKIPPED_DUPLICATE, Outcome.QUEUED]
            assert [lesson.update_id for lesson in lessons] == [None, None]
            assert await app.user("alice") == before

    asyncio.run(main())


def test_guards_and_gate_are_those_of_live_follow_ups(tmp_path):
    verdicts = iter([Outcome.REJECTED_KL, Outcome.SKIPPED_LOW_SIGNAL])

    async def main():
        async with opened(tmp_path, EchoBackend(lambda lesson: next(verdicts))) as app:
            ends = [(await app.update(lesson.update_id)).outcome for lesson in await learnt(app)]
            assert ends == [Outcome.REJECTED_KL, Outcome.SKIPPED_LOW_SIGNAL] and not await app.versions("alice")

    asyncio.run(main())


def test_a_live_conversation_and_its_log_are_one(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            first = await taught(app, "hello", "shorter, please")
            assert first.outcome is Outcome.QUEUED
            log = says("hello", "[base] You said: hello", "shorter, please").messages
            assert outcomes(await learnt(app, log)) == [Outcome.SKIPPED_DUPLICATE]
            await learnt(app)
            live = await ask(app, "one", "reply one", "another follow-up")
            assert live.outcome is Outcome.SKIPPED_DUPLICATE

    asyncio.run(main())


def test_whoever_must_not_be_learnt_from_is_left_alone(tmp_path):
    async def main():
        async with opened(tmp_path, learning="ask") as app:
            assert outcomes(await app.learn_from("alice", CHAT)) == [Outcome.SKIPPED_NO_CONSENT] * 2
            assert await app.users() == ()
            await app.consent("alice", True)
            await app.pause("alice")
            assert outcomes(await app.learn_from("alice", CHAT)) == [Outcome.SKIPPED_PAUSED] * 2
            await app.resume("alice")  # nothing of the above was final
            assert outcomes(await learnt(app)) == [Outcome.QUEUED] * 2

    asyncio.run(main())


def test_a_user_of_another_base_waits_for_a_rebase(tmp_path):
    async def main():
        async with opened(tmp_path) as app:
            await learnt(app)
        async with opened(tmp_path, base_digest="f" * 64) as app:
            assert outcomes(await app.learn_from("alice", CHAT)) == [Outcome.SKIPPED_NO_ADAPTER_FOR_BASE] * 2
            await app.reset("alice")  # begins anew on this base, which may learn the same turns once
            assert outcomes(await learnt(app)) == [Outcome.QUEUED] * 2

    asyncio.run(main())


def test_what_was_queued_under_another_base_is_not_fed_to_this_one(tmp_path):
    async def main():
        async with opened(tmp_path, learns=False) as app:
            lessons = await app.learn_from("alice", CHAT, max_lessons=1)
        async with opened(tmp_path, base_digest="f" * 64) as app:
            assert await app.settled("alice", 20)
            assert (await app.update(lessons[0].update_id)).outcome is Outcome.SKIPPED_NO_ADAPTER_FOR_BASE

    asyncio.run(main())


@pytest.mark.parametrize("long", ["question", "reply", "follow-up"])
def test_what_does_not_fit_the_context_is_skipped_and_can_come_again(tmp_path, long):
    texts = {"question": "one", "reply": "reply one", "follow-up": "shorter"} | {long: "x" * 400}

    async def main():
        async with opened(tmp_path, EchoBackend(max_model_len=420)) as app:
            assert outcomes(await learnt_nothing(app, says(*texts.values()).messages)) == [Outcome.SKIPPED_TOO_LONG]
        async with opened(tmp_path, EchoBackend(max_model_len=4000)) as app:
            assert outcomes(await learnt(app, says(*texts.values()).messages)) == [Outcome.QUEUED]

    asyncio.run(main())


async def learnt_nothing(app, messages):
    lessons = await app.learn_from("alice", messages)
    assert await app.users() == ()
    return lessons


def test_a_conversation_that_the_model_cannot_be_shown_is_refused_as_a_whole(tmp_path, monkeypatch):
    async def main():
        async with opened(tmp_path) as app:
            render = app._opened.renderer.render

            def strict(messages, follow_ups=()):
                if len(messages) > 1:
                    raise TemplateError("one message is enough")
                return render(messages, follow_ups)

            monkeypatch.setattr(app._opened.renderer, "render", strict)
            with pytest.raises(TemplateError):
                await app.learn_from("alice", CHAT)
            assert await app.users() == ()

    asyncio.run(main())


def test_bad_arguments_are_refused_before_anything_is_done(tmp_path):
    async def main():
        async with opened(tmp_path, learns=False) as app:
            for user in ("", " ", None, "x" * 300):
                with pytest.raises(InvalidParameter):
                    await app.learn_from(user, CHAT)
            with pytest.raises(NotFound):
                await app.learn_from(UserId("0" * 32), CHAT)
            with pytest.raises(InvalidParameter):
                await app.learn_from("alice", "hello")
            with pytest.raises(InvalidParameter):
                await app.learn_from("alice", CHAT, max_lessons=-1)
            assert await app.learn_from("alice", CHAT[:2]) == () == await app.learn_from("alice", ())
            assert await app.users() == ()

    asyncio.run(main())


def test_a_full_disk_stops_it_and_what_was_queued_stays(tmp_path):
    disk = Disk()

    async def main():
        async with opened(tmp_path, store=store_on(disk, tmp_path), learns=False) as app:
            await app.learn_from("alice", CHAT, max_lessons=1)
            disk.used = 0.95
            with pytest.raises(StorageUnavailable, match="nothing can be learnt now"):
                await app.learn_from("alice", CHAT)
            assert len(await app.updates("alice")) == 1
            disk.used = 0.1
            app.start()
            assert outcomes(await learnt(app)) == [Outcome.SKIPPED_DUPLICATE, Outcome.QUEUED]

    asyncio.run(main())


def test_a_user_who_is_forgotten_meanwhile_gets_nothing(tmp_path, monkeypatch):
    async def main():
        async with opened(tmp_path) as app:
            await learnt(app, CHAT[:3])
            record = app.store.record_turn

            def slow(turn):
                app.store.forget(turn.user_id)
                return record(turn)

            monkeypatch.setattr(app.store, "record_turn", slow)
            lessons = await app.learn_from("alice", CHAT)
            assert outcomes(lessons) == [Outcome.SKIPPED_DUPLICATE, Outcome.CANCELLED_ERASURE]
            assert await app.users() == ()

    asyncio.run(main())


def test_who_is_forgotten_meanwhile_does_not_come_back_for_the_rest(tmp_path, monkeypatch):
    async def main():
        async with opened(tmp_path, learns=False) as app:
            recording = HeldUp(app.store.record_turn)
            monkeypatch.setattr(app.store, "record_turn", recording)
            learning = asyncio.create_task(app.learn_from("alice", CHAT))
            await recording.is_reached()
            forgetting = asyncio.create_task(app.forget("alice"))
            await until(lambda: app.store.find_user("alice") is None)
            recording.through.set()
            await forgetting
            assert outcomes(await learning) == [Outcome.CANCELLED_ERASURE] * 2
            assert await app.users() == ()

    asyncio.run(main())


def test_whom_another_process_forgets_meanwhile_does_not_come_back_either(tmp_path, monkeypatch):
    async def main():
        async with opened(tmp_path, learns=False) as app:
            queue = app.store.queue_follow_up

            def then_forgotten(user_id, *args, **options):
                queued = queue(user_id, *args, **options)
                app.store.forget(user_id)
                return queued

            monkeypatch.setattr(app.store, "queue_follow_up", then_forgotten)
            lessons = await app.learn_from("alice", (*CHAT, Message("user", "thanks")))
            assert outcomes(lessons) == [Outcome.QUEUED, Outcome.CANCELLED_ERASURE, Outcome.CANCELLED_ERASURE]
            assert await app.users() == ()

    asyncio.run(main())


def test_forgetting_the_user_and_closing_end_the_wait_for_room(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "MAX_WAITING", 1)

    async def waiting(app, user):
        learning = asyncio.create_task(app.learn_from(user, CHAT))
        await until(lambda: app.store.find_user(user) and len(app.store.updates(user_id(app, user))) == 1)
        return learning

    async def main():
        async with opened(tmp_path, learns=False) as app:
            alice, bob = [await waiting(app, user) for user in ("alice", "bob")]
            await app.forget("alice")
            assert outcomes(await alice) == [Outcome.QUEUED, Outcome.CANCELLED_ERASURE] and not bob.done()
            await app.aclose()
            with pytest.raises(errors.Cancelled, match="closing"):
                await bob

    asyncio.run(main())


def test_after_close_it_says_so(tmp_path):
    async def main():
        app = made(tmp_path)
        await app.aclose()
        with pytest.raises(errors.Cancelled):
            await app.learn_from("alice", CHAT)
        with pytest.raises(errors.Cancelled):
            await app.rebase("alice")

    asyncio.run(main())
