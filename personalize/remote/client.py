"""``RemotePersonalizer``: chat, learn, history and forgetting through a server."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx2

from personalize.errors import InvalidParameter
from personalize.remote import values
from personalize.remote.connection import Connection, Json
from personalize.remote.files import new_file, zipped
from personalize.types import (
    ChatRequest,
    Explanation,
    ForgetReceipt,
    Message,
    Outcome,
    Reply,
    ReplyChunk,
    SamplingParams,
    UndoReport,
    UpdateInfo,
    UserId,
    UserInfo,
    VersionInfo,
)

CHAT = "/v1/chat/completions"
POLL_S = 0.2
MAX_QUOTED_CHARS = 60_000  # servers stop reading a request's first line at 64 KiB
Version = int | Literal["head", "base"]


class RemotePersonalizer:
    """The methods of ``Personalizer`` over HTTP, so that code moves from embedded to server without edits.

    Args:
        base_url: where the server listens, without ``/v1``.
        api_key: secret of an admin or app key; with a user's own key the named user must be that user.
        timeout_s: longest wait for an answer, or between two pieces of a stream.
        transport: another way to reach the server, for instance in the same process.

    Every method raises the errors of ``personalize.errors`` that the server named, and ``Unreachable`` where none
    came.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout_s: float = 120.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ):
        self._connection = Connection(base_url, api_key, timeout_s=timeout_s, transport=transport)
        self._model: str | None = None

    async def model(self) -> str:
        """Id of the base model that is served; asked once."""
        if self._model is None:
            self._model = values.model(await self._connection.send("GET", "/v1/models"))
        return self._model

    async def chat(
        self,
        user: str | None,
        messages: str | Sequence[Message | Mapping[str, Any]],
        *,
        sampling: SamplingParams | None = None,
        max_tokens: int | None = None,
        learn: bool = True,
        temporary: bool = False,
        version: Version = "head",
    ) -> Reply:
        """Answer one conversation; see ``Personalizer.chat``."""
        request = ChatRequest(
            messages=(), user=user, sampling=values.sampling_of(sampling, max_tokens), learn=learn,
            temporary=temporary, version=version,
        )  # fmt: skip
        body = values.chat_body(request, await self.model(), stream=False)
        body["messages"] = values.messages(messages)
        return values.first_reply(await self._connection.send("POST", CHAT, body))

    async def complete(self, request: ChatRequest) -> tuple[Reply, ...]:
        """Answer a request with all its choices."""
        body = values.chat_body(request, await self.model(), stream=False)
        return values.replies(await self._connection.send("POST", CHAT, body))

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ReplyChunk]:
        """Yield an answer as it is made; closing the generator cancels it."""
        body = values.chat_body(request, await self.model(), stream=True)
        async with self._connection.open_stream(CHAT, body) as stream:
            yield ReplyChunk(start=values.start(stream.headers))
            texts: dict[int, str] = {}
            async for event in stream:
                for chunk in values.chunks(event, texts):
                    yield chunk

    async def settled(self, user: str, timeout_s: float | None = None) -> bool:
        """Return True once no follow-up of the user waits, False after ``timeout_s``; it asks again and again."""
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while any(update.outcome is Outcome.QUEUED for update in await self.updates(user)):
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def outcome(self, request_id: str) -> Outcome:
        """What became of a request's last message as a follow-up; ``queued`` may still change."""
        path = f"/v1/outcomes/{_segment('request_id', request_id)}"
        return values.outcome(await self._connection.send("GET", path))

    async def versions(self, user: str) -> tuple[VersionInfo, ...]:
        return values.listed(values.version_info, await self._connection.send("GET", _user(user, "/versions")))

    async def rollback(self, user: str, number: int) -> VersionInfo:
        return values.version_info(await self._post(user, "rollback", {"version": _number(number)}))

    async def reset(self, user: str) -> None:
        """Back to the base model; the versions stay."""
        await self._post(user, "reset")

    async def undo(self, user: str) -> VersionInfo | None:
        """Take back the last update; None when that leads to the base model."""
        return values.undone(await self._post(user, "undo"))

    async def undo_turn(self, user: str, turn: str, *, dry_run: bool = False) -> UndoReport:
        """Take back what one turn taught; see ``Personalizer.undo_turn``. Many later turns need a longer timeout."""
        asked = {"dry_run": "true"} if dry_run else {}
        path = _user(user, f"/updates/{_segment('turn', turn)}/undo", **asked)
        return values.undo_report(await self._connection.send("POST", path))

    async def pin(self, user: str, number: int, pinned: bool = True) -> VersionInfo:
        """Keep a version for ever, or no longer."""
        path = _user(user, f"/versions/{_number(number)}")
        return values.version_info(await self._connection.send("PUT", path, {"pinned": pinned}))

    async def export(self, user: str, path: str | Path) -> Path:
        """Write all that is kept about the user into a new zip file; return its path."""
        return await self._download(_user(user, "/export"), Path(path))

    async def export_version(self, user: str, number: int, path: str | Path) -> Path:
        """Write one version's PEFT folder into a new zip file; return its path."""
        return await self._download(_user(user, f"/versions/{_number(number)}/export"), Path(path))

    async def import_(self, user: str, source: str | Path) -> VersionInfo:
        """Make a PEFT folder, or a zip file of one, the user's new head (admin keys only); the user must exist.

        Raises:
            AdapterError: damaged, hostile, or for another base; nothing has changed.
        """
        with zipped(Path(source)) as file:
            return values.version_info(await self._connection.upload(_user(user, "/versions"), file))

    async def updates(self, user: str, limit: int = 100) -> tuple[UpdateInfo, ...]:
        """The user's newest updates, the newest first."""
        path = _user(user, "/updates", limit=limit)
        return values.listed(values.update_info, await self._connection.send("GET", path))

    async def update(self, update_id: str) -> UpdateInfo:
        return values.update_info(await self._connection.send("GET", f"/v1/updates/{_segment('update_id', update_id)}"))

    async def explain(self, user: str, update: str = "latest", *, probe: str | None = None) -> Explanation:
        """Return what one applied update did; see ``Personalizer.explain``."""
        asked = {} if probe is None else {"probe": probe}
        path = _user(user, f"/updates/{_segment('update', update)}/explanation", **asked)
        return values.explanation(await self._connection.send("GET", path))

    async def user(self, user: str) -> UserInfo:
        return values.user_info(await self._connection.send("GET", _user(user)))

    async def users(self, limit: int = 100, after: str | None = None) -> tuple[UserInfo, ...]:
        """All users, oldest first (admin keys only); ``after`` is the last ``user_id`` of the page before."""
        query = f"?limit={_quoted('limit', limit)}" + (f"&after={_segment('after', after)}" if after else "")
        return values.listed(values.user_info, await self._connection.send("GET", f"/v1/users{query}"))

    async def pause(self, user: str) -> UserInfo:
        """Stop learning from this user; replies go on."""
        return await self._put(user, {"learning": "paused"})

    async def resume(self, user: str) -> UserInfo:
        return await self._put(user, {"learning": "active"})

    async def consent(self, user: str, granted: bool) -> UserInfo:
        """Record that the user agrees, or no longer agrees, to be learned from."""
        return await self._put(user, {"consent": granted})

    async def forget(self, user: str) -> ForgetReceipt:
        """Erase everything of this user."""
        return values.receipt(await self._connection.send("DELETE", _user(user)))

    async def aclose(self) -> None:
        await self._connection.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def _download(self, asked: str, path: Path) -> Path:
        with new_file(path) as file:
            await self._connection.download(asked, file)
        return path

    async def _post(self, user: str, action: str, body: Json | None = None) -> Json:
        return await self._connection.send("POST", _user(user, f"/{action}"), body)

    async def _put(self, user: str, body: Json) -> UserInfo:
        return values.user_info(await self._connection.send("PUT", _user(user), body))


def _user(user: str, rest: str = "", **query: int | str) -> str:
    """A path about one user, named by the application's own id or by a ``UserId``."""
    asked = [f"{name}={_quoted(name, value)}" for name, value in query.items()] + ["by=id"] * isinstance(user, UserId)
    return f"/v1/users/{_segment('user', user)}{rest}" + (f"?{'&'.join(asked)}" if asked else "")


def _number(number: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InvalidParameter("version", number, "the number of one of the user's versions")
    return number


def _segment(param: str, value: str) -> str:
    """One path segment; dots alone would climb."""
    if not isinstance(value, str) or value in ("", ".", "..") or not _whole(value):
        raise InvalidParameter(param, value, "text, not empty, not only dots")
    return _quoted(param, value)


def _quoted(param: str, value: object) -> str:
    """A value as a part of an address; half a surrogate pair becomes a question mark."""
    quoted = quote(str(value), safe="", errors="replace")
    if len(quoted) > MAX_QUOTED_CHARS:
        raise InvalidParameter(param, value, f"what takes at most {MAX_QUOTED_CHARS} characters in an address")
    return quoted


def _whole(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
