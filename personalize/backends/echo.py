"""An engine and a learner without a model, for tests and for building applications: no torch, no download.

Replies repeat what the user said and name the adapter version that served them: ``[v2] You said: hello``. An update
writes a small valid PEFT folder, so the whole way from a follow-up to the next version is walked as with a model.
"""

import asyncio
import hashlib
import json
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

from personalize.backends.echo_effect import drawn_effect
from personalize.errors import AdapterCorrupt, ContextTooLong
from personalize.protocols import Learner
from personalize.rendering.detokenizer import Detokenizer
from personalize.rendering.hindsight import with_block
from personalize.rendering.messages import conversation
from personalize.types import (
    AdapterRef,
    ExplainRequest,
    GenerateRequest,
    LearningState,
    Lesson,
    Message,
    Outcome,
    Review,
    ReviewRequest,
    TokenChunk,
    UpdateEffect,
    UpdateReport,
    Window,
)

END = 256
_MARKS = {"system": 257, "user": 258, "assistant": 259, "tool": 260}
_MODULE = "base_model.model.model.layers.0.self_attn.q_proj"
_RANK, _WIDTH = 2, 4
MODULES = {_MODULE.removeprefix("base_model.model."): (_WIDTH, _WIDTH)}
_MAX_ECHO_CHARS = 200
BASE_DIGEST = hashlib.sha256(b"personalize echo 1").hexdigest()


class ByteRenderer:
    """Renders messages as UTF-8 bytes between role marks; ids 0 to 255 are text and nothing else is."""

    end_ids = frozenset({END})
    template_digest = hashlib.sha256(b"bytes between role marks").hexdigest()

    def render(self, messages: Sequence[Message], follow_ups: Sequence[str] = ()) -> tuple[int, ...]:
        """Return the prompt's ids; ``follow_ups`` go into the last user message as the hindsight block."""
        seen = conversation(messages)
        last = max((i for i, message in enumerate(seen) if message.role == "user"), default=-1)
        ids: list[int] = []
        for i, message in enumerate(seen):
            content = with_block(message.content, follow_ups) if i == last else message.content
            ids += [_MARKS[message.role], *content.encode()]
        return (*ids, _MARKS["assistant"])

    def reply_ids(self, text: str) -> tuple[int, ...]:
        """Return the ids of a reply, its end included."""
        return (*text.encode(), END)

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < END).decode("utf-8", errors="replace")


class EchoLearner:
    """Writes a new version for every follow-up that ``judge`` lets through.

    Args:
        judge: what a lesson that fits the context comes to; ``Outcome.APPLIED`` writes a version.
        max_model_len: context in bytes.
    """

    def __init__(self, judge: Callable[[Lesson], Outcome] = lambda lesson: Outcome.APPLIED, *, max_model_len: int):
        self.judge = judge
        self._renderer = ByteRenderer()
        self._max_model_len = max_model_len

    def update(
        self, lessons: Sequence[Lesson], parents: Sequence[AdapterRef | None], out_dirs: Sequence[Path]
    ) -> Iterator[Window]:
        """Learn every lesson; one window each, as ``protocols.Learner`` wants it."""
        reports = []
        for lesson, parent, out in zip(lessons, parents, out_dirs, strict=True):
            reports.append(self._learn(lesson, parent, out))
            yield Window()
        yield Window(tuple(reports))

    def _learn(self, lesson: Lesson, parent: AdapterRef | None, out: Path) -> UpdateReport:
        turn = lesson.experience
        told = len(self._renderer.render(turn.messages, (turn.follow_up,))) + len(turn.completion_ids)
        outcome = self.judge(lesson) if told <= self._max_model_len else Outcome.SKIPPED_TOO_LONG
        if outcome is not Outcome.APPLIED:
            return UpdateReport(turn.turn_id, outcome, lesson.state)
        seed = f"{parent.name if parent else 'new'}\n{turn.follow_up}"
        write_folder(out, seed)
        state = LearningState(
            block=(*lesson.state.block, turn.turn_id)[-4:],
            replay=(*lesson.state.replay, turn.turn_id)[-8:],
            num_updates=lesson.state.num_updates + 1,
        )
        return UpdateReport(turn.turn_id, outcome, state, {"signal": 1.0, "num_memory": float(len(lesson.memory))})


class EchoBackend:
    """Repeats the last user message, byte by byte; also learns.

    Attributes:
        num_running: sequences that are being generated now.
        in_use: running sequences by adapter name.
        learner: runs updates; may be exchanged.

    Args:
        judge: see ``EchoLearner``.
        max_model_len: context in bytes.
        delay_s: pause before every byte.
        max_num_seqs: sequences that run together; later ones wait.
    """

    def __init__(
        self,
        judge: Callable[[Lesson], Outcome] = lambda lesson: Outcome.APPLIED,
        *,
        max_model_len: int = 65_536,
        delay_s: float = 0.0,
        max_num_seqs: int = 256,
    ):
        self.renderer = ByteRenderer()
        self.learner: Learner = EchoLearner(judge, max_model_len=max_model_len)
        self.max_model_len = max_model_len
        self.num_running = 0
        self.in_use: Counter[str] = Counter()
        self._delay_s = delay_s
        self._rows = asyncio.Semaphore(max_num_seqs)
        self._loaded: set[str] = set()

    async def generate(self, request: GenerateRequest) -> AsyncIterator[TokenChunk]:
        num_prompt = len(request.prompt_ids)
        room = self.max_model_len - num_prompt
        if room < 1:
            raise ContextTooLong(f"the prompt has {num_prompt} tokens; at most {self.max_model_len - 1} fit")
        async with self._rows:
            await self._admit(request.adapter)
            try:
                async for chunk in self._chunks(request, min(room, request.sampling.max_tokens or room)):
                    yield chunk
            finally:
                self._leave(request.adapter)

    async def load_adapter(self, ref: AdapterRef) -> None:
        """Check that the folder can be read, once per version.

        Raises:
            AdapterCorrupt: it cannot.
        """
        if ref.name not in self._loaded:
            read_header(Path(ref.path) / "adapter_model.safetensors")
            self._loaded.add(ref.name)

    async def unload_adapter(self, ref: AdapterRef) -> None:
        self._loaded.discard(ref.name)

    async def run_update(
        self, lessons: Sequence[Lesson], parents: Sequence[AdapterRef | None], out_dirs: Sequence[Path]
    ) -> tuple[UpdateReport, ...]:
        """Return the learner's reports, one per lesson; replies go on between two windows."""
        reports: tuple[UpdateReport, ...] = ()
        for window in self.learner.update(lessons, parents, out_dirs):
            reports = window.reports or reports
            await asyncio.sleep(0)
        return reports

    async def fingerprint(self, refs: Sequence[AdapterRef | None], prompts: Sequence[Sequence[int]]) -> tuple[str, ...]:
        """Return digests that differ where the versions do."""
        names = [ref.name if ref else "base" for ref in refs]
        return tuple(hashlib.sha256(repr((name, prompts)).encode()).hexdigest() for name in names)

    async def explain(self, request: ExplainRequest) -> UpdateEffect:
        """Return numbers drawn from names, once both versions have been read."""
        for ref in (request.parent, request.adapter):
            if ref is not None:
                read_header(Path(ref.path) / "adapter_model.safetensors")
        return drawn_effect(request)

    async def review(self, request: ReviewRequest) -> Review:
        """Let every version pass that can be read: an echo says the same under all of them."""
        read_header(Path(request.adapter.path) / "adapter_model.safetensors")
        return Review(None)

    async def publish(self, ref: AdapterRef, tensors: object) -> None:
        await self.load_adapter(ref)

    async def prefill_again(self, ref: AdapterRef, conversations: Sequence[Sequence[int]]) -> None:
        """An echo has nothing to prefill."""

    def stats(self) -> dict[str, int]:
        return {"num_running": self.num_running, "num_loaded": len(self._loaded)}

    async def aclose(self) -> None:
        self._loaded.clear()

    def loaded_adapters(self) -> tuple[str, ...]:
        """Return the names of the versions that are loaded."""
        return tuple(self._loaded)

    async def _admit(self, adapter: AdapterRef | None) -> None:
        if adapter is not None:
            await self.load_adapter(adapter)
            self.in_use[adapter.name] += 1
        self.num_running += 1

    def _leave(self, adapter: AdapterRef | None) -> None:
        self.num_running -= 1
        if adapter is not None:
            self.in_use[adapter.name] -= 1
            if self.in_use[adapter.name] == 0:  # a negative count stays visible: it would be a double release
                del self.in_use[adapter.name]

    async def _chunks(self, request: GenerateRequest, limit: int) -> AsyncIterator[TokenChunk]:
        words = Detokenizer(self.renderer, stop=request.sampling.stop)
        sampled = [*self._reply(request).encode(), END]
        for token in sampled[:limit]:
            await asyncio.sleep(self._delay_s)
            text = words.feed(token)
            yield TokenChunk((token,), text)
            if words.stopped:
                break
        tail, completion = words.finish("stop" if words.stopped else "length")
        yield TokenChunk((), tail, completion.finish_reason, completion)

    def _reply(self, request: GenerateRequest) -> str:
        ids = request.prompt_ids
        start = max((i for i, token in enumerate(ids) if token == _MARKS["user"]), default=-1)
        said = self.renderer.decode(ids[start + 1 :])[:_MAX_ECHO_CHARS]
        version = f"v{request.adapter.number}" if request.adapter else "base"
        return f"[{version}] You said: {said}"


def write_folder(out: Path, seed: str) -> None:
    """Write a PEFT LoRA folder with one tiny module and its moments; equal seeds give equal bytes."""
    out.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "echo",
        "r": _RANK,
        "lora_alpha": 2 * _RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["q_proj"],
        "inference_mode": True,
    }
    (out / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True))
    shapes = {f"{_MODULE}.lora_A.weight": (_RANK, _WIDTH), f"{_MODULE}.lora_B.weight": (_WIDTH, _RANK)}
    write_tensors(out / "adapter_model.safetensors", shapes, seed)
    moments = {f"{name}.{moment}": shape for name, shape in shapes.items() for moment in ("exp_avg", "exp_avg_sq")}
    write_tensors(out / "optimizer.safetensors", moments, f"moments of {seed}")


def write_tensors(path: Path, shapes: Mapping[str, tuple[int, int]], seed: str) -> None:
    """Write fp32 tensors in [-1, 1] drawn from ``seed``, in the safetensors format."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, shape in sorted(shapes.items()):
        count = shape[0] * shape[1]
        drawn = hashlib.shake_256(f"{seed}\n{name}".encode()).digest(2 * count)
        values = [int.from_bytes(drawn[2 * i : 2 * i + 2], "little") / 32767.5 - 1.0 for i in range(count)]
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + 4 * count]}
        data += struct.pack(f"<{count}f", *values)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def read_header(path: Path) -> dict[str, object]:
    """Return the safetensors header.

    Raises:
        AdapterCorrupt: there is no such file, or it is not a whole safetensors file.
    """
    try:
        raw = path.read_bytes()
        (size,) = struct.unpack_from("<Q", raw)
        header = json.loads(raw[8 : 8 + size])
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise AdapterCorrupt(f"{path.name} cannot be read: {error}") from error
    if len(raw) != 8 + size + end:
        raise AdapterCorrupt(f"{path.name} has {len(raw)} bytes; its header says {8 + size + end}")
    return header
