"""What is shipped, built once for all tests that look at it."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from charthouse import __version__
from support.tools import ROOT


def build(source: Path, folder: Path) -> list[Path]:
    """The wheel and the sdist of a checkout, in this order."""
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", folder]
    subprocess.run(words, cwd=source, check=True, capture_output=True)
    return [folder / f"charthouse-{__version__}-py3-none-any.whl", folder / f"charthouse-{__version__}.tar.gz"]


def files_of(archive: Path) -> dict[str, bytes]:
    """The content of each file by its path inside."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist() if not name.endswith("/")}
    with tarfile.open(archive) as sdist:
        found = ((member.name, sdist.extractfile(member)) for member in sdist if member.isfile())
        return {name: content.read() for name, content in found if content}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of this checkout, the wheel first."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def wheel(built: list[Path]) -> Path:
    return built[0]
