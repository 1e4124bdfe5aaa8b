"""A folder is packed as `helm package` packs it."""

import io
import tarfile
from pathlib import Path

import pytest

from charthouse.helm.sources import IgnoreInvalid, pack_folder
from support.tools import Tool

FILES = ("a.txt", "b.txt", "[.txt", "d/a.txt", "d/e/b.txt", "templates/a.yaml")
IGNORED = [
    "",
    "# a.txt",
    "a.txt",
    "/a.txt",
    "*.txt",
    "?.txt",
    "[ab].txt",
    "[^a].txt",
    "[[].txt",
    "[[a].txt",
    "[a||&&~~].txt",
    r"[\d\a].txt",
    r"\[.txt",
    "d/",
    "d/*.txt",
    "d/?/b.txt",
    "templates/a.yaml",
]
NO_PATTERNS = ["[", "a[", "[a", "zz[", "**", "[[[", "[+--a]"]


def write(folder: Path, ignored: str) -> Path:
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    (folder / "Chart.yaml").write_text(f"apiVersion: v2\nname: {folder.name}\nversion: 1.0.0\n", encoding="utf-8")
    (folder / ".helmignore").write_text(ignored, encoding="utf-8")
    return folder


def names(archive: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return set(tar.getnames())


def test_what_a_helmignore_leaves_out_is_what_helm_leaves_out(helm: Tool, tmp_path: Path) -> None:
    folders = [write(tmp_path / f"chart{number}", ignored) for number, ignored in enumerate(IGNORED)]
    helm("package", *folders, "--destination", tmp_path / "packed")
    for folder, ignored in zip(folders, IGNORED, strict=True):
        helms = names((tmp_path / f"packed/{folder.name}-1.0.0.tgz").read_bytes())
        assert names(pack_folder(folder)) == helms, ignored


@pytest.mark.parametrize("line", NO_PATTERNS)
def test_a_helmignore_that_helm_refuses_is_refused(helm4: Tool, tmp_path: Path, line: str) -> None:
    folder = write(tmp_path / "chart", line)
    assert helm4("package", folder, status=1)
    with pytest.raises(IgnoreInvalid):
        pack_folder(folder)
