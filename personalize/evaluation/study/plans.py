"""How much is run: three sizes of the same study, or a part of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from personalize.evaluation.study.arms import ARMS, BASE, DEFAULT_ARM, LAST, ORACLE, Arm
from personalize.evaluation.study.book import Book
from personalize.evaluation.study.cells import Cell
from personalize.evaluation.study.profiles import CONTRADICTING, PROFILES, Profile
from personalize.evaluation.study.scripts import CONTROLS, LIFE, UNLEARNING, Script, plain, script

Size = Literal["smoke", "standard", "full", "noisy"]


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a size goes.

    Attributes:
        profiles, seeds, turns: of the learning curve under the default arm.
        control_profiles, control_seeds: of every control.
        lives: profiles that live for 500 turns.
        life_seeds: seeds of each.
        prompts: fresh prompts per measurement.
        arms: arms whose learning curves are run beside the default one and the references.
        controls: names of the controls.
        shortened: most follow-ups per stage of a control; None leaves the controls as they are.
    """

    profiles: int
    seeds: int
    turns: int
    control_profiles: int
    control_seeds: int
    lives: int
    life_seeds: int
    prompts: int = 200
    arms: tuple[str, ...] = ()
    controls: tuple[str, ...] = tuple(CONTROLS)
    shortened: int | None = None


EXTENTS: dict[Size, Extent] = {
    "smoke": Extent(2, 1, 5, 1, 1, 1, 1, prompts=6, shortened=1),
    "standard": Extent(8, 3, 64, 4, 2, 6, 1),
    "noisy": Extent(4, 2, 32, 4, 2, 0, 0, controls=UNLEARNING),
    "full": Extent(8, 3, 128, 8, 3, 8, 3, arms=tuple(name for name, arm in ARMS.items() if arm.trains)),
}
"""Seconds, an hour or two, what pocket-noisy is asked, and everything; the longer ones may be run in pieces."""


def whole(extent: Extent) -> list[Cell]:
    """Return every cell of one size, the most telling ones first."""
    profiles, seeds = PROFILES[: extent.profiles], range(extent.seeds)
    curve = plain(extent.turns)
    return [
        *_cells([ARMS[DEFAULT_ARM]], [curve], profiles, seeds),
        *references(extent),
        *_controls(extent),
        *_lives(extent),
        *_cells([ARMS[name] for name in extent.arms if name != DEFAULT_ARM], [curve], profiles, seeds),
    ]


def references(extent: Extent) -> list[Cell]:
    """Return the arms that do not train: the base and the oracle once, last-k as often as a control."""
    profiles = PROFILES[: extent.profiles]
    return [
        *_cells([ARMS[BASE]], [plain(0)], profiles, range(1)),
        *_cells([ARMS[ORACLE]], [plain(0)], profiles, range(extent.seeds)),
        *_cells([ARMS[LAST]], [plain(extent.turns)], PROFILES[: extent.control_profiles], range(extent.control_seeds)),
    ]


def part(arms: Sequence[str], controls: Sequence[str], extent: Extent) -> list[Cell]:
    """Return the learning curves of ``arms``, or, where controls are named, these controls under the arms."""
    chosen = [ARMS[name] for name in arms or (DEFAULT_ARM,)]
    if not controls:
        profiles, seeds = PROFILES[: extent.profiles], range(extent.seeds)
        return [
            cell for arm in chosen for cell in _cells([arm], [plain(extent.turns if arm.lives else 0)], profiles, seeds)
        ]
    scripts = [_fitted(script(name, extent.turns), extent) for name in controls]
    return _of_controls([arm for arm in chosen if arm.lives], scripts, extent)


def rises(book: Book) -> bool:
    """Tell whether the mean preference rate of the default arm is higher at its last checkpoint than at its first."""
    turns = book.turns() or [0]
    first, last = (book.mean(book.lines(turn, profiles=None), "mean") for turn in (turns[0], turns[-1]))
    return first is not None and last is not None and last.mean > first.mean


def _controls(extent: Extent) -> list[Cell]:
    scripts = [_fitted(CONTROLS[name], extent) for name in extent.controls]
    return _of_controls([ARMS[DEFAULT_ARM]], scripts, extent)


def _lives(extent: Extent) -> list[Cell]:
    profiles = PROFILES[: extent.lives]
    return _cells([ARMS[DEFAULT_ARM]], [_fitted(LIFE, extent)], profiles, range(extent.life_seeds))


def _of_controls(arms: Sequence[Arm], scripts: Sequence[Script], extent: Extent) -> list[Cell]:
    profiles = (*PROFILES[: extent.control_profiles], CONTRADICTING)
    return _cells(arms, scripts, profiles, range(extent.control_seeds))


def _cells(
    arms: Iterable[Arm], scripts: Sequence[Script], profiles: Sequence[Profile], seeds: Iterable[int]
) -> list[Cell]:
    seeds = list(seeds)
    return [
        Cell(arm, one, profile, seed)
        for arm in arms
        for one in scripts
        for seed in seeds
        for profile in profiles
        if one.suits(profile)
    ]


def _fitted(one: Script, extent: Extent) -> Script:
    return one if extent.shortened is None else one.shortened(extent.shortened)


def changed(extent: Extent, *, profiles: int | None, seeds: int | None, turns: int | None, prompts: int | None):
    """Return the extent with what the command line says instead."""
    if profiles is not None:
        extent = replace(extent, profiles=profiles, control_profiles=profiles, lives=profiles)
    if seeds is not None:
        extent = replace(extent, seeds=seeds, control_seeds=seeds, life_seeds=seeds)
    if turns is not None:
        extent = replace(extent, turns=turns)
    return extent if prompts is None else replace(extent, prompts=prompts)
