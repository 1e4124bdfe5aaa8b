"""The real helm, and its source, for what must agree with them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.tools import Tool, find, missing


@pytest.fixture(params=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest, tmp_path: Path) -> Tool:
    return Tool(find(request.param), tmp_path / "home")


@pytest.fixture
def helm4(tmp_path: Path) -> Tool:
    return Tool(find("helm4"), tmp_path / "home")


@pytest.fixture(scope="session")
def helm_source() -> Path:
    """Helm 4.3.1 in Go's module cache, where building the tool helm4 has put it."""
    go = shutil.which("go")
    asked = (
        subprocess.run([go, "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip()
        if go
        else ""
    )
    cache = Path(asked or os.environ.get("GOMODCACHE") or Path.home() / "go/pkg/mod")
    source = cache / "helm.sh/helm/v4@v4.3.1"
    if not source.is_dir():
        missing("helm4's source", f"{source} is not there")
    return source
