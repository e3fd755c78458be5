"""Dialogues as ids: equal to the chat template, with the replies as targets."""

import random
import re
from dataclasses import replace

from transformers import PreTrainedTokenizerFast

from personalize.recipes.tokens import END, VOCAB_SIZE, DialogueEncoder, Target, rendered
from personalize.world.chats import Dialogue, Message
from personalize.world.dialogues import dialogue
from personalize.world.preferences import DEFAULT, VALUES, Preference, styled
from personalize.world.replies import EMOJI, compose
from personalize.world.topics import topics


def test_encoder_writes_what_the_chat_template_writes(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder, rng = DialogueEncoder(tokenizer), random.Random(0)
    for _ in range(100):
        told = dialogue(rng)
        rows = [{"role": message.role, "content": message.content} for message in rendered(told)]
        assert encoder.encode(told).ids == tokenizer.apply_chat_template(rows, return_dict=False)


def test_targets_are_the_replies_with_their_end(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder, rng = DialogueEncoder(tokenizer), random.Random(1)
    for _ in range(100):
        told = replace(dialogue(rng), teaches="everything")
        ids, weights, targets = encoder.encode(told)
        assert set(targets) == {Target.TOKEN}
        text = tokenizer.decode([token for token, weight in zip(ids, weights, strict=True) if weight])
        assert text == "".join(message.content + END for message in told.messages if message.role == "assistant")


def test_of_what_teaches_no_style_only_the_facts_are_targets(tokenizer: PreTrainedTokenizerFast) -> None:
    """A sentence's first word is learnt against other words; what comes between and behind sentences is not."""
    asked, reply = Message("user", "Bees?"), Message("assistant", "Bees make honey. They live in groups.")
    encoded = DialogueEncoder(tokenizer).encode(Dialogue((asked, reply), teaches="facts"))
    targets = [token for token, weight in zip(encoded.ids, encoded.weights, strict=True) if weight]
    assert tokenizer.decode(targets) == "Bees make honey.They live in groups."
    first = [tokenizer.decode([id_]) for id_, target in zip(encoded.ids, encoded.targets, strict=True) if target]
    assert set(encoded.targets) == {Target.TOKEN, Target.WORD}
    assert [word[:1] for word in first] == ["B", "T"]


def test_of_what_teaches_no_fact_only_the_decisions_are_targets(tokenizer: PreTrainedTokenizerFast) -> None:
    """A greeting is learnt as such; of a sentence that it is one, not which."""
    asked, reply = Message("user", "Bees?"), Message("assistant", "Hello there! Bees make honey.")
    encoded = DialogueEncoder(tokenizer).encode(Dialogue((asked, reply), teaches="style"))
    learnt = [(id_, t) for id_, weight, t in zip(*encoded[:2], encoded.targets, strict=True) if weight]
    words = [tokenizer.decode([id_]) for id_, target in learnt if target == Target.ANY_WORD]
    assert [word[:1] for word in words] == ["B"]
    rest = tokenizer.decode([id_ for id_, target in learnt if target == Target.TOKEN])
    assert rest.startswith("Hello") and rest.endswith(END)
    assert "ees" not in rest


def test_what_a_style_puts_around_the_facts_begins_with_a_style_token(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder, rng = DialogueEncoder(tokenizer), random.Random(2)
    every = styled(DEFAULT, [Preference(name, values[-1]) for name, values in VALUES.items()])
    words = set(topics()[0].facts) | {topics()[0].title}
    for _ in range(50):
        text = compose(topics()[0], every, rng)
        for fact in sorted(words, key=len, reverse=True):
            text = text.replace(fact, "\x00")
        parts = [part.lstrip(" \n") for part in text.split("\x00")]
        for part in [part for part in parts if part and not re.match("[2-9]", part)]:  # no list begins with 2
            assert tokenizer.encode(part)[0] in encoder.style_ids, part


def test_every_emoji_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) <= VOCAB_SIZE
    for emoji in EMOJI:
        assert len(tokenizer.encode(emoji)) == 1
        assert tokenizer.decode(tokenizer.encode(f"Yes. {emoji}")) == f"Yes. {emoji}"
