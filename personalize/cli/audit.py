"""``personalize audit``: who did what; no model is loaded."""

from typing import Annotated

import typer

from personalize.cli.options import Json, on_store
from personalize.cli.printing import show
from personalize.service import Administration

COLUMNS = {
    "line": "number",
    "at": "created_s",
    "who": "actor",
    "did": "action",
    "to": "object_id",
    "detail": "detail",
}


@on_store
def audit(
    store: Administration,
    limit: Annotated[int, typer.Option(help="most lines to print")] = 100,
    check: Annotated[bool, typer.Option("--check", help="fail if a line was changed or removed")] = False,
    as_json: Json = False,
) -> None:
    """List the newest lines of the audit log; it holds ids, never names or texts."""
    if check:
        store.check_audit()
    show(store.audit(limit), COLUMNS, as_json=as_json)
