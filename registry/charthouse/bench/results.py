"""The figures of a run: rows by registries, a sample for each round, and how they compare."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from charthouse.bench.plan import MILLISECONDS, Row
from charthouse.bench.session import Sample

Rounds = list[Sample | None]  # None where a round failed


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds, and their range."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        return cls(median(values), min(values), max(values)) if values else None


@dataclass(slots=True)
class Result:
    row: Row
    samples: dict[str, Rounds] = field(default_factory=dict)  # by registry
    refusals: dict[str, str] = field(default_factory=dict)  # likewise: why it was given up

    def add(self, registry: str, sample: Sample | None) -> None:
        self.samples.setdefault(registry, []).append(sample)

    def value_of(self, sample: Sample) -> float:
        """In the row's unit."""
        return sample.median * 1000 if self.row.unit == MILLISECONDS else sample.rate

    def value(self, registry: str) -> Spread | None:
        return Spread.of([self.value_of(sample) for sample in self._taken(registry)])

    def over_rounds(self, registry: str, figure: Callable[[Sample], float | None]) -> float | None:
        """The median of another figure of the samples, where they have it."""
        found = [value for sample in self._taken(registry) if (value := figure(sample)) is not None]
        return median(found) if found else None

    def times_as_fast(self, registry: str, other: str) -> Spread | None:
        """How many times as fast `registry` is as `other`: round by round, as they were measured side by side."""
        return self._ratio(registry, self, other)

    def share_of(self, base: "Result", registry: str) -> Spread | None:
        return self._ratio(registry, base, registry)

    def _ratio(self, registry: str, base: "Result", other: str) -> Spread | None:
        """The ratio of the medians; the range is that of the rounds."""
        pairs = [
            (self.value_of(one), base.value_of(two))
            for one, two in zip(self.samples.get(registry, []), base.samples.get(other, []), strict=False)
            if one is not None and two is not None
        ]
        if not pairs:
            return None
        if self.row.unit == MILLISECONDS:
            pairs = [(two, one) for one, two in pairs]
        ratios = [one / two for one, two in pairs]
        of_medians = median(one for one, _ in pairs) / median(two for _, two in pairs)
        return Spread(of_medians, min(ratios), max(ratios))

    def _taken(self, registry: str) -> list[Sample]:
        return [sample for sample in self.samples.get(registry, []) if sample is not None]

    def to_json(self) -> dict[str, Any]:
        return {
            "work": self.row.name,
            "unit": self.row.unit,
            "refusals": self.refusals,
            "rounds": {
                registry: [None if sample is None else self._figures(sample) for sample in rounds]
                for registry, rounds in self.samples.items()
            },
        }

    def _figures(self, sample: Sample) -> dict[str, float | None]:
        return {
            "value": round(self.value_of(sample), 3),
            "median_ms": round(sample.median * 1000, 3),
            "p99_ms": round(sample.p99 * 1000, 3),
            "count": sample.count,
            "cpu_s_per_1000": None if sample.cpu is None else round(sample.cpu, 4),
            "client": round(sample.client, 3),
        }


@dataclass(slots=True)
class Results:
    registries: list[str]
    rows: dict[str, Result] = field(default_factory=dict)

    def of(self, row: Row) -> Result:
        return self.rows.setdefault(row.name, Result(row))

    def share(self, result: Result, registry: str) -> Spread | None:
        """Of the row that this one is against."""
        base = self.rows.get(result.row.against)
        return result.share_of(base, registry) if base else None
