"""How a set of replies reads: shares and means that a sound model keeps, whatever style it is asked for.

Pure numbers over token ids; the same reply counts the same in every language.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import fmean

from personalize.learner.greedy import Greedy

Decode = Callable[[Sequence[int]], str]
WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Manner:
    """How replies to open questions read; all but the last two are shares.

    Attributes:
        blank: replies without a visible character.
        capped: replies that did not end by themselves.
        repetition: runs of three tokens in a reply that occur in it before; mean over the replies.
        sameness: pairs of neighbouring tokens that two replies have in common (Jaccard); mean over pairs of replies.
        echo: pairs of neighbouring tokens of a reply that stand in its prompt; mean over the replies.
        num_tokens: mean length.
        entropy: mean over all tokens, in nats; NaN where the model's output is not finite.
    """

    blank: float
    capped: float
    repetition: float
    sameness: float
    echo: float
    num_tokens: float
    entropy: float

    @classmethod
    def of(cls, replies: Sequence[Greedy], decode: Decode) -> "Manner":
        """Measure ``replies``, at least one, each to another question."""
        said = [_said(reply) for reply in replies]
        return cls(
            blank=fmean(not decode(ids).strip() for ids in said),
            capped=fmean(not reply.ended for reply in replies),
            repetition=fmean(map(_repetition, said)),
            sameness=_mean(_common(one, other) for one, other in combinations(map(_pairs, said), 2)),
            echo=fmean(
                _within(_pairs(ids), _pairs(reply.prompt_ids)) for ids, reply in zip(said, replies, strict=True)
            ),
            num_tokens=fmean(map(len, said)),
            entropy=fmean(entropy for reply in replies for entropy in reply.entropies),
        )


def kept_share(answers: Sequence[str], sources: Sequence[Sequence[str]], questions: Sequence[str]) -> float:
    """Return the share of the words that must stand in an answer and do; mean over the questions where some must.

    What must stand in it: the words that all sources, a sound model's own answers to the question, have in common and
    that the question has not: a sum's result, the words of a refusal. Style is what they differ in. 1 where no
    question has such words.
    """
    shares = []
    for answer, source, question in zip(answers, sources, questions, strict=True):
        needed = set.intersection(*map(_words, source)) - _words(question)
        if needed:
            shares.append(_within(needed, _words(answer)))
    return _mean(shares, empty=1.0)


def is_finite(replies: Iterable[Greedy]) -> bool:
    return all(math.isfinite(entropy) for reply in replies for entropy in reply.entropies)


def _said(reply: Greedy) -> list[int]:
    """Return the reply without its end token."""
    return reply.token_ids[:-1] if reply.ended else reply.token_ids


def _repetition(ids: Sequence[int]) -> float:
    runs = list(zip(ids, ids[1:], ids[2:], strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _pairs(ids: Sequence[int]) -> set[tuple[int, int]]:
    return set(pairwise(ids))


def _common(one: set, other: set) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0


def _within(part: set, whole: set) -> float:
    return len(part & whole) / len(part) if part else 0.0


def _words(text: str) -> set[str]:
    return set(WORD.findall(text.casefold()))


def _mean(values: Iterable[float], empty: float = 0.0) -> float:
    values = list(values)
    return fmean(values) if values else empty
