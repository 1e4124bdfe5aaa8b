"""Time that a test moves: uploads and tokens expire when it says so."""

import time


class MovableClock:
    """Unix seconds, as time.time, moved by `advance`."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds

    def reset(self) -> None:
        self._ahead = 0.0
