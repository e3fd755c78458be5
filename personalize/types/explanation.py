"""What one applied update did: signals per token, drift, norms, and replies before and after."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from personalize.types.lessons import Experience
from personalize.types.versions import AdapterRef


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """What a learner has to be told to say what one applied update did.

    Attributes:
        experience: the turn that the update was about, with its follow-up.
        block: turns whose follow-ups the teacher was told, oldest first; empty where not all of them still exist.
        adapter: the version that the update made.
        parent: the version that it began from; None for the base model.
    """

    experience: Experience
    block: tuple[Experience, ...]
    adapter: AdapterRef
    parent: AdapterRef | None = None


@dataclass(frozen=True, slots=True)
class TokenSignal:
    """One sampled token of a reply, and what an update did to it; every number is in nats.

    Numbers are None where the token was not trained (a thought), ``advantage`` also where the teacher cannot be asked
    again because a follow-up that it was told is gone.

    Attributes:
        token_id: the id that was sampled.
        text: what the token adds to the reply's text; empty for an end token, and for all but the last token of a
            character that is made of several.
        ends: it is an end token: pushed up, replies end here more often.
        log_prob: its log-probability under the parent.
        change: its log-probability under the version minus ``log_prob``: above 0 the update pushed it up.
        advantage: its log-probability under the teacher minus ``log_prob``: which way the update was pulled.
        hindsight_kl: KL(parent told the follow-up ‖ parent) at its position: what the gate looks at.
        kl: KL(version ‖ parent) at its position.
    """

    token_id: int
    text: str = ""
    ends: bool = False
    log_prob: float | None = None
    change: float | None = None
    advantage: float | None = None
    hindsight_kl: float | None = None
    kl: float | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """How far an update moved the distribution over one reply: sums over its trained positions, nats per reply.

    Attributes:
        to_parent: KL(version ‖ parent).
        to_base: KL(version ‖ base).
        before: KL(parent ‖ base), what ``to_base`` was before the update.
        num_tokens: trained positions that were summed.
    """

    to_parent: float
    to_base: float
    before: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Norms:
    """Frobenius norms of scaling·B·A over all modules.

    Attributes:
        change: of the version minus the parent.
        parent: 0 for the base model.
    """

    change: float
    parent: float
    version: float


@dataclass(frozen=True, slots=True)
class UpdateEffect:
    """What an update did to the reply that it was about, measured on the stored versions.

    Attributes:
        tokens: one per sampled token, in order.
        teacher: whose weights were told the block: "base", "live" or "scaled".
        recipe: name of the recipe whose teacher that is.
    """

    tokens: tuple[TokenSignal, ...]
    drift: Drift
    norms: Norms
    teacher: str
    recipe: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Greedy replies to one prompt, as visible text.

    Attributes:
        prompt: the last user message of the prompt.
        base: by the base model.
        before: by the parent.
        after: by the version.
    """

    prompt: str
    base: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one applied update did, and what it was made from.

    Attributes:
        version: number that the update made.
        parent: the user's number that it began from; None for the base model or the population adapter.
        question: the last user message before the reply.
        follow_up: what the user wrote after the reply.
        told: follow-ups that the teacher was told, oldest first, as far as they still exist.
        num_told_gone: follow-ups that it was told and that no longer exist; above 0 no token has an ``advantage``.
        effect: signals per token, drift and norms.
        probe: replies before and after.
        metrics: what the update itself reported when it ran.
    """

    update_id: str
    turn_id: str
    version: int
    parent: int | None
    question: str
    follow_up: str
    told: tuple[str, ...]
    num_told_gone: int
    effect: UpdateEffect
    probe: Probe
    metrics: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the names of the attributes."""
        return asdict(self)
