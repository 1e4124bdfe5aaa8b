"""Other issuers whose tokens count here: the `[[issuers]]` tables of the TOML file. Plain values, without any key.

An issuer of registry tokens says in them what is allowed (`access`, as in distribution's specification); its table says
in which repositories, and what at most.
"""

import contextlib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from charthouse.auth.access import ACTIONS, TOKEN, Grant, Pattern, Rights, parse_actions
from charthouse.errors import GrantInvalid

OURS = "charthouse"  # the issuer of our own access tokens
LONGEST = 24 * 3600  # seconds from `iat` to `exp`, unless a table says another number
LONGEST_OF_ALL = 366 * 24 * 3600  # Kubernetes makes some that live for a year

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_KEYS = ("name", "issuer", "audience", "jwks", "longest", "repositories", "actions")

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """What tokens of an issuer may give at most."""

    grants: Sequence[Grant]


@dataclass(frozen=True, slots=True, eq=False)
class Issuer:
    """`name` is ours for it, `issuer` its own, in `iss`. `jwks` is a URL or a file. `longest` is in seconds."""

    name: str
    issuer: str
    audiences: Sequence[str]
    jwks: str | Path
    longest: int
    bound: Rule  # of its registry tokens


def rights(rules: Sequence[Rule]) -> Rights:
    """No grants of the database are mixed in."""
    return Rights([grant for rule in rules for grant in rule.grants])


def parse(tables: object) -> Sequence[Issuer]:
    """Raises ValueError, which names the table and the key."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError("give tables, each under a line [[issuers]]")
    found = [_issuer(table) for table in tables]
    for which in ("name", "issuer"):
        words = [getattr(each, which) for each in found]
        if twice := next((word for word in words if words.count(word) > 1), None):
            raise ValueError(f"{which} = {twice!r} is in two tables")
    return tuple(found)


def _issuer(table: Table) -> Issuer:
    name = table.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or f"{name}:" == TOKEN:
        raise ValueError(
            f"name is {name!r}: give at most 64 small letters, digits, '.', '_' and '-', and not {TOKEN[:-1]!r}"
        )
    try:
        _demand_known(table, _KEYS)
        return Issuer(
            name,
            _own_name(table.get("issuer")),
            _words(table, "audience", "the registry's name, as the issuer writes it in aud"),
            _location(table.get("jwks")),
            _longest(table.get("longest", LONGEST)),
            Rule(_grants(name, table)),
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _demand_known(table: Table, known: Sequence[str]) -> None:
    if unknown := [key for key in table if key not in known]:
        raise ValueError(f"there is no key {unknown[0]!r}: there are {', '.join(known)}")


def _own_name(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"issuer is {value!r}: give what its tokens say in iss, such as https://auth.example.com")
    if value == OURS:
        raise ValueError(f"issuer is {value!r}: that is this registry itself")
    return value


def _words(table: Table, key: str, what: str) -> Sequence[str]:
    """One text or several."""
    value = table.get(key)
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word for word in words):
        raise ValueError(f"{key} is {value!r}: give {what}, or several in brackets")
    return tuple(words)


def _location(value: object) -> str | Path:
    """Keys come over a connection that nobody can put others into."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"jwks is {value!r}: give an https URL or a file")
    if "://" not in value:
        return Path(value)
    if not _is_safe(value):
        raise ValueError(
            f"jwks is {value!r}: give an https URL without user and password (http is for loopback alone), or a file"
        )
    return value


def _is_safe(url: str) -> bool:
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        is_plain = parts.username is None and parts.password is None and not parts.fragment and url.isprintable()
        return is_plain and (parts.port is None or parts.port > 0) and _is_of_safe_scheme(parts)
    return False


def _is_of_safe_scheme(parts: SplitResult) -> bool:
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and is_local(parts)))


def is_local(url: SplitResult) -> bool:
    """Whether it leads to this machine, whatever name servers say."""
    with contextlib.suppress(ValueError):
        return url.hostname == "localhost" or ipaddress.ip_address(url.hostname or "").is_loopback
    return False


def _longest(value: object) -> int:
    if not isinstance(value, int) or not 1 <= value <= LONGEST_OF_ALL:
        raise ValueError(f"longest is {value!r}: give the seconds that a token may be valid, 1 to {LONGEST_OF_ALL}")
    return int(value)


def _grants(name: str, table: Table) -> Sequence[Grant]:
    """Both have to be said: an issuer that may do everything is one that somebody meant so."""
    patterns = _words(table, "repositories", "patterns such as team-a/*")
    actions = _words(table, "actions", f"some of {', '.join(ACTIONS)}")
    try:
        allowed = parse_actions(",".join(actions))
        return tuple(Grant(name, Pattern.parse(pattern), allowed) for pattern in patterns)
    except GrantInvalid as error:
        raise ValueError(error.message) from None
