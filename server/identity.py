"""Who is calling, and for whom: keys to principals, names to people.

Deny by default: ``authenticate`` stands before every route of the application, and only the routes in ``PUBLIC`` go
without a key. What a key may do beyond that, each route says by its parameters: ``allowed(action)``, or ``Read``,
``Change`` and ``Forget`` for the user in its path. A user key meets the same 404 for people who do not exist and for
people who are not its own.
"""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Depends, Request

from personalize.access import Principal
from personalize.errors import InvalidParameter, NotFound, Unauthenticated
from personalize.types import UserId
from server.errors import UserConflict
from server.state import Shared, State

PUBLIC = frozenset({"/health", "/ready"})
MAX_ID_CHARS = 256
MAX_VERSION_DIGITS = 18


async def authenticate(request: Request, shared: Shared) -> None:
    """Put the caller's principal where ``Caller`` finds it, or refuse.

    Raises:
        Unauthenticated: no key, or one that is not valid any more.
    """
    if getattr(request.scope.get("route"), "path", None) in PUBLIC:
        return
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthenticated("this route needs an API key: Authorization: Bearer <key>")
    request.state.principal = await shared.access.authenticate(secret.strip())


def principal_of(request: Request) -> Principal:
    return request.state.principal


Caller = Annotated[Principal, Depends(principal_of)]


def allowed(action: str) -> Any:
    """A dependency that lets only those in who may do ``action``, which is about nobody in particular."""

    def check(caller: Caller) -> None:
        caller.require(action)

    return Depends(check)


def person(action: str) -> Any:
    """A dependency that gives the user whom the path names, if the caller may do ``action`` for that user."""

    async def find(user: str, request: Request, caller: Caller, shared: Shared) -> UserId:
        name = unquoted(user)
        named = UserId(name) if request.query_params.get("by") == "id" else external_id(name, "user")
        user_id = await _random_id(named, shared)
        if user_id is None or not caller.may(action, user_id):
            raise NotFound("no such user", param="user")
        return user_id

    return Depends(find)


Read = Annotated[UserId, person("read")]
Change = Annotated[UserId, person("change")]
Forget = Annotated[UserId, person("forget")]
Importer = Annotated[UserId, person("import")]


async def speaker(caller: Principal, request: Request, body: Mapping[str, Any], shared: State) -> str | None:
    """Return the person a chat request speaks for, None where nobody is named.

    Raises:
        UserConflict: two different people are named, or one who is not the key's own.
    """
    named = {name for name in (_header(request), *_fields(body)) if name}
    if len(named) > 1:
        raise UserConflict("X-User-Id, safety_identifier and user name different people", param="user")
    name = external_id(named.pop(), "user") if named else None
    if caller.user_id is None:
        return name
    if name is not None and await _random_id(name, shared) != caller.user_id:
        raise UserConflict("this key belongs to another user than the request names", param="user")
    return caller.user_id


def _header(request: Request) -> str | None:
    """``X-User-Id``; UTF-8 on the wire, whatever the framework took it for."""
    raw = request.headers.get("x-user-id")
    try:
        return None if raw is None else raw.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidParameter("X-User-Id", raw, "UTF-8 text") from None


def _fields(body: Mapping[str, Any]) -> list[str | None]:
    values = [(name, body.get(name)) for name in ("safety_identifier", "user")]
    for name, value in values:
        if value is not None and not isinstance(value, str):
            raise InvalidParameter(name, value, "a string")
    return [value for _, value in values]


async def _random_id(name: str, shared: State) -> UserId | None:
    try:
        return UserId((await shared.personalizer.user(name)).user_id)
    except NotFound:
        return None


def external_id(value: object, param: str) -> str:
    """Return an application's name for a person.

    Raises:
        InvalidParameter: empty, too long, blank, or not whole Unicode text.
    """
    if isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARS and value.strip() and _whole(value):
        return value
    raise InvalidParameter(param, value, f"1 to {MAX_ID_CHARS} characters of text")


def _whole(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def version_number(segment: str) -> int:
    """Return the version that a path segment names.

    Raises:
        InvalidParameter: it is no number.
    """
    if not segment.isascii() or not segment.isdigit() or len(segment) > MAX_VERSION_DIGITS or not int(segment):
        raise InvalidParameter("version", segment, "the number of one of the user's versions")
    return int(segment)


def unquoted(segment: str) -> str:
    """Decode one path segment; routing has left it as it was sent.

    Raises:
        InvalidParameter: it is not percent-encoded UTF-8.
    """
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise InvalidParameter("path", segment, "percent-encoded UTF-8") from None
