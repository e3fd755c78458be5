"""What leaves and enters as a zip file: all of one person, one version's PEFT folder, and a folder from elsewhere."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from fastapi import APIRouter, Request
from starlette.responses import Response

from personalize.errors import AdapterError, NotFound
from server.errors import AdapterRefused
from server.identity import Importer, Read, allowed, version_number
from server.state import Shared
from server.transfer import receive, send_zip

router = APIRouter()
ARCHIVE = "archive.zip"


@router.get("/v1/users/{user}/export")
async def export_user(person: Read, shared: Shared) -> Response:
    async with shared.personalizer.workspace(person) as folder:
        file = _opened(await shared.personalizer.export(person, folder / ARCHIVE))
    return send_zip(file, "user.zip")


@router.get("/v1/users/{user}/versions/{number}/export")
async def export_version(person: Read, number: str, shared: Shared) -> Response:
    version = version_number(number)
    async with shared.personalizer.workspace(person) as folder:
        file = _opened(await shared.personalizer.export_version(person, version, folder / ARCHIVE))
    return send_zip(file, f"adapter-v{version}.zip")


@router.post("/v1/users/{user}/versions", dependencies=[allowed("import")])
async def import_version(person: Importer, request: Request, shared: Shared) -> dict[str, Any]:
    """The body is the zip file. What it says is checked before anything is published."""
    app = shared.personalizer
    async with app.workspace(person) as folder:
        await receive(request, folder / ARCHIVE, app.settings.service.max_import_bytes)
        try:
            return asdict(await app.import_(person, folder / ARCHIVE))
        except AdapterError as error:
            raise AdapterRefused(error) from error


def _opened(path: Path) -> BinaryIO:
    """An open file stays readable when the folder around it has gone."""
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise NotFound("the user was forgotten during the export", param="user") from None
