"""Ratios that belong to one run: a decode step with other people's adapters over one without, and one update.

    python -m personalize.evaluation.bench --out docs/benchmarks

Every configuration is measured in turn, round after round, so that whatever the machine does meanwhile hits all alike.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers

from personalize.config import EngineSettings, LoraSettings
from personalize.engine.engine import Engine
from personalize.learner import HindsightLearner, Recipe
from personalize.model.base import BaseModel
from personalize.model.folder import new_adapter
from personalize.model.loading import load_base
from personalize.reporting.figures import Figure, measured, record
from personalize.types import AdapterRef, Experience, GenerateRequest, Lesson, Message, SamplingParams

ROWS = 16
DISTINCT = (0, 1, 4, 16)
_ROUNDS, _STEPS, _PROMPT = 7, 12, 32


def decode_ratios(base: BaseModel, rounds: int = _ROUNDS, steps: int = _STEPS) -> dict[int, float]:
    """Return the median decode step in ms of 16 rows by number of distinct adapters, 0 for none."""
    engine = Engine(base, EngineSettings(max_num_seqs=ROWS))
    refs = [_prepare(engine, base, seed) for seed in range(ROWS)]
    times: dict[int, list[float]] = {count: [] for count in DISTINCT}
    for _ in range(rounds):
        for count in DISTINCT:
            with _decoding(engine, [refs[row % count] if count else None for row in range(ROWS)]):
                for _ in range(steps):
                    began = time.perf_counter()
                    engine.step()
                    times[count].append((time.perf_counter() - began) * 1000)
    engine.close()
    return {count: median(values) for count, values in times.items()}


def update_ms(base: BaseModel, recipe: Recipe, history: int = 256, reply: int = 128, rounds: int = 3) -> float:
    """Return the median wall time in ms of one user's update: ``history`` prompt tokens, ``reply`` trained ones."""
    learner = HindsightLearner(base, recipe)
    memory = [_experience(base, number, history, reply) for number in range(recipe.replay)]
    state = Lesson(memory[0] if memory else _experience(base, 0, history, reply)).state
    times = []
    for number in range(rounds):
        turn = _experience(base, 100 + number, history, reply)
        lesson = Lesson(turn, tuple(memory), type(state)((), tuple(one.turn_id for one in memory), 0))
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            *_, last = learner.update([lesson], [None], [Path(folder)])
            times.append((time.perf_counter() - began) * 1000)
        assert last.reports and last.reports[0].outcome == "applied", "the benchmark must measure a real update"
    return median(times)


def reply_ms(base: BaseModel, history: int = 256, reply: int = 128) -> float:
    """Return the wall time in ms of generating ``reply`` tokens after ``history``: what an update is compared with."""
    engine = Engine(base, EngineSettings(max_num_seqs=1))
    times = []
    for number in range(3):
        began = time.perf_counter()
        sequence = engine.add(_request(base, f"r{number}", None, history, reply))
        while sequence.num_new < reply:
            assert engine.has_work, "the reply ended before its length"
            engine.step()
        times.append((time.perf_counter() - began) * 1000)
        engine.cancel(sequence)
    engine.close()
    return median(times)


@contextmanager
def _decoding(engine: Engine, refs: Sequence[AdapterRef | None]) -> Iterator[None]:
    """Hold one running sequence per row, all past their prompts."""
    budget = engine.base.max_model_len - _PROMPT
    sequences = [engine.add(_request(engine.base, f"row{row}", ref, _PROMPT, budget)) for row, ref in enumerate(refs)]
    while any(sequence.num_new == 0 for sequence in sequences):
        engine.step()
    for _ in range(3):
        engine.step()
    before = [sequence.num_new for sequence in sequences]
    yield
    assert all(one.num_new > num for one, num in zip(sequences, before, strict=True)), (
        "a row ended: nothing was decoded"
    )
    for sequence in sequences:
        engine.cancel(sequence)


def _request(base: BaseModel, name: str, ref: AdapterRef | None, prompt: int, max_tokens: int) -> GenerateRequest:
    ids = torch.randint(5, base.vocab_size, (prompt,), generator=torch.Generator().manual_seed(prompt)).tolist()
    # A draw, not the greedy token, which a random model repeats for ever.
    return GenerateRequest(name, tuple(ids), SamplingParams(temperature=1.0, max_tokens=max_tokens, seed=1), ref)


def _prepare(engine: Engine, base: BaseModel, seed: int) -> AdapterRef:
    tensors = new_adapter(base, LoraSettings(), seed=seed)
    for index, b in enumerate(tensors.b.values()):
        b.normal_(std=1e-3, generator=torch.Generator(device=b.device).manual_seed(seed * 1000 + index))
    ref = AdapterRef(f"u_{seed:032x}@1-{seed:016x}", "/nowhere")
    assert engine.prepare(ref, tensors)
    return ref


def _experience(base: BaseModel, number: int, history: int, reply: int) -> Experience:
    """Return a turn of about ``history`` prompt tokens, in words that the base's own tokenizer cuts."""
    assert base.renderer is not None
    words = " ".join(f"word{(number * 7 + i) % 50}" for i in range(history))
    while len(base.renderer.render((Message("user", words),))) > history and len(words) > 16:
        words = words[: int(len(words) * 0.97)]
    messages = (Message("user", words),)
    ids = torch.randint(5, base.vocab_size, (reply,), generator=torch.Generator().manual_seed(number)).tolist()
    prompt_ids = base.renderer.render(messages)
    return Experience(f"{number:032x}", messages, prompt_ids, tuple(ids), (1,) * reply, "Shorter, please.")


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, and write JSON and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    arguments = parser.parse_args(argv)
    base = load_base(arguments.model, device=arguments.device, settings=EngineSettings())
    _never_end(base)
    steps = decode_ratios(base)
    single = Recipe(gate_nats=None, num_steps=1, replay=0)
    update, whole, reply = update_ms(base, single), update_ms(base, Recipe(gate_nats=None)), reply_ms(base)
    result = {
        "model": arguments.model, "device": str(base.device), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "transformers": transformers.__version__, "machine": platform.machine(),
        "date": time.strftime("%Y-%m-%d"), "rows": ROWS,
        "decode_step_ms": steps, "update_ms": update, "whole_update_ms": whole, "reply_ms": reply,
    }  # fmt: skip
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "loop.json").write_text(json.dumps(result, indent=2) + "\n")
    record("loop", _figures(result))
    for count, value in steps.items():
        print(f"decode step, {ROWS} rows, {count:2d} distinct adapters: {value:7.2f} ms, {value / steps[0]:.2f} x base")
    print(f"one update (1 step, no replay): {update:.0f} ms, {update / reply:.2f} x its reply ({reply:.0f} ms)")
    print(f"the default recipe's whole update: {whole:.0f} ms, {whole / reply:.2f} x its reply")
    return 0


def _never_end(base: BaseModel) -> None:
    """Let no token end a reply: every row decodes as long as it is asked to."""
    assert base.renderer is not None
    base.renderer.end_ids = frozenset()


def _figures(result: dict[str, Any]) -> list[Figure]:
    steps = result["decode_step_ms"]
    values = {
        **{f"decode step, 16 rows, {n} distinct adapters, over no adapters": steps[n] / steps[0] for n in DISTINCT[1:]},
        "one update over its reply, 256-token history": result["update_ms"] / result["reply_ms"],
        "whole update of the default recipe over its reply": result["whole_update_ms"] / result["reply_ms"],
    }
    return [
        measured(name, round(value, 3), unit="x", device=result["device"], n=_ROUNDS * _STEPS, command="make bench")
        for name, value in values.items()
    ]


if __name__ == "__main__":
    raise SystemExit(main())
