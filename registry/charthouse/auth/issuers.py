"""Other issuers whose tokens count here: the `[[issuers]]` tables of the TOML file. Plain values, without any key.

An issuer of registry tokens says in them what is allowed (`access`, as in distribution's specification); its table says
in which repositories, and what at most. An issuer of workload identities says who a pipeline or a pod is; its table has
`[[issuers.rules]]`, which say who may do what.
"""

import contextlib
import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from charthouse.auth.access import ACTIONS, MARK_SIZE, TOKEN, Directory, Grant, Pattern, Rights, parse_actions
from charthouse.errors import GrantInvalid

OURS = "charthouse"  # the issuer of our own access tokens
LONGEST = 24 * 3600  # seconds from `iat` to `exp`, unless a table says another number
LONGEST_OF_ALL = 366 * 24 * 3600  # Kubernetes makes some that live for a year

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_KEYS = ("name", "issuer", "audience", "jwks", "longest")
_GRANT = ("repositories", "actions")
_RULE = ("claims", *_GRANT, "user")
_ANY = "*"

# Who may have a token of these is everybody. One of the claims has to say whose workload it is.
_OF_EVERYBODY: Mapping[str, Sequence[str]] = {
    "https://token.actions.githubusercontent.com": (
        *("repository", "repository_id", "repository_owner", "repository_owner_id", "enterprise", "enterprise_id"),
        "sub",
    ),
    "https://gitlab.com": ("project_path", "project_id", "namespace_path", "namespace_id", "sub"),
}

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """What tokens of an issuer may give at most; with `claims`, what a workload may whose token says them.

    Each claim has patterns, of which one has to match. What `user` may, the workload may too. `mark` stands for the
    rule in access tokens that are given under it: another one when it changes.
    """

    grants: Sequence[Grant]
    claims: Mapping[str, Sequence[str]] = field(default_factory=dict)
    user: str = ""
    mark: str = ""

    def lets_in(self, said: Mapping[str, Any], directory: Directory) -> bool:
        return (
            bool(self.claims)
            and self.is_good(directory)
            and all(
                any(matches(pattern, text) for pattern in patterns for text in _texts(said.get(name)))
                for name, patterns in self.claims.items()
            )
        )

    def is_good(self, directory: Directory) -> bool:
        """Without its user it gives nothing."""
        user = directory.users.get(self.user)
        return not self.user or (user is not None and not user.is_disabled)


@dataclass(frozen=True, slots=True, eq=False)
class Issuer:
    """`name` is ours for it, `issuer` its own, in `iss`. `jwks` is a URL or a file. `longest` is in seconds.

    `bound` is for its registry tokens, `rules` are for workloads: one of both.
    """

    name: str
    issuer: str
    audiences: Sequence[str]
    jwks: str | Path
    longest: int
    bound: Rule | None
    rules: Sequence[Rule]


def rights(rules: Sequence[Rule], directory: Directory) -> Rights:
    """Of a workload: what all its rules and their users give, and what everybody may. With a registry token no grants
    of the database are mixed in."""
    grants = [grant for rule in rules for grant in rule.grants]
    is_of_workload = any(rule.claims for rule in rules)
    others = [directory.rights_of(name) for name in {"", *(rule.user for rule in rules)} if is_of_workload]
    is_administrator = any(each.is_administrator for each in others)
    return Rights([*grants, *(grant for each in others for grant in each.grants)], is_administrator=is_administrator)


def matches(pattern: str, text: str) -> bool:
    """`*` stands for any characters, or none; whatever else for itself. In linear time."""
    first, *rest = pattern.split(_ANY)
    if not rest:
        return text == pattern
    *middle, last = rest
    at, end = len(first), len(text) - len(last)
    if at > end or not (text.startswith(first) and text.endswith(last)):
        return False
    for part in middle:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _texts(value: object) -> Sequence[str]:
    """What a claim says: a text, a number, true or false, or several of them."""
    if isinstance(value, list):
        return [text for each in value if not isinstance(each, list) for text in _texts(each)]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return [str(value)] if isinstance(value, str | int) else []


def parse(tables: object) -> Sequence[Issuer]:
    """Raises ValueError, which names the table and the key."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError("give tables, each under a line [[issuers]]")
    found = [_issuer(table) for table in tables]
    _demand_different("name", [each.name for each in found])
    for has_rules in (True, False):
        _demand_different("issuer", [each.issuer for each in found if bool(each.rules) is has_rules])
    return tuple(found)


def _demand_different(key: str, words: Sequence[str]) -> None:
    if twice := next((word for word in words if words.count(word) > 1), None):
        raise ValueError(f"{key} = {twice!r} is in two tables")


def _issuer(table: Table) -> Issuer:
    name = table.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or f"{name}:" == TOKEN:
        raise ValueError(
            f"name is {name!r}: give at most 64 small letters, digits, '.', '_' and '-', and not {TOKEN[:-1]!r}"
        )
    try:
        has_rules = "rules" in table
        _demand_known(table, (*_KEYS, "rules") if has_rules else (*_KEYS, *_GRANT, "rules"))
        issuer = _own_name(table.get("issuer"))
        return Issuer(
            name,
            issuer,
            _words(table, "audience", "the registry's name, as the issuer writes it in aud"),
            _location(table.get("jwks")),
            _longest(table.get("longest", LONGEST)),
            None if has_rules else Rule(_grants(name, table)),
            _rules(name, issuer, table["rules"]) if has_rules else (),
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


def _rules(name: str, issuer: str, tables: object) -> Sequence[Rule]:
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ValueError("rules: give tables, each under a line [[issuers.rules]]")
    rules = []
    for number, table in enumerate(tables, 1):
        try:
            rules.append(_rule(name, issuer, table))
        except ValueError as error:
            raise ValueError(f"rule {number}: {error}") from None
    return tuple(rules)


def _rule(name: str, issuer: str, table: Table) -> Rule:
    _demand_known(table, _RULE)
    claims, user = _claims(issuer, table.get("claims")), table.get("user", "")
    if not isinstance(user, str) or ("user" in table and not user):
        raise ValueError(f"user is {user!r}: give the name of a user whose rights it has")
    grants = () if user and not any(key in table for key in _GRANT) else _grants(name, table)
    said = json.dumps([name, issuer, sorted(claims.items()), [str(grant) for grant in grants], user])
    return Rule(grants, claims, user, hashlib.sha256(said.encode()).hexdigest()[:MARK_SIZE])


def _claims(issuer: str, value: object) -> Mapping[str, Sequence[str]]:
    """Without one that is fixed, or of a public issuer without its owner, a rule would let in everybody there."""
    if not isinstance(value, dict) or not value:
        raise ValueError(
            f'claims is {value!r}: say whom it is for, such as {{ sub = "…" }}; without, it is for everybody'
        )
    claims = {name: _words(value, name, "a text or a pattern with *") for name in value}
    if not any(all(pattern.strip(_ANY) for pattern in patterns) for patterns in claims.values()):
        raise ValueError(f"claims is {value!r}: that is everybody whom {issuer} gives a token")
    owners = _OF_EVERYBODY.get(issuer.rstrip("/"))
    if owners and not any(all(map(_names_an_owner, claims[name])) for name in owners if name in claims):
        raise ValueError(
            f"claims is {value!r}: everybody has tokens of {issuer}, so one of {', '.join(owners)} has to say whose it"
            " is, as a whole or as acme/*"
        )
    return claims


def _names_an_owner(pattern: str) -> bool:
    """Whether all before the first slash is fixed: acme* would be acme-of-somebody-else too."""
    return _ANY not in pattern or "/" in pattern.partition(_ANY)[0]


def _grants(name: str, table: Table) -> Sequence[Grant]:
    """Both have to be said: an issuer that may do everything is one that somebody meant so."""
    patterns = _words(table, "repositories", "patterns such as team-a/*")
    actions = _words(table, "actions", f"some of {', '.join(ACTIONS)}")
    try:
        allowed = parse_actions(",".join(actions))
        return tuple(Grant(name, Pattern.parse(pattern), allowed) for pattern in patterns)
    except GrantInvalid as error:
        raise ValueError(error.message) from None
