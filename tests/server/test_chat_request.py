import pytest

from personalize.errors import InvalidParameter, InvalidRequest, UnsupportedParameter
from personalize.types import Message, SamplingParams
from server.chat_request import ChatCall, parse_chat
from server.errors import ModelNotFound

HELLO = [{"role": "user", "content": "hello"}]


def parse(**fields) -> ChatCall:
    return parse_chat({"model": "pocket", "messages": HELLO} | fields, base="pocket", user="alice", max_choices=4)


def test_the_smallest_body():
    call = parse()
    assert call.request.messages == (Message("user", "hello"),)
    assert call.request.user == "alice" and call.request.sampling == SamplingParams()
    assert (call.request.n, call.request.learn, call.request.temporary, call.request.version) == (
        1,
        True,
        False,
        "head",
    )
    assert not call.stream and not call.include_usage


def test_every_honoured_field():
    call = parse(
        temperature=0, top_p=0.5, top_k=7, max_completion_tokens=9, stop=["a", "b"], seed=3, n=2, stream=True,
        stream_options={"include_usage": True},
        personalization={"learn": False, "temporary": False, "version": 2},
    )  # fmt: skip
    assert call.request.sampling == SamplingParams(0, 0.5, 7, 9, ("a", "b"), 3)
    assert (call.request.n, call.request.learn, call.request.version) == (2, False, 2)
    assert call.stream and call.include_usage


def test_nulls_are_defaults():
    names = ("temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "stop", "seed", "n", "stream")
    assert parse(**dict.fromkeys((*names, "stream_options", "personalization", "user", "tools"))) == parse()


def test_developer_is_system_and_parts_are_joined():
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    roles = [message.role for message in parse(messages=messages).request.messages]
    assert roles == ["system", "user"]


def test_tool_messages_in_the_history_are_accepted():
    messages = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
        {"role": "tool", "tool_call_id": "1", "content": "rain"},
    ]
    assert parse(messages=messages).request.messages[-1].role == "tool"


def test_image_parts_are_refused_by_name():
    parts = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    with pytest.raises(UnsupportedParameter) as caught:
        parse(messages=[{"role": "user", "content": parts}])
    assert caught.value.param.startswith("messages")


@pytest.mark.parametrize(("model", "version"), [("pocket", "head"), ("pocket@base", "base"), ("pocket@v12", 12)])
def test_model_names(model, version):
    assert parse(model=model).request.version == version


@pytest.mark.parametrize(
    "model", ["gpt-4", "pocket@", "pocket@v0", "pocket@v-1", "pocket@12", "pocket@v12 ", "pocket2"]
)
def test_other_models_are_not_found(model):
    with pytest.raises(ModelNotFound):
        parse(model=model)


def test_model_and_extension_may_agree_but_not_differ():
    assert parse(model="pocket@v2", personalization={"version": 2}).request.version == 2
    with pytest.raises(InvalidRequest, match="version"):
        parse(model="pocket@v2", personalization={"version": 3})
    with pytest.raises(InvalidRequest):
        parse(model="pocket@base", personalization={"version": "head"})


def test_both_token_limits_must_agree():
    assert parse(max_tokens=5, max_completion_tokens=5).request.sampling.max_tokens == 5
    with pytest.raises(InvalidRequest) as caught:
        parse(max_tokens=5, max_completion_tokens=6)
    assert caught.value.param == "max_tokens"


BAD = [
    ("model", None), ("model", ""), ("model", 3), ("model", ["pocket"]),
    ("messages", None), ("messages", []), ("messages", "hello"), ("messages", {"0": HELLO[0]}), ("messages", [1]),
    ("messages", [{"role": "user"}]), ("messages", [{"role": "emperor", "content": "x"}]),
    ("messages", [{"role": "user", "content": 5}]), ("messages", [{"role": "user", "content": [5]}]),
    ("temperature", "hot"), ("temperature", 2.1), ("temperature", -0.1), ("temperature", True),
    ("temperature", float("inf")), ("temperature", float("nan")), ("temperature", [1]), ("temperature", 10**400),
    ("top_p", 0), ("top_p", 1.1), ("top_p", 10**400), ("top_p", "1"), ("top_k", -1), ("top_k", 1.5),
    ("max_tokens", 0), ("max_tokens", 1.0), ("max_tokens", "5"), ("max_tokens", True), ("max_tokens", 10**30),
    ("max_completion_tokens", 0), ("seed", 2**70), ("seed", "x"), ("seed", 1.5),
    ("stop", 5), ("stop", [""]), ("stop", ["a"] * 5), ("stop", [None]), ("stop", ""),
    ("n", 0), ("n", -1), ("n", 1.0), ("n", "2"), ("n", True), ("n", 5),
    ("stream", "yes"), ("stream", 1), ("stream_options", {"include_usage": True}),
    ("personalization", []), ("personalization", {"learn": "no"}), ("personalization", {"temporary": 1}),
    ("personalization", {"version": 0}), ("personalization", {"version": "v3"}), ("personalization", {"version": True}),
    ("personalization", {"version": {}}), ("personalization", {"explain": True}), ("tools", [{}]), ("tools", 5),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda value: repr(value)[:30])
def test_bad_values_are_refused_by_a_typed_error(name, value):
    with pytest.raises(InvalidRequest):
        parse(**{name: value})


@pytest.mark.parametrize("options", [5, {"include_usage": "yes"}, {"include_obfuscation": True}])
def test_bad_stream_options(options):
    with pytest.raises(InvalidRequest):
        parse(stream=True, stream_options=options)


def test_n_above_the_limit_names_the_limit():
    with pytest.raises(UnsupportedParameter, match="1 to 4"):
        parse(n=5)
    with pytest.raises(InvalidParameter, match="1 to 4"):
        parse(n=0)
