"""Requests to the token service, and what may be given for them.

Lacking a right is no error: a token allows what is left, be it nothing. With GET a password stands in the Authorization
header, with POST in the form. A workload's token is exchanged with POST too.
Source: distribution, docs/content/spec/auth/token.md (GET) and oauth.md (POST); RFC 8693 (OAuth 2.0 Token Exchange).
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from charthouse.auth import scope
from charthouse.auth.access import Rights
from charthouse.auth.scope import SERVICE, Access
from charthouse.errors import TokenRequestInvalid
from charthouse.names import shown

PATH = "/token"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - its type
_EXCHANGED = tuple(f"urn:ietf:params:oauth:token-type:{kind}" for kind in ("jwt", "id_token"))
FORM_LIMIT = 16 * 1024  # bytes
FIELD_LIMIT = scope.SCOPE_LIMIT + 16


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """`authorization` is a header's value, None from whoever does not say who he is.

    `refresh_token` is what is shown in place of it, and the answer says again; `is_offline` asks for one, which the
    client calls itself `client` by. `subject_token` is what is exchanged.
    """

    authorization: str | None
    asked: Access
    refresh_token: str = ""
    is_refresh: bool = False
    is_offline: bool = False
    client: str = ""
    subject_token: str = ""


def parse_get(query: bytes, authorization: str | None) -> TokenRequest:
    """Raises TokenRequestInvalid."""
    fields = _fields(query)
    is_offline = _one(fields, "offline_token").lower() in ("true", "1")
    return TokenRequest(authorization, _asked(fields), is_offline=is_offline, client=_one(fields, "client_id"))


def parse_post(form: bytes) -> TokenRequest:
    """Raises TokenRequestInvalid, also for a grant that is not given here: clients then use GET."""
    fields = _fields(form)
    kind = _one(fields, "grant_type")
    if kind == "refresh_token":
        return TokenRequest(None, _asked(fields), _one(fields, "refresh_token"), is_refresh=True)
    if kind == EXCHANGE:
        return TokenRequest(None, _asked(fields), subject_token=_subject_token(fields))
    if kind != "password":
        raise TokenRequestInvalid(f"grant_type {shown(kind)} is not given here: use password, or GET {PATH}")
    pair = f"{_one(fields, 'username')}:{_one(fields, 'password')}"
    authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    is_offline = _one(fields, "access_type") == "offline"
    return TokenRequest(authorization, _asked(fields), is_offline=is_offline, client=_one(fields, "client_id"))


def granted(asked: Access, rights: Rights) -> Access:
    """What is asked for and allowed now. `push` is also to overwrite: clients have one word, and the push decides."""
    allowed = {
        name: frozenset(action for action in actions if rights.allows(action, name))
        for name, actions in asked.repositories.items()
    }
    return Access({name: actions for name, actions in allowed.items() if actions}, asked.catalog)


def _fields(encoded: bytes) -> Mapping[str, Sequence[str]]:
    if len(encoded) > FORM_LIMIT:
        raise TokenRequestInvalid(f"a request for a token has more than {FORM_LIMIT:,} bytes")
    found: dict[str, list[str]] = {}
    try:
        for name, value in parse_qsl(encoded.decode("latin-1"), keep_blank_values=True, max_num_fields=FIELD_LIMIT):
            found.setdefault(name, []).append(value)
    except ValueError:
        raise TokenRequestInvalid(f"a request for a token has more than {FIELD_LIMIT} fields") from None
    return found


def _subject_token(fields: Mapping[str, Sequence[str]]) -> str:
    token, kind, wanted = (
        _one(fields, name) for name in ("subject_token", "subject_token_type", "requested_token_type")
    )
    if not token or kind not in _EXCHANGED:
        raise TokenRequestInvalid(
            f"subject_token is missing, or subject_token_type is {shown(kind)}: give a JWT, and {_EXCHANGED[0]}"
        )
    if wanted not in ("", ACCESS_TOKEN, _EXCHANGED[0]):
        raise TokenRequestInvalid(f"requested_token_type {shown(wanted)} is not given here, only {ACCESS_TOKEN}")
    return token


def _one(fields: Mapping[str, Sequence[str]], name: str) -> str:
    return fields.get(name, [""])[0]


def _asked(fields: Mapping[str, Sequence[str]]) -> Access:
    """A token is for this registry, whatever a client says (Quay CVE-2026-123710)."""
    others = set(fields.get("service", ())) - {SERVICE}
    if others:
        raise TokenRequestInvalid(
            f"a token for the service {shown(min(others))} is not given here, only for {shown(SERVICE)}"
        )
    return scope.parse(fields.get("scope", []))
