"""A client's connection to a registry for tests."""

import asyncio
from typing import TYPE_CHECKING

from charthouse.at_once import Layer
from charthouse.http_protocol import Protocol
from charthouse.testing.shared import Shared
from charthouse.tls import Tls

if TYPE_CHECKING:
    from charthouse.testing.inside import Inside


class Connection(Protocol):
    """Belongs to one registry, whose application answers: whichever it is when a request comes."""

    def __init__(self, owner: "Inside", process: Shared) -> None:
        super().__init__(process.config, owner.state, {}, process.loop)
        self._owner = owner
        self.controlling: asyncio.Task[object] | None = None  # while it asks for something under /_test/

    @property
    def app(self) -> Layer:
        return self._owner.app

    @app.setter
    def app(self, _: object) -> None:
        """uvicorn's, which is the same for all."""

    def may_be_plain(self, tls: Tls) -> bool:
        """Control always is: whoever has its token needs no certificate. `front.py` refuses the rest."""
        return self._owner.has_control or super().may_be_plain(tls)

    @property
    def is_plain_for_control_alone(self) -> bool:
        tls = self._owner.state.tls
        return tls is not None and self.scheme == "http" and not super().may_be_plain(tls)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        self.app_state = {"connection": self}

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._owner.rest_when_alone()
