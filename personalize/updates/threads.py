"""Blocking calls in threads, of which a cancelled caller leaves nothing half done."""

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def whole(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call in a thread; a cancelled caller waits for its end."""
    return await taken(_keep, call, *args, **kwargs)


async def taken(
    give_back: Callable[[T], Awaitable[object]], call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run a blocking call that takes hold of something; a cancelled caller waits for its end and gives that back."""
    context = contextvars.copy_context()
    # No task, as that of ``to_thread`` would be: who cancels all tasks of a loop must not end the wait.
    running = asyncio.get_running_loop().run_in_executor(None, lambda: context.run(call, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):  # once more: it ends no sooner
                await asyncio.wait({running})
        if running.exception() is None:
            await give_back(running.result())
        raise


async def _keep(result: object) -> None:
    """What was done stays done."""
