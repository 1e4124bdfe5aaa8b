"""Whether what is stored is whole: `charthouse verify`."""

from typing import TYPE_CHECKING, Annotated

import typer

from charthouse.commands import ConfigOption, DatabaseOption, DataOption, JsonOption, existing, with_registry

if TYPE_CHECKING:
    from charthouse.core import Registry
    from charthouse.verification import Checked

family = typer.Typer()


@family.command()
def verify(
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read every blob and compare its digest, not its size.")] = False,
    rate: Annotated[
        int | None, typer.Option("--rate", min=1, metavar="BYTES", help="Bytes per second that are read at most.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look whether what is stored is what was pushed. Ends with 1 when something is damaged.

    It ends with 2 when the database's own file is. A server may run beside it. From the moment that damage is found,
    the blob and every version that names it are answered as absent, so that the next push of the same chart replaces
    the damaged bytes.

    Examples:

      charthouse verify

      charthouse verify --deep --rate 20000000
    """
    from charthouse import listing
    from charthouse.verification import Pace

    async def run(registry: "Registry") -> "list[Checked]":
        for repository in await registry.verification.recount():
            typer.echo(f"what {repository} holds was counted wrong, and is counted anew", err=True)
        count, size = await registry.verification.totals()
        found = []
        with listing.progress(size if deep else count) as advance:
            async for checked in registry.verification.run(Pace(rate or 0), deep=deep):
                found.append(checked)
                advance(by=checked.size if deep else 1)
        return found

    found = with_registry(existing(data, database, config), run)
    listing.print_checked(found, as_json=as_json)
    raise typer.Exit(1 if any(checked.how for checked in found) else 0)
