"""What fails a run although each of its tests passed: lines under titles, gathered from pytest-xdist's workers too.

A pytest plugin for those that find something: `add("title", line)`.
"""

from collections import defaultdict
from typing import Any

import pytest

_found: defaultdict[str, list[str]] = defaultdict(list)


def add(title: str, line: str) -> None:
    _found[title].append(line)


def count(title: str) -> int:
    return len(_found[title])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Behind those that look once more at the end."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:  # a worker of pytest-xdist: the process that started it tells
        output["findings"] = dict(_found)
    elif any(_found.values()) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for title, lines in getattr(node, "workeroutput", {}).get("findings", {}).items():
        _found[title].extend(lines)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for title, lines in _found.items():
        for line in lines:
            terminalreporter.write_line(f"{title}: {line}", red=True)
