"""Finding: what a rule has to say about a chart."""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Severity = Literal["reject", "warn"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of a chart, in words for the person behind `helm push`.

    `reject`: Helm could not use the chart, or the repository would lie about what it holds. `warn`: kept with the chart
    and shown. `hint` says what to do; `file` is a path inside the chart, `line` counts from 1, 0 when it is not known.
    """

    rule: str
    severity: Severity
    message: str
    hint: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        """One line, as it stands in an error's `message`."""
        place = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return f"{place}{self.message}" + (f"; {self.hint}" if self.hint else "")


def reject(message: str, *, hint: str = "", file: str = "", line: int = 0, rule: str = "") -> Finding:
    """Without `rule` it is named after the function that found it (see `named`)."""
    return Finding(rule, "reject", message, hint, file, line)


def warn(message: str, *, hint: str = "", file: str = "", line: int = 0, rule: str = "") -> Finding:
    return Finding(rule, "warn", message, hint, file, line)


def named(rule: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings of the rule of that name."""
    return (finding if finding.rule else dataclasses.replace(finding, rule=rule) for finding in findings)
