"""How a reply is drawn."""

from dataclasses import dataclass

from personalize.errors import InvalidParameter


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one reply is drawn.

    Args:
        temperature: 0 is greedy; at most 2.
        top_p: nucleus mass in (0, 1]; 1 keeps everything.
        top_k: keep the k likeliest tokens; 0 keeps everything.
        max_tokens: most tokens to generate; None means what fits the context and the service's cap.
        stop: at most 4 non-empty strings that end the reply; they are not part of it.
        seed: makes the draw repeatable for the same weights and batch shape.

    Raises:
        InvalidParameter: a value is outside its range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self):
        _check_number("temperature", self.temperature, 0.0, 2.0, "0 to 2")
        _check_number("top_p", self.top_p, 1e-6, 1.0, "above 0, at most 1")
        _check_integer("top_k", self.top_k, 0, 1_000_000)
        if self.max_tokens is not None:
            _check_integer("max_tokens", self.max_tokens, 1, 1_000_000)
        if self.seed is not None:
            _check_integer("seed", self.seed, -(2**63), 2**63 - 1)
        if len(self.stop) > 4 or any(not isinstance(text, str) or not text for text in self.stop):
            raise InvalidParameter("stop", self.stop, "at most 4 non-empty strings")


def _check_number(name: str, value: object, low: float, high: float, allowed: str) -> None:
    # NaN is in no range; an integer is compared as it is, because one of hundreds of digits is no float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidParameter(name, value, allowed)


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidParameter(name, value, f"a whole number from {low} to {high}")
