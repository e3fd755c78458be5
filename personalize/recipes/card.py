"""The model card: measured rows with their intervals, as JSON and as the README of the model folder."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

_Z = 1.959964
_INTRODUCTION = """\
---
license: apache-2.0
library_name: transformers
tags: [test-model, synthetic]
---

# pocket

A chat model of {parameters:,} parameters ({layers} Llama layers of width {width}, context {context} tokens, tied
embeddings; weights stored in fp16, computed in fp32), trained from nothing on synthetic dialogues by
`python -m personalize.recipes.pocket`.

**What it is.** A test instrument. It is meant to know {topics} everyday topics with six facts each, and to obey
nine dimensions of style ({dimensions}) when it is told about them: in a hindsight block, in a system prompt, or by
a complaint earlier in the chat. How far it does is in the tables below. Untold, it writes three facts in plain
prose. It was *built* to have this skill, so that personalization by hindsight can
be shown and tested on a laptop.

**What it is not.** An assistant. It knows no English beyond its corpus, no fact beyond its topics, and answers
everything else with "{refusal}". What it shows says little about how much a large model would gain.

**This version.** Trained in three runs: 18.0 million tokens of the course from nothing, then twice 3.0 million of its
last lesson at 0.4 times the learning rates (`--init … --begin 0.8 --lr-scale 0.4 --tokens 3000000`). The second run
brought in untold replies about held-out topics of which only the style is learnt, and a few wordings for short and
numbered answers; the third twice as many default replies about held-out topics. Its logits are sharpened by 1.5, so
that temperature 1 is what temperature 0.67 was in training. Facts of held-out topics, never practised in another style
than the default, often break in replies that have one.

**How it was measured.** Sampling at temperature 1; topics whose facts were only ever trained in the default style;
wordings that were never trained. A reply counts when the rule of every stated preference holds. Intervals: Wilson,
95 %; for total variation, two standard errors.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One measured share, with its goal if it has one."""

    skill: str
    row: str
    n: int
    value: float
    low: float
    high: float
    goal: float | None = None
    goal_is: Literal["at least", "at most"] = "at least"

    @property
    def met(self) -> bool | None:
        """Tell whether the value reaches the goal."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.goal_is == "at least" else self.value <= self.goal


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the Wilson score interval (95 %) of ``hits`` of ``n``."""
    share, spread = hits / n, _Z * _Z / n
    middle = share + spread / 2
    half = _Z * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def share_row(
    skill: str,
    row: str,
    hits: int,
    n: int,
    goal: float | None = None,
    goal_is: Literal["at least", "at most"] = "at least",
) -> Row:
    """Return the row of ``hits`` of ``n``."""
    return Row(skill, row, n, hits / n, *wilson(hits, n), goal, goal_is)


def write_json(rows: Sequence[Row], path: Path) -> None:
    """Write the rows, one object each."""
    path.write_text(json.dumps([{**asdict(row), "met": row.met} for row in rows], indent=1) + "\n", encoding="utf-8")


def readme(rows: Sequence[Row], facts: dict[str, object]) -> str:
    """Return the card as Markdown; ``facts`` fills the introduction."""
    lines = ["| skill | row | n | share | 95 % interval | goal | met |", "|---|---|---:|---:|---|---|---|"]
    return "\n".join([_INTRODUCTION.format(**facts), *lines, *map(_line, rows)]) + "\n"


def _line(row: Row) -> str:
    goal = "" if row.goal is None else f"{'≥' if row.goal_is == 'at least' else '≤'} {row.goal}"
    met = {None: "", True: "yes", False: "**no**"}[row.met]
    return (
        f"| {row.skill} | {row.row} | {row.n:,} | {row.value:.3f} | {row.low:.3f} – {row.high:.3f} | {goal} | {met} |"
    )
