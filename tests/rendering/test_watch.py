"""Judge: looking at the whole text again after every character."""

from hypothesis import given
from hypothesis import strategies as st

from personalize.rendering.watch import Watch

PATTERNS = st.lists(st.text("ab.", min_size=1, max_size=4), max_size=4)


def first_match(text: str, patterns) -> tuple[str, str | None]:
    for end in range(len(text) + 1):
        met = [pattern for pattern in patterns if text[:end].endswith(pattern)]
        if met:
            longest = max(met, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(PATTERNS, st.lists(st.text("ab.", max_size=5), max_size=12))
def test_as_if_the_whole_text_had_been_searched(patterns, pieces):
    watch, free, met = Watch(patterns), "", None
    for piece in pieces:
        given, met = watch.feed(piece)
        free += given
        if met:
            break
    else:
        free += watch.drain()
    assert (free, met) == first_match("".join(pieces), patterns)


@given(PATTERNS, st.text("ab.", max_size=20))
def test_nothing_is_held_longer_than_needed(patterns, text):
    watch = Watch(patterns)
    free, met = watch.feed(text)
    if met is None:
        endings = (text[start:] for start in range(len(text)))
        open_endings = [ending for ending in endings if any(pattern.startswith(ending) for pattern in patterns)]
        assert free + watch.held == text
        assert watch.held == max(open_endings, key=len, default="")


def test_without_patterns_everything_is_free():
    assert Watch(()).feed("text") == ("text", None)


def test_what_stands_behind_a_match_is_kept_for_later():
    watch = Watch(["</think>"])
    assert watch.feed("a</thi") == ("a", None)
    assert watch.feed("nk>b") == ("", "</think>")
    assert watch.drain() == "b"
