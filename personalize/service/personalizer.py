"""The SDK's core object: chat, stream, learn, history, rollback, export, forget."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from adapters_store import Store
from personalize.backends import Opened, open_backend
from personalize.config import Learning, ServiceSettings, Settings
from personalize.service.admission import Admission
from personalize.service.chats import Chats
from personalize.service.erasures import Erasures
from personalize.service.explainer import Explainer
from personalize.service.fingerprints import Fingerprints
from personalize.service.forgetting import Forgetting
from personalize.service.heads import Heads
from personalize.service.ledger import Ledger
from personalize.service.management import Management
from personalize.service.opening import Opening
from personalize.service.people import Base, People
from personalize.service.population import Population
from personalize.service.population_build import PopulationBuild, Progress
from personalize.service.rebase import Rebase
from personalize.service.recordings import Recordings
from personalize.service.tasks import Tasks
from personalize.service.undo import Undo
from personalize.service.validation import Said, conversation_of
from personalize.types import (
    AdapterRef,
    ChatRequest,
    Explanation,
    ForgetReceipt,
    LoggedLesson,
    Message,
    Outcome,
    PopulationReport,
    RebaseReport,
    Reply,
    ReplyChunk,
    SamplingParams,
    UndoReport,
    UserId,
)
from personalize.updates.batch import School
from personalize.updates.consumer import Consumer
from personalize.updates.storage import open_store, remember_base, translated
from personalize.updates.threads import taken, whole

Version = int | Literal["head", "base"]


class Personalizer(Management):
    """Answers every user with the user's own adapter, and learns from what the user says next.

    ``user`` is the application's own name for a person, or a ``UserId``; who is first seen in a chat becomes a user.

    Attributes:
        settings: what it was opened with.
    """

    def __init__(self, store: Store, opened: Opened, settings: Settings | None = None):
        self.settings = settings or Settings()
        service: ServiceSettings = self.settings.service
        base = Base(opened.base_digest, opened.modules, self.settings.engine.max_lora_rank)
        super().__init__(People(store, base, service.max_import_bytes), Population(store))
        self._store = store
        self._opened = opened
        self._forgotten: set[str] = set()
        school = School(
            store, opened.trainer, opened.base_digest, service.learning, self._forgotten, opened.renderer,
            service.population,
        )  # fmt: skip
        self._consumer = Consumer(school, max_batch=opened.max_batch, review_every=service.review_every)
        self._ledger = Ledger(store, opened.base_digest, service.max_queued_updates, service.max_update_wait_s)
        heads = Heads(store, opened.base_digest, service.population)
        self._admission = Admission(store, opened, heads, service)
        self._chats = Chats(opened, self._admission, self._ledger, self._forgotten, self._consumer.wake)
        self._recordings = Recordings(store, opened, service.learning, self._forgotten, self._consumer.wake)
        self._rebase = Rebase(store, opened, service.learning)
        self._builds = Tasks()
        self._undo = Undo(store, opened, service.learning, self._consumer, self._forgotten)
        self._explainer = Explainer(store, opened, service, self._forgotten)
        self._fingerprints = Fingerprints(store, opened, heads)
        self._users_tasks = [one.tasks for one in (self._explainer, self._undo, self._rebase, self._recordings)]
        self._forgetting = Forgetting(
            store, self._people, opened.inference, self._chats, self._consumer, self._users_tasks, self._forgotten
        )
        self._loops: list[asyncio.Task[None]] = []
        self._closing: asyncio.Task[None] | None = None

    # --- opening and closing -----------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        model: str = "pocket",
        *,
        home: str | Path = "data",
        device: Literal["cpu", "cuda", "auto"] = "auto",
        learning: Learning = "on",
        recipe: Mapping[str, Any] | None = None,
        settings: Settings | None = None,
    ) -> "Opening[Personalizer]":
        """Open a model and a store: ``async with Personalizer.open(...) as app``, or ``app = await ...``.

        Args:
            model: "pocket", a hub id or a local path.
            home: folder of everything that is kept.
            learning: see ``ServiceSettings``.
            recipe: see ``Settings``; what ``personalize calibrate MODEL --out FILE`` has written fits here.
            settings: everything at once; the other arguments then do not count.

        Raises:
            ModelError: the base model cannot be used.
            StorageUnavailable: the store cannot be opened.
        """
        chosen = settings or Settings(
            model=model,
            home=Path(home),
            device=device,
            service=ServiceSettings(learning=learning),
            recipe=recipe or {},
        )
        return Opening(lambda: cls._opened_with(chosen))

    @classmethod
    async def _opened_with(cls, settings: Settings) -> "Personalizer":
        async with contextlib.AsyncExitStack() as stack:
            opened = await taken(lambda opened: opened.inference.aclose(), open_backend, settings)
            stack.push_async_callback(opened.inference.aclose)
            store = await taken(lambda store: asyncio.to_thread(store.close), open_store, settings)
            stack.push_async_callback(asyncio.to_thread, store.close)
            await whole(remember_base, store, settings, opened.base_digest, opened.modules)
            app = cls(store, opened, settings)
            stack.pop_all()
        app.start()
        return app

    def start(self) -> None:
        """Begin to consume the queue, and to notice what other processes erase; ``open`` does it."""
        erasures = Erasures(self._store, self._forgetting.held, self._forgetting.let_go)
        self._loops = [asyncio.create_task(self._consumer.run()), asyncio.create_task(erasures.run())]

    async def aclose(self) -> None:
        """Stop learning, cut what still runs, write down what is owed, and close.

        May be called twice, and cancelled: each call waits for the one closing, which goes on without its callers.
        """
        if self._closing is None:
            self._chats.closed = True
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        why = "the service is closing"
        await self._chats.cut(why)
        for tasks in (*self._users_tasks, self._builds):
            await tasks.stop(why)
        await self._chats.aclose()
        await self._opened.inference.aclose()
        await asyncio.to_thread(self._store.close)

    # --- chat --------------------------------------------------------------------------------------------------------

    async def chat(
        self,
        user: str | None,
        messages: Said,
        *,
        sampling: SamplingParams | None = None,
        max_tokens: int | None = None,
        learn: bool = True,
        temporary: bool = False,
        version: Version = "head",
    ) -> Reply:
        """Return one reply; see ``ChatRequest`` for the arguments.

        Args:
            messages: the conversation so far, ending with what the user says now; a string is a new conversation.
            max_tokens: overrides the one in ``sampling``.
        """
        params = sampling or SamplingParams()
        if max_tokens is not None:
            params = replace(params, max_tokens=max_tokens)
        said = conversation_of(messages)
        request = ChatRequest(said, user, params, learn=learn, temporary=temporary, version=version)
        return (await self.complete(request))[0]

    async def complete(self, request: ChatRequest) -> tuple[Reply, ...]:
        """Return all ``request.n`` replies, in the order of their choices."""
        return await self._chats.complete(request)

    def stream(self, request: ChatRequest) -> AsyncGenerator[ReplyChunk, None]:
        """Yield the start, the pieces of text and at last each choice's whole reply.

        Closing the iterator cuts the reply: the turn is recorded with what was delivered.

        Raises:
            InvalidRequest, NotFound, Overloaded, AdapterError: before the first piece of text.
            Cancelled: the service closes, or the user was forgotten.
        """
        return self._chats.stream(request)

    # --- learning and forgetting -------------------------------------------------------------------------------------

    async def settled(self, user: str | None = None, timeout_s: float | None = None) -> bool:
        """Return True once no follow-up of the user (None: of anybody) waits, False after ``timeout_s``."""
        user_id = None if user is None else await asyncio.to_thread(self._people.user_id, user)
        with translated():
            return await self._consumer.settled(user_id, timeout_s)

    async def outcome(self, request_id: str) -> Outcome:
        """Return what became of a request; final unless ``queued``."""
        return await asyncio.to_thread(self._ledger.outcome, request_id)

    async def outcome_owner(self, request_id: str) -> UserId | None:
        """Return whose request it was; None for one without a user, or of which only the outcome is known.

        Raises:
            NotFound: no such request.
        """
        return await asyncio.to_thread(self._ledger.owner, request_id)

    async def learn_from(
        self,
        user: str,
        messages: Sequence[Message | Mapping],
        *,
        max_lessons: int | None = None,
        dry_run: bool = False,
    ) -> tuple[LoggedLesson, ...]:
        """Queue what a conversation that was recorded elsewhere teaches; return one value per answered reply, in order.

        Each reply with the user's next message becomes a turn and a queued update, as if it had been served here, and
        goes the way of every live follow-up. Handed in again it is ``skipped_duplicate``: no turn trains twice. Waits
        while a few of the user's lessons are in the queue. Who is forgotten meanwhile stays it: ``cancelled_erasure``.

        Args:
            user: whose conversation it is; who is new becomes a user.
            messages: the conversation from its beginning, in the form of ``chat``; it may end anywhere.
            max_lessons: most lessons to queue; the rest of the conversation is left for another call.
            dry_run: say what would be queued, and change nothing.

        Raises:
            InvalidRequest: the messages cannot be read or shown to this model; nothing of them was queued.
            StorageUnavailable: nothing can be recorded, or learning is paused; what was queued until then stays.
            Cancelled: the service closes; what was queued until then stays.
        """
        self._chats.check_open()
        return await self._recordings.learn_from(user, messages, max_lessons, dry_run)

    async def rebase(self, user: str, *, dry_run: bool = False) -> RebaseReport:
        """Rebuild the user's adapter, which was made for another base, for this one from the kept turns.

        The new head appears when all turns were learnt, or not at all; the old base's head stays.

        Args:
            dry_run: say what would be learnt, and change nothing.

        Raises:
            NotFound: no such user.
            Conflict: a head of the user moved meanwhile; nothing was changed.
            StorageUnavailable: the version cannot be written.
            Cancelled: the service closes, or the user was forgotten.
        """
        self._chats.check_open()
        user_id = await asyncio.to_thread(self._people.user_id, user)
        return await self._rebase.run(user_id, dry_run)

    async def build_population(
        self,
        logs: Sequence[str | Path],
        *,
        user: str | None = None,
        without: Sequence[str] = (),
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> PopulationReport:
        """Make the population adapter's next version from logs, and from nothing else; it begins with the base.

        With the setting ``population`` it serves whoever has never had a version, and is what they begin to learn
        from. It appears with its manifest when all logs were read, or not at all. What may not be learnt from a user
        of this store is not learnt from the user's conversations in a log either.

        Args:
            logs: files of JSON lines, as ``personalize replay`` reads them; at most 64, each once.
            user: whose the conversations are that name nobody; without it they are left out.
            without: people whose conversations are left out.
            dry_run: say what would be learnt from, and change nothing.
            progress: told (bytes read, follow-ups learnt) after every line, on the event loop.

        Raises:
            InvalidRequest: a log cannot be read.
            Conflict: a log changed, somebody in it was forgotten, or another build ended first; nothing was published.
            StorageUnavailable: the version cannot be written, or learning is paused.
            Cancelled: the service closes.
        """
        self._chats.check_open()
        build = PopulationBuild(
            self._store, self._opened, self.settings.service,
            user=user, without=without, dry_run=dry_run, progress=progress,
        )  # fmt: skip
        return await self._builds.run("", build.run([Path(log) for log in logs]))

    async def remove_population(self, *numbers: int) -> int:
        """Delete versions of the population adapter, weights and all, without a number every one; return how many.

        The manifests stay, and so do users' own versions that began with one.

        Raises:
            NotFound: there is no such version (any more); nothing was deleted.
        """
        gone = await asyncio.to_thread(self._population.remove, *numbers)
        for version in gone:
            await self._opened.inference.unload_adapter(AdapterRef(version.name, ""))
        return len(gone)

    async def undo_turn(self, user: str, turn: str, *, dry_run: bool = False) -> UndoReport:
        """Take back what the follow-up to one turn taught, and keep what was learnt after it.

        Of the last turn it is exact, as ``undo`` is. Of an older one the later turns are learnt once more without it,
        from the version that its own step began with, under the recipe of now: a re-computation. The report, the new
        version's ``origin`` and the audit log say so. The user's new follow-ups wait in the queue meanwhile.

        Args:
            turn: id of the turn, or of the update about it.
            dry_run: say what would be done, and change nothing.

        Raises:
            NotFound: no such user, or no such turn of this user.
            Conflict: the turn has taught nothing (the message says its outcome) or is undone already; nothing may be
                learnt from the user now; or somebody moved the head meanwhile. Nothing was changed.
            Gone: retention has removed the text of a later turn, or what the adapter began with.
            AdapterMismatch: the turn has taught an adapter for another base model.
            Overloaded: too many turns are being undone at a time.
            StorageUnavailable: the version cannot be written.
            Cancelled: the service closes, or the user was forgotten.
        """
        self._chats.check_open()
        user_id = await asyncio.to_thread(self._people.user_id, user)
        return await self._undo.run(user_id, turn, dry_run)

    async def forget(self, user: str) -> ForgetReceipt:
        """Erase the user: turns, versions, moments, queue, keys, slots. What still streams to the user is cut.

        The receipt names the population adapters that the user is part of: they are to be built anew without him.
        """
        user_id = await asyncio.to_thread(self._people.user_id, user)
        return await self._forgetting.forget(user_id)

    async def fingerprint(self, users: Sequence[str]) -> dict[str, str]:
        """Return, by user, a digest of what he is served with: the version's name and its logits on fixed prompts.

        All users' rows are computed in one mixed batch. For the same users in the same order a digest that stays equal
        proves that not one bit of that user's logits has changed; whoever has no adapter yet is the base model, or the
        population adapter where that serves.

        Raises:
            AdapterError: a version's folder cannot be loaded.
            Overloaded: every adapter slot is in use.
        """
        return await self._fingerprints.of(users)

    async def explain(self, user: str, update: str = "latest", *, probe: str | None = None) -> Explanation:
        """Return what one applied update did: signals per token, drift, norms, and replies before and after.

        Everything is measured anew on the stored turn and versions. Replies go on meanwhile.

        Args:
            update: id of an update, or of the turn that it was about; "latest" is the user's newest applied one.
            probe: prompt of the greedy replies; None takes the update's own prompt.

        Raises:
            NotFound: the user has no such update.
            Gone: its version, the parent, or the turn's text has been removed by retention.
            Conflict: it made no version: it waits, was skipped or was rejected.
            AdapterMismatch: it was made for another base model.
            Overloaded: too many explanations at a time.
            Cancelled: the service closes, or the user was forgotten.
        """
        self._chats.check_open()
        user_id = await asyncio.to_thread(self._people.user_id, user)
        return await self._explainer.explain(user_id, update, probe)

    # --- for operators -----------------------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The open store, for ``Access`` and ``admin``; nobody else has business with it."""
        return self._store

    def status(self) -> dict[str, Any]:
        """Return how the service is doing: words, numbers, and counts by name. It reads the store, from any thread.

        ``outcomes`` has one count per accepted chat request; ``updates`` counts the final outcomes of the updates that
        this process ran, ``reviews`` the verdicts on the versions that it looked at again.
        """
        with translated():
            store, learning = self._store.status(), self._consumer.state()
        stats = getattr(self._opened.inference, "stats", dict)
        return {
            "model": self.settings.model,
            "learning": self.settings.service.learning,
            **learning,
            "learning_paused_reason": store.learning_paused_reason,
            "journal_mode": store.journal_mode,
            "sqlite_version": store.sqlite_version,
            "free_fraction": store.free_fraction,
            "pending_updates": store.pending_updates,
            "running_requests": len(self._chats),
            "outcomes": {outcome.value: count for outcome, count in self._ledger.outcomes.copy().items()},
            "updates": {outcome.value: count for outcome, count in self._consumer.outcomes.copy().items()},
            "engine": dict(stats()),
        }
