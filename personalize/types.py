"""Plain values that cross borders: no tensors, no SQL, no web.

Everything here is frozen, compares by value and costs nothing to import.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

from personalize.errors import InvalidParameter

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = ("system", "user", "assistant", "tool")
FinishReason = Literal["stop", "length", "cancel"]
"""``stop``: the end token was sampled or a stop string was met; ``length``: max_tokens or the context; ``cancel``."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message: ``content`` is its visible text and nothing else."""

    role: str
    content: str


_THOUGHT = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)


def visible_text(text: str) -> str:
    """Return an assistant text without the closed think block that it may begin with."""
    thought = _THOUGHT.match(text)
    return text[thought.end() :] if thought else text


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
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidParameter(name, value, allowed)
    if not low <= value <= high:
        raise InvalidParameter(name, value, allowed)


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidParameter(name, value, f"a whole number from {low} to {high}")


ADAPTER_NAME = re.compile(r"u_(?P<user>[0-9a-f]{32})@(?P<number>[1-9][0-9]{0,17})-(?P<digest>[0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """The only identity of an adapter version that leaves a process: a name and where its folder lies.

    Name: ``u_<32 hex of the user's random id>@<number>-<16 hex of the content digest>``. A name is never
    used for other bytes.
    """

    name: str
    path: str

    def __post_init__(self):
        if not ADAPTER_NAME.fullmatch(self.name):
            raise InvalidParameter("adapter name", self.name, "u_<32 hex>@<number>-<16 hex>")

    @property
    def user_id(self) -> str:
        """The user's random id, 32 hex digits."""
        return self.name[2:34]

    @property
    def number(self) -> int:
        return int(self.name[35:].partition("-")[0])


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """What an engine needs to produce one reply: token ids in, token ids out."""

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = SamplingParams()
    adapter: AdapterRef | None = None


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """What one engine step adds to one sequence.

    Attributes:
        token_ids: the ids sampled in this step (empty in a last chunk that only reports the end).
        text: visible text that became final in this step; think blocks, end tokens and stop strings never appear.
        finish_reason: None while the sequence goes on.
        completion: with the last chunk only, the whole reply as it is recorded.
    """

    token_ids: tuple[int, ...] = ()
    text: str = ""
    finish_reason: FinishReason | None = None
    completion: "Completion | None" = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished reply y, as learning will see it.

    Attributes:
        token_ids: the *sampled* ids that count as the reply: up to and including a sampled end token; for a stop
            string, a length cap or a cancellation up to the last whole visible token, without an end token.
        mask: 1 where a token may be trained, 0 for think tokens; as long as ``token_ids``.
        text: the visible text.
        finish_reason: why it ended.
        stopped_by: ``end_token``, ``stop_string``, ``length`` or ``cancel``.
    """

    token_ids: tuple[int, ...]
    mask: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    stopped_by: Literal["end_token", "stop_string", "length", "cancel"]


@dataclass(frozen=True, slots=True)
class Experience:
    """One turn (x, y) with its follow-up o, ready to learn from.

    Attributes:
        turn_id: the turn's id in the store.
        messages: x as messages, ending with a user message; the hindsight block goes into that one.
        prompt_ids: x exactly as it was served.
        completion_ids: y exactly as it was sampled.
        completion_mask: 1 where a token of y is trained.
        follow_up: o, all user messages after y, joined by newlines.
        finish_reason: why y ended.
    """

    turn_id: str
    messages: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    completion_mask: tuple[int, ...]
    follow_up: str
    finish_reason: FinishReason = "stop"


@dataclass(frozen=True, slots=True)
class LearningState:
    """What the recipe remembers of a user between updates: turn ids, never text. It lives in a version's manifest.

    Attributes:
        block: turns whose follow-ups are told to the teacher, oldest first.
        replay: turns that may be trained again, oldest first.
        num_updates: updates since the adapter was new.
    """

    block: tuple[str, ...] = ()
    replay: tuple[str, ...] = ()
    num_updates: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"block": list(self.block), "replay": list(self.replay), "num_updates": self.num_updates}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> "LearningState":
        value = value or {}
        return cls(tuple(value.get("block", ())), tuple(value.get("replay", ())), int(value.get("num_updates", 0)))


@dataclass(frozen=True, slots=True)
class Lesson:
    """All that a learner gets to see of one user for one update.

    Attributes:
        experience: the new turn.
        memory: the turns that ``state`` names and that still exist (others are silently left out of the recipe).
        state: what the recipe remembered with the parent version.
        moments: the file of the optimizer's moments after the parent version, where it is not in the version's folder.
    """

    experience: Experience
    memory: tuple[Experience, ...] = ()
    state: LearningState = LearningState()
    moments: str | None = None


class Outcome(StrEnum):
    """The one final outcome of every accepted chat request (all but ``queued`` are final)."""

    QUEUED = "queued"
    APPLIED = "applied"
    SKIPPED_FIRST_MESSAGE = "skipped_first_message"
    SKIPPED_LEARNING_OFF = "skipped_learning_off"
    SKIPPED_TOOL_TURN = "skipped_tool_turn"
    SKIPPED_NO_CONSENT = "skipped_no_consent"
    SKIPPED_PAUSED = "skipped_paused"
    SKIPPED_TEMPORARY = "skipped_temporary"
    SKIPPED_ANONYMOUS = "skipped_anonymous"
    SKIPPED_NOT_OUR_REPLY = "skipped_not_our_reply"
    SKIPPED_AMBIGUOUS_REPLY = "skipped_ambiguous_reply"
    SKIPPED_EDITED_HISTORY = "skipped_edited_history"
    SKIPPED_LOW_SIGNAL = "skipped_low_signal"
    SKIPPED_PRAISE = "skipped_praise"
    SKIPPED_CAPPED_REPLY = "skipped_capped_reply"
    SKIPPED_TOO_LONG = "skipped_too_long"
    SKIPPED_DUPLICATE = "skipped_duplicate"
    SKIPPED_BUDGET = "skipped_budget"
    SKIPPED_NO_ADAPTER_FOR_BASE = "skipped_no_adapter_for_base"
    REJECTED_NONFINITE = "rejected_nonfinite"
    REJECTED_NORM = "rejected_norm"
    REJECTED_KL = "rejected_kl"
    REJECTED_LENGTH = "rejected_length"
    REJECTED_CANARY = "rejected_canary"
    SUPERSEDED = "superseded"
    CANCELLED_ROLLBACK = "cancelled_rollback"
    CANCELLED_ERASURE = "cancelled_erasure"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What one user's update came to.

    Attributes:
        turn_id: the turn it was about.
        outcome: ``applied``, ``skipped_low_signal``, ``skipped_too_long``, ``rejected_*`` or ``failed``.
        state: the recipe's new memory (with ``applied``; else the parent's).
        metrics: plain numbers: ``signal``, ``loss_first``, ``loss_last``, ``kl``, ``grad_norm``, ``delta_norm``,
            ``num_trained_tokens``, ``update_ms``, …
        tensors: inside the process only, the published weights as the runtime takes them; never pickled, may be None.
    """

    turn_id: str
    outcome: Outcome
    state: LearningState = LearningState()
    metrics: Mapping[str, float] = field(default_factory=dict)
    tensors: Any = field(default=None, compare=False, repr=False)


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
class ReviewRequest:
    """What a learner has to be told to judge a published version by what it says.

    Attributes:
        adapter: the version.
        told: follow-ups of the user's standing block, oldest first: the wishes that are no faults. None where they are
            not all known any more; then the version is held against absolute limits only.
    """

    adapter: AdapterRef
    told: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """What a version's replies to a few fixed questions came to.

    Attributes:
        breach: the first limit that was broken, in one word; None where the version passed.
        metrics: what was measured, by name.
    """

    breach: str | None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Window:
    """One slice of an update between two safe cuts; the last one carries the reports, in the order of the lessons."""

    reports: tuple[UpdateReport, ...] | None = None


# --- what callers hand to the service, and get back ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat request.

    Attributes:
        messages: the conversation, ending with a user message; as the client keeps it.
        user: external id of the person; None serves the base model and learns nothing.
        sampling: how replies are drawn.
        n: number of choices.
        learn: False keeps this message from teaching anything.
        temporary: neither reads the user's adapter nor records anything.
        version: "head", "base", or the number of one of the user's versions.
    """

    messages: tuple[Message, ...]
    user: str | None = None
    sampling: SamplingParams = SamplingParams()
    n: int = 1
    learn: bool = True
    temporary: bool = False
    version: int | Literal["head", "base"] = "head"


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """One finished answer.

    Attributes:
        text: the visible text.
        finish_reason: why it ended.
        request_id: names the chat request; its final learning outcome is kept under it.
        turn_id: the recorded turn; None where nothing is recorded (no user, temporary).
        adapter_version: number of the user's version that served it; None for the base model, and where the
            population adapter served.
        outcome: what became of this request's last user message as a follow-up; ``queued`` may still change.
        usage: token counts.
        population_version: number of the population adapter's version, where that served it.
    """

    text: str
    finish_reason: FinishReason
    request_id: str
    turn_id: str | None
    adapter_version: int | None
    outcome: Outcome
    usage: Usage
    population_version: int | None = None


@dataclass(frozen=True, slots=True)
class ReplyStart:
    """What is settled about a streamed answer before its first token; HTTP headers are made of it."""

    request_id: str
    adapter_version: int | None
    outcome: Outcome
    population_version: int | None = None


@dataclass(frozen=True, slots=True)
class ReplyChunk:
    """A piece of a streamed answer; the last one of each choice carries its whole ``Reply``.

    Attributes:
        start: with the first chunk of the stream only.
    """

    text: str = ""
    index: int = 0
    reply: Reply | None = None
    start: ReplyStart | None = None


class UserId(str):
    """A user's random id (32 lower-case hex digits), wherever a plain string would be an external id.

    Raises:
        InvalidParameter: it has another form.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> "UserId":
        if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{32}", value):
            raise InvalidParameter("user id", value, "32 lower-case hex digits")
        return super().__new__(cls, value)


@dataclass(frozen=True, slots=True)
class UserInfo:
    """A user as an operator sees it.

    Attributes:
        user_id: the random id, 32 hex digits; the external id is stored only as a keyed hash and cannot be listed.
    """

    user_id: str
    created_s: float
    learning: Literal["active", "paused"]
    consent: bool | None
    head: int | None
    num_turns: int
    num_updates: int


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One committed version of a user's adapter."""

    number: int
    parent: int | None
    digest: str
    base_digest: str
    rank: int
    num_bytes: int
    created_s: float
    is_head: bool
    pinned: bool
    origin: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class UpdateInfo:
    """One follow-up's way through the learning queue."""

    update_id: str
    request_id: str
    turn_id: str
    outcome: Outcome
    version: int | None
    created_s: float
    finished_s: float | None
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PopulationUse:
    """How one version of the population adapter concerns a person.

    Attributes:
        number: of the version.
        name: of the version.
        sources: SHA-256 of the logs that it was made from.
        in_sources: those of them that hold conversations of the person.
        num_conversations: of the person, in those.
        num_lessons: follow-ups of the person that moved the adapter.
        in_line: the person's own versions began with it.
    """

    number: int
    name: str
    sources: tuple[str, ...]
    in_sources: tuple[str, ...]
    num_conversations: int
    num_lessons: int
    in_line: bool


@dataclass(frozen=True, slots=True)
class ForgetReceipt:
    """What ``forget`` removed, as counts, and what it cannot undo.

    Attributes:
        population: versions of the population adapter that the user is part of, or that the user's versions began
            with; to be built anew from logs without the user.
    """

    num_turns: int
    num_versions: int
    num_updates: int
    num_bytes: int
    finished_s: float
    population: tuple[PopulationUse, ...] = ()


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


# --- conversations recorded elsewhere, adapters made again ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoggedLesson:
    """What became of one interaction of a recorded conversation.

    Attributes:
        outcome: ``queued``, or why it is not; a dry run says ``queued`` where the real one would queue.
        update_id: the update that will say what was learnt; None where nothing was queued.
    """

    outcome: Outcome
    update_id: str | None = None


UndoStatus = Literal["exact", "recomputed", "planned"]


@dataclass(frozen=True, slots=True)
class UndoReport:
    """What taking back one turn came to.

    Attributes:
        status: ``exact``: a kept version that has learnt from just the other turns is the head again, bit for bit.
            ``recomputed``: the later turns were learnt once more, so the result is not the adapter that would have
            been. ``planned``: a dry run; nothing was changed.
        replaced: number of the head that had learnt from the turn.
        start: number of the newest version that has learnt nothing but what stays; None is the beginning.
        version: number of the new head; None where the beginning serves again, and in a dry run.
        num_turns: later turns that were, or would be, learnt once more; 0 where the undo is exact.
        outcomes: how many of them came to which outcome.
    """

    user_id: str
    turn_id: str
    status: UndoStatus
    replaced: int
    start: int | None = None
    version: int | None = None
    num_turns: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)


RebaseStatus = Literal[
    "rebuilt", "planned", "current", "no_adapter", "refused", "imported", "no_turns", "nothing_learnt"
]


@dataclass(frozen=True, slots=True)
class RebaseReport:
    """What a rebuild of one user's adapter for another base came to.

    Attributes:
        status: ``rebuilt``; ``planned`` in a dry run. Nothing was changed where the user has a head for this base
            or has begun anew on it (``current``), has none for any base (``no_adapter``), is paused or has not
            agreed (``refused``), where the head was made from an imported folder (``imported``), where no turn is
            kept that can be told to this base (``no_turns``), or where no turn taught this base anything
            (``nothing_learnt``).
        source: number of the other base's head that is rebuilt.
        version: number of the new head.
        num_turns: kept turns that were, or would be, learnt from.
        num_lost: updates of the head that cannot be repeated: the turn is pruned, or does not fit this base.
        outcomes: how many of the turns came to which outcome.
    """

    user_id: str
    status: RebaseStatus
    source: int | None = None
    version: int | None = None
    num_turns: int = 0
    num_lost: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)


# --- the population adapter ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LogSource:
    """One log that a population adapter was made from.

    Attributes:
        digest: SHA-256 of the file, hex; its path is not kept.
        num_broken: lines that no conversation could be read from, or whose conversation this model cannot be shown.
        num_conversations: those that were used.
        num_people: who held them.
        num_lessons: follow-ups that moved the adapter.
    """

    digest: str
    num_bytes: int
    num_lines: int
    num_broken: int
    num_conversations: int
    num_people: int
    num_lessons: int


@dataclass(frozen=True, slots=True)
class PopulationInfo:
    """One version of the population adapter: the manifest of what it was made from.

    Attributes:
        name: of the version.
        num_people: people whose conversations were used.
        num_forgotten: those of them who were forgotten since.
        is_head: it serves who has not begun, where the setting ``population`` is on.
        kept: its weights still exist.
    """

    number: int
    name: str
    base_digest: str
    created_s: float
    sources: tuple[LogSource, ...]
    num_people: int
    num_forgotten: int
    is_head: bool
    kept: bool


@dataclass(frozen=True, slots=True)
class PopulationReport:
    """What building the population adapter from logs came to.

    Attributes:
        version: number of the new version; None in a dry run, where nothing was learnt, and after a breach.
        sources: one per log, in their order.
        first_broken: the first few broken lines, as ``<place of the log> line <number>: <reason>``.
        num_people: people whose conversations were used.
        num_anonymous: conversations that name nobody.
        num_left_out: conversations of those who were to be left out.
        outcomes: how many follow-ups came to which outcome; in a dry run ``queued`` counts what would be learnt from.
        breach: why the review of what it says kept it from being published.
    """

    version: int | None
    sources: tuple[LogSource, ...]
    first_broken: tuple[str, ...]
    num_people: int
    num_anonymous: int
    num_left_out: int
    outcomes: Mapping[str, int]
    breach: str | None = None
