"""Reading prompts: with an adapter over without, by length."""

from personalize.evaluation.bench.publish import first_token_ms
from personalize.evaluation.bench.rows import Row
from personalize.evaluation.bench.samples import in_turn
from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.serving import load_adapters
from personalize.evaluation.bench.subject import Subject

_PARTS = (16, 4, 1)


def measure(subject: Subject, scale: Scale) -> list[Row]:
    """Measure the first token of prompts of three lengths, the longest one that of ``scale.long_prompt``."""
    longest = min(scale.long_prompt, subject.base.max_model_len - 8)
    lengths = [max(1, longest // part) for part in _PARTS]
    engine = subject.engine(1)
    (ref,) = load_adapters(engine, 1)
    sides = {}
    for length in lengths:
        sides[f"{length} with"] = lambda length=length: first_token_ms(subject, engine, ref, length)
        sides[f"{length} without"] = lambda length=length: first_token_ms(subject, engine, None, length)
    samples = in_turn(sides, scale.rounds)
    engine.close()
    return [
        Row(
            figure=f"prefill of {length} tokens with an adapter over without",
            value=samples.ratio(f"{length} with", f"{length} without"),
            n=scale.rounds,
            samples={word: samples.median(f"{length} {word}") for word in ("with", "without")},
            curve=("prefill with an adapter over without", length),
        )
        for length in lengths
    ]
