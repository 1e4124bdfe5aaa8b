"""`charthouse gc`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from charthouse.commands import (
    ConfigOption,
    DatabaseOption,
    DataOption,
    JsonOption,
    existing,
    setting_option,
    with_registry,
)

if TYPE_CHECKING:
    from charthouse.collection import Report

family = typer.Typer()


@family.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and why; remove nothing.")] = False,
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
    gc_grace: Annotated[str | None, setting_option("gc_grace")] = None,
    untagged_expiry: Annotated[str | None, setting_option("untagged_expiry")] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what nobody can reach any more: blobs that no manifest names, and what unfinished uploads left.

    The server does so by itself, every gc_every seconds. This may run beside it, while clients push.

    Examples:

      charthouse gc --dry-run

      charthouse gc --json
    """
    settings = existing(data, database, config, gc_grace=gc_grace, untagged_expiry=untagged_expiry)
    report = with_registry(
        settings, lambda registry: registry.collector.plan() if dry_run else registry.collector.run()
    )
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2))
        return
    typer.echo("\n".join(_lines(report, dry_run=dry_run)))


def _lines(report: "Report", *, dry_run: bool) -> list[str]:
    from charthouse.collection import SHOWN

    lines = [
        f"{item.kind:<8} {'@'.join(filter(None, (item.repository, item.name)))} ({item.size:,} bytes): {item.why}"
        for item in report.items
    ]
    if len(lines) == SHOWN:
        lines.append(f"and whatever else: these are the first {SHOWN:,}")
    if report.clock_jumped:
        lines.append(
            f"the clock was set by {report.clock_jumped:,.0f} seconds since the last collection, so nobody knows how"
            " old anything is: every grace begins anew"
        )
    lines.append(f"{'would remove' if dry_run else 'removed'} {report}")
    if report.waiting == 1:
        lines.append(f"1 blob of {report.waiting_bytes:,} bytes waits for the end of its grace")
    elif report.waiting:
        lines.append(f"{report.waiting:,} blobs of {report.waiting_bytes:,} bytes wait for the end of their grace")
    return lines
