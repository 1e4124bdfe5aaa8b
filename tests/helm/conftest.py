"""The real helm, and its source, for what must agree with them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.tools import Tool, find, missing

# Building the two takes minutes: what needs them runs with the other clients.
HELM3, HELM4 = (pytest.param(name, marks=pytest.mark.clients) for name in ("helm3", "helm4"))


@pytest.fixture(params=[HELM3, HELM4])
def helm(request: pytest.FixtureRequest, tmp_path: Path) -> Tool:
    return Tool(find(request.param), tmp_path / "home")


@pytest.fixture(params=[HELM4])
def helm4(request: pytest.FixtureRequest, tmp_path: Path) -> Tool:
    return Tool(find(request.param), tmp_path / "home")


@pytest.fixture(scope="session", params=[HELM4])
def helm_source(request: pytest.FixtureRequest) -> Path:
    """Helm 4.3.1 in Go's module cache, where building the tool helm4 puts it."""
    find(request.param)
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
