"""What a user can want: nine dimensions of style, each with a default value that a rule can check."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Style: TypeAlias = Mapping[str, str]
"""One value for every dimension."""

VALUES: Mapping[str, tuple[str, ...]] = {
    "length": ("normal", "short", "long"),
    "format": ("prose", "bullets", "numbered"),
    "emoji": ("none", "emoji"),
    "closing": ("none", "question"),
    "greeting": ("none", "greeting"),
    "example": ("none", "example"),
    "tone": ("plain", "casual", "formal"),
    "heading": ("none", "heading"),
    "signoff": ("none", "signoff"),
}
"""The values of every dimension; the first is the default."""

DEFAULT: Style = {dimension: values[0] for dimension, values in VALUES.items()}


@dataclass(frozen=True, slots=True, order=True)
class Preference:
    """One wanted value of one dimension; the default value means "back to normal"."""

    dimension: str
    value: str

    def __post_init__(self) -> None:
        if self.value not in VALUES.get(self.dimension, ()):
            raise ValueError(f"no such preference: {self.dimension}={self.value}; known: {dict(VALUES)}")

    @property
    def is_default(self) -> bool:
        """Tell whether this asks for the style that pocket has anyway."""
        return DEFAULT[self.dimension] == self.value

    def __str__(self) -> str:
        return f"{self.dimension}={self.value}"


PREFERENCES = tuple(Preference(dimension, value) for dimension, values in VALUES.items() for value in values)
NON_DEFAULT = tuple(preference for preference in PREFERENCES if not preference.is_default)


def styled(style: Style, told: Iterable[Preference]) -> dict[str, str]:
    """Return ``style`` after ``told``, oldest first: of two about one dimension the later wins."""
    return {**style, **{preference.dimension: preference.value for preference in told}}
