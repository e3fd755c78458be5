"""What every route of one application can reach."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from personalize.access import Access
from personalize.service import Personalizer
from server.metrics import Metrics
from server.pulse import Pulse
from server.seats import Seats


@dataclass(frozen=True, slots=True)
class State:
    """Everything that routes share.

    Attributes:
        base: id of the base model, as clients name it.
        keep_alive_s: longest silence in a stream before a comment is sent.
    """

    personalizer: Personalizer
    access: Access
    metrics: Metrics
    pulse: Pulse
    seats: Seats
    base: str
    started_s: int
    max_choices: int
    keep_alive_s: float


def state_of(request: Request) -> State:
    return request.app.state.shared


Shared = Annotated[State, Depends(state_of)]
