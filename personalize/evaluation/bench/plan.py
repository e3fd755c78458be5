"""Which measurements run on which model, in the short size and in the full one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from personalize.evaluation.bench import (
    decode,
    load,
    many_updates,
    memory,
    overload,
    peft_serving,
    prefill,
    publish,
    store,
    streams,
    throughput,
    update,
)
from personalize.evaluation.bench.rows import Row
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.subject import Subject

Measure = Callable[[Subject, Scale], list[Row]]

BENCHMARKS: Mapping[str, Measure] = {
    "distinct": decode.measure_distinct,
    "throughput": throughput.measure_equal,
    "staggered": throughput.measure_staggered,
    "update": update.measure,
    "users": many_updates.measure,
    "streams": streams.measure,
    "load": load.measure,
    "overload": overload.measure,
    "swap": publish.measure_swap,
    "cold": publish.measure_cold,
    "first-token": publish.measure_first_token,
    "memory": memory.measure,
    "prefill": prefill.measure,
    "mixes": decode.measure_mixes,
    "ranks": decode.measure_ranks,
    "batches": decode.measure_batches,
    "peft": peft_serving.measure,
    "continuous": throughput.measure_continuous,
    "store": store.measure,
}
"""By name, in the order in which they run: what has a goal comes first."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is measured on one model.

    Attributes:
        model: key of ``subject.SHAPES``.
        names: keys of ``BENCHMARKS``.
    """

    model: str
    names: Sequence[str]
    scale: Scale


_GOALS = ("distinct", "throughput", "staggered", "update", "users", "streams", "load", "swap", "cold", "first-token")
_SHORT = Scale(rounds=3, histories=(256,), loads=(1, 4), store_users=10_000, store_s=6.0)
_SHORT_135M = Scale(rounds=2, new_tokens=32, requests=20, histories=(256,), recipe_rounds=0, loads=(1,), load_replies=2)
_FEW = Scale(rounds=3, loads=(1, 4), load_replies=2)

SIZES: Mapping[str, Sequence[Part]] = {
    "short": (
        Part("135m", _GOALS, _SHORT_135M),
        Part("pocket", [name for name in BENCHMARKS if name != "memory"], _SHORT),
        Part("135m", ("memory",), _SHORT_135M),
    ),
    "full": (
        Part("135m", [name for name in BENCHMARKS if name != "store"], Scale()),
        Part("pocket", [*BENCHMARKS], Scale()),
        Part("0.6b", (*_GOALS, "prefill", "batches"), _FEW),
    ),
}
"""The store does not care whose adapters it keeps: it is measured with the smallest ones."""
