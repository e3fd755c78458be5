"""How one follow-up becomes one update: named choices, each swappable alone."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from personalize.errors import InvalidParameter

TeacherModelKind = Literal["base", "live", "scaled"]
Objective = Literal["forward_kl", "reverse_kl", "top_k", "sampled"]
TeacherPrefix = Literal["own", "live"]

_RANGES = (
    (("teacher_scale", "lr", "reversal_share", "moot_share_back"), 0.0, 1.0),
    (("max_canary_loss", "max_review_rise", "max_review_sameness", "min_review_kept"), 0.0, 1.0),
    (("beta1", "beta2"), 0.0, 0.999_999),
    (("eps",), 1e-16, 1.0),
    (("enough_nats", "max_grad_norm", "max_delta_norm", "max_reply_kl"), 0.0, 1e9),
    (("max_review_length_ratio",), 1.0, 1000.0),
    (("max_review_entropy",), 0.0, 100.0),
)
_COUNTS = (
    ("num_steps", 1, 64), ("replay", 0, 256), ("rehearse", 0, 64), ("rehearse_tokens", 1, 4096), ("block_size", 1, 64),
    ("top_k", 1, 1_000_000),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of hindsight self-distillation. The default is the bounded arm; see docs/decisions.

    Args:
        teacher: whose weights read the block: "base" (adapter off: bounded by "the base model, told"), "live" (the
            paper's: unbounded), "scaled" (adapter at ``teacher_scale``: a trust region).
        teacher_scale: factor on the adapter in a "scaled" teacher, 0 to 1.
        teacher_prefix: what a "base" teacher reads before the block: its "own" keys of the conversation, or the "live"
            model's, which the student has read anyway: an approximation that spares a pass over the prompts.
        objective: what is minimised on the reply's positions.
        tolerance: a position counts as far as the reply before it is one that the teacher could have given, tokens up
            to this many times less likely than its first choice included; None counts every position alike.
        top_k: support of the "top_k" objective.
        centred, clip: how the "sampled" objective treats its advantages.
        gate_nats: a follow-up enters the block when hindsight moves some token of the reply by at least this KL;
            None lets every follow-up in.
        reach_nats: it enters only if it would also have made the base's answers to other questions less likely by at
            least this (see ``learner.probes``): a wish does, a new question does not; None asks for no more than
            ``gate_nats``.
        reversal_share: or if it takes back at least this share, in one token, of what a standing follow-up takes from
            such an answer: a wish to be plain does, small talk weakens a wish only a little.
        moot_share: a standing follow-up leaves the block when a new one enters and one of the two does less than this
            share beside the other of what it does alone to the base's answers to other questions: it has been said
            again or taken back, or keeps the new one from being heard. None, or without ``reach_nats``: all stand.
        moot_share_back: that share where the new one has entered only because it takes something back: a wish to be
            plain does not drown out what stands, it halves it.
        block_size: most follow-ups that the teacher is told together; 1 tells only the newest.
        lapse_nats: a turn whose follow-up did not enter is trained on, under the standing block, if its reply went
            against that by at least this, in nats per reply; 0 trains on every turn, None on none of them.
        replay: earlier informative turns of the same user trained along, the newest first.
        rehearse: everyday questions that the told teacher answers for every update, whose answers are trained along.
        rehearse_tokens: most tokens of such an answer.
        num_steps: most optimizer steps per update, K.
        enough_nats: a reply is left out of the further steps once it is no further from the teacher than this, in
            nats per reply, and a user's steps end, and may never begin, where none is left; 0, or the "sampled"
            objective, which is no distance, takes all steps with all replies.
        full_step_nats: a step has the whole rate where a user's replies are at least this far from the teacher, in
            nats per token; where they are nearer, the rate is lower by the root of that: a divergence is quadratic in
            the way to go, and Adam alone takes steps of one length. None, or the "sampled" objective: always whole.
        lr, beta1, beta2, eps: Adam's.
        keep_moments: store Adam's moments beside every version and begin with the parent's, not with none.
        max_grad_norm: per-user clip of the gradient's norm.
        max_delta_norm: largest Frobenius norm of the change of scaling·B·A over all modules in one update; absolute,
            because a new adapter is zero and anything is infinitely much of it.
        max_reply_kl: largest KL, in nats per reply, from the new version to its parent on the new turn's reply; per
            reply, because "one sentence, please" rightly moves one token, the end, by very much.
        max_canary_loss: largest share of the canaries' tokens that the new version may find implausible: a wish costs
            a token here and there, a broken adapter nearly every one.
        max_review_rise: by how much a share of what a version says (blank, cut or echoing replies, repeated or strange
            tokens) may lie above the told base's: a style adds a phrase, a collapse takes over the reply, and
            one odd reply in four is let pass.
        max_review_sameness: the same for what two replies have in common: more, because one short fact between a
            greeting and a sign-off is half of it ornament, rightly.
        max_review_length_ratio: longest and, inverted, shortest reply against the told base's: five facts or one are
            both a style.
        max_review_entropy: rise of the mean entropy over the told base's, in nats: e times as many tokens
            in question.
        min_review_kept: smallest share of the plain answers' words that must survive: some go with another wording,
            most of them only with another answer.
    """

    name: str = "rolling-block"
    teacher: TeacherModelKind = "base"
    teacher_scale: float = 0.7
    teacher_prefix: TeacherPrefix = "own"
    objective: Objective = "forward_kl"
    tolerance: float | None = 10.0
    top_k: int = 20
    centred: bool = False
    clip: float | None = None
    gate_nats: float | None = 0.0
    reach_nats: float | None = 5.5
    reversal_share: float = 0.3
    moot_share: float | None = 0.33
    moot_share_back: float = 0.5
    block_size: int = 4
    lapse_nats: float | None = 0.0
    replay: int = 3
    rehearse: int = 4
    rehearse_tokens: int = 96
    num_steps: int = 8
    enough_nats: float = 0.1
    full_step_nats: float | None = 0.03
    lr: float = 3e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    keep_moments: bool = False
    max_grad_norm: float = 1.0
    max_delta_norm: float = 50.0
    max_reply_kl: float = 200.0
    max_canary_loss: float = 0.5
    max_review_rise: float = 0.3
    max_review_sameness: float = 0.6
    max_review_length_ratio: float = 6.0
    max_review_entropy: float = 1.0
    min_review_kept: float = 0.6

    def __post_init__(self):
        for names, low, high in _RANGES:
            for name in names:
                _within(name, getattr(self, name), low, high)
        for name, low, high in _COUNTS:
            _within(name, getattr(self, name), low, high, whole=True)
        for name, low, high in (
            ("tolerance", 1.0, 1e9),
            ("clip", 0.0, 1e9),
            ("gate_nats", 0.0, 1e9),
            ("reach_nats", 0.0, 1e9),
            ("moot_share", 0.0, 1.0),
            ("lapse_nats", 0.0, 1e9),
            ("full_step_nats", 1e-9, 1e9),
        ):
            if getattr(self, name) is not None:
                _within(name, getattr(self, name), low, high)
        for name, kind in (("teacher", TeacherModelKind), ("objective", Objective), ("teacher_prefix", TeacherPrefix)):
            if getattr(self, name) not in get_args(kind):
                raise InvalidParameter(name, getattr(self, name), ", ".join(get_args(kind)))
        if self.teacher_prefix == "live" and self.teacher != "base":
            raise InvalidParameter("teacher_prefix", "live", f"own, where the teacher is {self.teacher}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Recipe":
        """Return the default recipe with ``values`` instead, such as a settings file holds.

        Raises:
            InvalidParameter: there is no such field, or its value is out of range.
        """
        known = sorted(field.name for field in fields(cls))
        for name in values:
            if name not in known:
                raise InvalidParameter("recipe", name, ", ".join(known))
        return cls(**values)

    def always(self) -> "Recipe":
        """Return this recipe without its gate: a step on every follow-up, as the paper takes it."""
        return replace(self, name=f"{self.name}-always", gate_nats=None)

    @property
    def max_memory(self) -> int:
        """Turns that the state may name for replay; a few more than one update uses, should some be erased."""
        return 2 * self.replay


def _within(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> None:
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise InvalidParameter(name, value, f"{'a whole number from ' if whole else ''}{low} to {high}")


PAPER = Recipe(
    name="paper-faithful", teacher="live", objective="sampled", centred=True, gate_nats=None, block_size=1, replay=0,
    rehearse=0, num_steps=1, lr=1e-3, tolerance=None, enough_nats=0.0, full_step_nats=None,
)  # fmt: skip
"""arXiv 2603.12273 as published: live teacher, sampled token, centred, every follow-up alone, one step."""

OFFICIAL_LIVE = Recipe(
    name="official-live", teacher="live", objective="top_k", gate_nats=None, block_size=1, replay=0, rehearse=0,
    num_steps=1, lr=1e-3, eps=1e-6, tolerance=None, enough_nats=0.0, full_step_nats=None,
)  # fmt: skip
"""The authors' later per-turn script: live teacher, student top-20 with tail."""
