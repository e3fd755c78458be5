"""``/v1/updates``, ``/v1/outcomes``, explanations and undo: what became of a follow-up, what it did, and its end."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request

from personalize.access import Principal
from personalize.errors import InvalidParameter, NotFound
from personalize.service import Personalizer
from personalize.types import Outcome, UserId
from server.identity import Caller, Change, Read, unquoted
from server.paging import MAX_LIMIT
from server.routes.chat import while_connected
from server.state import Shared

router = APIRouter()


@router.get("/v1/updates/{update_id}")
async def get_update(update_id: str, shared: Shared, caller: Caller) -> dict[str, Any]:
    update_id = unquoted(update_id)
    owner = await _owner(shared.personalizer, update_id)
    if owner is None or not caller.may("read", owner):
        raise NotFound("no such update", param="update_id")
    return asdict(await shared.personalizer.update(update_id))


@router.get("/v1/users/{user}/updates/{update_id}/explanation")
async def explain_update(person: Read, update_id: str, request: Request, shared: Shared) -> dict[str, Any]:
    """What an update did; also under its turn's id, or ``latest``."""
    probe = request.query_params.get("probe")
    work = shared.personalizer.explain(person, unquoted(update_id), probe=probe)
    return (await while_connected(request, work)).to_json()


@router.post("/v1/users/{user}/updates/{update_id}/undo")
async def undo_update(person: Change, update_id: str, request: Request, shared: Shared) -> dict[str, Any]:
    """Take an update back, whenever it was; also under its turn's id. A client that goes away does not stop it."""
    dry_run = request.query_params.get("dry_run", "false")
    if dry_run not in ("true", "false"):
        raise InvalidParameter("dry_run", dry_run, "true or false")
    return asdict(await shared.personalizer.undo_turn(person, unquoted(update_id), dry_run=dry_run == "true"))


@router.get("/v1/outcomes/{request_id}")
async def get_outcome(request_id: str, shared: Shared, caller: Caller) -> dict[str, Any]:
    request_id = unquoted(request_id)
    return {"request_id": request_id, "outcome": str(await _outcome(shared.personalizer, request_id, caller))}


async def _owner(personalizer: Personalizer, update_id: str) -> UserId | None:
    try:
        return await personalizer.update_owner(update_id)
    except NotFound:
        return None


async def _outcome(personalizer: Personalizer, request_id: str, caller: Principal) -> Outcome:
    """A user key finds the requests whose follow-up was queued: only their outcomes change after the answer."""
    if caller.user_id is None:
        return await personalizer.outcome(request_id)
    mine = await personalizer.updates(caller.user_id, MAX_LIMIT)
    found = next((update.outcome for update in mine if update.request_id == request_id), None)
    if found is None:
        raise NotFound("no such request", param="request_id")
    return found
