"""Messages to token ids and back: the only road, for serving and for learning."""

from personalize.rendering.detokenizer import Detokenizer, cut
from personalize.rendering.hindsight import with_block
from personalize.rendering.messages import conversation, parse_messages
from personalize.rendering.renderer import Renderer, shared_prefix

__all__ = ["Detokenizer", "Renderer", "conversation", "cut", "parse_messages", "shared_prefix", "with_block"]
