"""The rules that no client behaviour shows alone."""

from dataclasses import replace

from personalize.rendering.messages import parse_messages
from personalize.turns import Paired, Unpaired, pair
from personalize.turns.pairing import MIN_REPLY_CHARS, REPLY_WINDOW_S
from personalize.types import Outcome
from tests.turns.book import KEY, Book

USER, REPLY = {"role": "user", "content": "Hi"}, "A reply that is long enough."
FOLLOW_UP = parse_messages([USER, {"role": "assistant", "content": REPLY}, {"role": "user", "content": "Thanks"}])
TRIMMED = FOLLOW_UP[1:]


def asked(**changes) -> Book:
    book = Book()
    book.chat([USER], REPLY)
    book.turns = [replace(book.turns[0], **changes)]
    return book


def test_pairing_changes_nothing():
    book = asked()
    assert book.pair(FOLLOW_UP) == book.pair(FOLLOW_UP) == Paired(book.turns[0], "Thanks")


def test_nothing_is_looked_up_where_nothing_can_be_found():
    def never(*_):
        raise AssertionError("looked up")

    looks = dict.fromkeys(("find_by_prefix", "find_by_reply", "find_by_prompt", "find_by_request"), never)
    first = pair(parse_messages([USER]), key=KEY, now_s=0.0, **looks)
    assert first == Unpaired(Outcome.SKIPPED_FIRST_MESSAGE)
    assert pair((), key=KEY, now_s=0.0, **looks) == Unpaired(Outcome.SKIPPED_TOOL_TURN)


def test_how_short_a_reply_may_be_to_be_found_by_its_text():
    for length, outcome in ((MIN_REPLY_CHARS, Outcome.QUEUED), (MIN_REPLY_CHARS - 1, Outcome.SKIPPED_NOT_OUR_REPLY)):
        book = Book()
        book.chat([USER], "x" * length)
        trimmed = [{"role": "assistant", "content": f" {'x' * length} "}, USER]
        assert book.chat(trimmed) == outcome


def test_how_old_a_reply_may_be_to_be_found_by_its_text():
    book = asked()
    book.now_s = book.turns[0].created_s + REPLY_WINDOW_S
    assert isinstance(book.pair(TRIMMED), Paired)
    book.now_s += 1
    assert book.pair(TRIMMED) == Unpaired(Outcome.SKIPPED_NOT_OUR_REPLY)


def test_a_book_that_ignores_the_window_does_not_widen_it():
    book = asked()
    found = pair(
        TRIMMED,
        key=KEY,
        find_by_prefix=lambda key: (),
        find_by_reply=lambda key, since_s: book.turns,
        find_by_prompt=lambda key: (),
        find_by_request=lambda request_id: (),
        now_s=book.turns[0].created_s + REPLY_WINDOW_S + 1,
    )
    assert found == Unpaired(Outcome.SKIPPED_NOT_OUR_REPLY)


def test_of_equal_replies_only_unpaired_ones_are_ambiguous():
    book = asked(paired=True)
    book.chat([{"role": "user", "content": "Hello"}], REPLY)
    assert book.pair(TRIMMED) == Paired(book.turns[1], "Thanks")
    book.chat([{"role": "user", "content": "Hey"}], REPLY)
    assert book.pair(TRIMMED) == Unpaired(Outcome.SKIPPED_AMBIGUOUS_REPLY)


def test_at_most_one_choice_is_learned_from_however_the_history_is_trimmed():
    book = Book()
    book.chat([{"role": "user", "content": "Before"}, USER], REPLY, f"{REPLY} Another one.")
    for reply, outcome in ((REPLY, Outcome.QUEUED), (f"{REPLY} Another one.", Outcome.SKIPPED_DUPLICATE)):
        assert book.chat([{"role": "assistant", "content": reply}, USER]) == outcome


def test_a_request_that_comes_again_is_not_credited_to_another_conversation():
    book = asked()
    trimmed = [{"role": "assistant", "content": REPLY}, {"role": "user", "content": "Thanks"}]
    assert book.chat(trimmed, "You are welcome.") == Outcome.QUEUED
    book.chat([{"role": "user", "content": "Hello"}], REPLY)
    assert book.chat(trimmed) == Outcome.SKIPPED_DUPLICATE
    other = [trimmed[0], {"role": "user", "content": "Shorter"}]
    assert book.chat(other) == Outcome.QUEUED, "what was not said before is a follow-up to the reply that has none"


def test_a_request_that_taught_nothing_may_come_again():
    book = asked()
    trimmed = [{"role": "assistant", "content": REPLY}, {"role": "user", "content": "Thanks"}]
    book.chat(trimmed, "You are welcome.")
    book.turns = [replace(turn, taught=False, paired=False) for turn in book.turns]  # learning was off
    assert book.chat(trimmed) == Outcome.QUEUED


def test_the_newest_counts_whatever_the_order_of_the_look_up():
    book = asked()
    book.chat([USER], REPLY)
    book.turns.reverse()
    assert book.pair(FOLLOW_UP) == Paired(book.turns[0], "Thanks")


def test_a_cancelled_reply_learns_and_a_capped_one_does_not():
    assert isinstance(asked(finish_reason="cancel").pair(FOLLOW_UP), Paired)
    assert asked(finish_reason="length").pair(FOLLOW_UP) == Unpaired(Outcome.SKIPPED_CAPPED_REPLY)


def test_a_duplicate_is_named_before_a_cap():
    assert asked(finish_reason="length", paired=True).pair(FOLLOW_UP) == Unpaired(Outcome.SKIPPED_DUPLICATE)
