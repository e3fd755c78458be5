"""``GET /v1/models``: the base model, and for a user's own key that user's current version. Nobody else's.

Asked for by name, ``<base>@base`` and that user's older versions are found too: a chat can name them.
"""

from typing import Any

from fastapi import APIRouter

from server.chat_request import model_version
from server.chat_response import fingerprint
from server.errors import ModelNotFound
from server.identity import Caller, unquoted
from server.state import Shared, State

router = APIRouter()


@router.get("/v1/models")
async def list_models(shared: Shared, caller: Caller) -> dict[str, Any]:
    models = [_base(shared)]
    number = await _own_head(shared, caller)
    if number is not None:
        models.append(_version(shared, number))
    return {"object": "list", "data": models}


@router.get("/v1/models/{model:path}")
async def get_model(model: str, shared: Shared, caller: Caller) -> dict[str, Any]:
    version = model_version(unquoted(model), shared.base)
    if version == "head":
        return _base(shared)
    if version == "base":
        return _version(shared, None)
    if version not in await _own_versions(shared, caller):
        raise ModelNotFound("no such model", param="model")
    return _version(shared, version)


async def _own_head(shared: State, caller: Caller) -> int | None:
    if caller.user_id is None:
        return None
    return (await shared.personalizer.user(caller.user_id)).head


async def _own_versions(shared: State, caller: Caller) -> set[int]:
    if caller.user_id is None:
        return set()
    return {version.number for version in await shared.personalizer.versions(caller.user_id)}


def _base(shared: State) -> dict[str, Any]:
    return {"id": shared.base, "object": "model", "created": shared.started_s, "owned_by": "personalize"}


def _version(shared: State, number: int | None) -> dict[str, Any]:
    name = fingerprint(shared.base, number)
    return _base(shared) | {"id": name, "root": name, "parent": shared.base}
