"""Errors as HTTP: one table from error class to status, one envelope for every refusal."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from personalize.errors import (
    AdapterCorrupt,
    AdapterError,
    AdapterMismatch,
    Cancelled,
    Conflict,
    ContextTooLong,
    Gone,
    InvalidParameter,
    InvalidRequest,
    ModelError,
    NotFound,
    Overloaded,
    PermissionDenied,
    PersonalizeError,
    StorageUnavailable,
    TemplateError,
    TooManyRequests,
    Unauthenticated,
    Unreachable,
    UnsupportedParameter,
)


class UserConflict(InvalidRequest):
    """The request names two different people."""

    code = "user_conflict"


class ModelNotFound(NotFound):
    """The ``model`` field names nothing that is served here."""

    code = "model_not_found"


class BodyTooLarge(InvalidRequest):
    """The body is longer than the service reads."""

    code = "request_too_large"


class AdapterRefused(InvalidRequest):
    """What was sent to be imported is no adapter that can be served; the code and the words are the refusal's own."""

    def __init__(self, refusal: AdapterError):
        super().__init__(refusal.message, param=refusal.param)
        self.code = refusal.code


class ClientGone(Cancelled):
    """Nobody will read the answer; it is only counted."""

    code = "client_gone"


@dataclass(frozen=True, slots=True)
class Answer:
    """How one class of errors is told to a client.

    Args:
        status: HTTP status.
        type: the envelope's ``type``, in OpenAI's words.
        message: said instead of the error's own words, which may name files of this machine.
        retry_after_s: when the client may come back, unless the error itself knows.
    """

    status: int
    type: str
    message: str | None = None
    retry_after_s: float | None = None


INVALID = "invalid_request_error"

ANSWERS: Mapping[type[PersonalizeError], Answer] = {
    PersonalizeError: Answer(500, "api_error", "the service failed; the request id finds it in the log"),
    InvalidRequest: Answer(400, INVALID),
    InvalidParameter: Answer(400, INVALID),
    UnsupportedParameter: Answer(400, INVALID),
    ContextTooLong: Answer(400, INVALID),
    TemplateError: Answer(400, INVALID),
    UserConflict: Answer(400, INVALID),
    BodyTooLarge: Answer(413, INVALID),
    AdapterRefused: Answer(400, INVALID),
    Unauthenticated: Answer(401, "authentication_error"),
    PermissionDenied: Answer(403, "permission_error"),
    NotFound: Answer(404, INVALID),
    Gone: Answer(410, INVALID),
    ModelNotFound: Answer(404, INVALID),
    Conflict: Answer(409, "conflict_error"),
    AdapterError: Answer(500, "api_error", "this adapter version cannot be served; others are not affected"),
    AdapterCorrupt: Answer(500, "api_error", "this adapter version is damaged; others are not affected"),
    AdapterMismatch: Answer(409, "conflict_error", "this adapter version was made for another base model"),
    ModelError: Answer(500, "api_error", "the base model cannot be used"),
    Overloaded: Answer(503, "overloaded_error"),
    TooManyRequests: Answer(429, "rate_limit_error"),
    StorageUnavailable: Answer(503, "api_error", "the store cannot write now", retry_after_s=30),
    Unreachable: Answer(502, "api_error"),
    Cancelled: Answer(503, "api_error", retry_after_s=1),
    ClientGone: Answer(499, "api_error"),
}


def answer_for(error: PersonalizeError) -> Answer:
    """Return the row of the nearest mapped class."""
    return next(ANSWERS[cls] for cls in type(error).__mro__ if cls in ANSWERS)


def envelope(message: str, type: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def error_object(error: PersonalizeError) -> dict[str, Any]:
    """The envelope of an error; also what a stream sends when it breaks."""
    answer = answer_for(error)
    return envelope(answer.message or error.message, answer.type, error.code, error.param)


def error_response(error: PersonalizeError) -> Response:
    """A whole response: status, envelope, ``Retry-After`` or ``WWW-Authenticate`` where they belong."""
    answer = answer_for(error)
    retry_after_s = getattr(error, "retry_after_s", answer.retry_after_s)
    headers = {} if retry_after_s is None else {"Retry-After": str(max(1, round(retry_after_s)))}
    if answer.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return _json(error_object(error), answer.status, headers)


def http_error_response(status: int, headers: Mapping[str, str] | None = None) -> Response:
    """The envelope for what the router itself refuses: no such route, or another method."""
    phrase = HTTPStatus(status).phrase
    return _json(envelope(phrase, INVALID, phrase.lower().replace(" ", "_")), status, headers)


def _json(value: dict[str, Any], status: int, headers: Mapping[str, str] | None) -> Response:
    """ASCII only: an error may quote half a surrogate pair, which UTF-8 cannot carry."""
    return Response(json.dumps(value, separators=(",", ":")), status, headers, "application/json")
