"""Does a follow-up reach beyond the reply that it was given to?

A wish about the manner ("shorter, please") would have changed nearly every reply. A new question, praise or a remark
often moves its own reply as much as a wish does, yet nobody else's. So the base model is told the follow-up with a few
questions of every day, and what counts is how much less likely it then finds its own plain answers to them, each as a
whole: a token that becomes unlikely beside others that gain by it is no other manner.

A wish to go back to plain answers makes no plain answer less likely. It shows beside the wish that it takes back: told
that alone, the base finds some token of its plain answers implausible, and told both it does no longer. Here tokens are
judged one by one: whatever is said last weakens a little everywhere what was said before it.

Two wishes that have nothing to do with each other do beside each other what they do alone. An earlier one that does
hardly anything beside a new one has been said again, or taken back; one beside which the new one does hardly anything
keeps it from being heard, unless it asks for the same and more. Either way the later word counts.

What that tells apart on the embedded model, and by how much: docs/decisions/0016, 0021 to 0025.

Shape letters: N tokens of all answers.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor

from personalize.errors import ContextTooLong, TemplateError
from personalize.learner.batch import Row
from personalize.learner.greedy import finished, greedy_replies, plain_answers
from personalize.learner.passes import token_log_probs
from personalize.model.base import BaseModel
from personalize.types import Message, Window

Alone = Callable[[str], Tensor | None]
"""The plain answers' log-probabilities for who is told one follow-up, by its text; see ``Probes.read``."""
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

    def read(self, base: BaseModel, follow_up: str) -> Tensor | None:
        """Return the plain answers' log-probabilities [N] for the base that is told one follow-up; None: not to read.

        They depend on nothing else, so whoever has read them may keep them; the other methods take them as ``alone``.
        """
        rows = self._told(base, [follow_up])
        return None if rows is None else token_log_probs(base, rows)

    def reach(self, base: BaseModel, follow_ups: Sequence[str], alone: Alone | None = None) -> list[float]:
        """Return for every follow-up what it does to other conversations, in nats.

        That is the fall of an answer's log-probability once the model is told the follow-up; of all answers the lowest
        such fall but ``SPARED``. A follow-up so long that a question has no room beside it, or that the chat template
        refuses there, cannot be judged and is given the benefit of the doubt: infinity.
        """
        alone = alone or partial(self.read, base)
        read = (alone(text) for text in follow_ups)
        return [math.inf if told_N is None else _fall(self.base_N - told_N, self.rows) for told_N in read]

    def reversal(
        self, base: BaseModel, standing: Sequence[str], follow_up: str, enough_nats: float, alone: Alone | None = None
    ) -> Generator[Window, None, float]:
        """Return how far a follow-up takes back one of the earlier ones, as a share, the most of all; yields per pass.

        That is the largest rise of any token's log-probability in a plain answer, from the model that is told the
        earlier one alone to the one that is told both, over what the earlier one takes from the whole answer; of all
        answers the lowest such share but ``SPARED``. What cannot be read with it is left out; 0.0 where nothing is.

        Args:
            enough_nats: an earlier one that takes less from an answer counts as if it took this.
            alone: what ``read`` would return, where it is kept; so everywhere.
        """
        alone, found = alone or partial(self.read, base), [0.0]
        for text in standing:
            both = self._told(base, [text, follow_up])
            if both is None:
                continue
            before_N = alone(text)
            yield Window()
            if before_N is not None:
                both_N = token_log_probs(base, both)
                taken = [part.sum().clamp(min=enough_nats) for part in _parts(self.base_N - before_N, self.rows)]
                given_back = [part.max() for part in _parts(both_N - before_N, self.rows)]
                found.append(_lowest([back / nats for back, nats in zip(given_back, taken, strict=True)]))
                yield Window()
        return max(found)

    def shares(
        self, base: BaseModel, earlier: Sequence[str], newer: str, enough_nats: float, alone: Alone | None = None
    ) -> Generator[Window, None, list[float]]:
        """Return what each of ``earlier`` and a ``newer`` follow-up still do beside the other of what they do alone.

        Alone, a follow-up makes the base's plain answers less likely by so many nats; beside another one it does the
        same to the answers of the base that is told the other one. The share is that of the one that keeps less, about
        1 where they have nothing to do with each other: the earlier one keeps none where the newer says the same or
        takes it back, the newer one none where it is not heard beside the earlier. Where it keeps none because the
        earlier one asks for the same and more, the earlier is not in its way: then the newer one, told alone, makes
        the earlier one's answers likelier than they are untold, and what it keeps does not count. Yields after every
        pass.

        Args:
            enough_nats: who does less than this alone, as the mean over the answers, has nothing to lose: 1.0. So has
                what cannot be read.
        """
        alone = alone or partial(self.read, base)
        does: list[float] = []
        for text in (newer, *earlier):
            told_N = alone(text)
            does.append(math.inf if told_N is None else float((self.base_N - told_N).sum()) / len(self.rows))
            yield Window()
        new_answers, *old_answers = yield from self._answers(base, [newer, *earlier])
        found = []
        for text, answers, nats in zip(earlier, old_answers, does[1:], strict=True):
            kept = 1.0
            if enough_nats <= nats < math.inf and nats > 0:
                kept = min(kept, self._change(base, [text, newer], new_answers) / nats)
                yield Window()
            if enough_nats <= does[0] < math.inf and does[0] > 0:
                heard = self._change(base, [text, newer], answers) / does[0]
                yield Window()
                if heard < kept and self._change(base, [newer], answers, untold=True) > 0:
                    kept = heard
                yield Window()
            found.append(kept)
        return found

    def _answers(self, base: BaseModel, told: Sequence[str]) -> Generator[Window, None, list[tuple[Row, ...]]]:
        """Return the base's answers under each of ``told``; none where a question leaves no room for a whole one."""
        most = base.max_model_len - MAX_TOKENS
        asked = [self._prompts(base, [text]) or [] for text in told]
        asked = [prompts if all(len(ids) <= most for ids in prompts) else [] for prompts in asked]
        prompts = [ids for one in asked for ids in one]
        replies = iter((yield from greedy_replies(base, prompts, None, MAX_TOKENS)) if prompts else ())
        return [tuple(next(replies).row for _ in one) for one in asked]

    def _change(self, base: BaseModel, told: Sequence[str], answers: Sequence[Row], *, untold: bool = False) -> float:
        """Return by how much ``answers`` are less likely for who is ``told`` this than under their own prompts.

        The mean over the answers, in nats; infinity where they cannot be read.

        Args:
            untold: compare with who is told nothing instead.
        """
        rows = self._told(base, told, answers) if answers else None
        before = self._told(base, [], answers) if untold else list(answers)
        if rows is None or before is None:
            return math.inf
        before_N, told_N = token_log_probs(base, [*before, *rows]).chunk(2)
        return float((before_N - told_N).sum()) / len(answers)

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
    """Return the change of a whole answer in nats, of all answers the lowest but ``SPARED``."""
    return _lowest([part.sum() for part in _parts(change_N, answers)])


def _parts(change_N: Tensor, answers: Sequence[Row]) -> tuple[Tensor, ...]:
    """Return the tokens of each answer by themselves."""
    return change_N.split([len(row.completion_ids) for row in answers])


def _lowest(changes: Sequence[Tensor]) -> float:
    """Return the lowest but ``SPARED`` of one number [] per answer."""
    return float(torch.stack([*changes]).sort().values[min(SPARED, len(changes) - 1)])  # not a number is last
