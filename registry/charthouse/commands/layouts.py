"""Repositories as OCI image layouts: `charthouse export` and `import`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charthouse.commands import ConfigOption, DatabaseOption, DataOption, existing, parse_name, with_registry
from charthouse.errors import VaultError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from charthouse.core import Registry
    from charthouse.layouts import Carried

family = typer.Typer()


@family.command()
def export(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="A folder; each repository becomes one in it.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME[:VERSION]]...", help="Only these: team-a/app, team-a/app:1.0.0."),
    ] = None,
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Write repositories as OCI image layouts, which oras, crane, skopeo, regctl and zot read.

    With each tag go the children of an index, signatures and whatever else refers to it. Ends with 1 when something is
    damaged; the rest is written all the same.

    Examples:

      charthouse export --to /srv/layouts

      charthouse export team-a/app:1.0.0 --to /srv/layouts
    """
    from charthouse import layouts

    wanted = [parse_name(name) for name in names or ()]

    async def run(registry: "Registry") -> tuple[int, list[str]]:
        selection = await layouts.select(registry, wanted)
        total = sum(map(len, selection.values()))
        return await _follow(layouts.export(registry, selection, to), total, "exported")

    try:
        done, faults = with_registry(existing(data, database, config), run)
    except OSError as error:
        raise VaultError(f"cannot export to {to}: {error.filename}: {error.strerror}") from None
    _sum_up(f"exported to {to}: {done} of {done + len(faults)}", faults)


@family.command("import")
def import_(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A layout, a folder of them, or the root folder of zot or distribution."),
    ],
    to: Annotated[str, typer.Option("--to", help="Namespace to push to; for a single layout, its repository.")] = "",
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Push what a folder holds: OCI image layouts, such as an export, or the root folder of a zot or a distribution.

    The same rules hold as for every push. What they refuse is listed at the end, and the command ends with 1; the rest
    is pushed all the same. Again, it pushes the same again.

    Examples:

      charthouse import /srv/zot

      charthouse import /var/lib/registry

      charthouse import /srv/layouts --to team-a
    """
    from charthouse import layouts
    from charthouse.core import Caller

    found = layouts.find(folder)
    if found[0].name == "" and not to:
        raise VaultError(f"{folder} is one layout itself: say which repository it becomes, such as --to team-a/app")
    done, faults = with_registry(
        existing(data, database, config),
        lambda registry: _follow(layouts.take(registry, found, to, Caller()), None, "imported"),
    )
    _sum_up(f"imported from {folder}: {done} of {done + len(faults)}", faults)


async def _follow(carried: "AsyncIterator[Carried]", total: int | None, did: str) -> tuple[int, list[str]]:
    """Says what went over while it does. Returns how many did, and a line for each that did not."""
    from charthouse import listing

    done, faults = 0, []
    with listing.progress(total) as advance:
        async for each in carried:
            if each.fault:
                faults.append(f"refused {each.name}: {each.fault}")
                advance()
            else:
                done += 1
                advance(f"{did} {each.name}")
    return done, faults


def _sum_up(line: str, faults: list[str]) -> None:
    for fault in faults:
        typer.echo(fault)
    typer.echo(line)
    raise typer.Exit(1 if faults else 0)
