"""Does a follow-up reach beyond the reply that it was given to?

A wish about the manner ("shorter, please") would have changed nearly every reply. A new question, praise or a remark
often moves its own reply as much as a wish does, yet nobody else's. So the base model is told the follow-up with a few
questions of every day, and what counts is how much less likely it then finds its own plain answers to them, each as a
whole: a token that becomes unlikely beside others that gain by it is no other manner.

A wish to go back to plain answers makes no plain answer less likely. It shows beside the wishes that it takes back:
told those alone, the base finds some token of its plain answers implausible, and told both it does no longer. Here
tokens are judged one by one: whatever is said last weakens a little everywhere what was said before it.

An earlier wish that changes nothing any more in the answers that are given to a new one has been said again, or taken
back: it is moot.

What that tells apart on the embedded model, and by how much: docs/decisions/0016, 0021, 0022.

Shape letters: N tokens of all answers.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from personalize.errors import ContextTooLong, TemplateError
from personalize.learner.batch import Row
from personalize.learner.greedy import finished, greedy_replies, plain_answers
from personalize.learner.passes import token_log_probs
from personalize.model.base import BaseModel
from personalize.types import Message, Window

NUM_QUESTIONS = 4
"""Of the model's probes, the first ones."""
MAX_TOKENS = 64
"""Of one answer. A wish may show at the very end of a reply, such as a closing question."""
SPARED = 1
"""Answers that a wish may leave alone: one of four has perhaps nothing that it could change."""


@dataclass(frozen=True, slots=True)
class Probes:
    """The base's own greedy answers to a few questions, and how plausible it finds their tokens.

    Attributes:
        questions: what is asked, each in a conversation of its own.
        rows: question and answer.
        base_N: the base's log-probability of every token.
    """

    questions: tuple[str, ...]
    rows: tuple[Row, ...]
    base_N: Tensor

    @classmethod
    def of(cls, base: BaseModel) -> Self:
        """Ask ``base`` at once; see ``asking``."""
        return finished(cls.asking(base))

    @classmethod
    def asking(cls, base: BaseModel) -> Generator[Window, None, Self]:
        """Ask ``base``, which needs a renderer, the first of its ``probes``; yields after every pass.

        Raises:
            ContextTooLong: one of them leaves no room for a single token.
        """
        questions = base.probes[:NUM_QUESTIONS]
        rows, base_N = yield from plain_answers(base, questions, MAX_TOKENS)
        return cls(questions, rows, base_N)

    def reach(self, base: BaseModel, follow_ups: Sequence[str]) -> list[float]:
        """Return for every follow-up what it does to other conversations, in nats.

        That is the fall of an answer's log-probability once the model is told the follow-up; of all answers the lowest
        such fall but ``SPARED``. A follow-up so long that a question has no room beside it, or
        that the chat template refuses there, cannot be judged and is given the benefit of the doubt: infinity.
        """
        told = (self._told(base, [text]) for text in follow_ups)
        return [
            math.inf if rows is None else _fall(self.base_N - token_log_probs(base, rows), self.rows) for rows in told
        ]

    def reversal(self, base: BaseModel, standing: Sequence[str], follow_up: str) -> float:
        """Return how far a follow-up takes back what earlier ones do to other conversations, in nats.

        That is the largest rise of any token's log-probability in a plain answer, from the model that is told
        ``standing`` to the one that is told both, of all answers the lowest such rise but ``SPARED``; of ``standing``
        the newest that there is room for, and 0.0 where there is none.
        """
        for first in range(len(standing)):
            before, both = (self._told(base, [*standing[first:], *more]) for more in ([], [follow_up]))
            if before is not None and both is not None:
                before_N, both_N = token_log_probs(base, (*before, *both)).chunk(2)
                return _steepest(both_N - before_N, self.rows)
        return 0.0

    def remaining(self, base: BaseModel, earlier: Sequence[str], newer: str) -> Generator[Window, None, list[float]]:
        """Return what each of ``earlier`` still changes beside a ``newer`` follow-up, in nats; yields after every pass.

        That is what ``reach`` is, but in the base's answers when told the newer one alone, and from there to both. What
        cannot be read beside it has the benefit of the doubt: infinity.
        """
        prompts = self._prompts(base, [newer])
        if prompts is None or max(map(len, prompts)) >= base.max_model_len:
            return [math.inf] * len(earlier)
        replies = yield from greedy_replies(base, prompts, None, MAX_TOKENS)
        answers = tuple(reply.row for reply in replies)
        told = [self._told(base, [text, newer], answers) for text in earlier]
        readable = [rows for rows in told if rows is not None]
        alone_N, *both = token_log_probs(base, [*answers, *(row for rows in readable for row in rows)]).split(
            sum(len(row.completion_ids) for row in answers)
        )
        yield Window()
        found = iter([_fall(alone_N - both_N, answers) for both_N in both])
        return [math.inf if rows is None else next(found) for rows in told]

    def _told(self, base: BaseModel, follow_ups: Sequence[str], answers: Sequence[Row] = ()) -> list[Row] | None:
        """Return answers, or the plain ones, under their questions with the follow-ups; None if that is not to read."""
        prompts, answers = self._prompts(base, follow_ups), answers or self.rows
        if prompts is None:
            return None
        rows = [Row(ids, row.completion_ids, row.completion_mask) for ids, row in zip(prompts, answers, strict=True)]
        fits = all(len(row.prompt_ids) + len(row.completion_ids) <= base.max_model_len for row in rows)
        return rows if fits else None

    def _prompts(self, base: BaseModel, follow_ups: Sequence[str]) -> list[tuple[int, ...]] | None:
        """Return all questions with the follow-ups; None where they do not fit or cannot be put."""
        assert base.renderer is not None
        try:
            return [base.renderer.render((Message("user", text),), follow_ups) for text in self.questions]
        except (ContextTooLong, TemplateError):
            return None


def _fall(change_N: Tensor, answers: Sequence[Row]) -> float:
    """Return the change of a whole answer, of all answers the lowest but ``SPARED``."""
    return _lowest([part.sum() for part in _parts(change_N, answers)])


def _steepest(change_N: Tensor, answers: Sequence[Row]) -> float:
    """Return the largest change of any token in an answer, of all answers the lowest but ``SPARED``."""
    return _lowest([part.max() for part in _parts(change_N, answers)])


def _parts(change_N: Tensor, answers: Sequence[Row]) -> tuple[Tensor, ...]:
    return change_N.split([len(row.completion_ids) for row in answers])


def _lowest(changes: Sequence[Tensor]) -> float:
    return float(torch.stack([*changes]).sort().values[min(SPARED, len(changes) - 1)])  # not a number is last
