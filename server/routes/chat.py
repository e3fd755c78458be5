"""``POST /v1/chat/completions``, whole and streamed."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from personalize.types import ReplyStart
from server.body import read_object
from server.chat_request import ChatCall, parse_chat
from server.chat_response import ChunkWriter, answer_headers, completion
from server.errors import ClientGone
from server.events import Pulled, events
from server.identity import Caller, speaker
from server.state import Shared, State

router = APIRouter()
T = TypeVar("T")
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@router.post("/v1/chat/completions")
async def chat_completions(request: Request, shared: Shared, caller: Caller) -> Response:
    body = await read_object(request)
    user = await speaker(caller, request, body, shared)
    call = parse_chat(body, base=shared.base, user=user, max_choices=shared.max_choices)
    return await (_streamed if call.stream else _whole)(call, shared, request)


async def _whole(call: ChatCall, shared: State, request: Request) -> Response:
    with shared.seats.taken(call.request):
        replies = await while_connected(request, shared.personalizer.complete(call.request))
    shared.pulse.saw()
    shared.metrics.observe_replies(replies)
    return JSONResponse(completion(replies, model=call.model, base=shared.base), headers=answer_headers(replies[0]))


async def _streamed(call: ChatCall, shared: State, request: Request) -> Response:
    source = shared.seats.stream(call.request, shared.personalizer.stream(call.request))
    chunks = Pulled(source, shared.pulse.saw)
    try:
        start = await while_connected(request, _started(chunks, shared.keep_alive_s))
    except BaseException:
        await chunks.aclose()
        raise
    writer = ChunkWriter(start, model=call.model, base=shared.base, include_usage=call.include_usage)
    text = events(chunks, writer, keep_alive_s=shared.keep_alive_s, done=shared.metrics.observe_replies)
    return StreamingResponse(text, headers=answer_headers(start) | STREAM_HEADERS, media_type="text/event-stream")


async def _started(chunks: Pulled, patience_s: float) -> ReplyStart:
    """What the headers need; an error that comes soon enough is still a plain HTTP error."""
    first = await chunks.take()
    assert first is not None and first.start is not None, "the first chunk of a stream carries its start"
    if await chunks.ready(patience_s) and (error := chunks.error()) is not None:
        raise error
    return first.start


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``; give it up when the client hangs up.

    Raises:
        ClientGone: the client has gone; nobody will read this answer.
    """
    answer, gone = asyncio.ensure_future(work), asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientGone("the client went away")
        return answer.result()
    finally:
        for task in (answer, gone):
            task.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
