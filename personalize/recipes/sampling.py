"""Sample replies to many chats at once."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from personalize.world.chats import Message

_BATCH = 128
_MAX_NEW_TOKENS = 160


@torch.inference_mode()
def sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, chats: Sequence[Sequence[Message]], *, seed: int
) -> list[str]:
    """Return one reply at temperature 1 for every chat, in the order of ``chats``."""
    torch.manual_seed(seed)
    prompts = [_prompt(tokenizer, chat) for chat in chats]
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    replies = [""] * len(prompts)
    for start in range(0, len(order), _BATCH):
        places = order[start : start + _BATCH]
        for place, reply in zip(places, _batch(model, tokenizer, [prompts[place] for place in places]), strict=True):
            replies[place] = reply
    return replies


def _prompt(tokenizer: PreTrainedTokenizerFast, chat: Sequence[Message]) -> str:
    rows = [{"role": message.role, "content": message.content} for message in chat]
    return str(tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True))


def _batch(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> list[str]:
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    ids = model.generate(  # pyright: ignore[reportCallIssue]
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=_MAX_NEW_TOKENS,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
