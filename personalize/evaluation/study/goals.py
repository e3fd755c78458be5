"""What the study must show: every row with its goal, from the measurements at hand, or why there is no number."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from personalize.evaluation.study.arms import ARMS, DEFAULT_ARM, LAST, ORACLE, RANKS
from personalize.evaluation.study.book import Book, CellName
from personalize.evaluation.study.profiles import CONTRADICTING, PROFILES
from personalize.evaluation.study.results import Line
from personalize.evaluation.study.scribe import Scribe, interval
from personalize.evaluation.study.scripts import (
    CONTROLS,
    FLIP_COMPLAINTS,
    FRESH,
    LIFE,
    MIND_TURNS,
    NOISE_TURNS,
    ONE_SIDED_TURNS,
    SHUFFLES,
    UNLEARNING,
)
from personalize.evaluation.study.statistics import Estimate, fate
from personalize.evaluation.study.tally import applied_share, joined_share
from personalize.reporting.figures import Figure
from personalize.world.preferences import PREFERENCES

EVERYBODY = frozenset(profile.name for profile in PROFILES)
NOISY = "pocket-noisy"
"""Label of the second checkpoint; its rows are few and its goals lower."""
Lines = Mapping[CellName, Line]


def must_reach(scribe: Scribe) -> list[Figure]:
    """Return every row of the study's goals."""
    rows = _noisy if scribe.model == NOISY else _every
    return list(rows(scribe))


def _every(scribe: Scribe) -> Iterator[Figure]:
    for rows in _ROWS:
        yield from rows(scribe)


# --- learning, staying, un-learning -----------------------------------------------------------------------------


def _rates(scribe: Scribe) -> Iterator[Figure]:
    book = scribe.book
    for turn, goal in ((5, 0.85), (10, 0.95), (24, 0.97)):
        lines = book.lines(turn)
        yield scribe.mean(f"preference rate after {turn} follow-ups", book.mean(lines, "joint"), f">= {goal}")
    later = {turn: book.mean(book.lines(turn), "joint") for turn in book.turns() if turn >= 24}
    known = {turn: found for turn, found in later.items() if found is not None}
    lowest = min(known.values(), key=lambda found: found.mean, default=None)
    yield scribe.mean("preference rate, lowest checkpoint from 24 on", lowest, ">= 0.97")
    against = {turn: _against_oracle(book, turn) for turn in book.turns() if turn >= 16}
    yield scribe.worst("preference rate minus the in-context oracle's from 16 on, low end", against, "low", "> -0.02")


def _against_oracle(book: Book, turn: int) -> Estimate | None:
    lines = book.lines(turn)
    return book.difference(lines, book.reference(lines, ORACLE), "joint")


def _worst_cell(scribe: Scribe) -> Iterator[Figure]:
    rates = scribe.book.values(scribe.book.lines(64, profiles=EVERYBODY), "joint")
    yield scribe.figure("worst profile and seed at 64", min(rates, default=None), ">= 0.9", len(rates) or None)


def _lives(scribe: Scribe) -> Iterator[Figure]:
    book, turns = scribe.book, scribe.book.turns(LIFE.name)
    whole = sorted(book.lines(LIFE.measured[-1], LIFE.name, profiles=EVERYBODY))
    # A life that is still under way says nothing yet: its bad turns may be to come.
    at = {turn: _of(whole, book.lines(turn, LIFE.name, profiles=EVERYBODY)) for turn in turns}
    fates = [
        fate([(at[t][cell]["joint"], at[t][cell]["num_prompts"]) for t in turns if cell in at[t]]) for cell in whole
    ]
    n = len(fates) or None
    collapsed = sum(one.collapsed for one in fates) if fates else None
    arrived = sum(one.arrived for one in fates) / len(fates) if fates else None
    yield scribe.figure("lives of 500 turns that collapsed", collapsed, "= 0", n, unit="lives")
    yield scribe.figure("lives of 500 turns that reached 0.9 twice", arrived, ">= 0.95", n)
    ratios = [book.mean(at[turn], _length_ratio(book)) for turn in turns if turn >= 24]
    means = [found.mean for found in ratios if found is not None]
    yield scribe.figure(
        "length over the oracle's in lives, shortest checkpoint", min(means, default=None), ">= 0.7", n, unit="x"
    )
    yield scribe.figure(
        "length over the oracle's in lives, longest checkpoint", max(means, default=None), "<= 1.4", n, unit="x"
    )
    caps = [found.mean for turn in turns if (found := book.mean(at[turn], "capped")) is not None]
    yield scribe.figure("cap share in lives, worst checkpoint", max(caps, default=None), "<= 0.01", n)


def _of(cells: Iterable[CellName], lines: Lines) -> Lines:
    """Return the lines of ``cells``."""
    return {cell: lines[cell] for cell in cells if cell in lines}


def _length_ratio(book: Book) -> Callable[[Line], float | None]:
    """Return what divides a line's mean length by that of the same user's oracle."""

    def ratio(line: Line) -> float | None:
        cell = (line["profile"], line["seed"])
        oracle = book.reference([cell], ORACLE).get(cell)
        return line["tokens"] / oracle["tokens"] if oracle and oracle["tokens"] else None

    return ratio


def _unlearning(scribe: Scribe) -> Iterator[Figure]:
    for control in UNLEARNING:
        yield scribe.bound(
            f"un-learning: fall of the rate {_spoken(control)}, high end",
            _fall(scribe.book, control),
            "high",
            "<= 0.03",
        )
        yield _teaching(scribe, control)


def _fall(book: Book, control: str) -> Estimate | None:
    """Return how far the rate has fallen for those who had been taught."""
    before = {cell: line for cell, line in book.lines(0, control).items() if line["joint"] >= 0.9}
    return book.difference(before, book.lines(NOISE_TURNS, control), "joint")


def _teaching(scribe: Scribe, control: str) -> Figure:
    rates = scribe.book.values(scribe.book.lines(0, control), "joint")
    taught = sum(rate >= 0.9 for rate in rates) / len(rates) if rates else None
    return scribe.figure(f"users at 0.9 before {control}", taught, None, len(rates) or None)


def _first_only(scribe: Scribe) -> Iterator[Figure]:
    second = {profile.name: str(profile.preferences[1]) for profile in PROFILES if len(profile.preferences) > 1}
    lines = scribe.book.lines(ONE_SIDED_TURNS, "first-only")
    kept = scribe.book.mean(lines, lambda line: line["styles"][second[line["profile"]]])
    yield scribe.mean("the unmentioned preference after 64 complaints about the first", kept, ">= 0.93")


def _gate(scribe: Scribe) -> Iterator[Figure]:
    book = scribe.book
    for arm in (name for name in book.arms() if ARMS[name].trains):
        turns = book.turns(arm=arm)
        tallies = [line["outcomes"] for line in book.lines(turns[-1], arm=arm, profiles=EVERYBODY).values()]
        for complaints, goal in ((True, ">= 0.9"), (False, "<= 0.1")):
            found = applied_share(tallies, complaints=complaints)
            if found is None and arm != DEFAULT_ARM:
                continue
            kind = "with a complaint" if complaints else "without a complaint"
            of = "" if arm == DEFAULT_ARM else f", {arm}"
            share, n = found or (None, None)
            yield scribe.figure(f"applied share of turns {kind}{of}", share, goal if arm == DEFAULT_ARM else None, n)
    yield from _joined(scribe)


def _joined(scribe: Scribe) -> Iterator[Figure]:
    """What the gate let into the blocks, over the last measurements of all lives and controls that say it."""
    book = scribe.book
    lines = [
        line
        for control in ("", LIFE.name, *CONTROLS)
        for turn in book.turns(control)[-1:]
        for line in book.lines(turn, control, profiles=None).values()
    ]
    for complaints, kind in ((True, "complaints"), (False, "follow-ups without a complaint")):
        share, n = joined_share(lines, complaints=complaints) or (None, None)
        yield scribe.figure(f"share of {kind} that joined a block", share, None, n)


# --- changes of mind, other people's words ------------------------------------------------------------------------


def _changes(scribe: Scribe) -> Iterator[Figure]:
    book = scribe.book
    flipped = {cell: line for cell, line in book.lines(FLIP_COMPLAINTS, "flip").items() if line.get("reached", True)}
    yield scribe.mean("flip: the new pair within 10 complaints", book.mean(flipped, "joint"), ">= 0.8")
    yield scribe.mean(
        "sequence of three: all of them at the end (mean)",
        book.mean(book.lines(72, "sequence", profiles=EVERYBODY), "mean"),
        ">= 0.9",
    )
    minds = [
        book.mean(book.lines(MIND_TURNS * i, "contradiction", profiles=frozenset({CONTRADICTING.name})), "joint")
        for i in (1, 2, 3, 4)
    ]
    lowest = min((one for one in minds if one is not None), key=lambda one: one.mean, default=None)
    yield scribe.mean("self-contradicting user: the latest statement after 12 follow-ups", lowest, ">= 0.8")


def _shuffles(scribe: Scribe) -> Iterator[Figure]:
    book = scribe.book
    for control in SHUFFLES:
        whole, gains = book.lines(64, control), []
        for turn in book.turns(control):
            lines = _of(whole, book.lines(turn, control))
            gains.append(book.difference(lines, book.reference(lines), "joint"))
        highest = max((one for one in gains if one is not None), key=lambda one: one.mean, default=None)
        yield scribe.mean(f"{control}: own rate minus base, highest checkpoint", highest, "<= 0.03")
        donor = book.mean(whole, "donor_joint")
        yield scribe.mean(
            f"{control}: the donor's rate at 64", donor, ">= 0.8" if control == "shuffle-elsewhere" else None
        )


def _fresh(scribe: Scribe) -> Iterator[Figure]:
    book = scribe.book
    learning = book.mean(book.lines(64, profiles=EVERYBODY), "kl")
    for control in FRESH:
        lines = book.lines(NOISE_TURNS, control)
        yield scribe.figure(f"{control}: largest change of any style rate", *_largest_change(book, lines))
        kl = book.mean(lines, "kl")
        share = kl.mean / learning.mean if kl and learning and learning.mean else None
        yield scribe.figure(f"{control}: KL to base over a learning user's", share, "<= 0.05", kl and kl.n, unit="x")


def _largest_change(book: Book, lines: Lines) -> tuple[float | None, str, int | None, str | None]:
    """Return the farther end of the widest interval of any style's change, with its goal, n and remark."""
    base, ends = book.reference(lines), {}
    for one in PREFERENCES:
        found = book.difference(lines, base, lambda line, name=str(one): line["styles"][name])
        if found is not None:
            ends[str(one)] = max(abs(found.low), abs(found.high)), found
    if not ends:
        return None, "<= 0.05", None, None
    name = max(ends, key=lambda name: ends[name][0])
    return ends[name][0], "<= 0.05", ends[name][1].n, f"{name}: {interval(ends[name][1])}"


def _wrong(scribe: Scribe) -> Iterator[Figure]:
    found = scribe.book.mean(scribe.book.lines(24, "wrong-follow-ups"), "joint")
    yield scribe.mean("preference rate after 24 follow-ups, a fifth of them wrong", found, ">= 0.85")


# --- what must not suffer, and what it costs ------------------------------------------------------------------------


def _content(scribe: Scribe) -> Iterator[Figure]:
    lines = scribe.book.lines(64, profiles=EVERYBODY)
    base = scribe.book.reference(lines)
    for field, name in (("correct", "facts"), ("sums", "sums"), ("refusals", "refusals")):
        found = scribe.book.difference(lines, base, field)
        yield scribe.bound(f"{name} at 64 minus base, low end", found, "low", ">= -0.02")


def _against_last(scribe: Scribe) -> Iterator[Figure]:
    book = scribe.book
    gaps = {t: book.difference(book.lines(t), book.lines(t, arm=LAST), "joint") for t in book.turns(arm=LAST)}
    yield scribe.worst(
        "preference rate minus last-k in context from 24 on, low end",
        {turn: gap for turn, gap in gaps.items() if turn >= 24},
        "low",
        "> -0.02",
    )
    for turn in (5, 10, 16):
        yield scribe.mean(f"preference rate minus last-k in context at {turn}", gaps.get(turn), None)


def _size(scribe: Scribe) -> Iterator[Figure]:
    book = scribe.book
    lines = book.lines(64, profiles=EVERYBODY)
    yield scribe.mean("bytes per user", book.mean(lines, "bytes"), None, "bytes")
    for rank in RANKS:
        gain = book.difference(book.lines(24, arm=f"rank-{rank}"), book.lines(24), "joint")
        goal = "<= 0.02" if rank > 8 else None
        yield scribe.mean(f"preference rate at 24, rank {rank} minus the default rank", gain, goal)
    yield scribe.figure(
        "preference rate at 24, shared A minus own A", None, None, None, "there are no adapters with a shared A"
    )


def _noisy(scribe: Scribe) -> Iterator[Figure]:
    book = scribe.book
    yield scribe.mean("preference rate after 16 follow-ups", book.mean(book.lines(16), "joint"), ">= 0.8")
    turns = book.turns()
    cells = sorted(book.lines(turns[-1])) if turns else []
    fates = [
        fate([(line["joint"], line["num_prompts"]) for t in turns if (line := book.lines(t).get(cell))])
        for cell in cells
    ]
    yield scribe.figure(
        "cells that collapsed",
        sum(f.collapsed for f in fates) if fates else None,
        "= 0",
        len(fates) or None,
        unit="cells",
    )
    for control in UNLEARNING:
        yield scribe.bound(
            f"un-learning: fall of the rate {_spoken(control)}, high end", _fall(book, control), "high", "<= 0.1"
        )


def _spoken(control: str) -> str:
    return control.replace("-", " ") + f", {NOISE_TURNS} turns"


_ROWS: tuple[Callable[[Scribe], Iterator[Figure]], ...] = (
    _rates, _worst_cell, _lives, _unlearning, _first_only, _gate, _changes, _shuffles, _fresh, _wrong, _content,
    _against_last, _size,
)  # fmt: skip
