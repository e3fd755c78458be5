"""Measure the skills of a trained model and write its card.

``python -m personalize.recipes.measure FOLDER`` writes FOLDER/card.json and FOLDER/README.md.
"""

import argparse
import math
import random
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from personalize.recipes import skills
from personalize.recipes.card import Row, readme, share_row, write_json
from personalize.recipes.sampling import sample
from personalize.recipes.skills import Place, Situation
from personalize.recipes.tokens import MAX_TOKENS
from personalize.reporting.figures import Figure, measured, record
from personalize.world import checkers, small_talk
from personalize.world.preferences import DEFAULT, NON_DEFAULT, VALUES, Preference
from personalize.world.topics import topics

PLACES: dict[Place, str] = {"block": "hindsight block", "system": "system prompt", "chat": "earlier complaint"}
IDLE = ("praise", "remark", "topic switch")
_PAIR_GOALS: dict[Place, float] = {"block": 0.97, "system": 0.95, "chat": 0.95, "mixed": 0.95}


class Meter:
    """A model under measurement: asks it about situations and counts."""

    def __init__(self, folder: Path, *, seed: int = 0) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._seed = seed

    def replies(self, chats: Sequence[Sequence], name: str) -> list[str]:
        """Return a reply to every chat; ``name`` seeds the sampling."""
        seed = random.Random(f"{self._seed}:{name}").getrandbits(31)
        return sample(self.model, self.tokenizer, chats, seed=seed)

    def obedience(
        self, skill: str, row: str, ask: Callable[[random.Random], Situation], n: int, goal: float | None
    ) -> Row:
        """Return how often every stated preference holds."""
        rng = random.Random(f"{self._seed}:{skill}:{row}")
        asked = [ask(rng) for _ in range(n)]
        replies = self.replies([one.chat for one in asked], f"{skill}:{row}")
        hits = sum(checkers.all_hold(one.told, reply) for one, reply in zip(asked, replies, strict=True))
        return share_row(skill, row, hits, n, goal)

    def untold(self, n: int, idle: str | None = None) -> tuple[list[Situation], list[str]]:
        """Return first questions and their replies, ``idle`` being a kind of follow-up in the block."""
        rng = random.Random(f"{self._seed}:untold:{idle}")
        asked = [skills.plain(rng, [skills.idle_line(idle, rng)] if idle else []) for _ in range(n)]
        return asked, self.replies([one.chat for one in asked], f"untold:{idle}")

    def plain(self, row: str, draw: Callable[[random.Random], small_talk.Plain], n: int) -> Row:
        """Return how often the one plain answer is given, with and without a block."""
        rng = random.Random(f"{self._seed}:{row}")
        cases = [draw(rng) for _ in range(n)]
        replies = self.replies([skills.plain_answer(case, rng) for case in cases], row)
        hits = sum(case.answer == reply for case, reply in zip(cases, replies, strict=True))
        return share_row("plain answers", row, hits, n)


def measure(meter: Meter, *, n: int = 400, n_other: int | None = None, n_idle: int = 2_000) -> list[Row]:
    """Return every row of the card.

    Args:
        n: replies per row on one preference in the hindsight block, the skill that learning stands on.
        n_other: replies per row on everything else that is told; None means n.
        n_idle: replies per row about idle blocks.
    """
    other = n if n_other is None else n_other
    singles = [single(meter, place, one, n if place == "block" else other) for place in PLACES for one in NON_DEFAULT]
    told = [*_several(meter, other), *_special(meter, other)]
    return [*singles, *told, *_untold(meter, n_idle), *_plain(meter, other)]


def single(meter: Meter, place: Place, preference: Preference, n: int) -> Row:
    """Return obedience to one preference told in ``place``."""
    return meter.obedience(
        f"one preference, {PLACES[place]}", str(preference), lambda rng: skills.told(place, [preference], rng), n, 0.98
    )


def _several(meter: Meter, n: int) -> list[Row]:
    """Return obedience to two and to three preferences, jointly; "mixed" tells them in different places."""

    def row(place: Place, count: int, goal: float) -> Row:
        name = PLACES.get(place, "different places")
        return meter.obedience(
            f"{count} preferences jointly", name, lambda rng: skills.told(place, skills.draw(count, rng), rng), n, goal
        )

    pairs = [row(place, 2, goal) for place, goal in _PAIR_GOALS.items()]
    return pairs + [row(place, 3, 0.90) for place in _PAIR_GOALS]


def _special(meter: Meter, n: int) -> list[Row]:
    def retold(rng: random.Random) -> Situation:
        return skills.retold(skills.draw(1, rng), rng)

    asks = {
        "the reply right after a complaint": retold,
        "back to the default (block after system prompt)": skills.reverted,
        "the later of two contradicting lines": skills.contradicted,
    }
    return [meter.obedience("order of statements", name, ask, n, 0.95) for name, ask in asks.items()]


def _untold(meter: Meter, n: int) -> list[Row]:
    """Return base rates, how far idle blocks move them, and whether the facts are right."""
    asked, replies = meter.untold(2 * n)
    base = [checkers.observe(reply) for reply in replies]
    correct = sum(checkers.is_correct(one.topic, reply) for one, reply in zip(asked, replies, strict=True))
    rows = [share_row("content", "nothing but facts of the topic", correct, len(asked))]
    for one in NON_DEFAULT:
        hits = sum(style[one.dimension] == one.value for style in base)
        rows.append(share_row("untold", str(one), hits, len(base), 0.15, "at most"))
    for kind in IDLE:
        told = [checkers.observe(reply) for reply in meter.untold(n, kind)[1]]
        rows += [_variation(base, told, kind, dimension) for dimension in VALUES]
    return rows


def _variation(base: list[dict[str, str]], told: list[dict[str, str]], kind: str, dimension: str) -> Row:
    """Return the total variation between a dimension's values untold and after an idle block, ± two standard errors."""
    one, other = (Counter(style[dimension] for style in styles) for styles in (base, told))
    shares = {value: (one[value] / len(base), other[value] / len(told)) for value in one | other}
    distance = sum(abs(before - after) for before, after in shares.values()) / 2
    default = shares.get(DEFAULT[dimension], (1.0, 1.0))[0]
    error = math.sqrt(default * (1 - default) * (1 / len(base) + 1 / len(told)))
    low, high = max(0.0, distance - 2 * error), distance + 2 * error
    return Row(f"total variation after {kind}", dimension, len(told), distance, low, high, 0.03, "at most")


def _plain(meter: Meter, n: int) -> list[Row]:
    return [
        meter.plain("sums", small_talk.addition, n),
        meter.plain("held-out questions out of bounds", lambda rng: small_talk.out_of_bounds(rng, held_out=True), n),
        meter.plain("held-out praise", _held_out_praise, n),
    ]


def _held_out_praise(rng: random.Random) -> small_talk.Plain:
    return small_talk.Plain(small_talk.praise(rng, held_out=True), small_talk.WELCOME)


def card_facts(meter: Meter) -> dict[str, object]:
    """Return what the introduction of the card says about the model."""
    config = meter.model.config
    return {
        "parameters": meter.model.num_parameters(),
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "context": MAX_TOKENS,
        "topics": len(topics()),
        "dimensions": ", ".join(VALUES),
        "refusal": small_talk.REFUSAL,
    }


def _figure(row: Row, command: str) -> Figure:
    goal = None if row.goal is None else f"{'>=' if row.goal_is == 'at least' else '<='} {row.goal}"
    name = f"pocket: {row.skill}: {row.row}"
    return measured(name, round(row.value, 4), unit="share", goal=goal, n=row.n, device="cpu", command=command)


def main(arguments: list[str] | None = None) -> None:
    """Measure FOLDER; write the rows to ``--out``, and the card as README.md into FOLDER."""
    parser = argparse.ArgumentParser(description="Measure a trained model and write its card.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="rows as JSON (default: FOLDER/card.json)")
    parser.add_argument("--n", type=int, default=400, help="replies per row")
    parser.add_argument("--n-other", type=int, help="replies per row outside the hindsight block (default: n)")
    parser.add_argument("--n-idle", type=int, default=2_000, help="replies per row about idle blocks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--figures", type=Path, help="also record the rows in docs/figures of this folder")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    meter = Meter(options.folder)
    rows = measure(meter, n=options.n, n_other=options.n_other, n_idle=options.n_idle)
    write_json(rows, options.out or options.folder / "card.json")
    (options.folder / "README.md").write_text(readme(rows, card_facts(meter)), encoding="utf-8")
    if options.figures is not None:
        command = shlex.join(["python", "-m", "personalize.recipes.measure", *(arguments or sys.argv[1:])])
        record("pocket", [_figure(row, command) for row in rows], root=options.figures)
    missed = [row for row in rows if row.met is False]
    print(f"{len(rows)} rows, {len(missed)} below goal")
    for row in missed:
        print(f"  {row.skill} · {row.row}: {row.value:.3f} ({row.goal_is} {row.goal})")


if __name__ == "__main__":
    main()
