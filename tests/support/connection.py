"""A connection without a socket: the server's own protocol, and the bytes that it writes."""

import asyncio
from typing import Any

from uvicorn import Config

from charthouse.http_protocol import Protocol, State


class Connected(asyncio.Transport):
    """The other side of a connection: what was written to it."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 5000), "peername": ("127.0.0.1", 40000)})
        self.written = b""
        self.answered = asyncio.Event()

    def write(self, data: Any) -> None:
        self.written += data
        self.answered.set()

    def write_eof(self) -> None:
        pass

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        pass


class Counted:
    """A parser, and how often it was given something."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser
        self.count = 0

    def feed_data(self, data: bytes) -> None:
        self.count += 1
        self._parser.feed_data(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


class Connection:
    """`app` is a Layer."""

    def __init__(self, app: Any) -> None:
        config = Config(app, interface="asgi3", log_config=None, proxy_headers=False)
        config.load()
        self.protocol = Protocol(config, State(), {}, asyncio.get_running_loop())
        self.protocol.parser = self.parser = Counted(self.protocol.parser)  # type: ignore[assignment]
        self.transport = Connected()
        self.protocol.connection_made(self.transport)

    def ask(self, *pieces: bytes) -> tuple[bytes, int]:
        """The answer, and how many of the pieces the parser was given."""
        self.transport.written, before = b"", self.parser.count
        for piece in pieces:
            self.protocol.data_received(piece)
        return self.transport.written, self.parser.count - before

    async def answer(self, piece: bytes) -> tuple[bytes, bool]:
        """The beginning of the answer, and whether it was given at once."""
        self.transport.answered.clear()
        written, _ = self.ask(piece)
        await self.transport.answered.wait()
        return self.transport.written, bool(written)
