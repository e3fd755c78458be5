"""The outermost layer: request ids, a log without names, and no exception that gets past.

The log names routes by their template, never by their path, because paths carry user ids; faults are logged by type
and place, never by message, because messages carry text.
"""

import logging
import time
import traceback
import uuid
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from personalize.errors import PersonalizeError
from server.errors import ClientGone, error_response

log = logging.getLogger("server")
Observe = Callable[[str, str, int, float], None]


class Edge:
    """ASGI middleware around everything else.

    Args:
        app: the application inside.
        observe: told (method, route template, status, seconds) of every finished request.
    """

    def __init__(self, app: ASGIApp, observe: Observe):
        self.app = app
        self.observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        # Routing sees the path as it was sent: a user id may hold any character, a slash among them.
        scope["path"] = scope.get("raw_path", scope["path"].encode()).decode("ascii", "replace")
        answer = _Answer(send)
        begin = time.perf_counter()
        try:
            await self.app(scope, receive, answer)
        except ClientDisconnect:  # hung up in the middle of a body, which is no fault
            if answer.status is None:
                await error_response(ClientGone("the client went away"))(scope, receive, answer)
        except Exception as error:
            log_fault(error)
            if answer.status is None:
                await error_response(PersonalizeError("fault"))(scope, receive, answer)
        finally:
            self._report(scope, answer, time.perf_counter() - begin)

    def _report(self, scope: Scope, answer: "_Answer", seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        status = answer.status or 499  # nothing was sent: the client had gone
        self.observe(scope["method"], route, status, seconds)
        log.info("%s %s %d %.1f ms %s", scope["method"], route, status, 1000 * seconds, answer.request_id)


class _Answer:
    """A ``send`` that remembers the status and sees to it that every answer has a request id."""

    def __init__(self, send: Send):
        self._send = send
        self.status: int | None = None
        self.request_id = uuid.uuid4().hex

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            self.request_id = headers.setdefault("x-request-id", self.request_id)
        await self._send(message)


def log_fault(error: BaseException) -> None:
    """Log where an unexpected exception came from, without its message."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s\n%s", type(error).__name__, frames)
