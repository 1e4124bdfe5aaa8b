"""What the rules and lint say of charts, here and elsewhere: `charthouse lint`, `show` and `reindex`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from charthouse.commands import (
    ConfigOption,
    DatabaseOption,
    DataOption,
    JsonOption,
    existing,
    parse_name,
    with_registry,
)
from charthouse.errors import NameInvalid, RegistryError
from charthouse.settings import SettingsError

if TYPE_CHECKING:
    from charthouse.core import Registry
    from charthouse.linting import Report
    from charthouse.settings import Settings

family = typer.Typer()

Part = Literal[
    "summary", "metadata", "readme", "values", "schema", "files", "crds", "dependencies", "findings", "provenance"
]


@family.command()
def lint(
    charts: Annotated[
        list[str],
        typer.Argument(
            metavar="REF|FILE|DIR...",
            help="Charts: archives (.tgz), chart folders, folders of archives, or versions here: team-a/app:1.0.0.",
        ),
    ],
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    as_sarif: Annotated[bool, typer.Option("--sarif", help="Print SARIF, for code hosts.")] = False,
) -> None:
    """Check charts as a push would, and warn of what helm lint warns of. Ends with 1 when one would be refused.

    What there is as a file is read from it; everything else is a version that is stored here, whose findings are shown.

    Examples:

      charthouse lint mychart

      charthouse lint mychart-1.0.0.tgz --sarif

      charthouse lint /srv/chartmuseum

      charthouse lint team-a/app:1.0.0
    """
    from charthouse import linting, listing

    paths = [Path(chart) for chart in charts if _is_file(chart)]
    references = [chart for chart in charts if not _is_file(chart)]
    try:
        reports = list(linting.lint(linting.find_charts(paths)))
    except OSError as error:
        raise SettingsError(f"cannot read {error.filename}: {error.strerror}") from None
    if references:
        reports += _stored_reports(existing(data, database, config), references)
    if as_json or as_sarif:
        typer.echo(linting.as_sarif(reports) if as_sarif else linting.as_json(reports))
    else:
        listing.print_reports(reports)
    raise typer.Exit(1 if any(report.is_refused for report in reports) else 0)


def _is_file(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # longer than a name may be, or with NUL
        return False


def _stored_reports(settings: "Settings", references: list[str]) -> "list[Report]":
    from charthouse.linting import Report

    async def run(registry: "Registry") -> "list[Report]":
        reports = []
        for text in references:
            try:
                repository, reference = parse_name(text)
            except NameInvalid as error:
                raise SettingsError(f"there is no file {text}, and it names no chart: {error.message}") from None
            if reference is None:
                raise SettingsError(f"there is no file {text}, and as a chart it names no version: write {text}:1.0.0")
            try:
                facts = await registry.extraction.of(repository, reference)
            except RegistryError as error:
                raise SettingsError(f"there is no file {text}, and {error.message}") from None
            reports.append(Report(text, facts.findings))
        return reports

    return with_registry(settings, run)


@family.command()
def show(
    chart: Annotated[str, typer.Argument(metavar="REF", help="A version: team-a/app:1.0.0.")],
    part: Annotated[Part, typer.Argument(help="What of it.")] = "summary",
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a chart that is stored holds: metadata, README, values, schema, files, CRDs, findings, its signer.

    Examples:

      charthouse show team-a/app:1.0.0

      charthouse show team-a/app:1.0.0 values

      charthouse show team-a/app:1.0.0 findings --json
    """
    from charthouse import showing

    repository, reference = parse_name(chart)
    if reference is None:
        raise SettingsError(f"{chart} names no version: write {chart}:1.0.0")
    settings = existing(data, database, config)
    facts = with_registry(settings, lambda registry: registry.extraction.of(repository, reference))
    typer.echo((showing.as_json if as_json else showing.as_text)(facts, part).rstrip("\n"))


@family.command()
def reindex(
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
    everything: Annotated[bool, typer.Option("--all", help="What was read already, too.")] = False,
) -> None:
    """Read the archives of stored charts that nobody has read yet, or that an older version has.

    The server does so by itself; this is for who does not want to wait.

    Example:

      charthouse reindex --all
    """
    from charthouse import listing

    async def run(registry: "Registry") -> int:
        count = 0
        with listing.progress(None) as advance:
            async for layer, total in registry.extraction.reindex(anew=everything):
                count += 1
                advance(f"{count} of {total}: {layer}")
        return count

    count = with_registry(existing(data, database, config), run)
    typer.echo(f"read {count} archive{'' if count == 1 else 's'}")
