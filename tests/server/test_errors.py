import inspect

import pytest

from personalize import errors
from personalize.errors import InvalidParameter, Overloaded, PersonalizeError
from server.errors import ANSWERS, ModelNotFound, UserConflict, answer_for, error_response, http_error_response


def all_errors() -> list[type[PersonalizeError]]:
    members = [value for _, value in inspect.getmembers(errors, inspect.isclass)]
    return [cls for cls in members if issubclass(cls, PersonalizeError)]


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_every_error_of_the_sdk_has_its_own_row(cls):
    assert cls in ANSWERS


def test_a_class_nobody_mapped_answers_as_its_nearest_ancestor():
    class Odd(InvalidParameter):
        pass

    assert answer_for(Odd("x", 1, "2")) is ANSWERS[InvalidParameter]


def test_the_envelope_names_value_and_range():
    response = error_response(InvalidParameter("temperature", 9, "0 to 2"))
    assert response.status_code == 400
    assert bytes(response.body).decode() == (
        '{"error":{"message":"temperature = 9 is not allowed; allowed: 0 to 2",'
        '"type":"invalid_request_error","param":"temperature","code":"invalid_parameter"}}'
    )


def test_overload_says_when_to_come_back():
    response = error_response(Overloaded("full", retry_after_s=2.6))
    assert (response.status_code, response.headers["retry-after"]) == (503, "3")
    assert error_response(Overloaded("full", retry_after_s=0.01)).headers["retry-after"] == "1"


def test_faults_never_say_what_the_machine_said():
    for cls in (errors.AdapterCorrupt, errors.ModelError, errors.StorageUnavailable, PersonalizeError):
        assert b"/secret/path" not in bytes(error_response(cls("/secret/path")).body)


def test_the_server_has_its_own_codes():
    assert (UserConflict.code, ModelNotFound.code) == ("user_conflict", "model_not_found")


def test_unauthenticated_names_the_scheme():
    assert error_response(errors.Unauthenticated("no key")).headers["www-authenticate"] == "Bearer"


def test_router_refusals_use_the_envelope():
    assert bytes(http_error_response(405).body) == (
        b'{"error":{"message":"Method Not Allowed","type":"invalid_request_error",'
        b'"param":null,"code":"method_not_allowed"}}'
    )
