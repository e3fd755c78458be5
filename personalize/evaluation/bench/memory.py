"""Memory of many known and some warm users, over the slots that they need; measured in a process of its own.

    python -m personalize.evaluation.bench.memory MODEL KNOWN WARM

Prints one JSON object. "Known": in the store, and in the map of heads; "warm": in a slot, and decoded with once.
The base line is the same process with the model loaded, an engine that has served, and an empty store.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from personalize.config import Settings
from personalize.engine.engine import Engine
from personalize.evaluation.bench.rows import Row, missing
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.serving import decoding, load_adapters, random_adapter
from personalize.evaluation.bench.store import multiply, publish_copy
from personalize.evaluation.bench.subject import SHAPES, Subject, load_subject
from personalize.model.folder import write_adapter
from personalize.service.heads import Heads
from personalize.updates.storage import open_store

_STATM = Path("/proc/self/statm")
_ROWS = 4
_KEEP_MEMORY = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")


def measure(subject: Subject, scale: Scale) -> list[Row]:
    """Measure in a new process: this one's memory has seen other things."""
    figure = f"RSS of {scale.known:,} known and {scale.warm} warm users over slots x slot bytes"
    goal = subject.goal("≤ 1.10")
    if not _STATM.exists():
        return missing([figure], "this system does not tell a process its resident memory in /proc", goal=goal)
    if subject.name not in SHAPES or subject.device.type != "cpu":
        return missing([figure], "only a shape that a new process can load, on the CPU, is measured", goal=goal)
    words = [subject.name, str(scale.known), str(scale.warm), str(torch.get_num_threads())]
    # Settings that keep freed memory resident would put what loading the model has freed into the base line.
    plainly = ["env", *(part for name in _KEEP_MEMORY for part in ("-u", name))]
    done = subprocess.run(
        [*plainly, sys.executable, "-m", __name__, *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return missing([figure], f"the process failed: {done.stderr.strip().splitlines()[-1:]}", goal=goal)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return [
        Row(
            figure=figure,
            value=(found["rss_bytes"] - found["base_bytes"]) / found["slots_bytes"],
            goal=goal,
            n=1,
            reason="no host cache is configured: there is none",
            samples={f"{name} (MiB)": found[f"{name}_bytes"] / 2**20 for name in ("rss", "base", "slots")},
        )
    ]


def resident(subject: Subject, known: int, warm: int) -> dict[str, int]:
    """Return resident bytes before and with these users, and what their slots hold.

    Raises:
        RuntimeError: not all of them are in slots.
    """
    scale = Scale(prompt=4)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        with open_store(Settings(home=home)) as store:
            _serve(subject, subject.engine(_ROWS, max_loras=1), scale, 1)
            before = _rss()
            heads, engine = _know(subject, store, home, known), subject.engine(_ROWS, max_loras=warm)
            _serve(subject, engine, scale, warm)
            after = _rss()
            if len(engine.bank.names()) != warm or heads is None:
                raise RuntimeError(f"{len(engine.bank.names())} of {warm} users are warm")
    slot = sum(a.nbytes + b.nbytes for a, b in engine.bank.tensors(1).values())
    return {"base_bytes": before, "rss_bytes": after, "slots_bytes": warm * slot}


def _know(subject: Subject, store: Any, home: Path, known: int) -> Heads:
    """Put users into the store and look each of them up; return the map of heads that knows them now."""
    adapter = home / "adapter"
    write_adapter(adapter, random_adapter(subject.base, 0), subject.base)
    user_id = store.ensure_user("user 0").user_id
    publish_copy(store, subject.base.base_digest, adapter, user_id, None)
    heads = Heads(store, subject.base.base_digest)
    for one in multiply(home / "index.sqlite", known):
        if heads.current(one) is None:
            raise RuntimeError("a user of the store has no head")
    return heads


def _serve(subject: Subject, engine: Engine, scale: Scale, warm: int) -> None:
    refs = load_adapters(engine, warm)
    for first in range(0, warm, _ROWS):
        rows = refs[first : first + _ROWS]
        with decoding(subject, engine, rows, scale.prompt, 1):
            engine.step()


def _rss() -> int:
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(words: list[str]) -> None:
    model, known, warm, threads = words[0], int(words[1]), int(words[2]), int(words[3])
    torch.set_num_threads(threads)
    print(json.dumps(resident(load_subject(model, "cpu"), known, warm)))


if __name__ == "__main__":
    main(sys.argv[1:])
