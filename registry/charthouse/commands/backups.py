"""What is stored, out of a registry and into another: `charthouse backup` and `restore`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charthouse.commands import ConfigOption, DatabaseOption, DataOption, existing, with_registry
from charthouse.errors import VaultError

if TYPE_CHECKING:
    from charthouse.backup import Copied
    from charthouse.core import Registry
    from charthouse.settings import Settings
    from charthouse.verification import Checked

family = typer.Typer()

PlaceArgument = Annotated[Path, typer.Argument(metavar="DIR|FILE.tar", help="A folder, or a file that ends in .tar.")]


@family.command()
def backup(
    place: PlaceArgument, data: DataOption = None, database: DatabaseOption = None, config: ConfigOption = None
) -> None:
    """Write everything that is stored to a folder or a tar file, while a server runs or not.

    Into the same folder again, it copies only the blobs that are new. A backup holds users with the hashes of their
    passwords, and the hashes of tokens: only its owner can read it. The keys that sign access tokens are not in it.
    Ends with 1 when blobs are damaged; the rest is in the backup all the same.

    Examples:

      charthouse backup /srv/backup

      charthouse backup charthouse-backup.tar
    """
    from charthouse import listing
    from charthouse.vaults import open_writer

    settings = existing(data, database, config)

    async def run(registry: "Registry") -> "Copied":
        with listing.progress(await registry.backup.count()) as advance:
            return await registry.backup.run(vault, advance)

    with _in_one_line():
        vault = open_writer(place)
        try:
            copied = with_registry(settings, run)
        finally:
            vault.close()
    for digest, how in copied.damaged.items():
        typer.echo(f"damaged: blob {digest}, {how}")
    typer.echo(
        f"backed up to {place}: {copied.blobs:,} blobs, of which {copied.new:,} new ({copied.new_bytes:,} bytes)"
    )
    if copied.damaged:
        typer.echo("the backup is whole but for what is damaged: `charthouse verify` says which versions that concerns")
    raise typer.Exit(1 if copied.damaged else 0)


@family.command()
def restore(
    place: PlaceArgument, data: DataOption = None, database: DatabaseOption = None, config: ConfigOption = None
) -> None:
    """Make a registry of a backup, in an empty folder and, with PostgreSQL, an empty database.

    A backup of SQLite can be restored into PostgreSQL, and the other way round, and into a newer charthouse than wrote
    it. Every blob's size and digest is compared. Ends with 1 when something is damaged: that is absent then, and the
    versions that need it are named.

    Examples:

      charthouse restore /srv/backup --data /srv/charthouse

      charthouse restore charthouse-backup.tar --database postgresql://charthouse@db/charthouse
    """
    from charthouse import listing
    from charthouse.backup import restoring
    from charthouse.composition import open_registry
    from charthouse.settings import load
    from charthouse.vaults import open_reader
    from charthouse.verification import Pace

    settings = load({"data": data, "database": database}, config)

    async def opening(settings: "Settings") -> "Registry":
        return await open_registry(settings, restoring=True)

    async def run(registry: "Registry") -> "list[Checked]":
        with listing.progress(taken.count()) as advance:
            for fault in await registry.backup.fill(taken, vault, advance):
                advance(fault, by=0)
        return [checked async for checked in registry.verification.run(Pace(0), deep=False)]

    with _in_one_line():
        vault = open_reader(place)
        try:
            with restoring(settings, vault) as taken:
                found = with_registry(settings, run, opening)
        finally:
            vault.close()
    listing.print_checked(found, as_json=False)
    typer.echo(f"restored {place} to {settings.data.absolute()}{' and PostgreSQL' if settings.database else ''}")
    raise typer.Exit(1 if any(checked.how for checked in found) else 0)


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    """What the system says of a folder that cannot be written, or a disk that is full."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise VaultError(f"{where}{error.strerror or error}; nothing that was backed up before is lost") from None
