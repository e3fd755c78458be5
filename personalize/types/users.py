"""Users: how one is named, what an operator sees of one, and what is left to say of one who was forgotten."""

import re
from dataclasses import dataclass
from typing import Literal

from personalize.errors import InvalidParameter
from personalize.types.population import PopulationUse


class UserId(str):
    """A user's random id (32 lower-case hex digits), wherever a plain string would be an external id.

    Raises:
        InvalidParameter: it has another form.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> "UserId":
        if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{32}", value):
            raise InvalidParameter("user id", value, "32 lower-case hex digits")
        return super().__new__(cls, value)


@dataclass(frozen=True, slots=True)
class UserInfo:
    """A user as an operator sees it.

    Attributes:
        user_id: the random id, 32 hex digits; the external id is stored only as a keyed hash and cannot be listed.
    """

    user_id: str
    created_s: float
    learning: Literal["active", "paused"]
    consent: bool | None
    head: int | None
    num_turns: int
    num_updates: int


@dataclass(frozen=True, slots=True)
class ForgetReceipt:
    """What ``forget`` removed, as counts, and what it cannot undo.

    Attributes:
        population: versions of the population adapter that the user is part of, or that the user's versions began
            with; to be built anew from logs without the user.
    """

    num_turns: int
    num_versions: int
    num_updates: int
    num_bytes: int
    finished_s: float
    population: tuple[PopulationUse, ...] = ()
