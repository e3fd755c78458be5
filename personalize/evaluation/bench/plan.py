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
    "zipf": throughput.measure_zipf,
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
"""By name; a part says which of them run, and in which order."""


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


_GOALS = ("users", "update", "load", "streams", "staggered", "first-token", "throughput", "distinct", "swap", "cold")
_LONG = Scale(rounds=1, new_tokens=16, requests=20, alone=2, recipe_rounds=0, loads=(1,), load_replies=2)
"""One round: each side of these lasts ten seconds or more."""
_QUICK = Scale(rounds=2, new_tokens=16, distinct=(16,))
_POCKET = Scale(rounds=3, histories=(256,))
_FEW = Scale(rounds=3, loads=(1, 4), load_replies=2)

SIZES: Mapping[str, Sequence[Part]] = {
    "short": (
        Part("135m", ("users", "update", "load", "memory", "streams", "staggered"), _LONG),
        Part("135m", ("first-token", "throughput", "distinct", "swap", "cold"), _QUICK),
        Part("pocket", ("overload", "update", "distinct"), _POCKET),
    ),
    "full": (
        Part("135m", [name for name in BENCHMARKS if name != "store"], Scale()),
        Part("pocket", [*BENCHMARKS], Scale()),
        Part("0.6b", (*_GOALS, "prefill", "batches"), _FEW),
    ),
}
"""The short size has what has a goal, on the model that the goal names, as far as eight minutes on two cores go.

Seconds there: m follow from what was measured with more rounds or tokens (docs/benchmarks), e are estimates.

    start, 135m loaded     14 e   of them 6 for imports, which the recorded wall time leaves out
    users                  61 m   14 before, 30 together, 17 for two users one after another, ours and the peer's
    update                 65 m   16 before (once for all: the canaries), 16 at 256 tokens; e 33 at 1,024
    load, 1 stream         62 e   two replies without, two beside their updates; 4 streams 110, 16 streams 350
    memory                 58 e   200 adapters 14, 50 batches of four users 30, model loaded again 10
    streams                50 e   five runs, of an update of 5 s and the decode steps between its windows
    staggered              33 e   half of the tokens of what took 49 a round
    first-token            18 e   two rounds of three prefills of 1,024 tokens
    throughput             17 m
    distinct               13 m   16 adapters against none
    swap, cold             10 e
    pocket: overload       22 e   three limits of six seconds
    pocket: update         15 e   with the default recipe's whole update
    pocket: distinct        4 e   1, 4 and 16 adapters
    pictures                4 e
    together              446     7.4 minutes

What is longest comes first, so that a slower machine, where the time is over earlier, is not held up by what it began
last. Three goals need more than there is room for: the load of 4 and 16 streams and the store of a million users (60 e;
its users' adapters are never used, so it is measured with the smallest ones) belong to the full size, and so does all
that has no goal, the default recipe's whole update of 135m too (200 e). A single benchmark has no limit:
``make bench ARGS='--only load --model 135m --loads 4,16'``, ``make bench ARGS='--only store --model pocket'``.
"""
