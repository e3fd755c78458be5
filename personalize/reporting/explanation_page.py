"""An explanation as one HTML page: no script, no request to anywhere, readable on light and on dark ground."""

from collections.abc import Iterable, Mapping
from html import escape

from personalize.reporting.explanation import (
    COLUMNS,
    END,
    measures,
    number_text,
    parent_name,
    printable,
    reported,
    scale_of,
    sides_of,
    signed,
    token_text,
    way_of,
)
from personalize.types import Explanation, TokenSignal

_STYLE = """
:root { color-scheme: light dark; --up: 0 114 178; --down: 213 94 0; --ink: #1c1e21; --quiet: #5f6670; --line: #d9dde2;
  --ground: #f4f5f7; --card: #ffffff; --user: #e7edf5; }
@media (prefers-color-scheme: dark) { :root { --up: 86 180 233; --down: 230 130 60; --ink: #e8eaed; --quiet: #a3abb5;
  --line: #3a4047; --ground: #16181b; --card: #1f2226; --user: #2a3340; } }
* { box-sizing: border-box; }
body { font: 16px/1.6 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 52rem;
  margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; } h2 { font-size: 1.1rem; margin: 0 0 .75rem; }
h3 { font-size: .8rem; font-weight: 600; color: var(--quiet); margin: 0 0 .25rem; }
header { margin-bottom: 1.75rem; } header p { margin: .25rem 0 0; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; padding: 1.25rem 1.5rem;
  margin-bottom: 1rem; }
section > :last-child { margin-bottom: 0; }
.said, .reply { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; padding: .65rem .9rem;
  border: 1px solid var(--line); border-radius: .75rem; margin-bottom: .75rem; }
.user { margin-left: auto; width: fit-content; max-width: 80%; background: var(--user); border-color: transparent; }
.who { text-align: right; }
.reply { line-height: 1.9; } .legend { font-size: .85rem; margin: 0 0 .75rem; }
.token { border-bottom: 2px solid transparent; padding: .1rem 0; }
.up { background: rgb(var(--up) / calc(var(--strength) * .5)); border-bottom: 2px solid rgb(var(--up)); }
.down { background: rgb(var(--down) / calc(var(--strength) * .5)); border-bottom: 2px dashed rgb(var(--down)); }
.legend .token { color: var(--ink); padding: .1rem .4rem; border-radius: .2rem; }
.quiet { color: var(--quiet); }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .75rem; }
.sides .said { margin: 0; } .after { border: 2px solid rgb(var(--up)); }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
td, th { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; }
tr:last-child td { border-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.text { white-space: pre; unicode-bidi: isolate; font-family: ui-monospace, monospace; }
summary { cursor: pointer; font-weight: 600; } details[open] summary { margin-bottom: .75rem; }
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
        f"{_HEAD}<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n{_header(explanation)}\n{body}\n"
        "</body></html>\n"
    )


def _header(explanation: Explanation) -> str:
    made = f"Version {explanation.version}, made from {parent_name(explanation)}."
    return (
        f"<header><h1>What one update did</h1><p>{made}</p>"
        f'<p class="quiet">update {_text(explanation.update_id)}</p></header>'
    )


def _parts(explanation: Explanation) -> Iterable[str]:
    tokens = explanation.effect.tokens
    yield f"<section>{_conversation(explanation)}</section>"
    yield f"<section><h2>What the teacher was told</h2>{_teacher(explanation)}</section>"
    yield f"<section><h2>Before and after</h2>{_probe(explanation)}</section>"
    yield f"<section><h2>How far it moved</h2>{_measures(measures(explanation))}</section>"
    yield f"<section>{_details('What the update reported', _measures(reported(explanation)))}</section>"
    yield f"<section>{_details('Every token', _all_tokens(tokens))}</section>"


def _conversation(explanation: Explanation) -> str:
    tokens = explanation.effect.tokens
    scale = scale_of(tokens)
    reply = "".join(_token(token, scale) for token in tokens)
    return (
        f'<h3 class="who">the user asked</h3>{_said(explanation.question, "user")}'
        f'<h3>the reply, as the update pushed its tokens</h3><div class="reply">{reply}</div>{_legend(scale)}'
        f'<h3 class="who">the user wrote next</h3>{_said(explanation.follow_up, "user")}'
    )


def _details(title: str, inner: str) -> str:
    return f"<details><summary>{title}</summary>{inner}</details>"


def _text(text: str) -> str:
    return escape(printable(text), quote=True)


def _said(text: str, kind: str = "") -> str:
    return f'<div class="{f"said {kind}".strip()}">{_text(text)}</div>'


def _legend(scale: float) -> str:
    strong = '<span class="token {0}" style="--strength:1">{1}</span>'
    return (
        f'<p class="legend quiet">{strong.format("up", "pushed up")} {strong.format("down", "pushed down")} '
        f"full colour: {scale:.3f} nats; {END} ends the reply</p>"
    )


def _token(token: TokenSignal, scale: float) -> str:
    text = escape(token_text(token), quote=True)
    if token.change is None:
        return f'<span class="token quiet" title="not trained">{text}</span>'
    numbers = "; ".join(f"{heading} {signed(getattr(token, name))}" for heading, name in COLUMNS.items())
    way = way_of(token, scale)
    return (
        f'<span class="{f"token {way}".strip()}" style="--strength:{abs(token.change) / scale:.3f}" '
        f'title="{escape(numbers)}">{text}</span>'
    )


def _teacher(explanation: Explanation) -> str:
    effect, gone = explanation.effect, explanation.num_told_gone
    lost = f'<p class="quiet">and {gone} more that no longer exist, so its signal cannot be shown</p>' if gone else ""
    about = f'<p class="quiet">teacher: {_text(effect.teacher)}; recipe: {_text(effect.recipe)}</p>'
    return "".join(map(_said, explanation.told)) + lost + about


def _probe(explanation: Explanation) -> str:
    probe = explanation.probe
    sides = "".join(
        f"<div><h3>{name}</h3>{_said(text, 'after' if place == 'after' else '')}</div>"
        for place, name, text in sides_of(explanation)
    )
    return f'<h3 class="who">greedy replies to</h3>{_said(probe.prompt, "user")}<div class="sides">{sides}</div>'


def _measures(values: Mapping[str, float]) -> str:
    rows = "".join(
        f'<tr><td>{_text(name)}</td><td class="number">{number_text(value)}</td></tr>' for name, value in values.items()
    )
    return f"<table>{rows}</table>"


def _all_tokens(tokens: Iterable[TokenSignal]) -> str:
    head = "<th>token</th>" + "".join(f'<th class="number">{heading}</th>' for heading in COLUMNS)
    rows = "".join(_row(token) for token in tokens)
    return f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>'


def _row(token: TokenSignal) -> str:
    numbers = "".join(f'<td class="number">{signed(getattr(token, name))}</td>' for name in COLUMNS.values())
    return f'<tr><td class="text">{escape(token_text(token), quote=True)}</td>{numbers}</tr>'
