"""Files of a folder that somebody else made: no link is followed, and nothing is read without a limit."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from charthouse.errors import BlobUnknown, ManifestInvalid


def read_json(folder: Path, parts: Sequence[str], limit: int) -> dict[str, Any]:
    name = "/".join(parts)
    try:
        document = json.loads(read_file(folder, parts, limit).decode())
    except (ValueError, RecursionError):
        raise ManifestInvalid(f"{name} is not valid JSON") from None
    if not isinstance(document, dict):
        raise ManifestInvalid(f"{name} is not a JSON object")
    return document


def read_file(folder: Path, parts: Sequence[str], limit: int) -> bytes:
    with open_file(folder, parts) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ManifestInvalid(f"{'/'.join(parts)} has more than {limit:,} bytes")
    return content


def open_file(folder: Path, parts: Sequence[str]) -> BinaryIO:
    """A file below the folder, which is no link itself. Raises BLOB_UNKNOWN: it may be a link to anywhere."""
    path, name = folder.joinpath(*parts), "/".join(parts)
    try:
        if path.resolve() != path:
            raise BlobUnknown(f"{name} is a link, or behind one: files are read from the folder that is imported alone")
        if not path.is_file():
            raise BlobUnknown(f"there is no file {name}")
        return path.open("rb")
    except OSError as error:
        raise BlobUnknown(f"{name} cannot be read: {error.strerror}") from None
