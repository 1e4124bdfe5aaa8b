"""Whether a history of requests to one tag can be explained by a register that each of them met in one moment.

The search is Wing and Gong's with Lowe's memory of what was tried (Testing for linearizability, 2017). It takes them
one after the other as if each had happened at a moment between its begin and its answer. One without an answer may have
happened at any time after its begin, or never.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PUT, GET, DELETE = "put", "get", "delete"


@dataclass(frozen=True)
class Request:
    """`value` is what was put, or what GET found: None for nothing. `found` is DELETE's: whether there was something.

    Times in any unit that all clients share. Without an answer `end` is infinite, and `found` None.
    """

    kind: str
    value: str | None
    begin: float
    end: float = math.inf
    found: bool | None = None

    @property
    def is_answered(self) -> bool:
        return self.end != math.inf

    def after(self, state: str | None) -> tuple[bool, str | None]:
        """Whether the register may answer so in this state, and the next one."""
        if self.kind == PUT:
            return True, self.value
        if self.kind == GET:
            return state == self.value, state
        return self.found is None or self.found == (state is not None), None


def is_linearizable(history: Sequence[Request], state: str | None = None) -> bool:
    """For a register that held `state` before."""
    requests = sorted(history, key=lambda request: request.begin)
    answered = sum(1 << number for number, request in enumerate(requests) if request.is_answered)
    seen = {(0, state)}
    stack = [(0, state)]
    while stack:
        done, state = stack.pop()
        if done & answered == answered:
            return True
        for number in _next(requests, done):
            is_possible, following = requests[number].after(state)
            reached = (done | 1 << number, following)
            if is_possible and reached not in seen:
                seen.add(reached)
                stack.append(reached)
    return False


def _next(requests: Sequence[Request], done: int) -> Iterator[int]:
    """Those that may come first of the rest: no other of them was answered before they began."""
    first = (~done & (done + 1)).bit_length() - 1  # all before it are done
    earliest = math.inf
    for number in range(first, len(requests)):
        if requests[number].begin > earliest:
            return
        if not done >> number & 1:
            earliest = min(earliest, requests[number].end)
            yield number
