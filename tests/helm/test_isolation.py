"""Small archives are read where they are; all others in a helper process that a bomb may take with it."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from charthouse.helm import helper
from charthouse.helm.archive import Limits
from charthouse.helm.helper import Helper, HelperMissing
from charthouse.helm.inspection import Inspection, inspect
from charthouse.helm.isolation import SMALL, SMALL_YAML, Inspector
from helm.charts import CHART_YAML, chart, member, tgz

MIB = 1024 * 1024
LARGE = chart({"f": bytes(2 * MIB)})
SLOW_SCHEMA = {
    "values.yaml": b"a: " + b"a" * 40 + b"!",
    "values.schema.json": b'{"properties": {"a": {"pattern": "^(a+)+$"}}}',
}


@pytest.fixture
def inspector() -> Iterator[Inspector]:
    with contextlib.closing(Helper()) as helper:
        yield Inspector(helper)


def rules(found: Inspection) -> list[str]:
    return [each.rule for each in found.faults + found.lint]


SMALL_ONES = {
    "one byte less than 1 MiB": chart({"f": bytes(MIB - len(CHART_YAML) - 1)}),
    "500 members": tgz(member("app/Chart.yaml", CHART_YAML), *(member(f"app/{n}") for n in range(499))),
    "64 KiB of Chart.yaml": chart(chart_yaml=CHART_YAML.ljust(SMALL_YAML, b"\n")),
    "no archive": b"junk",
}
LARGE_ONES = {
    "1 MiB": chart({"f": bytes(MIB - len(CHART_YAML))}),
    "501 members": tgz(member("app/Chart.yaml", CHART_YAML), *(member(f"app/{n}") for n in range(500))),
    "64 KiB and a byte of Chart.yaml": chart(chart_yaml=CHART_YAML.ljust(SMALL_YAML + 1, b"\n")),
    "64 KiB and a byte of requirements": chart({"requirements.yaml": b"\n" * (SMALL_YAML + 1)}),
}


@pytest.mark.parametrize("content", SMALL_ONES.values(), ids=SMALL_ONES)
def test_a_small_archive_needs_no_helper(inspector: Inspector, content: bytes) -> None:
    assert inspector.inspect(content) == inspect(content, Limits())
    assert inspector.helper.pid is None


@pytest.mark.parametrize("content", LARGE_ONES.values(), ids=LARGE_ONES)
def test_a_larger_one_is_read_in_the_helper_and_said_the_same_of(inspector: Inspector, content: bytes) -> None:
    assert inspector.inspect(content) == inspect(content, Limits())
    assert inspector.helper.pid is not None


def test_what_linting_could_make_slow_is_done_in_the_helper(inspector: Inspector) -> None:
    for files in ({"values.schema.json": b"{}"}, {"charts/a.tgz": b""}, {"values.yaml": b"\n" * (SMALL_YAML + 1)}):
        inspector.inspect(chart(files))
    assert inspector.helper.pid is None
    assert rules(inspector.inspect(chart({"values.schema.json": b"{}", "charts/a.tgz": b""}), linting=True))
    assert inspector.helper.pid is not None


def test_an_archive_in_a_file_is_read_there(inspector: Inspector, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(LARGE)
    assert inspector.inspect(tmp_path / "blob") == inspector.inspect(LARGE)


def test_the_helper_is_started_once_and_answers_many_threads(inspector: Inspector) -> None:
    """However large its parent is: Linux counts a parent's memory as its child's."""
    ballast = b"x" * 150 * MIB
    inspector.inspect(LARGE)
    del ballast
    pid = inspector.helper.pid
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(inspector.inspect, [LARGE] * 16))
    assert {len(each.files) for each in found} == {2}
    assert inspector.helper.pid == pid


def test_what_takes_too_much_cpu_is_refused_by_the_name_of_the_limit() -> None:
    inspector = Inspector(Helper(cpu_limit=0.05))
    content = chart(chart_yaml=CHART_YAML + b"x: [" + b"1," * 90_000 + b"]")
    (fault,) = inspector.inspect(content).faults
    assert str(fault) == "reading the archive takes more than 0.05 s of CPU; make it smaller"
    assert (fault.rule, fault.severity) == ("archive_is_within_limits", "reject")
    assert inspector.helper.pid is None
    inspector.helper.close()


def test_what_takes_too_much_memory_is_refused_by_the_name_of_the_limit() -> None:
    inspector = Inspector(Helper(memory_limit=96 * MIB))
    files = {f"f{number}": bytes(4 * MIB) for number in range(20)}
    (fault,) = inspector.inspect(chart(files)).faults
    assert str(fault) == "reading the archive takes more than 96 MiB of memory; make it smaller"
    assert inspector.inspect(LARGE).faults == ()
    inspector.helper.close()


def test_a_chart_is_not_refused_because_its_lint_takes_too_long() -> None:
    """A pattern that goes back over itself for ever, in the schema of a chart that Helm takes."""
    inspector = Inspector(Helper(cpu_limit=0.5))
    found = inspector.inspect(chart(SLOW_SCHEMA), linting=True)
    assert found.faults == ()
    assert found.metadata is not None
    assert [str(each) for each in found.lint] == ["not checked: doing so takes more than 0.5 s of CPU"]
    inspector.helper.close()


def test_the_largest_chart_that_helm_takes_fits(inspector: Inspector) -> None:
    files = {f"f{number}": bytes(5 * MIB) for number in range(19)}
    assert inspector.inspect(chart(files)).faults == ()


def test_a_helper_that_took_much_memory_is_not_used_again(inspector: Inspector) -> None:
    inspector.inspect(chart({f"f{number}": b"x" * 5 * MIB for number in range(19)}))
    os.waitid(os.P_PID, inspector.helper._process.pid, os.WEXITED | os.WNOWAIT)
    assert inspector.helper.pid is None


def test_a_helper_that_was_killed_is_started_again(inspector: Inspector) -> None:
    inspector.inspect(LARGE)
    first = inspector.helper.pid
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    assert inspector.inspect(LARGE).faults == ()
    assert inspector.helper.pid != first


def test_a_helper_that_is_killed_at_work_costs_that_archive_only(
    inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the kernel when memory is short."""
    inspector.inspect(LARGE)
    pid = inspector.helper.pid
    started = threading.Event()
    monkeypatch.setattr(helper._Watch, "watching", lambda _: started.set() or contextlib.nullcontext())
    with ThreadPoolExecutor(1) as thread:
        os.kill(pid, signal.SIGSTOP)
        asked = thread.submit(inspector.inspect, LARGE)
        assert started.wait(10)
        os.kill(pid, signal.SIGKILL)
        (fault,) = asked.result().faults
    assert str(fault) == "reading the archive takes more than 2 s of CPU or 256 MiB of memory; make it smaller"
    assert inspector.inspect(LARGE).faults == ()


def test_no_archive_is_refused_for_what_the_one_before_it_took(inspector: Inspector) -> None:
    inspector.inspect(LARGE)
    watch = inspector.helper._process._watch
    with watch.watching():
        watch._kill(watch._request - 2)
        assert not watch.killed
        watch._kill(watch._request)
        assert watch.killed
    assert inspector.inspect(LARGE).faults == ()


def test_a_file_that_is_not_there_is_no_fault_of_the_chart(inspector: Inspector, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        inspector.inspect(tmp_path / "none")


def test_a_helper_that_cannot_start_is_no_fault_of_the_chart(
    inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(HelperMissing, match="does not start"):
        inspector.inspect(LARGE)
    assert inspector.inspect(chart()).faults == ()


def test_closing_ends_the_helper() -> None:
    inspector = Inspector(Helper())
    inspector.inspect(LARGE)
    pid = inspector.helper.pid
    inspector.helper.close()
    inspector.helper.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="closed"):
        inspector.inspect(LARGE)


def test_the_helper_ends_when_its_parent_is_killed() -> None:
    parent = (
        "import os, sys, signal; sys.path.insert(0, sys.argv[1])\n"
        "from charthouse.helm.helper import Helper\n"
        "from charthouse.helm.isolation import Inspector\n"
        "inspector = Inspector(Helper()); inspector.inspect(bytes.fromhex(sys.stdin.readline()))\n"
        "os.write(1, b'%d' % inspector.helper.pid); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    package = Path(helper.__file__).parents[2]
    command = [sys.executable, "-c", parent, str(package)]
    done = subprocess.run(command, input=LARGE.hex(), capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert ended(int(done.stdout))


def ended(pid: int) -> bool:
    """Waits until the process is gone; it is no child of ours."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 10)[0])
    finally:
        os.close(descriptor)


def test_secrets_in_the_environment_do_not_reach_the_helper(
    inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARTHOUSE_DATABASE", "postgresql://user:never-to-be-seen@host/db")
    inspector.inspect(LARGE)
    assert b"never-to-be-seen" not in Path(f"/proc/{inspector.helper.pid}/environ").read_bytes()


def test_the_limits_are_those_of_the_documentation() -> None:
    assert (SMALL.total, SMALL.members, SMALL_YAML) == (MIB, 500, 64 * 1024)
    assert (helper.CPU_LIMIT, helper.MEMORY_LIMIT) == (2.0, 256 * MIB)
