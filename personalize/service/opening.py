"""Something that is opened with ``async with`` or with ``await``."""

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, Protocol, TypeVar


class Closes(Protocol):
    async def aclose(self) -> None: ...


T = TypeVar("T", bound=Closes)


class Opening(Generic[T]):
    """``async with`` it, or ``await`` it and call ``aclose`` of what comes out at the end."""

    def __init__(self, start: Callable[[], Coroutine[Any, Any, T]]):
        self._start = start
        self._opened: T | None = None

    def __await__(self) -> Generator[Any, None, T]:
        return self._start().__await__()

    async def __aenter__(self) -> T:
        self._opened = await self._start()
        return self._opened

    async def __aexit__(self, *error: object) -> None:
        assert self._opened is not None
        await self._opened.aclose()
