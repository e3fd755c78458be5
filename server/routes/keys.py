"""``/v1/keys``: who may come in. Admin keys only; a secret is shown once."""

from dataclasses import asdict
from typing import Any, cast

from fastapi import APIRouter, Request

from personalize.errors import InvalidParameter
from server.body import read_object
from server.identity import allowed, external_id, unquoted
from server.state import Shared

router = APIRouter(dependencies=[allowed("keys")])
MAX_LABEL_CHARS = 100


@router.get("/v1/keys")
async def list_keys(shared: Shared) -> dict[str, Any]:
    return {"object": "list", "data": [asdict(key) for key in await shared.access.list_keys()]}


@router.post("/v1/keys")
async def create_key(request: Request, shared: Shared) -> dict[str, Any]:
    body = await read_object(request)
    scope, user, label = body.get("scope"), body.get("user"), body.get("label", "")
    if not isinstance(label, str) or len(label) > MAX_LABEL_CHARS:
        raise InvalidParameter("label", label, f"at most {MAX_LABEL_CHARS} characters")
    if user is not None:
        external_id(user, "user")
    key, secret = await shared.access.create_key(cast(Any, scope), user, label)
    return asdict(key) | {"secret": secret}


@router.delete("/v1/keys/{key_id}")
async def revoke_key(key_id: str, shared: Shared) -> dict[str, Any]:
    key_id = unquoted(key_id)
    await shared.access.revoke_key(key_id)
    return {"key_id": key_id, "revoked": True}
