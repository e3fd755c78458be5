"""What only a GPU is asked for: a decode step over its traffic bound, replies over the better of two compiled peers."""

from functools import partial

from personalize.evaluation.bench.decode import RANK, step_side
from personalize.evaluation.bench.peers import generate
from personalize.evaluation.bench.rows import Row
from personalize.evaluation.bench.samples import elapsed_ms, in_turn
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.serving import drain, load_adapters, request
from personalize.evaluation.bench.subject import Subject
from personalize.evaluation.bench.throughput import measure_continuous
from personalize.model.base import BaseModel


def traffic_bound(base: BaseModel, num_adapters: int, rank: int) -> float:
    """Return the least that a memory-bound step can take over one without adapters: 1 + U r rho.

    rho is the share of one rank's weights in the base's, the output head included.
    """
    per_rank = sum(d_in + d_out for d_in, d_out in base.targets.values())
    weights = sum(d_in * d_out for d_in, d_out in base.targets.values()) + base.config.hidden_size * base.vocab_size
    return 1 + num_adapters * rank * per_rank / weights


def measure_traffic(subject: Subject, scale: Scale) -> list[Row]:
    """Measure a step of rows that all have adapters of their own, over no adapters, over the traffic bound."""
    engine = subject.engine(scale.batch)
    refs = load_adapters(engine, scale.batch, RANK)
    side = partial(step_side, subject, engine, scale=scale)
    samples = in_turn({"with": side(refs), "without": side([None] * scale.batch)}, scale.rounds)
    engine.close()
    bound = traffic_bound(subject.base, scale.batch, RANK)
    return [
        Row(
            figure=traffic_figure(scale.batch),
            value=samples.ratio("with", "without") / bound,
            n=scale.rounds * scale.steps,
            samples={**samples.medians(), "bound (x)": bound},
        )
    ]


def measure_compiled(subject: Subject, scale: Scale) -> list[Row]:
    """Measure equal rows without adapters: tokens/s over the better of static-cache generate and continuous batching.

    Transformers compiles ``generate`` over a static cache by itself where there is a GPU.
    """
    engine = subject.engine(scale.batch)
    prompts = [subject.prompt(scale.prompt, row) for row in range(scale.batch)]

    def ours() -> None:
        words = [("r", None, scale.prompt, scale.new_tokens, row) for row in range(scale.batch)]
        sequences = [engine.add(request(subject, *one)) for one in words]
        drain(engine)
        if any(sequence.num_new != scale.new_tokens for sequence in sequences):
            raise RuntimeError("a reply ended early")

    def static() -> None:
        generate(subject.stock, prompts, scale.new_tokens, cache_implementation="static")

    sides = {"ours": ours, "static": static}
    for side in sides.values():
        side()  # compiled and recorded before anything is timed
    samples = in_turn({name: partial(elapsed_ms, side, subject.device) for name, side in sides.items()}, scale.rounds)
    engine.close()
    (other,) = measure_continuous(subject, scale)
    continuous = other.samples["continuous"]
    return [
        Row(
            figure=compiled_figure(scale.batch),
            value=min(samples.ratio("static", "ours"), continuous / samples.median("ours")),
            n=scale.rounds,
            samples={**samples.medians(), "continuous": continuous},
        )
    ]


def traffic_figure(batch: int) -> str:
    return f"decode step, {batch} rows, {batch} distinct adapters r = {RANK}, over no adapters and the traffic bound"


def compiled_figure(batch: int) -> str:
    return (
        f"engine without adapters, {batch} equal rows, tokens/s over the better of static-cache generate "
        "and continuous batching"
    )
