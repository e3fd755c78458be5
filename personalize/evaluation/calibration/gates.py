"""The gates: what must hold before anybody is personalized on a model. Pure: findings in, verdicts out.

They ask for what hindsight self-distillation (arXiv 2603.12273) takes for granted: sound plumbing (G1, G2), a block
that says nothing when empty (G3), hindsight that is followed (G4), that blames what went wrong (G5) and is silent about
the rest (G6); then updates on trial (T). There is no judge model: rules read the replies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from personalize.evaluation.calibration.findings import Findings, WishRates, mean
from personalize.evaluation.calibration.proposal import best_trial
from personalize.evaluation.calibration.thresholds import MIN_POWER, split, thresholds
from personalize.evaluation.calibration.wishes import EMPTY, UNRELATED

Verdict = Literal["passed", "failed", "not measured", "reported"]

MIN_ROOM = 32
MIN_AGREEMENT = 0.99
MIN_WIN = 0.65
MIN_TOLD = 0.5
MIN_FOLLOWED = 0.5
MIN_ASKED = 0.8
MIN_SIGNS = 0.8
MAX_IDLE_RATIO = 0.5
MIN_FALL = 0.1


@dataclass(frozen=True, slots=True)
class Gate:
    """One row of the verdict.

    Attributes:
        name: G1 to G6, T for the trials.
        what: what was measured.
        value: None where it was not.
        needs: the limit in words; empty for a row that is only reported.
        verdict: "reported" rows, and "failed" ones that are not required, do not stop a model.
        why: what a failure means, for people.
    """

    name: str
    what: str
    value: float | None
    needs: str
    verdict: Verdict
    required: bool
    why: str = ""

    @property
    def stops(self) -> bool:
        return self.required and self.verdict == "failed"


def follows(rates: WishRates) -> bool:
    """Tell whether a wish told in the block is followed often enough to be worth learning."""
    return rates.win >= MIN_WIN and rates.told >= MIN_TOLD


def gates(findings: Findings) -> tuple[Gate, ...]:
    """Return every gate, in the order in which they are measured."""
    return (*_plumbing(findings), *_usefulness(findings), *_signals(findings), *_entry(findings), _trials(findings))


def usable(verdicts: Sequence[Gate]) -> bool:
    """Tell whether every required gate was measured and passed."""
    return all(gate.verdict == "passed" for gate in verdicts if gate.required)


def reasons(verdicts: Sequence[Gate]) -> tuple[str, ...]:
    """Return why a model is not usable; empty for one that is."""
    failed = tuple(f"{gate.name}: {gate.why}" for gate in verdicts if gate.stops)
    if failed:
        return failed
    missing = (gate for gate in verdicts if gate.required and gate.verdict == "not measured")
    return tuple(f"{gate.name}: no reply gave occasion to measure this: {gate.what}" for gate in missing)


def _plumbing(f: Findings) -> tuple[Gate, ...]:
    return (
        _at_least(
            "G1", "prompts that are the plain prompt again without the block", f.block_removed, 1.0,
            "the chat template does not carry the hindsight block as part of the last user message, so teacher and "
            "student would read different prompts",
        ),
        _at_least(
            "G1", "tokens that the context leaves for a reply", f.room, MIN_ROOM,
            "its context is too short for a question, the hindsight block and a reply",
        ),
        _at_least(
            "G1", "served tokens that the learner's pass agrees with", f.agreement, MIN_AGREEMENT,
            "serving and learning do not read the same reply alike",
        ),
        _at_most(
            "G2", "largest change of a log-probability by an untrained adapter", f.new_adapter_change, 0.0,
            "an adapter that has learned nothing changes what it says",
        ),
    )  # fmt: skip


def _usefulness(f: Findings) -> tuple[Gate, ...]:
    followed = [rates for rates in f.wishes if follows(rates)]
    share = len(followed) / len(f.wishes) if f.wishes else None
    asked = fmean(rates.asked for rates in followed or f.wishes) if f.wishes else None
    return (
        _at_least(
            "G4", f"wishes followed when the block tells them (win ≥ {MIN_WIN}, holds ≥ {MIN_TOLD})", share,
            MIN_FOLLOWED, _not_followed(asked),
        ),
        _at_least(
            "G4", "the same wishes asked outright: hold", asked, MIN_ASKED,
            "it does not even reliably do what the question itself asks for", required=False,
        ),
    )  # fmt: skip


def _not_followed(asked: float | None) -> str:
    why = (
        "told a wish in hindsight, it does not follow it, so there is nothing to distil: the method teaches only what "
        "a model already does when told"
    )
    if asked is not None and asked >= MIN_ASKED:
        return f"{why} (asked outright it obeys: it is the hindsight block that it does not understand)"
    return why


def _signals(f: Findings) -> tuple[Gate, ...]:
    related, unrelated = mean(f.sizes()), mean(f.sizes(*UNRELATED))
    ratio = unrelated / related if unrelated is not None and related else None
    return (
        _reported("G3", f"mean |A| after {EMPTY!r}, nats", mean(f.sizes(EMPTY))),
        _at_least(
            "G5", "replies whose wrong tokens become less likely once the wish is told",
            _share(f.blamed_after_wish, negative=True), MIN_SIGNS,
            "told what was wrong with a reply, it does not find the wrong tokens less likely",
        ),
        _reported(
            "G5", "replies whose same tokens become no less likely after praise",
            _share(f.blamed_after_praise, negative=False),
        ),
        _at_most(
            "G6", "mean |A| after remarks and other questions, relative to wishes", ratio, MAX_IDLE_RATIO,
            "what has nothing to do with its reply moves it too", required=False,
        ),
    )  # fmt: skip


def _entry(f: Findings) -> tuple[Gate, ...]:
    signal = split(f.gate_signals(wishes=False), f.gate_signals(wishes=True))
    reach = split(f.reaches(wishes=False), f.reaches(wishes=True))
    both = thresholds(f)
    return (
        _reported("G6", "wishes above the signal's best threshold, less idle follow-ups", signal and signal.power),
        _reported("G6", "wishes above the reach's best threshold, less idle follow-ups", reach and reach.power),
        _reported("G6", "wishes that the proposed thresholds let in", both and both.caught),
        _reported("G6", "idle follow-ups that they let in", both and both.let_in),
        _at_least(
            "G6", "wishes that they let in, less idle follow-ups", both and both.power, MIN_POWER,
            "idle follow-ups move it as much as wishes do, in their own reply and beyond it: no threshold keeps praise "
            "and small talk out of the block, where they would undo what was learned",
        ),
    )  # fmt: skip


def _trials(f: Findings) -> Gate:
    best = best_trial(f.trials)
    fall = None if not f.trials else best.fall if best else 0.0
    outcomes = ", ".join(sorted({name for trial in f.trials for name in trial.outcomes}))
    return _at_least(
        "T", "loss that one update on trial takes away", fall, MIN_FALL,
        f"no learning rate brought it nearer to its teacher in one update (outcomes: {outcomes})",
    )  # fmt: skip


def _share(values: Sequence[float], *, negative: bool) -> float | None:
    return sum((value < 0) is negative for value in values) / len(values) if values else None


def _at_least(name: str, what: str, value: float | None, limit: float, why: str, *, required: bool = True) -> Gate:
    return _gate(name, what, value, f"≥ {limit:g}", value is not None and value >= limit, why, required)


def _at_most(name: str, what: str, value: float | None, limit: float, why: str, *, required: bool = True) -> Gate:
    return _gate(name, what, value, f"≤ {limit:g}", value is not None and value <= limit, why, required)


def _gate(name: str, what: str, value: float | None, needs: str, holds: bool, why: str, required: bool) -> Gate:
    verdict: Verdict = "not measured" if value is None else "passed" if holds else "failed"
    return Gate(name, what, value, needs, verdict, required, why)


def _reported(name: str, what: str, value: float | None) -> Gate:
    return Gate(name, what, value, "", "not measured" if value is None else "reported", required=False)
