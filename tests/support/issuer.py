"""An issuer of a test's own: keys of ES256 and RS256, tokens of any claims, and its JWK set over HTTP or in a file."""

import base64
import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jose import jwk, jws

from support.listening import Handler, Listener

GONE = object()  # in place of a claim that is to be missing
_KINDS = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
}


class SigningKey:
    def __init__(self, kid: str, algorithm: str = "ES256") -> None:
        private = _KINDS[algorithm]()
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.kid, self.algorithm = kid, algorithm
        self.prepared = jwk.construct(pem.decode(), algorithm)
        self.public_pem = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        public = {name: _text(value) for name, value in self.prepared.public_key().to_dict().items()}
        self.public = {**public, "kid": kid, "use": "sig", "alg": algorithm}


class Issuer:
    """`claims` are those of every token, beside what a test says. A key of RS256 takes a tenth of a second to make."""

    def __init__(
        self, url: str, claims: Mapping[str, Any], algorithm: str = "ES256", key: SigningKey | None = None
    ) -> None:
        self.url = url
        self.key = key or SigningKey("first", algorithm)
        self.claims = {"iss": url, **claims}
        self.published: list[Mapping[str, Any]] = [self.key.public]

    @property
    def jwks(self) -> bytes:
        return json.dumps({"keys": self.published}).encode()

    def write(self, path: Path) -> Path:
        """As a new file, as every tool does that others read beside it."""
        beside = path.with_suffix(".new")
        beside.write_bytes(self.jwks)
        beside.replace(path)
        return path

    def token(self, *, key: SigningKey | None = None, headers: Mapping[str, Any] | None = None, **claims: Any) -> str:
        by = key or self.key
        said = {name: value for name, value in (self.claims | claims).items() if value is not GONE}
        named = {"kid": by.kid} if headers is None else headers
        return str(jws.sign(said, by.prepared, headers=dict(named), algorithm=by.algorithm))

    def raw(self, header: object, claims: object) -> str:
        """Rightly signed, whatever the two are."""
        message = f"{encoded(header)}.{encoded(claims)}"
        return f"{message}.{encoded(self.key.prepared.sign(message.encode()))}"


class KeyServer:
    """Answers every GET with `content`; `requests` are their paths. `hold()` keeps answers back."""

    def __init__(self, content: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.content, self.status, self.headers = content, status, dict(headers or {})
        self.requests: list[str] = []
        self.sent: list[dict[str, str]] = []  # the headers of each
        self.asked = threading.Event()
        self._may_answer = threading.Event()
        self._may_answer.set()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        self._may_answer.clear()
        try:
            yield
        finally:
            self._may_answer.set()

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Gives its address."""
        server = self

        class Answer(Handler):
            def do_GET(self) -> None:  # noqa: N802 - the name http.server calls
                server.requests.append(self.path)
                server.sent.append({name.lower(): value for name, value in self.headers.items()})
                server.asked.set()
                server._may_answer.wait()
                self.send_response(server.status)
                for name, value in {"Content-Length": str(len(server.content)), **server.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):  # the client may have gone
                    self.wfile.write(server.content)

        with Listener(Answer).running() as listener:
            try:
                yield f"http://{listener.host}/keys"
            finally:
                self._may_answer.set()


def encoded(value: object) -> str:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _text(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value
