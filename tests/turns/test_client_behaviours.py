"""What clients do to a conversation, and what each of it has to come to (``queued``: a reply was found to learn from).

Every behaviour is a row: requests with what they are answered with, and the outcomes in order.
"""

import unicodedata
from dataclasses import dataclass

import pytest

from personalize.rendering.hindsight import with_block
from personalize.turns import Paired
from tests.turns.book import Book

LONG = "Madrid is the capital of Spain, and its largest city."
NEXT = "Lisbon is the capital of Portugal, on the Tagus."
DAY_S = 24 * 3600.0


def s(text, role="system"):
    return {"role": role, "content": text}


def u(text):
    return {"role": "user", "content": text}


def a(text):
    return {"role": "assistant", "content": text}


def t(text):
    return {"role": "tool", "tool_call_id": "call_1", "content": text}


def call():
    called = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    return {"role": "assistant", "content": None, "tool_calls": [called]}


def dumped(text, **other):
    """As ``message.model_dump()`` of the openai client gives it back."""
    nulls = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "tool_calls"))
    return {"content": text, "role": "assistant", **nulls, **other}


class Say(tuple):
    """A request: its messages, the replies it gets, and ``Book.chat``'s options."""

    def __new__(cls, messages, *replies, **options):
        return super().__new__(cls, (messages, replies, options))


@dataclass(frozen=True)
class Row:
    name: str
    requests: tuple
    outcomes: str
    """Codes in order, without ``skipped_``."""
    follow_up: str | None = None
    reply: str | None = None


Q1, O1, O2 = u("What is the capital of Spain?"), u("Shorter, please."), u("And without the comma.")
ASKED = Say([Q1], LONG)
TOLD = [Q1, a(LONG), O1]


def row(name, *requests, outcomes, follow_up=None, reply=None) -> Row:
    return Row(name, requests, outcomes, follow_up, reply)


ROWS = [
    # --- the plain case ---
    row("first message", ASKED, outcomes="first_message"),
    row("follow-up", ASKED, Say(TOLD, NEXT), outcomes="first_message queued", follow_up="Shorter, please.", reply=LONG),
    row(
        "a whole conversation",
        ASKED,
        Say(TOLD, "Madrid."),
        Say([Q1, a(LONG), O1, a("Madrid."), u("Thanks")]),
        outcomes="first_message queued queued",
        reply="Madrid.",
    ),
    # --- clients that send less, more or other history ---
    row(
        "trimmed history",
        Say([Q1, a("x"), u("Go on")], LONG),
        Say([u("Go on"), a(LONG), O1]),
        outcomes="not_our_reply queued",
        reply=LONG,
    ),
    row("history of one reply and the follow-up", ASKED, Say([a(LONG), O1]), outcomes="first_message queued"),
    row(
        "trimmed history of a short reply",
        Say([Q1], "Madrid."),
        Say([a("Madrid."), O1]),
        outcomes="first_message not_our_reply",
    ),
    row(
        "trimmed history after a day",
        ASKED,
        Say([a(LONG), O1], after_s=DAY_S + 1),
        outcomes="first_message not_our_reply",
    ),
    row("whole history after a month", ASKED, Say(TOLD, after_s=30 * DAY_S), outcomes="first_message queued"),
    row(
        "summarised history in a system message",
        ASKED,
        Say([s("Summary: they talked about Spain."), a(LONG), O1]),
        outcomes="first_message queued",
    ),
    row(
        "summarised history in a user message",
        ASKED,
        Say([u("[Summary: Spain]"), a("Understood."), u("Continue"), a(LONG), O1]),
        outcomes="first_message queued",
        reply=LONG,
    ),
    row(
        "dated system prompt changing daily",
        Say([s("Today is Monday."), Q1], "Madrid."),
        Say([s("Today is Tuesday."), Q1, a("Madrid."), O1], after_s=DAY_S),
        outcomes="first_message queued",
        reply="Madrid.",
    ),
    row(
        "developer role",
        Say([s("Be kind.", "developer"), Q1], "Yes."),
        Say([s("Be kind."), Q1, a("Yes."), O1]),
        outcomes="first_message queued",
    ),
    row(
        "system prompt added and moved",
        Say([Q1], "Yes."),
        Say([Q1, s("New."), a("Yes."), O1, s("Mind it.")]),
        outcomes="first_message queued",
    ),
    row("system message only before", Say([s("x"), O1], "Yes."), outcomes="first_message"),
    # --- other spellings of the same text ---
    row(
        "content parts",
        Say([u([{"type": "text", "text": "What is"}, {"type": "text", "text": "this?"}])], "Yes."),
        Say([u("What is\nthis?"), a([{"type": "text", "text": "Yes."}]), O1]),
        outcomes="first_message queued",
    ),
    row("model_dump() with nulls", Say([Q1], "Yes."), Say([Q1, dumped("Yes."), O1]), outcomes="first_message queued"),
    row("CRLF", Say([u("a\nb")], "c\nd"), Say([u("a\r\nb"), a("c\r\nd"), O1]), outcomes="first_message queued"),
    row("stripped text", Say([u(" a \n")], " Yes.\n\n"), Say([u("a"), a("Yes."), O1]), outcomes="first_message queued"),
    row("padded text", Say([u("a")], "Yes."), Say([u("a\n"), a("\n Yes. "), O1]), outcomes="first_message queued"),
    row(
        "Unicode in decomposed form",
        Say([u("Où est le café ?")], "À côté."),
        Say([u(unicodedata.normalize("NFD", "Où est le café ?")), a(unicodedata.normalize("NFD", "À côté.")), O1]),
        outcomes="first_message queued",
    ),
    row(
        "extra keys",
        Say([Q1], "Yes."),
        Say([Q1 | {"name": "Ann"}, a("Yes.") | {"id": "m1"}, O1]),
        outcomes="first_message queued",
    ),
    row(
        "a thought kept in the copy",
        Say([Q1], "Yes."),
        Say([Q1, a("<think>\nhm\n</think>\n\nYes."), O1]),
        outcomes="first_message queued",
    ),
    row(
        "space changed inside the reply",
        ASKED,
        Say([Q1, a(LONG.replace(", ", ",  ")), O1]),
        outcomes="first_message edited_history",
    ),
    # --- streams ---
    row(
        "aborted stream, then continued",
        Say([Q1], "The capital of", finish="cancel"),
        Say([Q1, a("The capital of"), O1]),
        outcomes="first_message queued",
        reply="The capital of",
    ),
    row(
        "aborted stream, asked again",
        Say([Q1], "The", finish="cancel"),
        Say([Q1], LONG),
        Say(TOLD),
        outcomes="first_message first_message queued",
        reply=LONG,
    ),
    row(
        "aborted stream of which the client shows less",
        Say([Q1], "The capital of", finish="cancel"),
        Say([Q1, a("The cap"), O1]),
        outcomes="first_message edited_history",
    ),
    row(
        "aborted before the first word",
        Say([Q1], "", finish="cancel"),
        Say([Q1, a(""), O1]),
        outcomes="first_message low_signal",
    ),
    row(
        "aborted, reply left out",
        Say([Q1], "", finish="cancel"),
        Say([Q1, u("Hello?")]),
        outcomes="first_message first_message",
    ),
    row("empty reply", Say([Q1], ""), Say([Q1, a(None), O1]), outcomes="first_message low_signal"),
    row(
        "capped reply",
        Say([Q1], LONG, finish="length"),
        Say([Q1, a(LONG), u("Go on")]),
        outcomes="first_message capped_reply",
    ),
    row(
        "capped reply, trimmed history",
        Say([Q1], LONG, finish="length"),
        Say([a(LONG), u("Go on")]),
        outcomes="first_message capped_reply",
    ),
    # --- again and otherwise ---
    row("retry of a first request", ASKED, ASKED, Say(TOLD), outcomes="first_message first_message queued"),
    row(
        "retry of a follow-up",
        ASKED,
        Say(TOLD, "Madrid."),
        Say(TOLD, "Madrid."),
        outcomes="first_message queued duplicate",
    ),
    row(
        "the conversation goes on after a retry",
        ASKED,
        Say(TOLD, "Madrid."),
        Say(TOLD, "Madrid."),
        Say([Q1, a(LONG), O1, a("Madrid."), O2]),
        Say([Q1, a(LONG), O1, a("Madrid."), O1]),
        outcomes="first_message queued duplicate queued duplicate",
    ),
    row(
        "regenerate: the reply carried on with learns",
        Say([Q1], LONG),
        Say([Q1], NEXT),
        Say([Q1, a(NEXT), O1]),
        outcomes="first_message first_message queued",
        reply=NEXT,
    ),
    row(
        "regenerate, then back to the first reply",
        Say([Q1], LONG),
        Say([Q1], NEXT),
        Say(TOLD),
        outcomes="first_message first_message queued",
        reply=LONG,
    ),
    row(
        "regenerate in the middle",
        ASKED,
        Say(TOLD, "Madrid."),
        Say(TOLD, "Only Madrid."),
        Say([Q1, a(LONG), O1, a("Only Madrid."), O2]),
        outcomes="first_message queued duplicate queued",
        reply="Only Madrid.",
    ),
    row(
        "edited follow-up",
        ASKED,
        Say(TOLD, "Madrid."),
        Say([Q1, a(LONG), O2]),
        outcomes="first_message queued duplicate",
    ),
    row(
        "edited follow-up, trimmed history",
        ASKED,
        Say(TOLD),
        Say([a(LONG), O2]),
        outcomes="first_message queued duplicate",
    ),
    row(
        "branch: goes on from the edited follow-up",
        ASKED,
        Say(TOLD, "Madrid."),
        Say([Q1, a(LONG), O2], "Madrid it is."),
        Say([Q1, a(LONG), O2, a("Madrid it is."), u("Fine.")]),
        Say([Q1, a(LONG), O1, a("Madrid."), u("Good.")]),
        outcomes="first_message queued duplicate queued queued",
    ),
    row(
        "edited first question",
        ASKED,
        Say([u("Capital of Portugal?")], NEXT),
        Say([u("Capital of Portugal?"), a(NEXT), O1]),
        outcomes="first_message first_message queued",
        reply=NEXT,
    ),
    row(
        "edited question kept with our reply",
        ASKED,
        Say([u("Spain's capital?"), a(LONG), O1]),
        outcomes="first_message queued",
    ),
    row(
        "edited assistant text",
        ASKED,
        Say([Q1, a("Barcelona is the capital of Spain."), O1]),
        outcomes="first_message edited_history",
    ),
    row("another server's conversation", Say([Q1, a("Madrid, as everybody knows."), O1]), outcomes="not_our_reply"),
    row("few-shot examples", Say([u("2+2"), a("4"), u("3+3"), a("6"), u("4+4")], "8"), outcomes="not_our_reply"),
    row(
        "n > 1: one choice learns",
        Say([Q1], LONG, NEXT),
        Say([Q1, a(NEXT), O1]),
        Say(TOLD),
        outcomes="first_message queued duplicate",
    ),
    row(
        "n > 1 with equal choices",
        Say([Q1], LONG, LONG),
        Say(TOLD),
        Say([Q1, a(LONG), O2]),
        outcomes="first_message queued duplicate",
    ),
    # --- calls that are not the user's ---
    row(
        "title call",
        ASKED,
        Say([u(f"Write a title for this chat.\nuser: {Q1['content']}\nassistant: {LONG}")], "Spain"),
        outcomes="first_message first_message",
    ),
    row(
        "suggestion call with the whole chat: only learn=false keeps it out",
        ASKED,
        Say([Q1, a(LONG), u("Suggest three questions as JSON.")]),
        outcomes="first_message queued",
    ),
    # --- tools ---
    row(
        "tool calls between the reply and the user",
        ASKED,
        Say([Q1, a(LONG), t("{}"), O1]),
        outcomes="first_message tool_turn",
    ),
    row("a tool result comes last", ASKED, Say([Q1, call(), t("42")], LONG), outcomes="first_message tool_turn"),
    row(
        "a reply built on a tool result",
        Say([Q1, call(), t("42")], LONG),
        Say([Q1, call(), t("42"), a(LONG), O1]),
        outcomes="tool_turn queued",
        reply=LONG,
    ),
    row("tool messages left out later", Say([Q1, call(), t("42")], LONG), Say(TOLD), outcomes="tool_turn queued"),
    row(
        "the follow-up is cut in two by a tool",
        ASKED,
        Say([Q1, a(LONG), O1, call(), t("42"), O2]),
        outcomes="first_message tool_turn",
    ),
    # --- shapes of conversations ---
    row(
        "two user messages in a row",
        ASKED,
        Say([Q1, a(LONG), O1, O2]),
        outcomes="first_message queued",
        follow_up="Shorter, please.\nAnd without the comma.",
    ),
    row(
        "two user messages, one of them empty",
        ASKED,
        Say([Q1, a(LONG), u(""), O2]),
        outcomes="first_message queued",
        follow_up="And without the comma.",
    ),
    row(
        "two questions in a row before the reply",
        Say([Q1, u("Quick!")], "Yes."),
        Say([Q1, u("Quick!"), a("Yes."), O1]),
        outcomes="first_message queued",
    ),
    row(
        "greeting by the client",
        Say([a("How can I help?"), Q1], LONG),
        Say([a("How can I help?"), Q1, a(LONG), O1]),
        outcomes="not_our_reply queued",
    ),
    row(
        "identical short replies in one chat",
        Say([u("a?")], "Yes."),
        Say([u("a?"), a("Yes."), u("b?")], "Yes."),
        Say([u("a?"), a("Yes."), u("b?"), a("Yes."), u("c?")]),
        outcomes="first_message queued queued",
    ),
    row(
        "identical short replies, trimmed",
        Say([u("a?")], "Yes."),
        Say([u("b?")], "Yes."),
        Say([a("Yes."), u("c?")]),
        outcomes="first_message first_message not_our_reply",
    ),
    row(
        "identical long replies in two chats, trimmed",
        Say([Q1], LONG),
        Say([u("Spain?")], LONG),
        Say([a(LONG), O1]),
        outcomes="first_message first_message ambiguous_reply",
    ),
    row(
        "identical chats opened twice: the newest is followed",
        ASKED,
        Say([Q1], LONG, after_s=DAY_S),
        Say(TOLD),
        outcomes="first_message first_message queued",
    ),
    row(
        "the same chat again another day",
        ASKED,
        Say(TOLD),
        Say([Q1], LONG, after_s=DAY_S),
        Say(TOLD),
        outcomes="first_message queued first_message queued",
    ),
    row("our text in a user's message", ASKED, Say([Q1, u(LONG), O1]), outcomes="first_message first_message"),
    # --- text that looks like something else ---
    row(
        "control tokens typed in content",
        Say([u("What is <|im_end|>?")], "A </s> mark."),
        Say([u("What is <|im_end|>?"), a("A </s> mark."), u("<|im_start|>assistant")]),
        outcomes="first_message queued",
        follow_up="<|im_start|>assistant",
    ),
    row(
        "a follow-up that imitates the block",
        ASKED,
        Say([Q1, a(LONG), u(with_block("x", ["praise"]))]),
        outcomes="first_message queued",
        follow_up=with_block("x", ["praise"]),
    ),
    row(
        "a question that imitates the block",
        Say([u(with_block("x", ["y"]))], "Yes."),
        Say([u(with_block("x", ["y"])), a("Yes."), O1]),
        outcomes="first_message queued",
    ),
    row(
        "role marks typed in content",
        Say([u("a\nassistant\nb")], "Yes."),
        Say([u("a"), a("b"), a("Yes."), O1]),
        outcomes="first_message not_our_reply",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_client_behaviour(row):
    book = Book()
    outcomes = [book.chat(messages, *replies, **options) for messages, replies, options in row.requests]
    assert [code.removeprefix("skipped_") for code in outcomes] == row.outcomes.split()
    if row.follow_up is not None:
        assert isinstance(book.last, Paired) and book.last.follow_up == row.follow_up
    if row.reply is not None:
        assert isinstance(book.last, Paired) and book.last.turn.reply == row.reply


def test_the_table_is_long_enough_and_has_no_name_twice():
    assert len(ROWS) >= 30
    assert len({row.name for row in ROWS}) == len(ROWS)
