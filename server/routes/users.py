"""``/v1/users``: one person's state, versions, updates, and forgetting."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request

from personalize.errors import InvalidParameter
from server.body import read_object
from server.identity import Caller, Change, Forget, Read, allowed, version_number
from server.paging import page
from server.state import Shared

router = APIRouter()
LEARNING = {"active": "resume", "paused": "pause"}


@router.get("/v1/users", dependencies=[allowed("list_users")])
async def list_users(request: Request, shared: Shared) -> dict[str, Any]:
    limit, after = page(request.query_params)
    users = await shared.personalizer.users(limit, after)
    return {"object": "list", "data": [asdict(user) for user in users], "has_more": len(users) == limit}


@router.get("/v1/users/{user}")
async def get_user(person: Read, shared: Shared) -> dict[str, Any]:
    return asdict(await shared.personalizer.user(person))


@router.put("/v1/users/{user}")
async def put_user(person: Change, request: Request, shared: Shared, caller: Caller) -> dict[str, Any]:
    body = await read_object(request)
    learning, consent = body.get("learning"), body.get("consent")
    if learning not in (None, *LEARNING):
        raise InvalidParameter("learning", learning, "'active' or 'paused'")
    if not isinstance(consent, bool | None):
        raise InvalidParameter("consent", consent, "true or false")
    if learning is not None:
        await (shared.personalizer.pause(person) if learning == "paused" else shared.personalizer.resume(person))
    if consent is not None:
        await shared.personalizer.consent(person, consent, actor=f"key {caller.key_id}")
    return asdict(await shared.personalizer.user(person))


@router.delete("/v1/users/{user}")
async def forget_user(person: Forget, shared: Shared) -> dict[str, Any]:
    return asdict(await shared.personalizer.forget(person))


@router.get("/v1/users/{user}/versions")
async def list_versions(person: Read, shared: Shared) -> dict[str, Any]:
    return {"object": "list", "data": [asdict(version) for version in await shared.personalizer.versions(person)]}


@router.put("/v1/users/{user}/versions/{number}")
async def put_version(person: Change, number: str, request: Request, shared: Shared) -> dict[str, Any]:
    version, pinned = version_number(number), (await read_object(request)).get("pinned")
    if not isinstance(pinned, bool):
        raise InvalidParameter("pinned", pinned, "true or false")
    return asdict(await shared.personalizer.pin(person, version, pinned))


@router.get("/v1/users/{user}/updates")
async def list_updates(person: Read, request: Request, shared: Shared) -> dict[str, Any]:
    limit, _ = page(request.query_params)
    updates = await shared.personalizer.updates(person, limit)
    return {"object": "list", "data": [asdict(update) for update in updates]}


@router.post("/v1/users/{user}/rollback")
async def rollback(person: Change, request: Request, shared: Shared) -> dict[str, Any]:
    number = (await read_object(request)).get("version")
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number < 10**18:
        raise InvalidParameter("version", number, "the number of one of the user's versions")
    return asdict(await shared.personalizer.rollback(person, number))


@router.post("/v1/users/{user}/reset")
async def reset(person: Change, shared: Shared) -> dict[str, Any]:
    await shared.personalizer.reset(person)
    return {"head": None}


@router.post("/v1/users/{user}/undo")
async def undo(person: Change, shared: Shared) -> dict[str, Any]:
    version = await shared.personalizer.undo(person)
    return {"version": None if version is None else asdict(version)}
