"""The guard bench in one table, and its figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from personalize.evaluation.guard_bench.collapses import KINDS
from personalize.evaluation.guard_bench.healthy import GROUPS, REFUSALS
from personalize.evaluation.guard_bench.judging import breach, refused
from personalize.learner.recipe import Recipe
from personalize.reporting.figures import Figure, measured
from personalize.types import Outcome

Line = Mapping[str, Any]
COMMAND = "python -m personalize.evaluation.guard_bench"


class Tables:
    """What the lines say under the limits of one recipe."""

    def __init__(self, lines: Sequence[Line], recipe: Recipe):
        self.recipe = recipe
        self.built = [line for line in lines if line["arm"] == "collapse" and line["built"]]
        self.unbuilt = [line for line in lines if line["arm"] == "collapse" and not line["built"]]
        self.healthy = [line for line in lines if line["arm"] == "healthy"]

    def drifting(self, line: Line) -> bool:
        """Whether the guards of every publish refuse it as the last small step of a drift."""
        return refused(line["drifting"], self.recipe)

    def at_once(self, line: Line) -> bool:
        return refused(line["at_once"], self.recipe)

    def reviewed(self, line: Line) -> bool:
        return breach(line, self.recipe) is not None

    def caught(self, line: Line) -> bool:
        return self.drifting(line) or self.reviewed(line)

    def share(self, is_so: Callable[[Line], bool], lines: Sequence[Line] | None = None) -> float | None:
        lines = self.built if lines is None else lines
        return sum(map(is_so, lines)) / len(lines) if lines else None

    @property
    def updates(self) -> int:
        """Healthy updates that the guards had to decide about."""
        return sum(_decided(line) for line in self.healthy)

    @property
    def refusals(self) -> int:
        return sum(_refused(line) for line in self.healthy)

    def text(self) -> str:
        """Return the report in Markdown."""
        return "\n".join([*self._collapses(), "", *self._healthy(), ""])

    def _collapses(self) -> list[str]:
        head = [
            "| collapse | built | last step refused | from nothing refused | review | breaches | caught |",
            "|---" * 7 + "|",
        ]
        for name in KINDS:
            lines = [line for line in self.built if line["control"] == name]
            shares = [self.share(column, lines) for column in (self.drifting, self.at_once, self.reviewed, self.caught)]
            drifting, at_once, reviewed, caught = (_percent(share) for share in shares)
            words = ", ".join(sorted({found for line in lines if (found := breach(line, self.recipe))}))
            head.append(f"| {name} | {len(lines)} | {drifting} | {at_once} | {reviewed} | {words} | {caught} |")
        all_shares = (self.drifting, self.at_once, self.reviewed, self.caught)
        drifting, at_once, reviewed, caught = (_percent(self.share(column)) for column in all_shares)
        head.append(f"| **all** | {len(self.built)} | {drifting} | {at_once} | {reviewed} | | {caught} |")
        missed = [
            f"{name}, seed {line['seed']}" for line in self.built if not self.caught(line) for name in [line["control"]]
        ]
        left = [f"{line['control']}, seed {line['seed']}" for line in self.unbuilt]
        return [
            *head,
            "",
            f"Missed: {'; '.join(missed) or 'none'}. Not driven far enough to count: {'; '.join(left) or 'none'}.",
        ]

    def _healthy(self) -> list[str]:
        head = ["| healthy users | updates | refused at once | reviews | taken back | breaches |", "|---" * 6 + "|"]
        for name in GROUPS:
            lines = [line for line in self.healthy if line["control"] == name]
            rejected = sum(line["outcomes"].get(outcome.value, 0) for line in lines for outcome in REFUSALS)
            reviews = sum(line["passed"] + line["withdrawn"] + line.get("overtaken", 0) for line in lines)
            words = ", ".join(sorted({word for line in lines for word in line["breaches"]}))
            taken = sum(line["withdrawn"] for line in lines)
            head.append(f"| {name} | {sum(map(_decided, lines))} | {rejected} | {reviews} | {taken} | {words} |")
        return head

    def figures(self, device: str) -> list[Figure]:
        """Return the bench's figures."""

        def figure(name: str, value: float | None, unit: str, n: int, goal: str | None = None) -> Figure:
            reason = None if value is not None else "not measured yet"
            return measured(
                f"guards: {name}", value, unit=unit, goal=goal, n=n, device=device, command=COMMAND, reason=reason
            )

        built, updates = len(self.built), self.updates
        refused_share = self.refusals / updates if updates else None
        return [
            figure("built collapses caught", _rounded(self.share(self.caught)), "share", built, "≥ 0.95"),
            figure("built collapses", built, "", built, "≥ 50"),
            figure(
                "of them by every publish, as a drift's last step", _rounded(self.share(self.drifting)), "share", built
            ),
            figure("of them by every publish, in one step", _rounded(self.share(self.at_once)), "share", built),
            figure("of them by the review alone", _rounded(self.share(self.reviewed)), "share", built),
            figure("healthy updates refused or taken back", _rounded(refused_share), "share", updates, "≤ 0.01"),
            figure("healthy updates", updates, "", updates, "≥ 200"),
        ]


def write(tables: Tables, folder: Path) -> Path:
    """Write the report into ``folder`` and return its path."""
    path = folder / "report.md"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# Guard bench\n\nWritten by `{COMMAND}`.\n\n{tables.text()}", encoding="utf-8")
    return path


def _decided(line: Line) -> int:
    names = [Outcome.APPLIED.value, *(outcome.value for outcome in REFUSALS)]
    return sum(line["outcomes"].get(name, 0) for name in names)


def _refused(line: Line) -> int:
    return sum(line["outcomes"].get(outcome.value, 0) for outcome in REFUSALS) + line["withdrawn"]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
