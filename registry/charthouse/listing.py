"""How the command line prints what is stored: a table for a person, JSON for a program."""

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from charthouse.linting import Report, summary
from charthouse.queries import Chart
from charthouse.quotas import Held, said
from charthouse.verification import Checked

VERSIONS_SHOWN = 10  # of each damage: a config that all versions share concerns thousands
PIPE_WIDTH = 200  # columns, where no terminal says how many there are
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")  # CVE-2021-21303


def print_charts(charts: Sequence[Chart], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(chart) for chart in charts], indent=2))  # noqa: T201 - what the command is for
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("repository", "version", "app version", "size", "pushed", "provenance"):
        table.add_column(name, no_wrap=True, justify="right" if name == "size" else "left")
    table.add_column("description", no_wrap=True, overflow="ellipsis")
    for chart in charts:
        table.add_row(*map(_plain, _row(chart)))
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(table if charts else "no charts yet")


def print_reports(reports: Sequence[Report]) -> None:
    """Each finding, and for several charts a table that counts them."""
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True, highlight=False)
    for report in reports:
        for finding in report.findings:
            console.print(f"{report.name}: {finding.severity}: {_CONTROL.sub('?', str(finding))}", markup=False)
    if len(reports) == 1 and not reports[0].findings:
        console.print(f"{reports[0].name}: nothing to say", markup=False)
    if len(reports) > 1:
        table = Table("charts", "", box=None, show_header=False)
        for name, count in summary(reports):
            table.add_row(str(count), name)
        console.print(table)


def print_checked(found: Sequence[Checked], *, as_json: bool) -> None:
    """What is damaged, the versions that cannot be pulled for it, and what to do."""
    damaged = [checked for checked in found if checked.how]
    again = [checked for checked in found if checked.is_sound_again]
    counts = {kind: sum(checked.kind == kind for checked in found) for kind in ("blob", "manifest")}
    size = sum(checked.size for checked in found)
    if as_json:
        document = {
            "blobs": counts["blob"],
            "manifests": counts["manifest"],
            "bytes": size,
            "damaged": [_damage(checked) for checked in damaged],
            "sound_again": [checked.digest for checked in again],
        }
        print(json.dumps(document, indent=2))  # noqa: T201 - what the command is for
        return
    lines = [line for checked in damaged for line in _damage_lines(checked)]
    lines += [f"sound again: {checked.kind} {checked.digest}" for checked in again]
    lines += [f"{counts['blob']:,} blobs and {counts['manifest']:,} manifests, {size:,} bytes: {len(damaged)} damaged"]
    if damaged:
        lines += ["push these versions again, with the same files: that replaces what is damaged"]
    print("\n".join(lines))  # noqa: T201 - likewise


def print_usage(found: Sequence[Held], kind: str, *, as_json: bool) -> None:
    """What each namespace or user holds, of how much. Whom a blob waits for that no manifest names is not known."""
    waits = kind == "namespace"
    if as_json:
        rows = [
            {
                kind: held.name,
                "bytes": held.usage.bytes,
                "quota_bytes": held.quota.bytes or None,
                "manifests": held.usage.manifests,
                "quota_manifests": held.quota.manifests or None,
                **({"unnamed_bytes": held.usage.unnamed} if waits else {}),
            }
            for held in found
        ]
        print(json.dumps(rows, indent=2))  # noqa: T201 - what the command is for
        return
    print(f"{kind:<24} {'bytes':<24} {'manifests':<20} {'waiting' if waits else ''}".rstrip())  # noqa: T201 - likewise
    for held in found:
        size = said(held.usage.bytes) + (f" of {said(held.quota.bytes)}" if held.quota.bytes else "")
        count = f"{held.usage.manifests:,}" + (f" of {held.quota.manifests:,}" if held.quota.manifests else "")
        line = f"{held.name:<24} {size:<24} {count:<20} {said(held.usage.unnamed) if waits else ''}"
        print(line.rstrip())  # noqa: T201 - likewise


def _damage(checked: Checked) -> dict[str, object]:
    return {name: getattr(checked, name) for name in ("kind", "digest", "repository", "size", "how", "versions")}


def _damage_lines(checked: Checked) -> Iterator[str]:
    yield f"damaged: {checked.kind} {checked.digest}, {checked.how}"
    yield from (f"  {version}" for version in checked.versions[:VERSIONS_SHOWN])
    if len(checked.versions) > VERSIONS_SHOWN:
        yield f"  and {len(checked.versions) - VERSIONS_SHOWN:,} more, see --json"
    if not checked.versions:
        yield "  no manifest names it"


@contextlib.contextmanager
def progress(total: int | None) -> Iterator[Callable[..., None]]:
    """A bar on a terminal. Gives a function that says a line above it, if there is one, and moves it on."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("", total=total)

        def advance(line: str = "", by: int = 1) -> None:
            if line:
                bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
            bar.advance(task, by)

        yield advance


def _row(chart: Chart) -> Sequence[str]:
    version = (
        ", ".join(tag.replace("_", "+") for tag in chart.tags) or f"{chart.version} (no tag, {chart.digest[:19]}…)"
    )
    return (
        chart.repository,
        version + (" deprecated" if chart.deprecated else ""),
        chart.app_version,
        f"{chart.size:,}",
        datetime.fromtimestamp(chart.pushed_at / 1000, UTC).strftime("%Y-%m-%d %H:%M"),
        chart.signature or ("yes" if chart.provenance else ""),
        chart.description,
    )


def _plain(text: str) -> str:
    """Metadata is whatever somebody pushed: no control characters reach the terminal, and no markup rich."""
    from rich.markup import escape

    return escape(plain(text))


def plain(text: str) -> str:
    return _CONTROL.sub("\ufffd", text)
