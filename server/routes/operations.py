"""Routes for those who run the service: ``/health``, ``/ready``, ``/metrics``, ``/version``."""

import asyncio

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from personalize import __version__
from server.identity import allowed
from server.metrics import CONTENT_TYPE
from server.state import Shared

router = APIRouter()


@router.get("/health")
async def health(shared: Shared) -> JSONResponse:
    """Live: the decode loop has produced a token just now."""
    alive = await shared.pulse.beats()
    return JSONResponse({"status": "ok" if alive else "the engine does not answer"}, 200 if alive else 503)


@router.get("/ready")
async def ready(shared: Shared) -> JSONResponse:
    """Ready: requests should be sent here; says why learning is paused, but that alone does not make it unready."""
    status = await asyncio.to_thread(shared.personalizer.status)
    shown = {name: status.get(name) for name in ("learning", "lease", "journal_mode", "learning_paused_reason")}
    return JSONResponse({"status": "ok", **shown})


@router.get("/metrics", dependencies=[allowed("operate")])
async def metrics(shared: Shared) -> Response:
    return Response(await asyncio.to_thread(shared.metrics.text), media_type=CONTENT_TYPE)


@router.get("/version")
async def get_version(shared: Shared) -> dict[str, str]:
    return {"version": __version__, "model": shared.base}
