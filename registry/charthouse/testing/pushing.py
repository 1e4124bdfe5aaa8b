"""What can be pushed to a registry for tests, and what is known then."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from charthouse.testing.charts import ChartArchive, make_chart

MADE = datetime(2000, 1, 1, tzinfo=UTC)  # when a chart was written that is no file: always the same manifest

Pushable = ChartArchive | bytes | str | os.PathLike[str] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PushedChart:
    """Where a chart is now."""

    repository: str
    tag: str
    digest: str


def read(chart: Pushable) -> tuple[bytes, bytes | None, datetime]:
    """The archive, its provenance, and when it was written."""
    if isinstance(chart, Mapping):
        chart = make_chart(**chart)
    if isinstance(chart, ChartArchive):
        return chart.content, chart.provenance, MADE
    if isinstance(chart, bytes):
        return chart, None, MADE
    from charthouse.transfer import ArchiveFile  # the registry with it

    file = ArchiveFile(Path(chart), "")
    return file.path.read_bytes(), file.provenance, file.written
