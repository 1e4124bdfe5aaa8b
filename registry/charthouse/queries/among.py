"""Statements that look for several at once, whose text is always the same: so each is compiled and prepared once."""

from collections.abc import Sequence


class Among:
    """`sql` is `IN (…)` over `size` parameters."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sql = f"IN ({', '.join(f':among{number}' for number in range(size))})"

    def parameters(self, values: Sequence[str]) -> dict[str, str]:
        """One to `size` values, the last one repeated."""
        return {f"among{number}": values[min(number, len(values) - 1)] for number in range(self.size)}

    def chunks(self, values: Sequence[str]) -> list[dict[str, str]]:
        """The parameters of as many statements as it takes."""
        return [self.parameters(values[start : start + self.size]) for start in range(0, len(values), self.size)]
