"""Explaining an update through the service: what is told, what is refused, and who may be interrupted."""

import asyncio
from dataclasses import replace

import pytest

from adapters_store import LocalBlobs, Store
from adapters_store.limits import Limits
from personalize.backends.echo import END, ByteRenderer, EchoBackend
from personalize.errors import (
    AdapterMismatch,
    Cancelled,
    Conflict,
    Gone,
    InvalidParameter,
    NotFound,
    Overloaded,
    PersonalizeError,
)
from personalize.service import explainer
from personalize.types import AdapterRef, Outcome, TokenSignal
from tests.service.support import ask, opened, taught, until


def run(work, home, *args, **options):
    async def main():
        async with opened(home, *args, **options) as app:
            return await work(app)

    return asyncio.run(main())


def store_with(home, **limits) -> Store:
    home.mkdir(parents=True, exist_ok=True)
    return Store.open(f"sqlite:///{home / 'index.sqlite'}", LocalBlobs(home), limits=Limits(**limits))


async def applied(app, user="alice"):
    """The user's updates, the oldest first."""
    return [update for update in reversed(await app.updates(user)) if update.outcome is Outcome.APPLIED]


def test_an_update_is_told_with_its_turn_its_teacher_and_its_numbers(tmp_path):
    async def work(app):
        await taught(app, "hello", "shorter, please")
        await taught(app, "again", "even shorter")
        (first, second) = await applied(app)
        told = await app.explain("alice", first.update_id)
        assert (told.update_id, told.turn_id, told.version, told.parent) == (first.update_id, first.turn_id, 1, None)
        assert (told.question, told.follow_up, told.told) == ("hello", "shorter, please", ("shorter, please",))
        assert told.metrics == first.metrics and told.num_told_gone == 0
        later = await app.explain("alice", second.update_id)
        assert (later.version, later.parent) == (2, 1)
        assert later.told == ("shorter, please", "even shorter")
        assert later.effect != told.effect and later.effect.norms.parent > 0 == told.effect.norms.parent

    run(work, tmp_path)


def test_the_texts_of_the_tokens_are_the_reply(tmp_path):
    async def work(app):
        reply = await ask(app, "naïve café 北京 🙂", user="alice")
        await ask(app, "naïve café 北京 🙂", reply.text, "no", user="alice")
        await app.settled("alice", 20)
        tokens = (await app.explain("alice")).effect.tokens
        assert "".join(token.text for token in tokens) == reply.text == "[base] You said: naïve café 北京 🙂"
        assert [token.ends for token in tokens] == [False] * (len(tokens) - 1) + [True]
        assert tokens[-1].token_id == END and tokens[-1].text == "" and tokens[-1].change is not None
        assert [token.text for token in tokens[-5:-1]] == ["", "", "", "🙂"]  # four bytes, shown when whole

    run(work, tmp_path)


def test_a_reply_that_ends_inside_a_character_loses_no_token():
    tokens = tuple(TokenSignal(token_id) for token_id in (*b"ab", *"🙂".encode()[:3], END))
    named = explainer.with_texts(tokens, ByteRenderer())
    assert [token.text for token in named] == ["a", "b", "", "", "\ufffd", ""]
    assert [token.ends for token in named] == [False] * 5 + [True]


def test_an_update_has_three_names(tmp_path):
    async def work(app):
        await taught(app, "hello")
        await taught(app, "again")
        first, second = await applied(app)
        assert await app.explain("alice") == await app.explain("alice", second.update_id)
        assert (await app.explain("alice", first.turn_id)).version == 1
        await app.undo("alice")
        assert (await app.explain("alice")).version == 2  # taken back, but still there to be looked at

    run(work, tmp_path)


def test_the_probe_is_the_updates_own_prompt_or_the_one_that_is_asked_for(tmp_path):
    async def work(app):
        await taught(app, "hello")
        await taught(app, "again")
        own = (await app.explain("alice")).probe
        assert own.prompt == "again"
        assert (own.base, own.before, own.after) == tuple(f"[{v}] You said: again" for v in ("base", "v1", "v2"))
        asked = (await app.explain("alice", probe="how are you?\ud800")).probe
        assert (asked.prompt, asked.after) == ("how are you?\ufffd", "[v2] You said: how are you?\ufffd")
        before = await app.user("alice")
        await app.explain("alice", probe="and you?")
        assert await app.user("alice") == before  # neither a turn nor an update of it is left

    run(work, tmp_path)


def test_what_is_asked_for_wrongly_is_named(tmp_path):
    async def work(app):
        await taught(app)
        await taught(app, user="bob")
        (foreign,) = await applied(app, "bob")
        for asked in ("newest", "", "0" * 31, "A" * 32, "../" + "0" * 29, "0" * 33):
            with pytest.raises(InvalidParameter, match="allowed: 'latest', or the 32 hex digits"):
                await app.explain("alice", asked)
        for asked in ("0" * 32, foreign.update_id, foreign.turn_id):
            with pytest.raises(NotFound, match="no such update") as caught:
                await app.explain("alice", asked)
            assert caught.value.code == "not_found"
        for probe in ("", " \n", "x" * 100_001, 5):
            with pytest.raises(InvalidParameter, match="probe = "):
                await app.explain("alice", probe=probe)
        with pytest.raises(NotFound, match="no such user"):
            await app.explain("nobody")

    run(work, tmp_path)


def test_an_update_without_a_version_cannot_be_explained(tmp_path):
    async def work(app):
        await taught(app)
        (update,) = await app.updates("alice")
        with pytest.raises(Conflict, match="'skipped_low_signal'; allowed: an applied one"):
            await app.explain("alice", update.update_id)
        with pytest.raises(NotFound, match="has been applied"):
            await app.explain("alice")

    run(work, tmp_path, EchoBackend(lambda lesson: Outcome.SKIPPED_LOW_SIGNAL))


def test_an_update_that_still_waits_says_so(tmp_path):
    async def work(app):
        reply = await ask(app, "hello")
        await ask(app, "hello", reply.text, "shorter")
        (update,) = await app.updates("alice")
        with pytest.raises(Conflict, match="'queued'"):
            await app.explain("alice", update.update_id)

    run(work, tmp_path, learns=False)


def test_a_pruned_version_or_parent_is_gone(tmp_path):
    async def work(app):
        for number in range(4):
            await taught(app, f"question {number}")
        app.store.prune()
        updates = await applied(app)
        assert [version.number for version in await app.versions("alice")] == [4, 3]
        assert (await app.explain("alice")).version == 4
        for update, what in ((updates[2], "the parent version, number 2"), (updates[1], "made, number 2")):
            with pytest.raises(Gone, match=what):
                await app.explain("alice", update.update_id)

    run(work, tmp_path, store=store_with(tmp_path, keep_newest=1, keep_daily_days=0))


def test_a_version_that_lost_its_folder_is_gone(tmp_path):
    async def work(app):
        await taught(app)
        (found,) = tmp_path.rglob("adapter_config.json")
        found.unlink()
        with pytest.raises(Gone, match="the folder of version 1"):
            await app.explain("alice")

    run(work, tmp_path)


def test_a_forgotten_text_is_gone_and_the_version_stays(tmp_path):
    async def work(app):
        await taught(app)
        app.store.prune()
        assert len(await app.versions("alice")) == 1
        with pytest.raises(Gone, match="the text of turn") as caught:
            await app.explain("alice")
        assert caught.value.code == "gone" and isinstance(caught.value, NotFound)

    run(work, tmp_path, store=store_with(tmp_path, keep_turn_days=0))


def test_a_forgotten_text_of_the_block_only_takes_the_teacher_away(tmp_path):
    async def work(app):
        await taught(app, "hello", "shorter, please")
        (first,) = await applied(app)
        await taught(app, "again", "even shorter")
        user_id = (await app.user("alice")).user_id
        app.store._drop_conversation(user_id, first.turn_id)
        told = await app.explain("alice")
        assert (told.told, told.num_told_gone) == (("even shorter",), 1)
        trained = [token for token in told.effect.tokens if token.change is not None]
        assert trained and {token.advantage for token in trained} == {None}

    run(work, tmp_path)


def test_a_version_for_another_base_is_refused(tmp_path):
    async def work(app):
        with pytest.raises(AdapterMismatch, match="another base model"):
            await app.explain("alice")

    run(taught, tmp_path)
    run(work, tmp_path, base_digest="f" * 64)


class Held(EchoBackend):
    """Explains only when it is let."""

    def __init__(self):
        super().__init__()
        self.num_begun, self.num_ended = 0, 0
        self.go = asyncio.Event()

    async def explain(self, request):
        self.num_begun += 1
        try:
            await self.go.wait()
            return await super().explain(request)
        finally:
            self.num_ended += 1


async def held(app, backend, user="alice") -> "asyncio.Task":
    """An explanation in the middle."""
    await taught(app, user=user)
    task = asyncio.create_task(app.explain(user))
    await until(lambda: backend.num_begun == 1)
    return task


def test_forgetting_the_user_ends_an_explanation_and_nothing_is_loaded_afterwards(tmp_path):
    backend = Held()

    async def work(app):
        task = await held(app, backend)
        bystander = asyncio.create_task(app.explain("alice", probe="waits for its turn"))
        await until(lambda: len(app._explainer.tasks) == 2)
        await app.forget("alice")
        for one in (task, bystander):
            with pytest.raises(Cancelled, match="the user was forgotten"):
                await one
        backend.go.set()
        assert (backend.num_begun, backend.num_ended, backend._loaded) == (1, 1, set())
        with pytest.raises(NotFound):
            await app.explain("alice")

    run(work, tmp_path, backend)


def test_a_user_whom_another_process_forgets_is_explained_no_further(tmp_path):
    backend = Held()

    async def work(app):
        task = await held(app, backend)
        user_id = (await app.user("alice")).user_id
        await backend.unload_adapter(AdapterRef((await asyncio.to_thread(app.store.versions, user_id))[0].name, ""))
        with store_with(tmp_path) as elsewhere:
            await asyncio.to_thread(elsewhere.forget, user_id)
        with pytest.raises(Cancelled, match="the user was forgotten"):
            await task

    run(work, tmp_path, backend)


def test_closing_ends_an_explanation(tmp_path):
    backend = Held()

    async def work(app):
        task = await held(app, backend)
        await app.aclose()
        with pytest.raises(Cancelled, match="closing"):
            await task
        with pytest.raises(Cancelled, match="closed"):
            await app.explain("alice")

    run(work, tmp_path, backend)


def test_a_caller_who_leaves_ends_only_his_own(tmp_path):
    backend = Held()

    async def work(app):
        task = await held(app, backend)
        other = asyncio.create_task(app.explain("alice"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        backend.go.set()
        assert (await other).version == 1 and backend.num_ended == 2

    run(work, tmp_path, backend)


def test_too_many_at_a_time_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(explainer, "MAX_PENDING", 2)
    backend = Held()

    async def work(app):
        tasks = [await held(app, backend), asyncio.create_task(app.explain("alice"))]
        await until(lambda: len(app._explainer.tasks) == 2)
        with pytest.raises(Overloaded) as caught:
            await app.explain("alice")
        assert caught.value.retry_after_s > 0
        assert backend.num_begun == 1  # one at a time
        assert (await ask(app, "replies go on")).text
        backend.go.set()
        assert len({explanation.update_id for explanation in await asyncio.gather(*tasks)}) == 1
        assert (await app.explain("alice")).version == 1

    run(work, tmp_path, backend)


def test_a_fault_of_one_is_not_the_next_ones(tmp_path):
    class Broken(EchoBackend):
        async def explain(self, request):
            raise PersonalizeError("broken")

    backend = Broken()

    async def work(app):
        await taught(app)
        for _ in range(explainer.MAX_PENDING + 1):
            with pytest.raises(PersonalizeError, match="broken"):
                await app.explain("alice")

    run(work, tmp_path, backend)


def test_the_plain_data_holds_everything(tmp_path):
    async def work(app):
        await taught(app)
        explanation = await app.explain("alice")
        value = explanation.to_json()
        assert value["effect"]["tokens"][0]["change"] == explanation.effect.tokens[0].change
        assert value["probe"] == {"prompt": "hello", **{k: value["probe"][k] for k in ("base", "before", "after")}}
        assert replace(explanation, version=7).to_json()["version"] == 7
        assert set(value) == set(explanation.__dataclass_fields__)

    run(work, tmp_path)
