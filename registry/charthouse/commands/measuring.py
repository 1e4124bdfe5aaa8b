"""`charthouse bench`."""

from pathlib import Path
from typing import Annotated

import typer

family = typer.Typer()


@family.command()
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
    charts: Annotated[Path | None, typer.Option(metavar="DIR", help="Real charts to push, at most 400.")] = None,
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

    sizes = bench.Sizes(
        seconds,
        connections,
        bench.numbers("--versions", versions),
        repositories,
        use_wrk=wrk,
        charts=tuple(sorted(map(str, charts.rglob("*.tgz"))))[:400] if charts else (),
    )
    words = tuple(only.split(",")) if only else bench.WORDS
    options = bench.Options(
        urls, sizes, rounds, processes, words, data or (), history=history, svg=svg, keep=keep, elsewhere=yes
    )
    bench.run(bench.quick(options) if quick else options)
