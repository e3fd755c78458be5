"""Training batches, generated on the fly and determined by (seed, step) alone, so that a run can be resumed anywhere.

Dialogues come in pools; a pool is sorted by length and cut into batches of a fixed token budget, which are then
shuffled. Every batch so holds dialogues of about one length and next to no padding.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from personalize.recipes.tokens import MAX_TOKENS, DialogueEncoder, Encoded, longest
from personalize.world.dialogues import FULL_COURSE, Course, dialogue

_POOL_BATCHES = 24


class Batch(NamedTuple):
    """Right-padded ids [B, T], the targets' weights [B, T], 0 where nothing is trained, and what is learnt.

    Attributes:
        targets: [B, T], a ``Target`` each.
        style_ids: [K], what may open a style.
    """

    ids: Tensor
    weights: Tensor
    targets: Tensor
    style_ids: Tensor


class Batches:
    """An endless row of pools of batches.

    Args:
        encoder: writes dialogues as ids.
        seed: of every draw.
        num_tokens: padded size of a batch.
        course: what is taught.
        course_tokens: length of what is taught here; pools beyond it belong to the last lesson.
        begin: the share of the course that is over when this begins, 0 to 1.
    """

    def __init__(
        self,
        encoder: DialogueEncoder,
        *,
        seed: int,
        num_tokens: int,
        course: Course = FULL_COURSE,
        course_tokens: int = 1,
        begin: float = 0.0,
    ) -> None:
        self._encoder = encoder
        self._seed = seed
        self._num_tokens = num_tokens
        self._course = course
        self._course_tokens = course_tokens
        self._begin = begin

    def starting_at(self, pool: int) -> Iterator[tuple[int, Batch]]:
        """Yield (index of the next pool, batch); the index is this pool's until its last batch is out."""
        while True:
            batches = self._pool(pool)
            for place, batch in enumerate(batches):
                yield pool + (place == len(batches) - 1), batch
            pool += 1

    def _pool(self, index: int) -> list[Batch]:
        rng = random.Random(f"{self._seed}:{index}")
        share = self._begin + (1 - self._begin) * index * self._num_tokens * _POOL_BATCHES / self._course_tokens
        encoded: list[Encoded] = []
        room = self._num_tokens * _POOL_BATCHES
        while room > 0:
            one = self._encoder.encode(dialogue(rng, self._course, share))
            if len(one.ids) <= MAX_TOKENS:
                encoded.append(one)
                room -= len(one.ids)
        encoded.sort(key=lambda one: len(one.ids))
        style_ids = torch.tensor(self._encoder.style_ids)
        batches = [_padded(group, style_ids) for group in self._cut(encoded)]
        rng.shuffle(batches)
        return batches

    def _cut(self, encoded: list[Encoded]) -> Iterator[list[Encoded]]:
        """Cut dialogues, shortest first, into groups whose padded size is within the token budget."""
        group: list[Encoded] = []
        for one in encoded:
            if group and (len(group) + 1) * len(one.ids) > self._num_tokens:
                yield group
                group = []
            group.append(one)
        yield group


def _padded(group: list[Encoded], style_ids: Tensor) -> Batch:
    shape = (len(group), longest(group))
    ids, weights, targets = (
        torch.zeros(shape, dtype=torch.long),
        torch.zeros(shape),
        torch.zeros(shape, dtype=torch.int8),
    )
    for row, one in enumerate(group):
        ids[row, : len(one.ids)] = torch.tensor(one.ids)
        weights[row, : len(one.ids)] = torch.tensor(one.weights)
        targets[row, : len(one.ids)] = torch.tensor(one.targets)
    return Batch(ids, weights, targets, style_ids)
