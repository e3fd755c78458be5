"""Which recorded reply a user's message follows."""

from personalize.turns.canonical import canonical, prefix_key, prompt_key, recorded_id, reply_key
from personalize.turns.pairing import Paired, Pairing, TurnRef, Unpaired, pair

__all__ = [
    "Paired",
    "Pairing",
    "TurnRef",
    "Unpaired",
    "canonical",
    "pair",
    "prefix_key",
    "prompt_key",
    "recorded_id",
    "reply_key",
]
