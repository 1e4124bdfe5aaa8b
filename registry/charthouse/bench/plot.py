"""Rate against versions as SVG, written by hand: two panels with logarithmic axes, a line for each registry."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from charthouse.bench.results import Results

WIDTH, HEIGHT = 360, 260  # of a panel's plotting area
LEFT, TOP, GAP = 70, 40, 90
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a")
_FONT = 'font-family="sans-serif" font-size="12"'

Points = Sequence[tuple[int, float]]  # versions, rate


@dataclass(frozen=True, slots=True)
class Axis:
    """From a value to its place, in powers of ten."""

    least: float
    most: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> "Axis":
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return cls(low, max(high, low + 1), start, end)

    def place(self, value: float) -> float:
        share = (math.log10(value) - self.least) / (self.most - self.least)
        return self.start + share * (self.end - self.start)

    @property
    def ticks(self) -> list[int]:
        return [10**power for power in range(int(self.least), int(self.most) + 1) if power >= 0]


def draw(results: Results, versions: Sequence[int]) -> str:
    panels = [
        _panel(results, verb, versions, LEFT + number * (WIDTH + GAP))
        for number, verb in enumerate(("pulls", "pushes"))
    ]
    width, height = LEFT + 2 * WIDTH + GAP + 20, TOP + HEIGHT + 80
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            "<title>Pulls and pushes a second against versions in a repository</title>",
            '<rect width="100%" height="100%" fill="white"/>',
            *panels,
            *_legend(results.registries, TOP + HEIGHT + 60),
            "</svg>\n",
        ]
    )


def _panel(results: Results, verb: str, versions: Sequence[int], left: float) -> str:
    lines = {name: _points(results, verb, versions, name) for name in results.registries}
    rates = [rate for points in lines.values() for _, rate in points]
    across = Axis.over(versions, left, left + WIDTH)
    up = Axis.over(rates or [1, 10], TOP + HEIGHT, TOP)
    parts = [f'<text x="{left}" y="{TOP - 14}" {_FONT} font-weight="bold">{verb} a second, by versions</text>']
    parts += [_rule(across.place(tick), TOP, across.place(tick), TOP + HEIGHT) for tick in across.ticks]
    parts += [_label(across.place(tick), TOP + HEIGHT + 18, f"{tick:,}", "middle") for tick in across.ticks]
    parts += [_rule(left, up.place(tick), left + WIDTH, up.place(tick)) for tick in up.ticks]
    parts += [_label(left - 8, up.place(tick) + 4, f"{tick:,}", "end") for tick in up.ticks]
    parts += [
        _line([(across.place(count), up.place(rate)) for count, rate in points], COLOURS[number % len(COLOURS)])
        for number, points in enumerate(lines.values())
    ]
    return "\n".join(parts)


def _points(results: Results, verb: str, versions: Sequence[int], registry: str) -> Points:
    found = [(count, results.rows.get(f"{verb} at {count:,} versions")) for count in versions]
    values = [(count, result.value(registry)) for count, result in found if result]
    return [(count, value.median) for count, value in values if value]


def _line(places: Sequence[tuple[float, float]], colour: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#d0d7de"/>'


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {_FONT} text-anchor="{anchor}">{escape(text)}</text>'


def _legend(names: Sequence[str], y: float) -> list[str]:
    parts = []
    for number, name in enumerate(names):
        x = LEFT + number * 150
        parts.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{COLOURS[number % len(COLOURS)]}"/>')
        parts.append(_label(x + 18, y, name, "start"))
    return parts
