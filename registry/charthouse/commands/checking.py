"""`charthouse lint`."""

from pathlib import Path
from typing import Annotated

import typer

from charthouse.commands import JsonOption
from charthouse.settings import SettingsError

family = typer.Typer()


@family.command()
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
