"""What holds for every test: no network, no model hub, no display, no GPU taken for granted."""

import gc
import os
import socket

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("DO_NOT_TRACK", "1")
for name in [name for name in os.environ if name.startswith("PERSONALIZE_")]:
    del os.environ[name]

LOOPBACK = ("127.", "::1", "localhost")
_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex


def _stays_here(address: object) -> bool:
    return not isinstance(address, tuple) or str(address[0]).startswith(LOOPBACK)


def _connect_here(self: socket.socket, address):
    if not _stays_here(address):
        raise AssertionError(f"a test tried to reach {address!r}; tests use no network")
    return _connect(self, address)


def _connect_ex_here(self: socket.socket, address):
    if not _stays_here(address):
        raise AssertionError(f"a test tried to reach {address!r}; tests use no network")
    return _connect_ex(self, address)


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Let sockets of this process reach this machine only."""
    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", _connect_here)
    patch.setattr(socket.socket, "connect_ex", _connect_ex_here)
    yield
    patch.undo()


def pytest_collection_finish():
    """Thousands of collected tests live to the end; the garbage collector need not look at them again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]):
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch  # only where it is needed: most selections of tests run without it

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
