"""What is stored: `charthouse charts`, `delete`, `copy` and `push`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charthouse.commands import (
    ConfigOption,
    DatabaseOption,
    DataOption,
    JsonOption,
    YesOption,
    existing,
    parse_name,
    with_registry,
)
from charthouse.names import RepositoryName
from charthouse.settings import SettingsError

if TYPE_CHECKING:
    from charthouse.core import Registry

family = typer.Typer()


@family.command()
def charts(
    name: Annotated[str | None, typer.Argument(help="Only this repository, such as team-a/app.")] = None,
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the charts that are stored.

    Examples:

      charthouse charts

      charthouse charts team-a/app --json
    """

    from charthouse import listing

    repository = RepositoryName.parse(name) if name else None
    found = with_registry(existing(data, database, config), lambda registry: registry.list_charts(repository))
    listing.print_charts(found, as_json=as_json)


@family.command()
def delete(
    name: Annotated[str, typer.Argument(help="A chart, or one version of it: team-a/app:1.0.0.")],
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
    yes: YesOption = False,
) -> None:
    """Delete a chart version, or a chart with all its versions. Helm has no command for it.

    Examples:

      charthouse delete team-a/app:1.0.0

      charthouse delete team-a/app --yes
    """
    repository, reference = parse_name(name)
    settings = existing(data, database, config)
    if reference is not None:
        with_registry(settings, lambda registry: registry.delete_version(repository, reference))
        typer.echo(f"deleted {repository}:{reference}")
        return
    if not yes and not typer.confirm(f"delete {repository} with all its versions?"):
        raise typer.Exit(1)
    count = with_registry(settings, lambda registry: registry.delete_repository(repository))
    typer.echo(f"deleted {repository}: {count} manifest{'' if count == 1 else 's'}")


@family.command()
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A version: team-a/app:1.0.0.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="A repository, or a version of it: prod/app.")],
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Copy a chart version to another repository, with its signatures. The bytes are stored once.

    Example:

      charthouse copy team-a/app:1.0.0 prod/app
    """
    from charthouse import transfer
    from charthouse.core import Caller

    (from_repository, reference), (to_repository, to) = parse_name(source), parse_name(target)
    if reference is None:
        raise SettingsError(f"{source} names no version: write {source}:1.0.0")
    digest = with_registry(
        existing(data, database, config),
        lambda registry: transfer.copy(registry, from_repository, reference, to_repository, to or reference, Caller()),
    )
    typer.echo(f"copied {source} to {to_repository}:{to or reference} ({digest})")


@family.command()
def push(
    paths: Annotated[list[Path], typer.Argument(help="Charts (.tgz), or folders with charts, such as ChartMuseum's.")],
    to: Annotated[str, typer.Option("--to", help="Namespace to push to: --to team-a.")] = "",
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Push charts from files, with the .prov beside each, as helm push would.

    Examples:

      charthouse push mychart-1.0.0.tgz --to team-a

      charthouse push /srv/chartmuseum
    """
    from charthouse import listing, transfer
    from charthouse.core import Caller

    try:
        files = transfer.find_archives(paths, to)
    except OSError as error:
        raise SettingsError(f"cannot read {error.filename}: {error.strerror}") from None
    if not files:
        unpacked = next((path for path in paths if (path / "Chart.yaml").exists()), None)
        hint = f"; {unpacked} is a chart not packed yet: helm package {unpacked}" if unpacked else ""
        raise SettingsError(f"there is no chart (.tgz) in {', '.join(map(str, paths))}{hint}")
    settings = existing(data, database, config)

    async def run(registry: "Registry") -> int:
        refused = 0
        with listing.progress(len(files)) as advance:
            async for file, name, error in transfer.push_files(registry, files, Caller()):
                refused += error is not None
                advance(f"refused {file.path}\n{error.message}" if error else f"pushed {name}")
        return refused

    refused = with_registry(settings, run)
    typer.echo(f"{len(files) - refused} pushed, {refused} refused")
    raise typer.Exit(1 if refused else 0)
