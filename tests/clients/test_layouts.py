"""What `charthouse export` writes, as another tool reads it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from charthouse import layouts
from charthouse.composition import open_registry
from charthouse.core import Caller
from charthouse.settings import load
from charthouse.transfer import push_chart
from support.charts import pack
from support.tools import Tool, find

pytestmark = pytest.mark.clients


async def test_oras_reads_an_export(tmp_path: Path) -> None:
    archive = pack(tmp_path, "app", "1.0.0")
    registry = await open_registry(load({"data": tmp_path / "data"}, environ={}), durable=False)
    try:
        _, pushed = await push_chart(registry, "team-a", archive.read_bytes(), None, datetime.now(UTC), Caller())
        selection = await layouts.select(registry, ())
        assert [each.fault async for each in layouts.export(registry, selection, tmp_path / "out")] == [""]
    finally:
        await registry.close()
    oras = Tool(find("oras"), tmp_path / "home")
    layout = tmp_path / "out/team-a/app"
    assert oras("repo", "tags", "--oci-layout", layout).split() == ["1.0.0"]
    assert oras("resolve", "--oci-layout", f"{layout}:1.0.0").strip() == pushed.digest
    oras("copy", "--from-oci-layout", f"{layout}:1.0.0", "--to-oci-layout", f"{tmp_path}/copy:1.0.0")
