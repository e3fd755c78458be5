"""Decode steps of static shape, recorded once and replayed: CUDA graphs.

A step's shape is its number of rows (the runner's buckets), its number of cache places (buckets of this module) and
whether anybody has an adapter. Everything that a recording reads lies at addresses that stay: tokens, positions and the
mask of active rows in buffers of this module, the row cache, and the bank's ``decode_rows``. Storage that has grown has
moved; what was recorded over it is let go.

The first step of a shape runs eagerly, which also compiles and warms up what it needs. The second one is recorded, and
its replay is compared with the same step run eagerly; from the third on it is replayed. Where recording fails or does
not agree, steps run eagerly for good.

Shape letters: N batch rows, H key/value heads, D head size, V vocabulary.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from personalize.engine.row_cache import RowCache
from personalize.model.bank import AdapterBank
from personalize.model.base import BaseModel

log = logging.getLogger(__name__)

MAX_RECORDINGS = 32
"""Shapes that are kept; the least recently used one goes first."""
_FIRST_KEYS = 256
_TOLERANCE = {torch.float32: 1e-3}
_ROUGH = 0.05
"""Largest difference between a replay and the eager step, over the largest logit; the second one for short types."""

Work = Callable[[], Tensor]


class Recording(Protocol):
    """A recorded step."""

    def replay(self) -> Tensor:
        """Run it again on what its inputs hold now; the tensor is the same each time and is overwritten."""
        ...


Record = Callable[[Work], Recording]
"""Records the kernels of a piece of work, without running them."""


class Shape(NamedTuple):
    num_rows: int
    num_keys: int
    has_adapters: bool


@dataclass(slots=True)
class _Known:
    """A shape that has been run, and what it was run over; ``recording`` comes with its second step."""

    adapters: object
    keys: Tensor | None
    recording: Recording | None = None


class EveryRow:
    """One new token for each of the rows 0 … N-1, in a fixed number of operations.

    A row that is not active gets back what it holds, so that nothing of it changes.
    """

    def __init__(self, positions: Tensor, active: Tensor, num_keys: int):
        """Args: positions [N]; active [N] of bool; num_keys: places to read."""
        self._rows = torch.arange(len(positions), device=positions.device)
        self._positions, self._active, self._num_keys = positions, active[:, None, None], num_keys

    def place(self, stored: Tensor, new: Tensor) -> Tensor:
        """See ``Placement.place``."""
        held = stored[self._rows, :, self._positions]
        stored[self._rows, :, self._positions] = torch.where(self._active, new[:, :, 0], held)
        return stored[: len(self._rows), :, : self._num_keys]


class DecodeGraphs:
    """Runs decode steps, by replaying them where it can."""

    def __init__(self, base: BaseModel, bank: AdapterBank, cache: RowCache, record: Record | None = None):
        """Args: record: None records CUDA graphs."""
        self._base, self._bank, self._cache = base, bank, cache
        self._record: Record | None = record or CudaRecorder()
        self._inputs: dict[int, Tensor] = {}
        self._known: OrderedDict[Shape, _Known] = OrderedDict()

    def step(
        self, tokens: Sequence[int], positions: Sequence[int], slots: Sequence[int], rows: Sequence[int]
    ) -> Tensor:
        """Run one token of each row and return the logits [N, V], which the next step may overwrite.

        Args:
            tokens, positions, slots: one per row of the batch; anything valid for rows that do not decode.
            rows: the rows that decode, ascending.
        """
        num_rows = len(tokens)
        num_keys = key_bucket(max(positions) + 1, self._cache.max_length)
        self._cache.reserve(num_rows, num_keys)
        adapters = self._bank.decode_rows(slots)
        inputs = self._filled(tokens, positions, rows)

        def work() -> Tensor:
            self._cache.placement = EveryRow(inputs[1], inputs[2].bool(), num_keys)
            masks = self._base.mask_form.masks(inputs[1, :, None], num_keys, self._base.dtype)
            hidden = self._base.hidden(inputs[0, :, None], inputs[1, :, None], masks, self._cache, adapters)
            return self._base.head(hidden[:, -1])

        if self._record is None:
            return work()
        known = self._find(Shape(num_rows, num_keys, adapters is not None), adapters)
        if known is None:
            return work()
        return known.recording.replay() if known.recording is not None else self._recorded(known, work, rows)

    def _filled(self, tokens: Sequence[int], positions: Sequence[int], rows: Sequence[int]) -> Tensor:
        """Return the inputs [3, N] where they always lie: tokens, positions, 1 where a row decodes."""
        num_rows, decoding = len(tokens), set(rows)
        if num_rows not in self._inputs:
            self._inputs[num_rows] = torch.empty(3, num_rows, dtype=torch.int64, device=self._base.device)
        active = [int(row in decoding) for row in range(num_rows)]
        return self._inputs[num_rows].copy_(torch.tensor([list(tokens), list(positions), active]))

    def _find(self, shape: Shape, adapters: object) -> _Known | None:
        """Return what is known of a shape, or None where this is its first step over the storage of now."""
        keys = self._cache.rows[0].keys
        known = self._known.get(shape)
        if known is not None and known.adapters is adapters and known.keys is keys:
            self._known.move_to_end(shape)
            return known
        moved = known is not None and known.adapters is not adapters  # the bank's storage, under all recordings
        for other, one in list(self._known.items()):
            if one.keys is not keys or (moved and other.has_adapters):
                del self._known[other]
        self._known[shape] = _Known(adapters, keys)
        if len(self._known) > MAX_RECORDINGS:
            self._known.popitem(last=False)
        return None

    def _recorded(self, known: _Known, work: Work, rows: Sequence[int]) -> Tensor:
        """Run the step eagerly, record it, and keep the recording if its replay says the same."""
        assert self._record is not None
        eager = work()  # twice the same step: it writes the same keys and values to the same places
        try:
            recording = self._record(work)
            difference = _difference(recording.replay(), eager, rows)
        except Exception as error:
            self._give_up(f"a decode step cannot be recorded: {type(error).__name__}: {error}")
            return eager
        if difference > _TOLERANCE.get(eager.dtype, _ROUGH):
            self._give_up(f"a replayed decode step differs from the eager one by {difference:.2g}")
        else:
            known.recording = recording
        return eager

    def _give_up(self, reason: str) -> None:
        log.warning("decode steps run eagerly from now on: %s", reason)
        self._record = None
        self._known.clear()


class CudaRecorder:
    """Records CUDA graphs that share one pool of memory."""

    def __init__(self):
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Work) -> "CudaRecording":
        graph = torch.cuda.CUDAGraph()
        # Other threads may allocate meanwhile; only this one is being recorded.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = work()
        return CudaRecording(graph, output)


class CudaRecording:
    """A graph and the tensor that it writes; while the tensor is held, no other graph of the pool takes its place."""

    def __init__(self, graph: torch.cuda.CUDAGraph, output: Tensor):
        self._graph, self._output = graph, output

    def replay(self) -> Tensor:
        self._graph.replay()
        return self._output


def key_bucket(num_keys: int, max_length: int) -> int:
    """Round up to a power of two, from 256 on: every length of its own would be a recording of its own."""
    return min(max(_FIRST_KEYS, 1 << (num_keys - 1).bit_length()), max_length)


def _difference(replayed: Tensor, eager: Tensor, rows: Sequence[int]) -> float:
    """Return the largest difference over the largest logit, in the rows that decode; equal NaN is no difference."""
    index = torch.tensor(list(rows), device=eager.device)
    mine, theirs = (tensor[index].float().nan_to_num(0.0, 1e30, -1e30) for tensor in (replayed, eager))
    return float((mine - theirs).abs().max() / theirs.abs().max().clamp_min(1e-6))
