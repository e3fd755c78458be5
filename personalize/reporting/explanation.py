"""How an explanation is put in words, on a terminal and on a page.

Its texts were written by somebody else: ``printable`` sees to it that nothing in them can steer a terminal or turn a
page around.
"""

import unicodedata
from collections.abc import Iterable
from typing import Literal

from personalize.types import Explanation, TokenSignal

END = "■"
NO_TEXT = "·"
BASE = "the base model"
WEAK = 0.05
"""Share of the strongest push below which a token counts as left where it was."""
COLUMNS = {
    "log-prob before": "log_prob",
    "change": "change",
    "teacher − before": "advantage",
    "hindsight KL": "hindsight_kl",
    "KL": "kl",
}
"""Heading -> attribute of ``TokenSignal``."""


def printable(text: str) -> str:
    """Return ``text`` with control characters shown as pictures, and marks that change its direction as U+FFFD.

    Line feeds and tabs stay; half surrogate pairs, which no file takes, become U+FFFD.
    """
    return "".join(_shown(character) for character in text)


def token_text(token: TokenSignal) -> str:
    """Return how a token is written: its text, or a mark where it has none; a line feed is marked as well."""
    if token.ends:
        return END
    return printable(token.text).replace("\n", "↵\n") or NO_TEXT


def scale_of(tokens: Iterable[TokenSignal]) -> float:
    """Return the largest change of a token in either direction, which gets the full colour; 1 where nothing moved."""
    return max((abs(token.change) for token in tokens if token.change is not None), default=0.0) or 1.0


def way_of(token: TokenSignal, scale: float) -> Literal["up", "down", ""]:
    """Return which way a token was pushed; neither where it was not trained, or hardly moved."""
    if token.change is None or abs(token.change) < WEAK * scale:
        return ""
    return "up" if token.change > 0 else "down"


def sides_of(explanation: Explanation) -> tuple[tuple[str, str, str], ...]:
    """Return the greedy replies to the probe as (place, heading, text); the base once where the line began with it."""
    probe, before = explanation.probe, parent_name(explanation)
    sides = (
        ("base", BASE, probe.base),
        ("before", f"before: {before}", probe.before),
        ("after", f"after: version {explanation.version}", probe.after),
    )
    return sides[1:] if before == BASE else sides


def parent_name(explanation: Explanation) -> str:
    """Return what the version began with; its metrics say where that was the population adapter."""
    if explanation.parent is not None:
        return f"version {explanation.parent}"
    began_with = explanation.metrics.get("population")
    return BASE if began_with is None else f"version {began_with:.0f} of the population adapter"


def signed(value: float | None) -> str:
    """Return a number as both reports write it; a dash for none."""
    return "–" if value is None else f"{value:+.3f}"


def number_text(value: float) -> str:
    """Return a measure to four digits, or to its whole part where that has more."""
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def measures(explanation: Explanation) -> dict[str, float]:
    """Return drift and norms, by the words that both reports use."""
    drift, norms = explanation.effect.drift, explanation.effect.norms
    return {
        "KL to the parent, nats per reply": drift.to_parent,
        "KL to the base, nats per reply": drift.to_base,
        "KL to the base before": drift.before,
        "trained tokens": drift.num_tokens,
        "norm of the change of scaling·B·A": norms.change,
        "norm before": norms.parent,
        "norm after": norms.version,
    }


def reported(explanation: Explanation) -> dict[str, float]:
    """Return what the update reported when it ran, by its own names."""
    return dict(explanation.metrics)


def _shown(character: str) -> str:
    number = ord(character)
    if number < 0x20 and character not in "\n\t":
        return chr(0x2400 + number)
    if number == 0x7F:
        return "␡"
    kind = unicodedata.category(character)
    # Cc: the C1 controls; Cs: half a surrogate pair; of Cf only what turns text around, emoji need the rest.
    turns = kind == "Cf" and (0x202A <= number <= 0x202E or 0x2066 <= number <= 0x2069 or number in (0x200E, 0x200F))
    return "\ufffd" if turns or kind == "Cs" or (kind == "Cc" and number >= 0x80) else character
