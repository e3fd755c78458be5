"""Dialogues as ids: equal to the chat template, with the replies as targets."""

import random

from transformers import PreTrainedTokenizerFast

from personalize.recipes.tokens import END, VOCAB_SIZE, DialogueEncoder, rendered
from personalize.world.dialogues import dialogue
from personalize.world.replies import EMOJI


def test_encoder_writes_what_the_chat_template_writes(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder, rng = DialogueEncoder(tokenizer), random.Random(0)
    for _ in range(100):
        told = dialogue(rng)
        rows = [{"role": message.role, "content": message.content} for message in rendered(told)]
        assert encoder.encode(told).ids == tokenizer.apply_chat_template(rows, return_dict=False)


def test_targets_are_the_replies_with_their_end(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder, rng = DialogueEncoder(tokenizer), random.Random(1)
    for _ in range(100):
        told = dialogue(rng)
        ids, weights = encoder.encode(told)
        text = tokenizer.decode([token for token, weight in zip(ids, weights, strict=True) if weight])
        assert text == "".join(message.content + END for message in told.messages if message.role == "assistant")


def test_every_emoji_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) <= VOCAB_SIZE
    for emoji in EMOJI:
        assert len(tokenizer.encode(emoji)) == 1
        assert tokenizer.decode(tokenizer.encode(f"Yes. {emoji}")) == f"Yes. {emoji}"
