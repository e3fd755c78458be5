"""The study: simulated users taught by the code that production runs, one JSON line per measurement.

    python -m personalize.evaluation.study --arm rolling-block --turns 64 --out docs/study/results.jsonl

A measurement is keyed by (model, arm, profile, seed, turn); what the file already holds is not measured again.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from personalize.config import ServiceSettings, Settings
from personalize.evaluation.rates import MAX_REPLY_TOKENS, measure
from personalize.evaluation.users import Chat, Said, SimulatedUser
from personalize.service import Personalizer
from personalize.types import ChatRequest, Outcome, SamplingParams
from personalize.world.preferences import Preference

CHECKPOINTS = (0, 2, 5, 10, 16, 24, 32, 64, 128)
MAX_FOLLOW_UPS_PER_CHAT = 5


@dataclass(frozen=True, slots=True)
class Profile:
    """What one kind of user wants."""

    name: str
    preferences: tuple[Preference, ...]
    patience: int = 1


def _profile(name: str, *pairs: str, patience: int = 1) -> Profile:
    return Profile(name, tuple(Preference(*pair.split("=")) for pair in pairs), patience)


PROFILES = (
    _profile("short+emoji", "length=short", "emoji=emoji"),
    _profile("bullets+question", "format=bullets", "closing=question"),
    _profile("casual+signoff", "tone=casual", "signoff=signoff"),
    _profile("greeting+example", "greeting=greeting", "example=example"),
    _profile("formal+heading", "tone=formal", "heading=heading"),
    _profile("numbered+long", "format=numbered", "length=long", patience=2),
    _profile("short", "length=short"),
    _profile("emoji+greeting+bullets", "emoji=emoji", "greeting=greeting", "format=bullets"),
)

ARMS: Mapping[str, Mapping[str, Any]] = {
    "rolling-block": {},
    "rolling-block-always": {"gate_nats": None},
    "rolling-block-gated-steps": {"train_uninformative": False},
    "rolling-block-reverse": {"objective": "reverse_kl", "lr": 2e-3, "num_steps": 2, "replay": 3},
    "rolling-block-top-k": {"objective": "top_k"},
    "rolling-block-sampled": {"objective": "sampled"},
    "scaled-adapter": {"teacher": "scaled"},
    "adapter-off": {"gate_nats": None, "block_size": 1, "replay": 0, "num_steps": 1},
    "paper-faithful": {
        "teacher": "live", "objective": "sampled", "centred": True, "gate_nats": None, "block_size": 1, "replay": 0,
        "num_steps": 1, "lr": 1e-3,
    },
    "official-live": {
        "teacher": "live", "objective": "top_k", "gate_nats": None, "block_size": 1, "replay": 0, "num_steps": 1,
        "lr": 1e-3, "eps": 1e-6,
    },
}  # fmt: skip
"""What each arm changes in the default recipe."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One simulated life under one arm."""

    arm: str
    profile: Profile
    seed: int

    @property
    def user(self) -> str:
        return f"{self.profile.name}/{self.seed}"


@dataclass(slots=True)
class Tally:
    """What became of a cell's follow-ups, by what a person would call them."""

    complaints: int = 0
    complaints_applied: int = 0
    others: int = 0
    others_applied: int = 0

    def count(self, said: Said, outcome: Outcome) -> None:
        applied = int(outcome is Outcome.APPLIED)
        if said.kind == "complaint":
            self.complaints += 1
            self.complaints_applied += applied
        else:
            self.others += 1
            self.others_applied += applied


class Results:
    """The measurements of one file."""

    def __init__(self, path: Path):
        self.path = path
        self.lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def has(self, **key: Any) -> bool:
        return any(all(line.get(name) == value for name, value in key.items()) for line in self.lines)

    def add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


async def live(app: Personalizer, cell: Cell, checkpoints: Iterable[int], num_prompts: int, results: Results) -> None:
    """Let one simulated user chat, waiting for every update, and measure at the checkpoints."""
    person = SimulatedUser(cell.user, cell.profile.preferences, cell.seed, cell.profile.patience)
    tally, done, began = Tally(), 0, time.perf_counter()
    pending = sorted(checkpoints)
    while pending:
        if pending[0] == done:
            await _measure(app, cell, done, num_prompts, results, tally, time.perf_counter() - began)
            pending.pop(0)
            continue
        chat, said = Chat(), person.opening()
        reply = await _say(app, cell, chat, said, seed=10_000 * cell.seed + done)
        for _ in range(min(MAX_FOLLOW_UPS_PER_CHAT, pending[0] - done)):
            said = person.reaction(said, reply.text)
            reply = await _say(app, cell, chat, said, seed=10_000 * cell.seed + done + 1)
            done += 1
            await app.settled(cell.user)
            tally.count(said, await app.outcome(reply.request_id))


async def _say(app: Personalizer, cell: Cell, chat: Chat, said: Said, seed: int):
    sampling = SamplingParams(temperature=1.0, max_tokens=MAX_REPLY_TOKENS, seed=seed)
    (reply,) = await app.complete(ChatRequest(messages=chat.ask(said.text), user=cell.user, sampling=sampling))
    chat.answer(reply.text)
    return reply


async def _measure(
    app: Personalizer, cell: Cell, turn: int, num_prompts: int, results: Results, tally: Tally, seconds: float
) -> None:
    rates = await measure(app, cell.user, cell.profile.preferences, num_prompts)
    key = {"model": "pocket", "arm": cell.arm, "profile": cell.profile.name, "seed": cell.seed, "turn": turn}
    results.add({**key, **asdict(rates), **asdict(tally), "seconds": round(seconds, 1)})


async def run(
    arm: str, profiles: Iterable[Profile], seeds: Iterable[int], turns: int, num_prompts: int, results: Results,
    recipe: Mapping[str, Any] | None = None, model: str = "pocket",
) -> None:  # fmt: skip
    """Measure every cell of ``arm`` that is missing in ``results``; all cells are users of one service."""
    checkpoints = [turn for turn in CHECKPOINTS if turn <= turns]
    cells = [Cell(arm, profile, seed) for profile in profiles for seed in seeds]
    cells = [c for c in cells if not results.has(arm=arm, profile=c.profile.name, seed=c.seed, turn=checkpoints[-1])]
    if not cells:
        return
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(
            model=model, home=Path(home), service=ServiceSettings(), recipe=ARMS[arm] if recipe is None else recipe
        )
        async with Personalizer.open(settings=settings) as app:
            await asyncio.gather(*[live(app, cell, checkpoints, num_prompts, results) for cell in cells])


def main(argv: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", action="append", choices=sorted(ARMS), help="may be repeated; default: rolling-block")
    parser.add_argument("--profiles", type=int, default=len(PROFILES), help="how many of the profiles")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--out", type=Path, default=Path("docs/study/results.jsonl"))
    arguments = parser.parse_args(argv)
    results = Results(arguments.out)
    for arm in arguments.arm or ["rolling-block"]:
        profiles = PROFILES[: arguments.profiles]
        seeds = range(arguments.seeds)
        asyncio.run(run(arm, profiles, seeds, arguments.turns, arguments.prompts, results, model=arguments.model))
        report(results, arm)
    return 0


def report(results: Results, arm: str) -> None:
    """Print the mean over cells at every checkpoint."""
    lines = [line for line in results.lines if line["arm"] == arm]
    print(f"{arm}: joint | mean | worst joint | correct | capped | cells")
    for turn in sorted({line["turn"] for line in lines}):
        at = [line for line in lines if line["turn"] == turn]
        means = [sum(line[name] for line in at) / len(at) for name in ("joint", "mean", "correct", "capped")]
        worst = min(line["joint"] for line in at)
        print(f"  {turn:4d}  {means[0]:.3f}  {means[1]:.3f}  {worst:.3f}  {means[2]:.3f}  {means[3]:.3f}  {len(at)}")


if __name__ == "__main__":
    raise SystemExit(main())
