"""Everything in `examples/` does what it says, as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.tools import ROOT, find, find_installed

pytestmark = pytest.mark.examples

EXAMPLES = ROOT / "examples"
PATIENCE = 600  # seconds: Go compiles Helm, Maven may have to fetch JUnit


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A machine with helm and oras, and a `uvx` that runs this checkout."""
    uvx = tmp_path / "bin" / "uvx"
    uvx.parent.mkdir()
    uvx.write_text('#!/bin/sh\nexec "$@"\n')
    uvx.chmod(0o755)
    folders = [uvx.parent, Path(sys.executable).parent, find("helm4").parent, find("oras").parent]
    path = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "GOFLAGS": "-mod=readonly", "PYTHONDONTWRITEBYTECODE": "1"}


def run(command: str, folder: Path, environ: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_go_asks_for_registries_side_by_side(environ: dict[str, str]) -> None:
    answer = run("uvx charthouse exec -- go test -count=1 -v ./...", EXAMPLES / "go", environ)
    assert answer.count("--- PASS") == 3


def test_go_starts_a_registry_where_there_is_none(environ: dict[str, str]) -> None:
    command = "go test -count=1 -v -run TestWhatIsPushed ./..."
    assert run(command, EXAMPLES / "go", environ).count("--- PASS") == 1


def test_python(environ: dict[str, str]) -> None:
    command = "python -m pytest -q -p no:cacheprovider test_plugin.py"
    assert "2 passed" in run(command, EXAMPLES / "python", environ)


def test_node(environ: dict[str, str]) -> None:
    find_installed("node")
    answer = run("uvx charthouse exec -- node --test registry.test.mjs", EXAMPLES / "node", environ)
    assert "# pass 2" in answer


@pytest.mark.nightly
def test_java(environ: dict[str, str], tmp_path: Path) -> None:
    find_installed("mvn")
    command = f"uvx charthouse exec -- mvn -B -DbuildDirectory={tmp_path} test"
    assert "Tests run: 3, Failures: 0" in run(command, EXAMPLES / "java", environ)


def test_shell(environ: dict[str, str]) -> None:
    assert run("uvx charthouse exec --tls -- ./test.sh", EXAMPLES / "shell", environ).endswith("all is well\n")


def scripts(document: dict[str, Any]) -> list[str]:
    """The lines that a workflow of GitHub or GitLab runs."""
    jobs = document.get("jobs", document).values()
    steps = [step["run"] for job in jobs for step in job.get("steps", ()) if "run" in step]
    return steps + [line for job in jobs for line in job.get("script", ())]


@pytest.mark.parametrize("path", sorted((EXAMPLES / "ci").iterdir()), ids=lambda path: path.name)
def test_what_a_pipeline_runs(environ: dict[str, str], path: Path) -> None:
    (line,) = scripts(yaml.safe_load(path.read_text()))
    assert line.startswith("uvx charthouse exec ")
    assert run(line, ROOT, environ).endswith("all is well\n")


def snippets(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/testing.md"])
def test_what_the_documentation_shows_of_python_runs_as_printed(
    environ: dict[str, str], tmp_path: Path, page: str
) -> None:
    tests = [snippet for snippet in snippets(page, "python") if "def test_" in snippet]
    assert tests
    for number, test in enumerate(tests):  # each by itself, as somebody copies it
        (tmp_path / f"test_page{number}.py").write_text(test)
    for number, script in enumerate(snippet for snippet in snippets(page, "python") if snippet not in tests):
        (tmp_path / f"script{number}.py").write_text(script)
        run(f"python script{number}.py", tmp_path, environ)
    assert " passed" in run("python -m pytest -q -p no:cacheprovider", tmp_path, environ)


def test_what_the_documentation_shows_of_shell_runs_as_printed(environ: dict[str, str], tmp_path: Path) -> None:
    (line,) = [line for snippet in snippets("docs/testing.md", "sh") for line in snippet.splitlines()]
    (tmp_path / "test.sh").write_text(line)
    assert run("uvx charthouse exec -- bash -eu test.sh", tmp_path, environ) == "[]"


def test_every_example_is_in_the_table() -> None:
    table = (EXAMPLES / "README.md").read_text()
    assert all(f"| [{folder.name}](" in table for folder in EXAMPLES.iterdir() if folder.is_dir())
