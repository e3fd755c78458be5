"""Who is asking, and the one table of what each scope may do."""

from dataclasses import dataclass
from typing import Literal

from personalize.errors import PermissionDenied
from personalize.types import UserId

Scope = Literal["admin", "app", "user"]
SCOPES: tuple[Scope, ...] = ("admin", "app", "user")

# Per action: who may do it for anybody. A user may do the ones in OWN for himself, and nothing else.
ACTIONS: dict[str, frozenset[Scope]] = {
    "chat": frozenset({"admin", "app"}),
    "read": frozenset({"admin", "app"}),  # state, versions, updates, export
    "change": frozenset({"admin", "app"}),  # rollback, undo, reset, pause, resume, consent
    "forget": frozenset({"admin", "app"}),
    "list_users": frozenset({"admin"}),
    "import": frozenset({"admin"}),
    "keys": frozenset({"admin"}),
    "operate": frozenset({"admin"}),  # metrics, queue, audit
}
OWN = frozenset({"chat", "read", "change", "forget"})


@dataclass(frozen=True, slots=True)
class Principal:
    """The holder of a valid key.

    Attributes:
        user_id: whom a user key *is*; None for the other scopes.
    """

    key_id: str
    scope: Scope
    user_id: UserId | None = None

    def may(self, action: str, user_id: str | None = None) -> bool:
        """Return whether the holder may do ``action`` for the user with that random id.

        Args:
            action: one of ``ACTIONS``.
            user_id: None where the action is about nobody in particular.
        """
        if self.scope in ACTIONS[action]:
            return True
        return self.scope == "user" and action in OWN and user_id is not None and user_id == self.user_id

    def require(self, action: str, user_id: str | None = None) -> None:
        """Raise PermissionDenied unless ``may``."""
        if not self.may(action, user_id):
            raise PermissionDenied(f"a key of scope {self.scope!r} may not do this")
