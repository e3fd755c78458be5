"""The embedded model as package data: weights, tokenizer, chat template, model card. No code but its path."""

from pathlib import Path


def path() -> Path:
    """Return the folder of the shipped model, which ``from_pretrained`` opens."""
    return Path(__file__).parent / "model"
