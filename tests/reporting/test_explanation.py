"""The page and the words of an explanation: numbers as they are, texts as text whatever they hold."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from personalize.reporting.explanation import (
    BASE,
    END,
    NO_TEXT,
    measures,
    number_text,
    printable,
    reported,
    scale_of,
    sides_of,
    signed,
    token_text,
    way_of,
)
from personalize.reporting.explanation_page import page
from personalize.types import Drift, Explanation, Norms, Probe, TokenSignal, UpdateEffect

HOSTILE = '</span><script>alert(1)</script><img src=x onerror="alert(\'2\')">" style="color:red&amp;\x1b[2J\u202e'
TOKENS = (
    TokenSignal(1, "Well", log_prob=-1.0, change=0.5, advantage=0.75, hindsight_kl=0.25, kl=0.125),
    TokenSignal(2, ",", log_prob=-2.0, change=-2.0, hindsight_kl=0.5, kl=0.25),
    TokenSignal(3, "hidden"),
    TokenSignal(0, "", ends=True, log_prob=-3.0, change=0.0, advantage=0.0, hindsight_kl=0.0, kl=0.0),
)


def explanation(text: str = "plain", tokens=TOKENS, **changes) -> Explanation:
    effect = UpdateEffect(tokens, Drift(1.25, 2.5, 0.5, 3), Norms(3.5, 4.5, 5.5), "base", "rolling-block")
    probe = Probe(text, text, text, text)
    return (
        Explanation("a" * 32, "b" * 32, 2, 1, text, text, (text,), 0, effect, probe, {"signal": 6.5, text[:64]: 7.5})
        if not changes
        else replace(explanation(text, tokens), **changes)
    )


class Reader(HTMLParser):
    """What a browser makes of a page: elements with their attributes, and all text."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def classed(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.elements if name in (attributes.get("class") or "").split()]


def test_hostile_text_stays_text_everywhere():
    tokens = (replace(TOKENS[0], text=HOSTILE), replace(TOKENS[2], text=HOSTILE), TOKENS[3])
    html = page(explanation(HOSTILE, tokens, update_id=HOSTILE))
    tame = page(explanation("plain", (TOKENS[0], TOKENS[2], TOKENS[3])))
    seen, expected = Reader(html), Reader(tame)
    assert [tag for tag, _ in seen.elements] == [tag for tag, _ in expected.elements]
    assert [set(attributes) for _, attributes in seen.elements] == [set(a) for _, a in expected.elements]
    assert seen.text.count("<script>alert(1)</script>") >= 10
    assert "<script" not in html and "<img" not in html
    assert "\x1b" not in html and "\u202e" not in html


def test_the_page_asks_nobody_for_anything():
    seen = Reader(page(explanation()))
    assert not {tag for tag, _ in seen.elements} & {"script", "link", "img", "iframe", "form", "a", "base", "object"}
    policy = next(a["content"] for tag, a in seen.elements if tag == "meta" and "http-equiv" in a)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert "url(" not in page(explanation()) and "@import" not in page(explanation())


def test_it_reads_on_light_and_on_dark_ground():
    html = page(explanation())
    assert "color-scheme: light dark" in html and "@media (prefers-color-scheme: dark)" in html
    light = ("#ffffff", "#1c1e21", ((0, 114, 178), (213, 94, 0)))
    dark = ("#1f2226", "#e8eaed", ((86, 180, 233), (230, 130, 60)))
    for card, text, hues in (light, dark):
        assert f"--card: {card}" in html and f"--ink: {text}" in html
        ground, ink = (tuple(bytes.fromhex(colour[1:])) for colour in (card, text))
        for hue in hues:
            assert f"{' '.join(map(str, hue))}" in html
            mixed = tuple((one + other) / 2 for one, other in zip(hue, ground, strict=True))  # at full strength
            assert _contrast(ink, mixed) >= 4.5, (hue, ground)


def _contrast(one, other) -> float:
    """WCAG 2 contrast of two sRGB colours."""

    def luminance(colour) -> float:
        parts = [part / 255 for part in colour]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_a_token_is_marked_by_way_and_strength_and_carries_its_numbers():
    seen = Reader(page(explanation()))
    (up, _), (down, _) = seen.classed("up"), seen.classed("down")  # the second of each is the legend
    assert (up["style"], down["style"]) == ("--strength:0.250", "--strength:1.000")
    assert up["title"] == (
        "log-prob before -1.000; change +0.500; teacher − before +0.750; hindsight KL +0.250; KL +0.125"
    )
    assert "teacher − before –;" in down["title"]
    assert [a["title"] for a in seen.classed("quiet") if "title" in a] == ["not trained"]
    assert f"Well,hidden{END}" in seen.text
    assert "full colour: 2.000 nats" in seen.text


def test_all_measures_are_on_the_page():
    seen = Reader(page(explanation()))
    told = {**measures(explanation()), **reported(explanation())}
    for name, value in told.items():
        assert name in seen.text and number_text(value) in seen.text
    assert list(told.values()) == [1.25, 2.5, 0.5, 3, 3.5, 4.5, 5.5, 6.5, 7.5]
    assert "Version 2, made from version 1." in seen.text


def test_it_says_what_it_cannot_show_and_where_an_adapter_began():
    text = Reader(page(explanation(num_told_gone=2, told=(), parent=None))).text
    assert "and 2 more that no longer exist, so its signal cannot be shown" in text
    assert "made from the base model" in text


def test_replies_stand_side_by_side_and_the_base_once():
    probe = Probe("asked", "of the base", "of the parent", "of the version")
    seen = Reader(page(replace(explanation(), probe=probe)))
    assert [name for _, name, _ in sides_of(explanation())] == [BASE, "before: version 1", "after: version 2"]
    assert "of the base" in seen.text and "of the parent" in seen.text and len(seen.classed("after")) == 1
    first = Reader(page(replace(explanation(parent=None), probe=replace(probe, base="of the parent"))))
    assert first.text.count("of the parent") == 1 and first.text.count(f"before: {BASE}") == 1


def test_a_token_that_hardly_moved_is_not_marked():
    tokens = (TOKENS[1], replace(TOKENS[0], change=0.09), replace(TOKENS[0], change=0.1))
    assert [way_of(token, scale_of(tokens)) for token in tokens] == ["down", "", "up"]
    seen = Reader(page(explanation(tokens=tokens)))
    assert len(seen.classed("up")) == len(seen.classed("down")) == 2  # with the legend


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.00323712, "0.003237"), (9_999.0, "9999"), (10_843.2, "10843"), (1e12, "1e+12")]
)
def test_measures_read_as_numbers(value, text):
    assert number_text(value) == text


def test_a_page_of_a_reply_that_did_not_move():
    still = tuple(replace(token, change=None if token.change is None else 0.0) for token in TOKENS)
    seen = Reader(page(explanation(tokens=still)))
    assert len(seen.classed("up")) == len(seen.classed("down")) == 1  # the legend
    assert scale_of(still) == scale_of(()) == 1.0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("\r\x00\x7f\x9b", "␍␀␡\ufffd"),
        ("\u202eabc\u2066\u200f", "\ufffdabc\ufffd\ufffd"),
        ("\ud800", "\ufffd"),
        ("👩\u200d🚀 é 北京", "👩\u200d🚀 é 北京"),
    ],
)
def test_what_would_steer_a_terminal_is_shown_as_a_picture(text, shown):
    assert printable(text) == shown
    printable(text).encode("utf-8")


def test_tokens_that_show_nothing_are_seen():
    assert token_text(TokenSignal(1, "", ends=True)) == END
    assert token_text(TokenSignal(1, "")) == NO_TEXT
    assert token_text(TokenSignal(1, "a\n")) == "a↵\n"
    assert (signed(None), signed(-0.5), signed(0.25)) == ("–", "-0.500", "+0.250")
