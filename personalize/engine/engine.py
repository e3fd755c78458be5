"""The serving engine: one ``step`` schedules, runs one forward, and hands out what came of it.

Prompts and single steps alternate, so a running reply waits for at most one chunk of somebody's prompt. A sequence
ends on the adapter version it began with. What goes wrong for one sequence ends that sequence; a failed forward ends
the sequences that were in it; the engine goes on.

Not thread-safe: the thread that owns the device calls everything here.
"""

import logging
import random
from collections.abc import Callable
from collections.abc import Sequence as Items

from torch import Tensor

from personalize.config import EngineSettings, LoraSettings
from personalize.engine.prefixes import WarmPrefixes
from personalize.engine.reading import AdapterReader
from personalize.engine.runner import Runner
from personalize.engine.sampler import NOT_FINITE, sample
from personalize.engine.scheduler import Scheduler
from personalize.engine.sequences import Output, Phase, Sequence
from personalize.errors import (
    AdapterCorrupt,
    ContextTooLong,
    InvalidParameter,
    ModelError,
    Overloaded,
    PersonalizeError,
)
from personalize.model.bank import AdapterBank
from personalize.model.base import BaseModel
from personalize.model.lora import LoraTensors
from personalize.rendering.detokenizer import Detokenizer, Vocabulary
from personalize.types import AdapterRef, FinishReason, GenerateRequest, TokenChunk

log = logging.getLogger(__name__)


class Engine:
    """Generates for many requests at once on one base model.

    Attributes:
        bank: the adapter slots.
        runner: the forwards, with the row cache.
        scheduler: the queue and the rows.
        prefixes: conversations prefilled again after a publish.
    """

    def __init__(
        self,
        base: BaseModel,
        settings: EngineSettings | None = None,
        *,
        rank: int = LoraSettings().r,
        vocabulary: Vocabulary | None = None,
        on_ready: Callable[[], None] = lambda: None,
    ):
        """Args: rank: what slots are made for at first; vocabulary: None is the base's renderer."""
        settings = settings or EngineSettings()
        vocabulary = vocabulary or base.renderer
        assert vocabulary is not None, "a base without a renderer needs a vocabulary"
        self.base, self.settings = base, settings
        self._vocabulary: Vocabulary = vocabulary
        self.bank = AdapterBank(base, num_slots=settings.num_slots, max_rank=settings.max_lora_rank, rank=rank)
        self.runner = Runner(base, self.bank, max_num_seqs=settings.max_num_seqs, cuda_graphs=settings.cuda_graphs)
        self._reader = AdapterReader(base, max_rank=settings.max_lora_rank, on_ready=on_ready)
        self.scheduler = Scheduler(
            self.bank,
            self._reader,
            max_num_seqs=settings.max_num_seqs,
            max_batched_tokens=settings.max_num_batched_tokens,
        )
        self.prefixes = WarmPrefixes(
            base, self.bank, max_prefixes=settings.max_prefixes, max_bytes=settings.max_prefix_bytes
        )
        self._arrivals = 0
        self._prefilled_last = False

    # -- requests ---------------------------------------------------------------------------------------------

    def add(self, request: GenerateRequest) -> Sequence:
        """Put a request into the queue.

        Raises:
            ContextTooLong: the prompt leaves no room for a single token.
            InvalidParameter: the prompt is empty or holds an id outside the vocabulary.
            Overloaded: ``max_waiting`` requests wait already.
        """
        room = self.base.max_model_len - len(request.prompt_ids)
        if room < 1:
            limit = self.base.max_model_len - 1
            raise ContextTooLong(
                f"the prompt has {len(request.prompt_ids)} tokens; at most {limit} fit", param="messages"
            )
        if not request.prompt_ids or not 0 <= min(request.prompt_ids) <= max(request.prompt_ids) < self.base.vocab_size:
            raise InvalidParameter("prompt_ids", request.prompt_ids, f"one or more ids below {self.base.vocab_size}")
        if len(self.scheduler.waiting) >= self.settings.max_waiting:
            raise Overloaded(f"{len(self.scheduler.waiting)} requests wait already")
        sequence = Sequence(
            request=request,
            detokenizer=Detokenizer(self._vocabulary, request.sampling.stop),
            max_new=min(room, request.sampling.max_tokens or room),
            arrival=self._arrivals,
            rng=_draws(request.sampling.seed),
        )
        self._arrivals += 1
        self.prefixes.keep_only(sequence.user, sequence.adapter_name)
        self.scheduler.waiting.append(sequence)
        return sequence

    def cancel(self, sequence: Sequence) -> Output | None:
        """End a sequence wherever it is; None where it has ended already."""
        return self._end(sequence, "cancel") if sequence.phase is not Phase.ENDED else None

    def fail_all(self, error: PersonalizeError) -> list[Output]:
        """End everything that runs or waits with ``error``."""
        return self._fail([*self.scheduler.running(), *self.scheduler.waiting], error)

    # -- adapters ---------------------------------------------------------------------------------------------

    def warm(self, ref: AdapterRef) -> None:
        """Hint: read the version and put it into a spare slot, if there is one by then."""
        if ref.name not in self.bank:
            self.scheduler.warm[ref.name] = ref
            self._reader.start(ref)

    def prepare(self, ref: AdapterRef, tensors: LoraTensors) -> bool:
        """Copy a new version into a spare slot; without one do nothing: its first use will load it.

        Raises:
            AdapterError: the tensors cannot be served.
        """
        self.prefixes.keep_only(ref.user_id, ref.name)
        return self.bank.load(ref, tensors) is not None

    def unload(self, name: str) -> None:
        """Let go of a version; sequences that run on it end undisturbed."""
        self.scheduler.warm.pop(name, None)
        if not self.scheduler.waiting.has_name(name):
            self._reader.forget(name)
        self.prefixes.drop(name)
        self.bank.unload(name)

    def prefill_again(self, ref: AdapterRef, conversations: Items[Items[int]]) -> None:
        """Ask for conversations' keys and values under a loaded version, the first one first; see ``WarmPrefixes``."""
        for ids in conversations:
            self.prefixes.ask(ref, ids)

    # -- steps ------------------------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        return bool(self.scheduler.waiting or self.scheduler.warm or any(self.scheduler.rows))

    @property
    def is_blocked(self) -> bool:
        """Whether a step would find nothing to do before a folder has been read (then ``on_ready`` is called)."""
        return self.scheduler.is_blocked()

    def forget_unwanted(self) -> None:
        """Let go of what was read and nobody waits for; a step does so too, but without work none is due."""
        self.scheduler.forget_unwanted()

    def wait_ready(self, timeout_s: float) -> None:
        """Block until a folder has been read; for callers without ``on_ready``."""
        self._reader.wait(timeout_s)

    def step(self) -> list[Output]:
        """Admit, run one prefill or one decode forward, and return what it gave to each sequence."""
        outputs = [self._end_with(output) for output in self.scheduler.admit()]
        if len(self.prefixes):
            self._read_prefixes()
        decoding = self.scheduler.running(Phase.DECODE)
        prompts = [] if decoding and self._prefilled_last else self.scheduler.prompts()
        self._prefilled_last = bool(prompts)
        if prompts:
            outputs += self._run(self._prefill, prompts)
        elif decoding:
            outputs += self._run(self.runner.decode, decoding)
        return outputs

    def close(self) -> None:
        """Stop reading folders."""
        self._reader.close()

    def _run(self, forward: Callable[[Items[Sequence]], Tensor | None], sequences: list[Sequence]) -> list[Output]:
        try:
            logits = forward(sequences)
            if logits is None:
                return []
            tokens = sample(logits, sequences)
        except Exception as error:  # out of memory, a kernel's refusal: fatal for these sequences, not for the engine
            log.exception("a forward over %d sequences failed", len(sequences))
            return self._fail(sequences, ModelError(f"the forward pass failed: {type(error).__name__}"))
        return [self._advance(sequence, token) for sequence, token in zip(sequences, tokens, strict=True)]

    def _read_prefixes(self) -> None:
        """Give prompts that have not begun what is kept of their conversation under their version."""
        for sequence in self.scheduler.running(Phase.PREFILL):
            name = sequence.adapter_name
            if sequence.num_cached or name is None or not (found := self.prefixes.find(name, sequence.prompt_ids)):
                continue
            prefix, num_tokens = found
            try:
                self.runner.cache.copy_row(sequence.row, prefix.cache, num_tokens)
            except Exception:  # no memory for it: the prompt is computed as if nothing had been kept
                log.exception("a kept prefix could not be read")
                self.prefixes.drop(name)
                self.runner.cache.clear_row(sequence.row)
            else:
                sequence.num_cached = num_tokens

    def _prefill(self, sequences: Items[Sequence]) -> Tensor | None:
        limit = self.scheduler.max_batched_tokens
        if sequences[0].num_cached or len(sequences[0].prompt_ids) > limit:
            return self.runner.prefill_chunk(sequences[0], limit)
        return self.runner.prefill(sequences)

    def _advance(self, sequence: Sequence, token: int) -> Output:
        """Add a sampled token to a sequence; end it where that was the last one."""
        if token == NOT_FINITE:
            return self._fail([sequence], _not_finite(sequence))[0]
        try:
            text = sequence.detokenizer.feed(token)
            sequence.last_token = token
            sequence.num_new += 1
            sequence.phase = Phase.DECODE
            if sequence.detokenizer.stopped:
                return self._end(sequence, "stop", token, text)
            if sequence.num_new >= sequence.max_new:
                return self._end(sequence, "length", token, text)
        except Exception:
            log.exception("a reply could not be decoded")
            return self._fail([sequence], ModelError("the sampled ids could not be decoded"))[0]
        return Output(sequence, TokenChunk((token,), text))

    def _end(self, sequence: Sequence, reason: FinishReason, token: int | None = None, text: str = "") -> Output:
        tail, completion = sequence.detokenizer.finish(reason)
        self._leave(sequence)
        ids = () if token is None else (token,)
        return Output(sequence, TokenChunk(ids, text + tail, completion.finish_reason, completion))

    def _fail(self, sequences: Items[Sequence], error: PersonalizeError) -> list[Output]:
        return [self._end_with(Output(sequence, error=error)) for sequence in sequences]

    def _end_with(self, output: Output) -> Output:
        self._leave(output.sequence)
        return output

    def _leave(self, sequence: Sequence) -> None:
        row = sequence.row
        self.scheduler.leave(sequence)
        if row >= 0:
            self.runner.cache.clear_row(row)


def _draws(seed: int | None) -> random.Random:
    """Return a generator of its own for every seed from -2**63 on; ``Random`` takes -n for n."""
    return random.Random(seed if seed is None else seed % 2**64)


def _not_finite(sequence: Sequence) -> PersonalizeError:
    if sequence.request.adapter is not None:
        return AdapterCorrupt(f"{sequence.request.adapter.name}: with it the model's output is not finite")
    return ModelError("the model's output is not finite")
