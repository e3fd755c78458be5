"""An explanation as one HTML page: no script, no request to anywhere, readable on light and on dark ground."""

from collections.abc import Iterable
from html import escape

from personalize.reporting.explanation import (
    COLUMNS,
    END,
    measures,
    parent_name,
    printable,
    scale_of,
    signed,
    token_text,
)
from personalize.types import Explanation, TokenSignal

_STYLE = """
:root { color-scheme: light dark; --up: 0 114 178; --down: 213 94 0; --line: #8886; --quiet: #666; }
@media (prefers-color-scheme: dark) { :root { --up: 86 180 233; --down: 230 130 60; --quiet: #aaa; } }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.said, .reply { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; margin: .5rem 0;
  padding: .6rem .8rem; border: 1px solid var(--line); border-radius: .4rem; }
.token { border-bottom: 2px solid transparent; }
.up { background: rgb(var(--up) / calc(var(--strength) * .5)); border-bottom: 2px solid rgb(var(--up)); }
.down { background: rgb(var(--down) / calc(var(--strength) * .5)); border-bottom: 2px dashed rgb(var(--down)); }
.quiet { color: var(--quiet); }
table { border-collapse: collapse; } td, th { padding: .1rem .8rem; border-bottom: 1px solid var(--line); }
th { text-align: left; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.text { white-space: pre; unicode-bidi: isolate; }
"""
_HEAD = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
)


def page(explanation: Explanation) -> str:
    """Return the page; every text in it is escaped."""
    title = f"What update {_text(explanation.update_id)} did"
    body = "\n".join(_parts(explanation))
    return (
        f"{_HEAD}<title>{title}</title><style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )


def _parts(explanation: Explanation) -> Iterable[str]:
    effect = explanation.effect
    scale = scale_of(effect.tokens)
    yield f'<p class="quiet">Version {explanation.version}, made from {parent_name(explanation)}.</p>'
    yield f"<h2>The user asked</h2>{_said(explanation.question)}"
    yield f"<h2>The reply</h2>{_legend(scale)}"
    yield f'<div class="reply">{"".join(_token(token, scale) for token in effect.tokens)}</div>'
    yield f"<h2>The user wrote next</h2>{_said(explanation.follow_up)}"
    yield f"<h2>The teacher was told</h2>{_teacher(explanation)}"
    yield f"<h2>Before and after</h2>{_probe(explanation)}"
    yield f"<h2>Drift and norms</h2>{_measures(explanation)}"
    yield f"<details><summary>Every token</summary>{_all_tokens(effect.tokens)}</details>"


def _text(text: str) -> str:
    return escape(printable(text), quote=True)


def _said(text: str) -> str:
    return f'<div class="said">{_text(text)}</div>'


def _legend(scale: float) -> str:
    strong = '<span class="{0}" style="--strength:1">{1}</span>'
    return (
        f"<p>{strong.format('up', 'pushed up')} {strong.format('down', 'pushed down')} "
        f'<span class="quiet">full colour: {scale:.3f} nats; {END} ends the reply</span></p>'
    )


def _token(token: TokenSignal, scale: float) -> str:
    text = escape(token_text(token), quote=True)
    if token.change is None:
        return f'<span class="token quiet" title="not trained">{text}</span>'
    way = "up" if token.change > 0 else "down" if token.change < 0 else ""
    numbers = "; ".join(f"{heading} {signed(getattr(token, name))}" for heading, name in COLUMNS.items())
    return (
        f'<span class="token {way}" style="--strength:{abs(token.change) / scale:.3f}" title="{escape(numbers)}">'
        f"{text}</span>"
    )


def _teacher(explanation: Explanation) -> str:
    effect, gone = explanation.effect, explanation.num_told_gone
    lost = f'<p class="quiet">and {gone} more that no longer exist, so its signal cannot be shown</p>' if gone else ""
    about = f'<p class="quiet">teacher: {_text(effect.teacher)}; recipe: {_text(effect.recipe)}</p>'
    return "".join(map(_said, explanation.told)) + lost + about


def _probe(explanation: Explanation) -> str:
    probe = explanation.probe
    replies = {"the base model": probe.base, f"before: {parent_name(explanation)}": probe.before}
    replies[f"after: version {explanation.version}"] = probe.after
    told = "".join(f"<h3>{name}</h3>{_said(text)}" for name, text in replies.items())
    return f'<p class="quiet">greedy replies to</p>{_said(probe.prompt)}{told}'


def _measures(explanation: Explanation) -> str:
    rows = "".join(
        f'<tr><td>{_text(name)}</td><td class="number">{value:.4g}</td></tr>'
        for name, value in measures(explanation).items()
    )
    return f"<table>{rows}</table>"


def _all_tokens(tokens: Iterable[TokenSignal]) -> str:
    head = "".join(f"<th>{heading}</th>" for heading in ("token", *COLUMNS))
    rows = "".join(_row(token) for token in tokens)
    return f"<table><tr>{head}</tr>{rows}</table>"


def _row(token: TokenSignal) -> str:
    numbers = "".join(f'<td class="number">{signed(getattr(token, name))}</td>' for name in COLUMNS.values())
    return f'<tr><td class="text">{escape(token_text(token), quote=True)}</td>{numbers}</tr>'
