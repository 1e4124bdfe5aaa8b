"""What a statement gave, whichever database it went to."""

from collections.abc import Iterator, Sequence
from typing import Any


class Fetched:
    """All rows: a statement that is half read would hold its snapshot."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: Sequence[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def first(self) -> Any:
        return self._rows[0] if self._rows else None

    def all(self) -> Sequence[Any]:
        return self._rows

    def scalar(self) -> Any:
        return self._rows[0][0] if self._rows else None

    def scalar_one(self) -> Any:
        ((value,),) = self._rows
        return value

    def scalars(self) -> Iterator[Any]:
        return (row[0] for row in self._rows)
