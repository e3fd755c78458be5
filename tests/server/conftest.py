import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.server.serving import Service, Socket, listening, opened

T = TypeVar("T")


@pytest.fixture
def with_service(tmp_path: Path) -> Callable[..., Any]:
    """Run an async function of a ``Service`` to its end."""

    def run(work: Callable[[Service], Coroutine[Any, Any, T]], **options: Any) -> T:
        async def main() -> T:
            async with opened(tmp_path, **options) as service:
                return await work(service)

        return asyncio.run(main())

    return run


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Socket]:
    with listening(tmp_path) as socket:
        yield socket
