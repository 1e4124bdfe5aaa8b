"""The command. What a subcommand needs is imported when it runs: `charthouse --version` waits for no web framework."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from charthouse import __version__
from charthouse.errors import DatabaseError, RegistryError
from charthouse.names import Digest, Reference, RepositoryName, Tag
from charthouse.settings import FIELDS, Settings, SettingsError, load

if TYPE_CHECKING:
    from charthouse.core import Registry

T = TypeVar("T")

command = typer.Typer(
    name="charthouse",
    help="A registry for Helm charts. `charthouse serve` starts one on localhost:5000.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


def main() -> None:
    """A fault that a person can mend is one line on standard error: exit 2 for settings, 1 for the registry's no."""
    try:
        command()
    except (SettingsError, DatabaseError) as error:
        fail(str(error), 2)
    except RegistryError as error:
        fail(error.message, 1)


def fail(message: str, status: int) -> None:
    sys.stderr.write(f"charthouse: {message}\n")
    raise SystemExit(status)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"charthouse {__version__}")
        raise typer.Exit


@command.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _setting(name: str, *flags: str, **options: Any) -> Any:
    """An option for a setting, explained by the setting itself."""
    description = FIELDS[name].metadata["description"]
    return typer.Option(*(flags or (f"--{name.replace('_', '-')}",)), help=description, show_default=False, **options)


DataOption = Annotated[Path | None, _setting("data")]
DatabaseOption = Annotated[str | None, _setting("database")]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="CHARTHOUSE_CONFIG", help="TOML file with settings.", show_envvar=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@command.command()
def serve(
    host: Annotated[list[str] | None, _setting("host")] = None,
    port: Annotated[str | None, _setting("port")] = None,
    data: DataOption = None,
    database: DatabaseOption = None,
    policy: Annotated[str | None, _setting("policy")] = None,
    versions: Annotated[str | None, _setting("versions")] = None,
    names: Annotated[str | None, _setting("names")] = None,
    legacy: Annotated[str | None, _setting("legacy")] = None,
    sparse_manifests: Annotated[bool | None, _setting("sparse_manifests", "--sparse-manifests")] = None,
    workers: Annotated[str | None, _setting("workers")] = None,
    open_to_everyone: Annotated[bool | None, _setting("open_to_everyone", "--open-to-everyone")] = None,
    host_name: Annotated[list[str] | None, _setting("host_name")] = None,
    inline_blobs: Annotated[str | None, _setting("inline_blobs")] = None,
    upload_expiry: Annotated[str | None, _setting("upload_expiry")] = None,
    pull_cache: Annotated[str | None, _setting("pull_cache")] = None,
    blob_limit: Annotated[str | None, _setting("blob_limit")] = None,
    config: ConfigOption = None,
) -> None:
    """Start the registry.

    Examples:

      charthouse serve

      charthouse serve --port 5001 --data /srv/charts

      charthouse serve --host 0.0.0.0 --open-to-everyone

    Every flag is also a CHARTHOUSE_* variable (CHARTHOUSE_PORT=5001) and a key of the TOML file (port = 5001).
    """
    flags = {name: value for name, value in locals().items() if name != "config"}
    settings = load(flags, config)

    from charthouse.server import serve as run

    raise typer.Exit(run(settings))


@command.command()
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
    found = _with_registry(_existing(data, database, config), lambda registry: registry.list_charts(repository))
    listing.print_charts(found, as_json=as_json)


@command.command()
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
    repository, reference = _parse_name(name)
    settings = _existing(data, database, config)
    if reference is not None:
        _with_registry(settings, lambda registry: registry.delete_version(repository, reference))
        typer.echo(f"deleted {repository}:{reference}")
        return
    if not yes and not typer.confirm(f"delete {repository} with all its versions?"):
        raise typer.Exit(1)
    count = _with_registry(settings, lambda registry: registry.delete_repository(repository))
    typer.echo(f"deleted {repository}: {count} manifest{'' if count == 1 else 's'}")


@command.command()
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

    (from_repository, reference), (to_repository, to) = _parse_name(source), _parse_name(target)
    if reference is None:
        raise SettingsError(f"{source} names no version: write {source}:1.0.0")
    digest = _with_registry(
        _existing(data, database, config),
        lambda registry: transfer.copy(registry, from_repository, reference, to_repository, to or reference, Caller()),
    )
    typer.echo(f"copied {source} to {to_repository}:{to or reference} ({digest})")


@command.command()
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
    settings = _existing(data, database, config)

    async def run(registry: "Registry") -> int:
        refused = 0
        with listing.progress(len(files)) as advance:
            async for file, name, error in transfer.push_files(registry, files, Caller()):
                refused += error is not None
                advance(f"refused {file.path}\n{error.message}" if error else f"pushed {name}")
        return refused

    refused = _with_registry(settings, run)
    typer.echo(f"{len(files) - refused} pushed, {refused} refused")
    raise typer.Exit(1 if refused else 0)


@command.command()
def bench(
    urls: Annotated[list[str], typer.Argument(metavar="[NAME=]URL...", help="Registries: zot=http://127.0.0.1:5001.")],
    seconds: Annotated[float, typer.Option(help="Of load in each phase.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="Of all registries, one after the other.")] = 5,
    connections: Annotated[int, typer.Option(min=1, help="At the same time.")] = 16,
    processes: Annotated[int, typer.Option(min=1, help="That make the load.")] = 2,
    versions: Annotated[str, typer.Option(help="In one repository, to see how the cost grows.")] = "10,2000,10000",
    repositories: Annotated[int, typer.Option(min=1, help="Likewise.")] = 10_000,
    only: Annotated[str, typer.Option(help="Some of the work: pulls,pushes,…; an unknown word lists all.")] = "",
    data: Annotated[list[Path] | None, typer.Option(help="A registry's folder, in the URLs' order.")] = None,
    history: Annotated[Path | None, typer.Option("--json", help="Append a line with the figures.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw rate against versions.")] = None,
    wrk: Annotated[bool, typer.Option("--wrk", help="Measure single requests with wrk too.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A minute in all: shows that it runs, not how fast.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Do not delete what was pushed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Load registries on other machines too.")] = False,
) -> None:
    """Measure registries side by side, with pushes and pulls as Helm does them.

    All is written under a name of its own, charthouse-bench-…, and deleted at the end.

    Examples:

      charthouse bench http://127.0.0.1:5000

      charthouse bench ours=http://127.0.0.1:5000 zot=http://127.0.0.1:5001 --only pulls,pushes --rounds 3
    """
    from charthouse import bench

    sizes = bench.Sizes(seconds, connections, bench.numbers("--versions", versions), repositories, use_wrk=wrk)
    words = tuple(only.split(",")) if only else bench.WORDS
    options = bench.Options(
        urls, sizes, rounds, processes, words, data or (), history=history, svg=svg, keep=keep, elsewhere=yes
    )
    bench.run(bench.quick(options) if quick else options)


@command.command()
def lint(
    paths: Annotated[list[Path], typer.Argument(help="Charts: archives (.tgz), chart folders, folders of archives.")],
    as_json: JsonOption = False,
    as_sarif: Annotated[bool, typer.Option("--sarif", help="Print SARIF, for code hosts.")] = False,
) -> None:
    """Check charts as a push would, and warn of what helm lint warns of. Ends with 1 when one would be refused.

    Examples:

      charthouse lint mychart

      charthouse lint mychart-1.0.0.tgz --sarif

      charthouse lint /srv/chartmuseum
    """
    from charthouse import linting, listing

    try:
        reports = list(linting.lint(linting.find_charts(paths)))
    except OSError as error:
        raise SettingsError(f"cannot read {error.filename}: {error.strerror}") from None
    if as_json or as_sarif:
        typer.echo(linting.as_sarif(reports) if as_sarif else linting.as_json(reports))
    else:
        listing.print_reports(reports)
    raise typer.Exit(1 if any(report.is_refused for report in reports) else 0)


def _parse_name(text: str) -> tuple[RepositoryName, Reference | None]:
    """`NAME`, `NAME:VERSION` or `NAME@DIGEST`; a version's + is written _ in its tag."""
    text = text.removeprefix("oci://")
    name, at, digest = text.partition("@")
    if at:
        return RepositoryName.parse(name), Digest.parse(digest)
    name, colon, version = text.partition(":")
    return RepositoryName.parse(name), Tag.parse(version.replace("+", "_")) if colon else None


def _existing(data: Path | None, database: str | None, config: Path | None) -> Settings:
    settings = load({"data": data, "database": database}, config)
    sys.stderr.write(f"data: {settings.data.absolute()}{' and PostgreSQL' if settings.database else ''}\n")
    return settings


def _with_registry(settings: Settings, work: Callable[["Registry"], Coroutine[Any, Any, T]]) -> T:
    from charthouse.composition import open_existing

    async def run() -> T:
        registry = await open_existing(settings)
        try:
            return await work(registry)
        finally:
            await registry.close()

    return asyncio.run(run())


if __name__ == "__main__":
    main()
