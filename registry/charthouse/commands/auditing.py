"""`charthouse audit`."""

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from charthouse.commands import (
    ConfigOption,
    DatabaseOption,
    DataOption,
    JsonOption,
    existing,
    parse_period,
    with_registry,
)
from charthouse.names import shown

if TYPE_CHECKING:
    from charthouse.audit import Entry
    from charthouse.core import Registry

family = typer.Typer()

PAGE = 1000  # rows read at once


@family.command()
def audit(
    since: Annotated[str, typer.Option("--since", help="30m, 12h, 7d or 1y: from how long ago on.")] = "1d",
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="What this user or token:NAME did.")] = "",
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say who did what, the newest last: every change, and what was refused to whom.

    Examples:

      charthouse audit --since 7d

      charthouse audit --since 1y --user ann --json
    """
    begin = int((time.time() - parse_period(since, "--since")) * 1000)
    with_registry(existing(data, database, config), lambda registry: _print(registry, begin, user, as_json=as_json))


async def _print(registry: "Registry", since: int, user: str, *, as_json: bool) -> None:
    after = 0
    while entries := await registry.audit.list(since=since, name=user, after=after, limit=PAGE):
        for entry in entries:
            typer.echo(json.dumps(asdict(entry)) if as_json else _line(entry))
        after = entries[-1].id


def _line(entry: "Entry") -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(entry.at / 1000))
    times = f" ({entry.count:,} times)" if entry.count > 1 else ""
    target = entry.target if entry.target.isprintable() else shown(entry.target)  # it moves no terminal's cursor
    what = f"{entry.action} {target}{times}"
    return f"{at}  {entry.who:<20} {entry.address or '-':<15} {what}"
