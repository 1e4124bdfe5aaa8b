"""What a token is asked for and what it allows: actions on repositories.

The grammar is `type[(class)]:name:action[,action]*`; a name may have one colon, as in `host:5000/app`.
Source: distribution, docs/content/spec/auth/scope.md, "Resource Scope Grammar", and jwt.md, "access".
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from charthouse.errors import NameInvalid, TokenRequestInvalid
from charthouse.names import RepositoryName

SCOPE_LIMIT = 64  # scopes of one request
SIZE_LIMIT = 8 * 1024  # characters of them together

SERVICE = "charthouse"  # whom a token is for: its audience

PULL, PUSH, DELETE = "pull", "push", "delete"
ACTIONS = (PULL, PUSH, DELETE)  # in the order in which they are written
CATALOG = "registry:catalog:*"

_SCOPE = re.compile(r"([a-z0-9]+)(?:\([a-z0-9]+\))?:(.+):((?:[a-z]*|\*)(?:,(?:[a-z]*|\*))*)", re.ASCII)
_ALL = "*"


@dataclass(frozen=True, slots=True)
class Access:
    """Actions for each repository, none empty, and whether the catalog may be listed."""

    repositories: Mapping[RepositoryName, frozenset[str]] = field(default_factory=dict)
    catalog: bool = False

    def allows(self, repository: RepositoryName, action: str) -> bool:
        return action in self.repositories.get(repository, ())

    @property
    def claim(self) -> list[dict[str, Any]]:
        """As a token's `access`: every action is spelled out, because verifiers look for `push`, not for `*`."""
        entries = [
            {"type": "repository", "name": name, "actions": _ordered(actions)}
            for name, actions in sorted(self.repositories.items())
        ]
        return [*entries, {"type": "registry", "name": "catalog", "actions": [_ALL]}] if self.catalog else entries

    def __str__(self) -> str:
        """As a `scope` parameter."""
        scopes = [f"repository:{name}:{','.join(_ordered(these))}" for name, these in sorted(self.repositories.items())]
        return " ".join([*scopes, CATALOG] if self.catalog else scopes)


def parse(values: Iterable[str]) -> Access:
    """The union of `scope` parameters, each one scope or several with spaces between.

    What is malformed, or speaks of what is not here (another registry's repositories, actions without a meaning), asks
    for nothing: clients send such scopes along with their own. Raises TokenRequestInvalid for too many.
    """
    values = list(values)
    scopes = [scope for value in values for scope in value.split(" ") if scope]
    if len(scopes) > SCOPE_LIMIT or sum(map(len, values)) > SIZE_LIMIT:
        raise TokenRequestInvalid(
            f"a token is asked for {len(scopes)} scopes of {sum(map(len, values)):,} characters; at most {SCOPE_LIMIT}"
            f" scopes of {SIZE_LIMIT:,} characters go into one token"
        )
    matches = filter(None, map(_SCOPE.fullmatch, scopes))
    return _union((match[1], match[2], match[3].split(",")) for match in matches)


def from_claim(claim: object) -> Access:
    """What `access` of a verified token allows. What has another form allows nothing."""
    entries = [entry for entry in claim if isinstance(entry, dict)] if isinstance(claim, list) else []
    return _union((entry.get("type"), entry.get("name"), entry.get("actions")) for entry in entries)


def _union(asked: Iterable[tuple[Any, Any, Any]]) -> Access:
    repositories: dict[RepositoryName, frozenset[str]] = {}
    catalog = False
    for kind, name, actions in asked:
        if not isinstance(name, str) or not isinstance(actions, list):
            continue
        catalog |= (kind, name) == ("registry", "catalog") and _ALL in actions
        known = frozenset(action for action in ACTIONS if action in actions or _ALL in actions)
        repository = _repository(name) if kind == "repository" and known else None
        if repository is not None:
            repositories[repository] = repositories.get(repository, frozenset()) | known
    return Access(repositories, catalog)


def _repository(name: str) -> RepositoryName | None:
    try:
        return RepositoryName.parse(name)
    except NameInvalid:
        return None


def _ordered(actions: frozenset[str]) -> list[str]:
    return [action for action in ACTIONS if action in actions]
