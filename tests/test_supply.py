"""`make audit` says that nothing is known only when it looked."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.tools import ROOT

GOOD = {"name": "good", "version": "1", "vulns": []}
BAD = {"name": "bad", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"], "aliases": []}]}
SKIPPED = {"name": "unknown", "skip_reason": "Dependency not found on PyPI and could not be audited"}


def audit(folder: Path, said: str, status: int) -> subprocess.CompletedProcess[str]:
    """With a pip-audit that says this."""
    program = folder / "pip-audit"
    program.write_text(f"#!{sys.executable}\nprint({said!r})\nraise SystemExit({status})\n")
    program.chmod(0o755)
    words = [sys.executable, ROOT / ".ci/audit", program, "requirements.txt"]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("packages", "status", "line"),
    [
        ([], 0, "nothing was audited: no advisories for any of the 0 packages"),
        ([SKIPPED, SKIPPED], 0, "nothing was audited: no advisories for any of the 2 packages"),
        ([GOOD, SKIPPED], 0, "only 1 of 2 packages were audited, without unknown"),
        ([GOOD, BAD], 1, "1 known weaknesses in 2 packages"),
        ([GOOD], 2, "pip-audit ended with 2 and named no weakness"),
    ],
    ids=["nothing", "all skipped", "one skipped", "a weakness", "a failure"],
)
def test_an_audit_fails_that_audited_nothing_or_left_something_out(
    tmp_path: Path, packages: list[Any], status: int, line: str
) -> None:
    done = audit(tmp_path, json.dumps({"dependencies": packages}), status)
    assert done.returncode == 1
    assert f"audit failed: {line}" in done.stderr


def test_an_audit_that_reached_no_advisories_fails(tmp_path: Path) -> None:
    done = audit(tmp_path, "", 1)
    assert done.returncode == 1
    assert "audit failed: pip-audit ended with 1 and no result: could it reach the advisories?" in done.stderr


def test_an_audit_of_all_packages_without_a_weakness_succeeds(tmp_path: Path) -> None:
    done = audit(tmp_path, json.dumps({"dependencies": [GOOD]}), 0)
    assert (done.returncode, done.stdout[:36]) == (0, "1 packages audited: no known weaknes")
