"""The report for a person: every registry beside the first, with the ratio and its range."""

from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from charthouse.bench.memory import Memory
from charthouse.bench.plan import MILLISECONDS, RATE
from charthouse.bench.results import Result, Results, Spread

PIPE_WIDTH = 200  # columns, where no terminal says how many there are
BUSY = 0.9  # of a core: from here on the load program may be what is measured
_MIB = 1024 * 1024
_MEMORY: dict[str, Callable[[Memory], str]] = {
    "idle": lambda one: f"{one.idle / _MIB:.0f}",
    "after requests": lambda one: one.refusal or f"{one.after / _MIB:.0f} ({one.requests:,})",
    "most while blobs flow": lambda one: one.refusal or f"{one.flowing / _MIB:.0f} ({one.flow:,} MiB)",
}


def show(results: Results, memory: Mapping[str, Memory | None], disk: Mapping[str, str], notes: list[str]) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    if results.rows:
        console.print(_rates(results))
    if memory:
        console.print(_memory(memory))
    for line in (*_disk(disk), *_load_program(results), *notes):
        console.print(Text(line))


def _rates(results: Results) -> Table:
    table = Table(box=None, padding=(0, 3, 1, 0), title_justify="left")
    for name in ("", *results.registries):
        table.add_column(name)
    for result in results.rows.values():
        cells = ("\n".join(_cell(results, result, registry)) for registry in results.registries)
        table.add_row(Text(result.row.name), *map(Text, cells))
    return table


def _cell(results: Results, result: Result, registry: str) -> list[str]:
    value = result.value(registry)
    if value is None:
        return [result.refusals.get(registry, "not measured")]
    first = results.registries[0]
    unit = result.row.unit if result.row.unit == RATE else f" {result.row.unit}"
    lines = [
        f"{_number(value.median)}{unit}  ({_number(value.least)} - {_number(value.most)}){_busy(result, registry)}"
    ]
    lines.append(_details(result, registry))
    share = results.share(result, registry)
    if share:
        lines.append(f"{share.median:.0%} of the rate of {result.row.against}  ({share.least:.0%} - {share.most:.0%})")
    if registry != first and (ratio := result.times_as_fast(first, registry)):
        lines.append(f"{first} is {_times(ratio)}")
    return lines


def _details(result: Result, registry: str) -> str:
    p99 = result.over_rounds(registry, lambda sample: sample.p99)
    cpu = result.over_rounds(registry, lambda sample: sample.cpu)
    words = [] if p99 is None else [f"p99 {_number(p99 * 1000)} ms"]
    if cpu is not None and result.row.unit in (RATE, MILLISECONDS):
        words.append(f"{cpu:.2f} CPU s/1,000")
    return ", ".join(words)


def _times(ratio: Spread) -> str:
    return f"{ratio.median:.2f} x  ({ratio.least:.2f} - {ratio.most:.2f})"


def _number(value: float) -> str:
    for digits, limit in ((2, 10), (1, 100)):
        if value < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def _client(result: Result, registry: str) -> float:
    return result.over_rounds(registry, lambda sample: sample.client) or 0.0


def _busy(result: Result, registry: str) -> str:
    return " *" if _client(result, registry) >= BUSY else ""


def _load_program(results: Results) -> list[str]:
    """How near the load program was to being what is measured."""
    used = [
        (_client(result, name), result.row.name, name) for result in results.rows.values() for name in result.samples
    ]
    if not used:
        return []
    most, row, registry = max(used)
    lines = [f"The busiest load process used {most:.0%} of a core ({row}, {registry})."]
    if most >= BUSY:
        lines.append(f"* a load process used {BUSY:.0%} of a core or more: the registry may be faster than this.")
    return lines


def _memory(memory: Mapping[str, Memory | None]) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0))
    for name in ("memory, MiB", *memory):
        table.add_column(name, justify="left" if name == "memory, MiB" else "right")
    for title, figure in _MEMORY.items():
        table.add_row(title, *(Text("not seen" if one is None else figure(one)) for one in memory.values()))
    return table


def _disk(disk: Mapping[str, str]) -> list[str]:
    return [f"{registry}: {text}" for registry, text in disk.items()]
