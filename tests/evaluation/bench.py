"""What the tests of the benchmarks share: a tiny model in both builds, and tiny workloads."""

from functools import cache

from transformers import LlamaConfig

from personalize.evaluation.bench.scale import Scale
from personalize.evaluation.bench.subject import Subject, random_subject

SCALE = Scale(
    rounds=1, steps=2, batch=4, prompt=4, new_tokens=5, requests=5, reply=6, histories=(64,), users=2, recipe_rounds=0,
    stream_runs=1, stream_tokens=2, loads=(2,), load_replies=2, long_prompt=48, known=20, warm=3, store_users=200,
    store_s=0.4,
)  # fmt: skip


@cache
def tiny() -> Subject:
    """Return a model that answers in a millisecond, with a context that no stream of a test can fill."""
    config = LlamaConfig(
        vocab_size=8192, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
        initializer_range=0.2,
    )  # fmt: skip
    return random_subject("tiny", "tiny model", config, "cpu")
