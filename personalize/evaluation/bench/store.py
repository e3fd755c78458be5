"""A store of very many users: looking heads up while others publish, and opening it."""

import itertools
import random
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import quantiles
from typing import Any

from personalize.config import Settings
from personalize.evaluation.bench.rows import Row
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.serving import random_adapter
from personalize.evaluation.bench.subject import Subject
from personalize.model.folder import write_adapter
from personalize.service.heads import Heads
from personalize.updates.storage import open_store

_PUBLISHERS = 8
_THREADS = 4
_WARM_USERS = 1000
_GOAL_USERS = 1_000_000


def measure(subject: Subject, scale: Scale) -> list[Row]:
    """Measure start-up, cold and warm lookups of heads with publishes beside them.

    The users are copies of one that the store itself has made, row by row inside the database: a million through the
    store's own interface would take the better part of an hour.
    """
    with tempfile.TemporaryDirectory() as name:
        home, digest = Path(name), subject.base.base_digest
        adapter = home / "adapter"
        write_adapter(adapter, random_adapter(subject.base, 0), subject.base)
        with open_store(Settings(home=home)) as store:
            publishers = [_first_version(store, digest, adapter, number) for number in range(_PUBLISHERS)]
        users = multiply(home / "index.sqlite", scale.store_users - _PUBLISHERS)
        began = time.perf_counter()
        with open_store(Settings(home=home)) as store:
            store.status()
            ready_s = time.perf_counter() - began
            with _Publishing(store, digest, adapter, publishers, scale.publishes_per_s) as publishing:
                cold, warm = _lookups(store, digest, users, scale.store_s)
    return _rows(scale, ready_s, cold, warm, publishing)


def multiply(database: Path, count: int) -> Sequence[str]:
    """Add ``count`` copies of one user, with his head and version, under ids of their own; return some of the ids."""
    with closing(sqlite3.connect(database)) as connection:
        template = connection.execute("SELECT user_id FROM users LIMIT 1").fetchone()[0]
        numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {int(count)})"
        connection.execute("CREATE TEMP TABLE ids AS " + numbers + " SELECT lower(hex(randomblob(16))) AS id FROM n")
        own = {"user_id": "ids.id", "external_hash": "ids.id || ids.id", "key": "randomblob(32)"}
        for table in ("users", "versions", "heads"):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            values = ", ".join(own.get(column, f"t.{column}") for column in columns)
            connection.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM ids, {table} t WHERE t.user_id = ?",
                (template,),
            )
        connection.commit()
        sample = connection.execute("SELECT id FROM ids ORDER BY random() LIMIT 50000").fetchall()
    return [row[0] for row in sample]


class _Publishing:
    """Threads that together publish at a steady rate while it is entered."""

    def __init__(self, store: Any, base_digest: str, adapter: Path, publishers: list[list[Any]], per_s: float):
        self._store, self._digest, self._adapter, self._per_s = store, base_digest, adapter, per_s
        self._done: list[int] = []
        self._errors: list[BaseException] = []
        self._began = self._ended = 0.0
        self._stop = threading.Event()
        groups = [publishers[first::_THREADS] for first in range(_THREADS)]
        self._threads = [threading.Thread(target=self._run, args=(group,), name="publishing") for group in groups]

    @property
    def rate(self) -> float:
        """Publishes per second, once it has ended."""
        return len(self._done) / (self._ended - self._began)

    def __enter__(self) -> "_Publishing":
        self._began = time.perf_counter()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._ended = time.perf_counter()
        if self._errors:
            raise RuntimeError("publishing failed beside the lookups") from self._errors[0]

    def _run(self, publishers: list[list[Any]]) -> None:
        try:
            for number, publisher in enumerate(itertools.cycle(publishers)):
                due_s = self._began + number * _THREADS / self._per_s
                if self._stop.wait(max(0.0, due_s - time.perf_counter())):
                    break
                publisher[1] = publish_copy(self._store, self._digest, self._adapter, *publisher)
                self._done.append(publisher[1])
        except BaseException as error:
            self._errors.append(error)


def _first_version(store: Any, base_digest: str, adapter: Path, number: int) -> list[Any]:
    user_id = store.ensure_user(f"user {number}").user_id
    return [user_id, publish_copy(store, base_digest, adapter, user_id, None)]


def publish_copy(store: Any, base_digest: str, adapter: Path, user_id: str, parent: int | None) -> int:
    """Publish a copy of the folder ``adapter`` as the user's next version; return its number."""
    staged = store.stage(user_id)
    shutil.copytree(adapter, staged, dirs_exist_ok=True)
    version = store.publish(
        staged, user_id=user_id, base_digest=base_digest, parent=parent, epoch=0, update_id=None, state={}, metrics={}
    )
    return version.number


def _lookups(store: Any, digest: str, users: Sequence[str], seconds: float) -> tuple[list[float], list[float]]:
    """Return the ms of looking up users for the first time, and of looking a few of them up again and again."""
    heads, draws = Heads(store, digest), random.Random(0)
    some = users[: min(_WARM_USERS, len(users) // 2)]
    fresh = iter(users[len(some) :])
    cold = _timed(lambda: heads.current(next(fresh)), seconds / 2, len(users) - len(some))
    for user in some:
        heads.current(user)
    return cold, _timed(lambda: heads.current(draws.choice(some)), seconds / 2, 1_000_000)


def _timed(lookup: Callable[[], Any], seconds: float, most: int) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < most and time.perf_counter() < end:
        began = time.perf_counter()
        found = lookup()
        times.append((time.perf_counter() - began) * 1000)
        if found is None:
            raise RuntimeError("a user of the store has no head")
        time.sleep(0.0005)  # a service does other things between two lookups, and other threads want their turn
    return times


def _rows(scale: Scale, ready_s: float, cold: list[float], warm: list[float], publishing: _Publishing) -> list[Row]:
    size, rate = f"store of {scale.store_users:,} users", publishing.rate
    full, held = scale.store_users >= _GOAL_USERS, rate >= 0.9 * scale.publishes_per_s

    def lookup(word: str, times: list[float], goal: str) -> Row:
        name, p99, beside = f"head lookup p99 {word}", _p99(times), f"{rate:.1f} publishes/s beside it"
        if not held:  # less was going on than the figure says
            beside += f" instead of {scale.publishes_per_s:g}, the most that could be kept up; p99 was {p99:.3g} ms"
        curve = (f"store: {name}", scale.store_users)
        return Row(
            f"{size}, {name}", p99 if held else None, "ms", goal if full else None, len(times), beside, curve=curve
        )

    start = Row(
        f"{size}, start-up to ready", ready_s, "s", "≤ 5" if full else None, 1,
        curve=("store: start-up to ready", scale.store_users),
    )  # fmt: skip
    return [lookup("warm", warm, "≤ 1"), lookup("cold", cold, "≤ 70"), start]


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]
