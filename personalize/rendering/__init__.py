"""Messages to token ids and back: the only road, for serving and for learning."""

from personalize.rendering.detokenizer import Detokenizer, cut
from personalize.rendering.hindsight import with_block
from personalize.rendering.messages import conversation, parse_conversation, parse_messages
from personalize.rendering.recorded import as_sampled
from personalize.rendering.renderer import Renderer, shared_prefix

__all__ = [
    "Detokenizer",
    "Renderer",
    "as_sampled",
    "conversation",
    "cut",
    "parse_conversation",
    "parse_messages",
    "shared_prefix",
    "with_block",
]
