"""What an update did, on the echo backend: numbers drawn from names, as the weights of its versions are."""

import hashlib

from personalize.types import Drift, ExplainRequest, Norms, TokenSignal, UpdateEffect

_WIDEST = 4.0


def drawn_effect(request: ExplainRequest) -> UpdateEffect:
    """Return an effect that differs where versions, parents, replies or follow-ups do; no model is asked."""
    experience = request.experience
    pairs = zip(experience.completion_ids, experience.completion_mask, strict=True)
    tokens = [_token(request, place, *pair) for place, pair in enumerate(pairs)]
    parent = "base" if request.parent is None else request.parent.name
    version = request.adapter.name
    moved = sum(token.kl or 0.0 for token in tokens)
    drift = Drift(
        to_parent=round(moved, 6),
        to_base=round(moved if request.parent is None else _draw("base", version) * len(tokens), 6),
        before=0.0 if request.parent is None else round(_draw("base", parent) * len(tokens), 6),
        num_tokens=sum(experience.completion_mask),
    )
    norms = Norms(_draw(parent, version), 0.0 if request.parent is None else _draw(parent), _draw(version))
    return UpdateEffect(tuple(tokens), drift, norms, "base", "echo")


def _token(request: ExplainRequest, place: int, token_id: int, trained: int) -> TokenSignal:
    if not trained:
        return TokenSignal(token_id)
    parent = "base" if request.parent is None else request.parent.name
    before, after = (-_draw(name, place, token_id) for name in (parent, request.adapter.name))
    told = [turn.follow_up for turn in request.block]
    return TokenSignal(
        token_id,
        log_prob=before,
        change=round(after - before, 6),
        advantage=round(-_draw("told", told, place, token_id) - before, 6) if told else None,
        hindsight_kl=_draw("gap", parent, request.experience.follow_up, place),
        kl=abs(round(after - before, 6)) / 2,
    )


def _draw(*names: object) -> float:
    """Return a number in [0, 4) that depends on ``names`` alone."""
    digest = hashlib.sha256(repr(names).encode("utf-8", "surrogatepass")).digest()
    return round(int.from_bytes(digest[:6], "big") / 2**48 * _WIDEST, 6)
