"""Reading adapter folders without holding up a step."""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from personalize.model.base import BaseModel
from personalize.model.folder import read_version
from personalize.model.lora import LoraTensors
from personalize.types import AdapterRef


class AdapterReader:
    """Reads folders on a thread of its own; every version at most once at a time, and only as it was published.

    ``on_ready`` is called on that thread after each read.
    """

    def __init__(self, base: BaseModel, *, max_rank: int, on_ready: Callable[[], None] = lambda: None):
        self.on_ready = on_ready
        self._base, self._max_rank = base, max_rank
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="adapter-reader")
        self._reads: dict[str, Future[LoraTensors]] = {}

    def start(self, ref: AdapterRef) -> None:
        """Begin to read a version, unless that has happened."""
        if ref.name not in self._reads:
            future = self._pool.submit(read_version, ref, self._base, max_rank=self._max_rank)
            self._reads[ref.name] = future
            future.add_done_callback(lambda _: self.on_ready())

    def is_reading(self, name: str) -> bool:
        future = self._reads.get(name)
        return future is not None and not future.done()

    def has_ended(self, name: str) -> bool:
        """Whether there is something to be had from ``result``: tensors or an error."""
        future = self._reads.get(name)
        return future is not None and future.done()

    def result(self, name: str) -> LoraTensors | None:
        """Return what was read, or None while it is not there.

        Raises:
            AdapterError: the folder cannot be served; it is forgotten here, so a later request reads it again.
        """
        future = self._reads.get(name)
        if future is None or not future.done():
            return None
        try:
            return future.result()
        except BaseException:
            self.forget(name)
            raise

    def forget(self, name: str) -> None:
        """Let go of the tensors of a version."""
        self._reads.pop(name, None)

    def names(self) -> tuple[str, ...]:
        """Return the versions that are being read or were read and not let go."""
        return tuple(self._reads)

    def wait(self, timeout_s: float) -> None:
        """Block until one of the reads has ended, for at most ``timeout_s``."""
        pending = [future for future in self._reads.values() if not future.done()]
        if pending:
            wait(pending, timeout_s, return_when=FIRST_COMPLETED)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._reads.clear()
