"""Each test of durability can fail: it finds a registry with a fault on purpose. On demand: -m mutants."""

import os
import subprocess
import sys

import pytest

from durability.mutants import MUTANTS
from durability.server import MUTANT, TESTS

pytestmark = pytest.mark.mutants

COLLECTION_FAULTS = "test_collection_faults.py"
KILL, CUT, FAULTS, TAGS, CLOCK = (f"test_{name}.py" for name in ("kill", "power_cut", "faults", "tags", "clock"))
CAUGHT = {
    "without the file fsync": (CUT,),
    "without the folder fsync": (CUT,),
    "answers before COMMIT": (CUT, FAULTS, TAGS),
    "names before the rename": (CUT, FAULTS),
    "answers from a stale cache": (TAGS, FAULTS),
    "collects before COMMIT": (COLLECTION_FAULTS,),
    "forgets the grace": (KILL,),
}
PATIENCE = 1800  # seconds


@pytest.mark.parametrize(("mutant", "test"), [(mutant, test) for mutant, tests in CAUGHT.items() for test in tests])
def test_a_faulty_registry_is_found(mutant: str, test: str, did):
    """In the size of .ci/run, on SQLite, whose writer is ours."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        TESTS / "durability" / test,
        "-k",
        "sqlite or cut",
        "-p",
        "no:xdist",
    ]
    environment = {**os.environ, MUTANT: mutant, "DURABILITY": "ci"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE, cwd=TESTS.parent
    )
    reason = next((line for line in done.stdout.splitlines() if line.startswith("E  ")), "")
    did(f"mutant: {test} finds a registry that {mutant}: {reason.removeprefix('E').strip():.150}")
    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout, done.stdout


def test_every_mutant_is_found_by_a_test():
    assert set(CAUGHT) == set(MUTANTS)
