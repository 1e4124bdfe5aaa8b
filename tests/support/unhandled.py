"""Exceptions that nobody expected, counted over the whole run: there have to be none.

A pytest plugin. It sees every record with a traceback that this process logs as an error, and every traceback that a
process of the tests writes on its standard error: to pytest, to whoever reads it through a pipe, or to a file that
`look_through` is given. What a test wants to see goes wrong it declares:

    @pytest.mark.provokes("internal error")

and then it has to: each word of a declaration stands in what was logged while that test ran, unless it says
`surely=False`, because it depends on who is quicker. At the end the list of all others fails the run, of pytest-xdist's
workers too.
"""

import json
import logging
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from support import canaries, findings

MARK = "Traceback (most recent call last)"
_NOTHING_LIKE_IT = (KeyboardInterrupt, SystemExit)
_LAST_LINE = re.compile(r"(?:[ \t].*\n|\n)*(\S.*)")  # of a traceback, after its first line

_seen: list[str] = []  # since the test began
UNEXPECTED, LOST = "unhandled", "declared, and not provoked"


def look_through(said: str | bytes | None) -> None:
    """What a process wrote on its standard error."""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said or ""
    _seen.extend(exceptions_in(text))
    canaries.look_through("the standard error of a process", text)


def exceptions_in(said: str) -> Iterator[str]:
    """What each traceback ends with, and the message that it was logged with."""
    for start in (match.start() for match in re.finditer(re.escape(MARK), said)):
        line = said[said.rfind("\n", 0, start) + 1 :].partition("\n")[0]
        try:
            record = json.loads(line)
            yield f"{record['message']}: {record['traceback'].splitlines()[-1]}"
        except (ValueError, KeyError, TypeError):
            last = _LAST_LINE.match(said[start:].partition("\n")[2])
            yield last[1] if last else "a traceback without an end"


def _watch_log() -> None:
    """By the factory of records: handlers come and go with the tests, and some take all others away."""
    make_record = logging.getLogRecordFactory()

    def watching(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make_record(*arguments, **named)
        if record.levelno >= logging.ERROR and record.exc_info and record.exc_info[0]:
            _, error, _ = record.exc_info
            if not isinstance(error, _NOTHING_LIKE_IT):
                _seen.append(f"{record.getMessage()}: {type(error).__name__}: {error}")
        return record

    logging.setLogRecordFactory(watching)


def _watch_pipes() -> None:
    communicate = subprocess.Popen.communicate

    def watching(process: Any, *arguments: Any, **named: Any) -> Any:
        output, errors = communicate(process, *arguments, **named)
        look_through(errors)
        return output, errors

    subprocess.Popen.communicate = watching  # type: ignore[method-assign]


def pytest_configure(config: pytest.Config) -> None:
    for plugin in (findings, canaries):
        config.pluginmanager.register(plugin)
    config.addinivalue_line("markers", "provokes(words): the exceptions that the test wants to see in the log")
    _watch_log()
    _watch_pipes()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    _seen.clear()
    outcome = yield
    _judge(item)
    return outcome


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """What a process wrote where pytest's own standard error goes. Each phase's report repeats those before."""
    report = yield
    item.stash[_ended] = item.stash.get(_ended, True) and report.passed
    if report.when == "teardown":
        for title, content in report.sections:
            if title.startswith("Captured stderr"):
                look_through(content)
    return report


_ended = pytest.StashKey[bool]()


def _judge(item: pytest.Item) -> None:
    marks = list(item.iter_markers("provokes"))
    provoked = [word for mark in marks for word in mark.args]
    surely = [word for mark in marks if mark.kwargs.get("surely", True) for word in mark.args]
    for said in _seen:
        if not any(word in said for word in provoked):
            findings.add(UNEXPECTED, f"{item.nodeid}: {said}")
    if item.stash.get(_ended, False):  # neither failed nor skipped
        for word in surely:
            if not any(word in said for said in _seen):
                findings.add(LOST, f"{item.nodeid}: {word}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"unhandled exceptions in the log: {findings.count(UNEXPECTED)}")
