"""The application: routes, keys, errors and the edge, put together."""

import time
from pathlib import Path

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from personalize.access import Access
from personalize.errors import InvalidRequest, PersonalizeError
from personalize.service import Personalizer
from server.edge import Edge
from server.errors import error_response, http_error_response
from server.identity import authenticate
from server.metrics import Metrics
from server.pulse import Pulse
from server.routes import archives, chat, keys, models, operations, updates, users
from server.seats import Seats
from server.state import State

KEEP_ALIVE_S = 10.0


def create_app(
    personalizer: Personalizer, access: Access, *, model: str | None = None, keep_alive_s: float = KEEP_ALIVE_S
) -> FastAPI:
    """Return the application that serves an open ``Personalizer``; opening and closing it stays with the caller.

    Args:
        access: decides what a key may do.
        model: id under which clients know the base model; default: the name it was opened by.
        keep_alive_s: longest silence in a stream before a comment is sent.
    """
    metrics = Metrics(personalizer.status)
    app = FastAPI(
        title="personalize",
        dependencies=[Depends(authenticate)],
        redirect_slashes=False,
        openapi_url=None,  # these routes would stand outside the global dependency
        docs_url=None,
        redoc_url=None,
    )
    app.state.shared = State(
        personalizer=personalizer,
        access=access,
        metrics=metrics,
        pulse=Pulse(personalizer),
        seats=Seats(personalizer.settings.service.max_requests_per_user),
        base=model or model_id(personalizer.settings.model),
        started_s=int(time.time()),
        max_choices=personalizer.settings.service.max_choices,
        keep_alive_s=keep_alive_s,
    )
    app.add_middleware(Edge, observe=metrics.observe_request)
    _add_errors(app)
    for resource in (chat, models, users, archives, updates, keys, operations):
        app.include_router(resource.router)
    return app


def model_id(model: str) -> str:
    """The name clients see: hub ids and names as they are, of a local folder only its own name."""
    path = Path(model)
    return path.resolve().name if path.is_absolute() or path.exists() else model


def _add_errors(app: FastAPI) -> None:
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, PersonalizeError)
        return error_response(error)

    async def unrouted(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return http_error_response(error.status_code, error.headers)

    async def malformed(request: Request, error: Exception) -> Response:
        return error_response(InvalidRequest("the request has a parameter of the wrong form"))

    app.add_exception_handler(PersonalizeError, refused)
    app.add_exception_handler(HTTPException, unrouted)
    app.add_exception_handler(RequestValidationError, malformed)
