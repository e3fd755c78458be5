import re
from pathlib import Path

import pytest
from openai.types.chat import completion_create_params as openai_params

from personalize.errors import UnsupportedParameter
from server.fields import FIELDS, REFUSED, as_markdown, refuse_unsupported

DOC = Path(__file__).parents[2] / "docs" / "openai-surface.md"

LOUD = {
    "audio": {"voice": "alloy", "format": "wav"},
    "frequency_penalty": 0.5,
    "presence_penalty": -1,
    "function_call": {"name": "f"},
    "functions": [{"name": "f"}],
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "top_logprobs": 5,
    "modalities": ["text", "audio"],
    "moderation": {"model": "omni-moderation-latest"},
    "prediction": {"type": "content", "content": "x"},
    "reasoning_effort": "high",
    "response_format": {"type": "json_object"},
    "service_tier": "priority",
    "tool_choice": "required",
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "verbosity": "low",
    "web_search_options": {},
}


def test_the_table_covers_every_field_of_the_installed_client():
    known = set(openai_params.CompletionCreateParamsStreaming.__annotations__)
    known |= set(openai_params.CompletionCreateParamsNonStreaming.__annotations__)
    known |= set(openai_params.CompletionCreateParamsBase.__annotations__)
    assert {field.name for field in FIELDS if not field.ours} == known


def test_no_field_stands_twice():
    names = [field.name for field in FIELDS]
    assert len(names) == len(set(names))


def test_the_document_shows_exactly_this_table():
    shown = re.search(r"<!-- fields -->\n(.*)<!-- /fields -->", DOC.read_text(), re.DOTALL)
    assert shown is not None and shown[1] == as_markdown()


def test_every_refused_field_has_a_loud_example():
    assert set(LOUD) == set(REFUSED)


@pytest.mark.parametrize("name", LOUD)
def test_a_loud_value_is_refused_by_name(name):
    with pytest.raises(UnsupportedParameter) as caught:
        refuse_unsupported({name: LOUD[name]})
    assert caught.value.param == name


@pytest.mark.parametrize("name", REFUSED)
def test_null_and_neutral_values_are_fine(name):
    for value in (None, *REFUSED[name].neutral):
        refuse_unsupported({name: value})


def test_numbers_compare_as_json_does():
    refuse_unsupported({"frequency_penalty": 0.0})
    with pytest.raises(UnsupportedParameter):
        refuse_unsupported({"frequency_penalty": False})
    with pytest.raises(UnsupportedParameter):
        refuse_unsupported({"logprobs": 0})


def test_unknown_fields_are_accepted():
    refuse_unsupported({"made_up_tomorrow": {"a": 1}})
