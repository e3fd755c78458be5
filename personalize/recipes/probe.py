"""A quick look at a model in training: how often it obeys, in one line."""

import random
from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from personalize.recipes import skills
from personalize.recipes.sampling import sample
from personalize.recipes.skills import Situation
from personalize.world import checkers
from personalize.world.preferences import NON_DEFAULT

_COPIES = 4


def probe(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, seed: int) -> str:
    """Return obedience to one told preference by place, to pairs, and the share of correct replies."""
    rng = random.Random(seed)
    rows = {
        place: [skills.told(place, [one], rng) for one in NON_DEFAULT for _ in range(_COPIES)]
        for place in ("block", "system", "chat")
    }
    rows["pairs"] = [skills.told("block", skills.draw(2, rng), rng) for _ in range(64)]
    replies = {name: sample(model, tokenizer, [one.chat for one in row], seed=seed) for name, row in rows.items()}
    obeyed = " ".join(f"{name} {_share(row, replies[name]):.2f}" for name, row in rows.items())
    missed = _missed(rows["block"], replies["block"])
    correct = [
        checkers.is_correct(one.topic, reply) for one, reply in zip(rows["block"], replies["block"], strict=True)
    ]
    return f"obeyed: {obeyed} | correct {sum(correct) / len(correct):.2f} | missed in block: {missed or 'none'}"


def _share(row: Sequence[Situation], replies: Sequence[str]) -> float:
    return sum(checkers.all_hold(one.told, reply) for one, reply in zip(row, replies, strict=True)) / len(row)


def _missed(row: Sequence[Situation], replies: Sequence[str]) -> str:
    missed = [
        str(one.told[0]) for one, reply in zip(row, replies, strict=True) if not checkers.all_hold(one.told, reply)
    ]
    return ", ".join(f"{name} {missed.count(name)}/{_COPIES}" for name in dict.fromkeys(missed))
