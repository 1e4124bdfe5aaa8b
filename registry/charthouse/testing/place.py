"""Where a registry for tests is and what opens it: there before the registry is, so that nobody has to wait for that.

Clients may connect from then on; they are answered when it has started.
"""

import dataclasses
import shutil
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from charthouse.addresses import bind, url_of
from charthouse.settings import Settings
from charthouse.testing import home
from charthouse.testing.home import Home
from charthouse.testing.options import User, user_for
from charthouse.tls import Tls, open_tls

if TYPE_CHECKING:
    from charthouse.certificates import ClientFiles

BACKLOG = 128  # connections that wait for the registry's start


class Place:
    """From `__init__` to `close`. `settings` are `checked`, `now` is in Unix seconds."""

    home: Home
    user: User | None
    tls: Tls | None = None
    sockets: Sequence[socket.socket]
    _client: "ClientFiles | None" = None

    def __init__(self, settings: Settings, now: float) -> None:
        self.settings = settings
        self.user = user_for(settings)
        with ExitStack() as held:
            self.home = home.join()
            held.callback(home.leave)
            if self.speaks_tls:
                self._make_certificates(held, now)
            self.sockets = bind(settings)
            for bound in self.sockets:
                held.callback(bound.close)
                bound.listen(BACKLOG)
            self._held = held.pop_all()

    def close(self) -> None:
        self._held.close()

    def _make_certificates(self, held: ExitStack, now: float) -> None:
        folder = self.home.new_folder()
        held.callback(shutil.rmtree, folder)
        names = dict.fromkeys((*self.settings.host_name, *self.settings.san))
        made = open_tls(dataclasses.replace(self.settings, tls="self-signed", data=folder, host_name=tuple(names)))
        assert made is not None  # noqa: S101 - as it was given
        self.tls = made
        if self.demands_certificates:
            from charthouse.certificates import client_files  # as for every certificate, only where there is one

            self._client = client_files(self.ca_file.parent, now)
            made.demanding(self.ca_file)

    @property
    def port(self) -> int:
        port: int = self.sockets[0].getsockname()[1]
        return port

    @property
    def host(self) -> str:
        """As it stands in a reference: `oci://{registry.host}/team-a/app`."""
        if self.settings.on_loopback:
            return f"localhost:{self.port}"
        return url_of(self.sockets[0], self.scheme).partition("//")[2]

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    @property
    def username(self) -> str:
        """Of the administrator; empty where everybody may do everything."""
        return self.user.name if self.user else ""

    @property
    def password(self) -> str:
        return self.user.password if self.user else ""

    @property
    def addresses(self) -> Sequence[str]:
        """Where it listens."""
        return self.settings.host

    @property
    def ca_file(self) -> Path:
        """What clients are told to trust, in PEM."""
        if self.tls is None or self.tls.authority is None:
            raise RuntimeError("the registry speaks plain HTTP: give tls=True")
        return self.tls.authority

    @property
    def client_cert_file(self) -> Path:
        """The certificate that clients show, in PEM."""
        return self._pair.certificate

    @property
    def client_key_file(self) -> Path:
        return self._pair.key

    @property
    def _pair(self) -> "ClientFiles":
        if self._client is None:
            raise RuntimeError("the registry demands no certificate of its clients: give mtls=True")
        return self._client

    @property
    def demands_certificates(self) -> bool:
        return self.settings.mtls

    @property
    def speaks_tls(self) -> bool:
        return self.settings.mtls or self.settings.tls != "off"

    @property
    def scheme(self) -> str:
        return "https" if self.speaks_tls else "http"
