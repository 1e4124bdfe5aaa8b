"""The count of unhandled exceptions sees what it says it sees, and fails the run."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.unhandled import exceptions_in

LOGS = """
    import logging

    def test_log():
        try:
            raise KeyError("lost")
        except KeyError:
            logging.getLogger("charthouse").exception("internal error")
"""
PIPE = """
    import subprocess, sys

    def test_pipe():
        subprocess.run([sys.executable, "-c", "raise KeyError('lost')"], capture_output=True)
"""
INHERITED = PIPE.replace("test_pipe", "test_inherited").replace(", capture_output=True", "")
DECLARED = LOGS.replace("def", "import pytest\n\n    @pytest.mark.provokes('lost')\n    def")
QUIET = """
    import logging

    def test_quiet():
        logging.getLogger("charthouse").error("said without an exception")
"""
IDLE = """
    import pytest

    @pytest.mark.provokes("lost")
    def test_idle():
        pass
"""


def run(folder: Path, code: str, *words: str) -> tuple[int, str]:
    """pytest over that code alone: its exit status, and the end of what it says."""
    (folder / "test_it.py").write_text(textwrap.dedent(code))
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "support.unhandled",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:schemathesis",  # which takes as long to import as all the rest
        "-p",
        "no:hypothesispytest",
        *words,
        "test_it.py",
    ]
    environment = {"PYTHONPATH": str(Path(__file__).parent), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("words", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_an_exception_in_the_log_or_of_a_child_process_fails_the_run_that_passed(tmp_path, words):
    status, said = run(tmp_path, LOGS + PIPE + INHERITED, *words)
    assert "3 passed" in said
    assert "unhandled exceptions in the log: 3" in said
    for name in ("log", "pipe", "inherited"):
        (line,) = [line for line in said.splitlines() if line.startswith(f"unhandled: test_it.py::test_{name}: ")]
        assert line.endswith("KeyError: 'lost'")
    assert status == 1


def test_one_exception_alone_fails_the_run(tmp_path):
    status, said = run(tmp_path, PIPE)
    assert "unhandled exceptions in the log: 1" in said
    assert status == 1


def test_what_is_declared_and_what_is_no_exception_does_not(tmp_path):
    status, said = run(tmp_path, DECLARED + QUIET)
    assert "2 passed" in said
    assert "unhandled exceptions in the log: 0" in said
    assert status == 0


def test_a_declaration_that_has_outlived_its_reason_fails_the_run(tmp_path):
    status, said = run(tmp_path, IDLE)
    assert "declared, and not provoked: test_it.py::test_idle: lost" in said
    assert status == 1


def test_tracebacks_are_found_in_a_log_of_either_form():
    traceback = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n\nValueError: odd'
    inside = '{"level": "error", "message": "internal error", "traceback": %s}'
    entry = inside % ('"' + traceback.replace('"', '\\"').replace("\n", "\\n") + '"')
    assert list(exceptions_in(f'{{"status": 200}}\n{entry}\n')) == ["internal error: ValueError: odd"]
    assert list(exceptions_in(f"12:00:00 error: internal error\n{traceback}\n")) == ["ValueError: odd"]
    assert list(exceptions_in("nothing of the kind")) == []
