"""What the engine tests share: a vocabulary of letters, adapter folders, and transformers' generate as the judge."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel

from adapters_store.folder import folder_digest
from personalize.config import EngineSettings
from personalize.engine.engine import Engine
from personalize.model.base import BaseModel
from personalize.model.folder import write_adapter
from personalize.model.lora import LoraTensors
from personalize.types import AdapterRef, GenerateRequest, SamplingParams
from tests.model.tiny import random_adapter, random_ids, tiny_module

END = 2


class Letters:
    """Every id is one letter of a large alphabet."""

    def __init__(self, *end_ids: int):
        self.end_ids = frozenset(end_ids)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(0x4E00 + i) for i in ids if i not in self.end_ids)


def engine_for(base: BaseModel, *, end_ids: Sequence[int] = (END,), **settings) -> Engine:
    return Engine(base, EngineSettings(**settings), vocabulary=Letters(*end_ids), rank=4)


def make_ref(user: int, number: int = 1, path: Path | str = "/nowhere") -> AdapterRef:
    return AdapterRef(f"u_{user:032x}@{number}-{user:016x}", str(path))


def write_version(folder: Path, base: BaseModel, user: int, number: int = 1, **changes) -> AdapterRef:
    return publish(folder, base, random_adapter(base, 100 * user + number, **changes), user, number)


def publish(folder: Path, base: BaseModel, tensors: LoraTensors, user: int, number: int = 1) -> AdapterRef:
    """Write a version's folder and name it by what it holds."""
    path = folder / f"{user}-{number}"
    write_adapter(path, tensors, base)
    return AdapterRef(f"u_{user:032x}@{number}-{folder_digest(path)[:16]}", str(path))


def request(prompt, adapter=None, name="r", user_id=None, **sampling) -> GenerateRequest:
    sampling = {"temperature": 0.0, "max_tokens": 12} | sampling
    return GenerateRequest(name, tuple(prompt), SamplingParams(**sampling), adapter, user_id=user_id)


def prompt(length: int, seed: int) -> list[int]:
    return random_ids((length,), seed).tolist()


def drain(engine: Engine, results: dict | None = None, max_steps: int = 2000) -> dict:
    """Step until nothing is left; return sequence -> what it came to (ids, text, last chunk or error)."""
    results = {} if results is None else results
    for _ in range(max_steps):
        if not engine.has_work:
            return results
        if engine.is_blocked:
            engine.wait_ready(5.0)
        collect(engine.step(), results)
    raise AssertionError("the engine does not come to an end")


def collect(outputs, results: dict) -> None:
    for output in outputs:
        ids, text, _ = results.get(output.sequence, ([], "", None))
        if output.error is not None:
            results[output.sequence] = (ids, text, output.error)
        else:
            chunk = output.chunk
            last = chunk if chunk.finish_reason else None
            results[output.sequence] = ([*ids, *chunk.token_ids], text + chunk.text, last)


def greedy_by_transformers(family: str, ids, adapter: AdapterRef | None, max_new: int, seed: int = 0) -> list[int]:
    """Return what transformers' generate says, with the adapter in stock PEFT."""
    module = tiny_module(family, seed)
    if adapter is not None:
        module = PeftModel.from_pretrained(module, adapter.path)
    with torch.no_grad():
        out = module.generate(
            input_ids=torch.tensor([list(ids)]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=max_new,
            eos_token_id=END,
            pad_token_id=0,
        )
    return out[0, len(ids) :].tolist()
