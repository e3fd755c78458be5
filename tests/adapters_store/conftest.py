"""What the store's tests share: a clock that is set by hand, tiny adapter folders, and stores of every kind."""

import json
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from adapters_store import Limits, LocalBlobs, MemoryBlobs, NewTurn, Store, Version, crash
from adapters_store.types import User

BASE = "b" * 64
OTHER_BASE = "c" * 64
POSTGRES = os.environ.get("TEST_POSTGRES_URL")


@dataclass
class Clock:
    """Seconds since 1970; moves by a millisecond at every look, so that nothing happens twice at one time."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def write_adapter(folder: Path, value: int = 1, rank: int = 2, modules: dict | None = None, config: dict | None = None):
    """Write a PEFT folder by hand: F32 matrices whose bytes are all ``value``."""
    folder.mkdir(parents=True, exist_ok=True)
    modules = {"model.layers.0.q_proj": (6, 4)} if modules is None else modules
    header, end = {}, 0
    for module, (d_in, d_out) in modules.items():
        for side, shape in (("A", [rank, d_in]), ("B", [d_out, rank])):
            size = 4 * shape[0] * shape[1]
            key = f"base_model.model.{module}.lora_{side}.weight"
            header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
            end += size
    write_safetensors(folder / "adapter_model.safetensors", header, bytes([value]) * end)
    plain = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**plain, **(config or {})}))
    return folder


def write_safetensors(path: Path, header: dict, data: bytes) -> None:
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)


def write_moments(folder: Path, value: int = 9) -> None:
    header = {"exp_avg": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    write_safetensors(folder / "optimizer.safetensors", header, bytes([value]) * 16)


@dataclass
class Hand:
    """A store with the moves that many tests make."""

    store: Store
    clock: Clock
    home: Path
    values: Iterator[int] = field(default_factory=lambda: iter(range(1, 10_000)))
    base: str = BASE
    other_base: str = OTHER_BASE

    def user(self, name: str = "ann") -> User:
        return self.store.ensure_user(name)

    def turn(self, user: User, **changes) -> str:
        return self.store.record_turn(new_turn(user, **changes))

    def queue(self, user: User, text: str = "shorter, please", **options) -> str:
        """Record a turn and queue a follow-up for it; return the update's id."""
        turn_id = self.turn(user)
        return self.store.queue_follow_up(user.user_id, turn_id, f"r-{uuid.uuid4()}", text, **options).update_id

    def stage(self, user: User, value: int | None = None, moments: bool = True) -> Path:
        staged = self.store.stage(user.user_id)
        write_adapter(staged, (next(self.values) if value is None else value) % 256)
        if moments:
            write_moments(staged)
        return staged

    def claim(self, owner: str = "me", limit: int = 8, **options):
        assert self.store.acquire_lease(owner, 60)
        return self.store.claim_updates(owner, limit, self.base, **options)

    def publish(self, user: User, *, update_id: str | None = None, base: str = BASE, **changes) -> Version:
        head = self.store.head(user.user_id, base)
        found = self.store.get_user(user.user_id)
        values = {
            "user_id": user.user_id,
            "base_digest": base,
            "parent": head.number if head else None,
            "epoch": found.epoch if found else user.epoch,
            "update_id": update_id,
            "state": {"replay": ["t1"]},
            "metrics": {"loss_last": 0.5},
        }
        staged = changes.pop("staged", None) or self.stage(user)
        return self.store.publish(staged, **{**values, **changes})

    def files(self) -> list[Path]:
        """Every file under the home folder."""
        return sorted(path for path in self.home.rglob("*") if path.is_file())

    def files_beside_the_index(self) -> list[Path]:
        return [path for path in self.files() if not path.name.startswith("index.sqlite")]


def new_turn(user: User, **changes) -> NewTurn:
    values = {
        "user_id": user.user_id,
        "request_id": f"r-{uuid.uuid4()}",
        "messages": (("user", "How do tides work?"),),
        "prompt_ids": (1, 2, 3, 4),
        "completion_ids": (5, 6, 7),
        "completion_mask": (1, 1, 1),
        "reply_text": "The moon pulls the sea.",
        "finish_reason": "stop",
        "base_digest": BASE,
        "outcome": "skipped_first_message",
    }
    return NewTurn(**{**values, **changes})


@pytest.fixture
def adapter() -> Callable[..., Path]:
    return write_adapter


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.skipif(not POSTGRES, reason="no server"))])
def url(request, tmp_path) -> Iterator[str]:
    """A new, empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'home' / 'index.sqlite'}"
        return
    name = f"t{uuid.uuid4().hex}"
    engine = create_engine(
        str(POSTGRES).replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
    yield f"{POSTGRES}?options=-csearch_path%3D{name}"
    with engine.connect() as connection:
        connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
    engine.dispose()


@pytest.fixture(params=["local", "memory"])
def blobs(request, tmp_path, clock):
    if request.param == "local":
        return LocalBlobs(tmp_path / "home" / "files")
    return MemoryBlobs(clock=clock)


@pytest.fixture
def open_hand(tmp_path, clock) -> Iterator[Callable[..., Hand]]:
    """Open stores on SQLite and a local folder; called again it opens the same one once more."""
    opened: list[Store] = []

    def make(limits: Limits | None = None, **options) -> Hand:
        files = LocalBlobs(tmp_path / "home" / "files", **options)
        store = Store.open(f"sqlite:///{tmp_path / 'home' / 'index.sqlite'}", files, clock=clock, limits=limits)
        opened.append(store)
        return Hand(store, clock, tmp_path / "home")

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def hand(url, blobs, clock, tmp_path) -> Iterator[Hand]:
    """A store on every kind of database and of blobs."""
    with Store.open(url, blobs, clock=clock) as store:
        yield Hand(store, clock, tmp_path / "home")


@pytest.fixture
def local(open_hand) -> Hand:
    """A store on SQLite and a local folder."""
    return open_hand()


@pytest.fixture
def lose_answer(monkeypatch) -> Callable[[Store], None]:
    """Let a store's next commit take place and its answer be lost, as when a connection breaks in that moment."""

    def make(store: Store) -> None:
        dialect = store._database.writing.dialect
        real = dialect.do_commit

        def do_commit(connection):
            real(connection)
            monkeypatch.setattr(dialect, "do_commit", real)
            raise dialect.loaded_dbapi.OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(dialect, "do_commit", do_commit)

    return make


@pytest.fixture
def crash_hook(monkeypatch) -> Callable[[Callable[[str], None]], None]:
    return lambda hook: monkeypatch.setattr(crash, "hook", hook)
