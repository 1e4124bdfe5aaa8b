"""A stand-in for the Kubernetes API: as much of it as Helm asks for when it installs a chart.

It keeps what it is given and gives it back; nothing runs. It knows config maps, which the tests' charts are made of, as
JSON, and secrets, where Helm keeps its releases, in Kubernetes' Protobuf encoding, which is all that Helm sends.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from support.listening import Handler, Listener

VERBS = ["create", "delete", "get", "list", "patch", "update"]
PROTOBUF = "application/vnd.kubernetes.protobuf"
_OBJECTS = re.compile(r"/api/v1/namespaces/default/(secrets|configmaps)(?:/([^/]+))?")

DISCOVERY: dict[str, Any] = {
    "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {"name": name, "kind": kind, "namespaced": True, "singularName": "", "verbs": VERBS}
            for name, kind in (("secrets", "Secret"), ("configmaps", "ConfigMap"))
        ],
    },
    "/openapi/v3": {"paths": {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1"}}},
    # Helm asks whether the server would find unknown fields itself; where it does, Helm leaves the rest to it.
    "/openapi/v3/api/v1": {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.34.0"},
        "paths": {
            "/api/v1/namespaces/{namespace}/configmaps/{name}": {
                "patch": {
                    "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                    "responses": {"200": {"description": "OK"}},
                    "x-kubernetes-action": "patch",
                    "x-kubernetes-group-version-kind": {"group": "", "version": "v1", "kind": "ConfigMap"},
                }
            }
        },
    },
}


class Kubernetes(Listener):
    """A cluster with the namespace `default`: its config maps by name, and its secrets by name, encoded."""

    def __init__(self) -> None:
        super().__init__(_Api)
        self.config_maps: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, bytes] = {}

    def write_config(self, path: Path) -> Path:
        """A kubeconfig file that leads here."""
        cluster = {"server": f"http://{self.host}"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "me", "user": {}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "current-context": "here",
        }
        path.write_text(yaml.safe_dump(config))
        return path


class _Api(Handler):
    server: Kubernetes

    def read(self) -> None:
        url = urlsplit(self.path)
        match = _OBJECTS.fullmatch(url.path)
        if url.path in DISCOVERY:
            self._answer(200, DISCOVERY[url.path])
        elif match and match.groups() == ("secrets", None):
            selector = parse_qs(url.query).get("labelSelector", [""])[0]
            self._answer_secret("SecretList", _select(self.server.secrets.values(), selector))
        elif match and match[1] == "secrets" and match[2] in self.server.secrets:
            self._answer_secret("Secret", self.server.secrets[match[2]])
        elif match and match[1] == "configmaps" and match[2] in self.server.config_maps:
            self._answer(200, self.server.config_maps[match[2]])
        else:
            self._answer(404, _not_found(url.path))

    def create(self) -> None:
        self._store(201)

    def replace(self) -> None:
        self._store(200)

    do_GET, do_POST, do_PUT, do_PATCH = read, create, replace, replace  # noqa: N815 - http.server's names

    def _store(self, status: int) -> None:
        match = _OBJECTS.fullmatch(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers["content-length"]))
        if match is None:
            self._answer(404, _not_found(self.path))
        elif match[1] == "secrets":
            secret = _open_envelope(body)
            self.server.secrets[_secret_name(secret)] = secret
            self._answer_secret("Secret", secret, status)
        else:
            sent = yaml.safe_load(body)  # JSON is YAML too
            name = match[2] or sent["metadata"]["name"]
            self.server.config_maps[name] = _merge(self.server.config_maps.get(name, {}), sent)
            self._answer(status, self.server.config_maps[name])

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(document).encode())

    def _answer_secret(self, kind: str, message: bytes, status: int = 200) -> None:
        self._send(status, PROTOBUF, _envelope(kind, message))

    def _send(self, status: int, media_type: str, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _merge(stored: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    """What a patch does to an object."""
    merged = dict(stored)
    for key, value in sent.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged


def _not_found(what: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": "NotFound",
        "code": 404,
        "message": what,
    }


# --- secrets, by the numbers of the fields in Kubernetes' generated.proto ---------------------------------------------

_MAGIC = b"k8s\0"


def _envelope(kind: str, message: bytes) -> bytes:
    return _MAGIC + _field(1, _field(1, b"v1") + _field(2, kind.encode())) + _field(2, message)


def _open_envelope(body: bytes) -> bytes:
    assert body.startswith(_MAGIC), body[:40]
    return _fields(body.removeprefix(_MAGIC), 2)[0]


def _secret_name(secret: bytes) -> str:
    return _fields(_fields(secret, 1)[0], 1)[0].decode()


def _select(secrets: Iterable[bytes], selector: str) -> bytes:
    wanted = {tuple(term.split("=", 1)) for term in selector.split(",") if "=" in term}
    return _field(1, b"") + b"".join(_field(2, secret) for secret in secrets if wanted <= _labels(secret))


def _labels(secret: bytes) -> set[tuple[str, ...]]:
    entries = _fields(_fields(secret, 1)[0], 11)
    return {(_fields(entry, 1)[0].decode(), _fields(entry, 2)[0].decode()) for entry in entries}


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    head = bytearray()
    while value > 0x7F:
        head.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*head, value])


def _fields(message: bytes, wanted: int) -> list[bytes]:
    """The contents of the fields with that number; all that are asked for have a length before them."""
    found, position = [], 0
    while position < len(message):
        key, position = _read_varint(message, position)
        value, position = _read_varint(message, position)
        if key & 7 == 2:
            if key >> 3 == wanted:
                found.append(message[position : position + value])
            position += value
    return found


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
