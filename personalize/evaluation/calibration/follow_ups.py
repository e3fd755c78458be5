"""What follow-ups do to replies, and to answers that they were not given to: wishes against everything else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from personalize.evaluation.calibration import reading
from personalize.evaluation.calibration.findings import Findings, FollowUpSignals
from personalize.evaluation.calibration.reading import Reading
from personalize.evaluation.calibration.sampling import Answer
from personalize.evaluation.calibration.wishes import IDLE, Wish, said
from personalize.model.base import BaseModel
from personalize.types import Experience


@dataclass(frozen=True, slots=True)
class Complaint:
    """A wish, told about a reply that lacks it.

    Attributes:
        place: of the reply among the plain ones.
    """

    wish: Wish
    place: int
    answer: Answer
    turn: Experience


def complain(plain: Sequence[Answer], wishes: Sequence[Wish]) -> tuple[Complaint, ...]:
    """Let every wish be told about every plain reply that lacks it."""
    lacking = [
        (wish, place, answer)
        for wish in wishes
        for place, answer in enumerate(plain)
        if answer.trained_ids and not wish.holds(answer.text)
    ]
    return tuple(
        Complaint(wish, place, answer, answer.followed_by(said(wish, place), number))
        for number, (wish, place, answer) in enumerate(lacking)
    )


def different(complaints: Sequence[Complaint], number: int) -> list[Experience]:
    """Return at most ``number`` turns, of as many different wishes as there are."""
    seen: dict[str, int] = {}
    ranked = []
    for complaint in complaints:
        rank = seen[complaint.wish.name] = seen.get(complaint.wish.name, -1) + 1
        ranked.append((rank, complaint.turn))
    return [turn for _, turn in sorted(ranked, key=lambda one: one[0])[:number]]


def read_follow_ups(
    base: BaseModel, found: Findings, plain: Sequence[Answer], complaints: Sequence[Complaint]
) -> Findings:
    """Return ``found`` with what the complaints did, and every idle follow-up after every reply.

    Raises:
        ContextTooLong: with the block a prompt leaves no room for a reply.
    """
    readings = reading.read(base, [complaint.turn for complaint in complaints])
    wished: dict[str, list[_Heard]] = {}
    for complaint, one in zip(complaints, readings, strict=True):
        wished.setdefault(complaint.wish.name, []).append(_Heard(complaint.turn.follow_up, one))
    idle = {kind: _idle(base, plain, texts) for kind, texts in IDLE.items()}
    every = (*wished.values(), *(ones.values() for ones in idle.values()))
    reached = reading.reaches(base, [one.follow_up for ones in every for one in ones])
    signals = [_signals(name, True, ones, reached) for name, ones in wished.items()]
    signals += [_signals(kind, False, list(ones.values()), reached) for kind, ones in idle.items()]
    told, praised = _blame(base, complaints, readings, idle["praise"])
    return replace(found, signals=tuple(signals), blamed_after_wish=told, blamed_after_praise=praised)


@dataclass(frozen=True, slots=True)
class _Heard:
    """A follow-up, and what it did to its reply."""

    follow_up: str
    reading: Reading


def _idle(base: BaseModel, plain: Sequence[Answer], texts: Sequence[str]) -> dict[int, _Heard]:
    """Return place of the reply -> what an idle follow-up did to it."""
    places = [place for place, answer in enumerate(plain) if answer.trained_ids]
    turns = [plain[place].followed_by(texts[place % len(texts)], place) for place in places]
    heard = (_Heard(turn.follow_up, one) for turn, one in zip(turns, reading.read(base, turns), strict=True))
    return dict(zip(places, heard, strict=True))


def _signals(kind: str, is_wish: bool, heard: Sequence[_Heard], reached: Mapping[str, float]) -> FollowUpSignals:
    return FollowUpSignals(
        kind,
        is_wish,
        sizes=tuple(one.reading.size for one in heard),
        signals=tuple(one.reading.signal for one in heard),
        reaches=tuple(reached[one.follow_up] for one in heard) if reached else (),
    )


def _blame(
    base: BaseModel, complaints: Sequence[Complaint], readings: Sequence[Reading], praise: Mapping[int, _Heard]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean A of every reply's wrong tokens after its wish, and after praise."""
    told, praised = [], []
    for complaint, one in zip(complaints, readings, strict=True):
        tokens = reading.blamed(base, complaint.answer, complaint.wish.place)
        if tokens:
            told.append(_mean_at(one, tokens))
            praised.append(_mean_at(praise[complaint.place].reading, tokens))
    return tuple(told), tuple(praised)


def _mean_at(one: Reading, tokens: Sequence[int]) -> float:
    return fmean(one.advantages[token] for token in tokens)
