"""Named points at which tests kill the process, or make the disk fail."""

from collections.abc import Callable

POINTS = (
    "file.written",
    "file.synced",
    "file.renamed",
    "file.directory_synced",
    "folder.files_synced",
    "folder.renamed",
    "folder.directory_synced",
    "publish.reserved",
    "publish.staged",
    "publish.moments_stored",
    "publish.folder_stored",
    "publish.before_commit",
    "publish.in_transaction",
    "publish.committed",
    "forget.marked",
    "forget.files_deleted",
    "forget.rows_deleted",
)

hook: Callable[[str], None] | None = None
"""Called with the name of every point that is passed; set by tests only."""


def crash_point(name: str) -> None:
    """Mark a place after which a crash must leave the store whole."""
    assert name in POINTS, name
    if hook is not None:
        hook(name)
