"""What a subject may do: the union of what it was granted. There is nothing that takes away."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from charthouse.auth.scope import Access
from charthouse.errors import GrantInvalid, RegistryError
from charthouse.names import RepositoryName, shown

PULL, PUSH, OVERWRITE, DELETE = "pull", "push", "overwrite", "delete"
ACTIONS = (PULL, PUSH, OVERWRITE, DELETE)  # in the order in which they are written
ANONYMOUS = "anonymous"
EVERYTHING = "*"
TOKEN = "token:"  # noqa: S105 - and a name: the subject that an API token is

MARK_SIZE = 16  # characters of a SHA-256 that stand for all of it

# What a token has to say for it. Clients know of no overwriting: which of the two a push is, the push finds out.
_IN_A_TOKEN = {PULL: PULL, PUSH: PUSH, OVERWRITE: PUSH, DELETE: DELETE}


class Pattern(str):
    """`team-a/app` is that repository, `team-a/*` all below team-a however deep, `*` all there are."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises GRANT_INVALID (400)."""
        name = text.removesuffix("/*")
        try:
            return cls(text if text == EVERYTHING else RepositoryName.parse(name) + text[len(name) :])
        except RegistryError:
            raise GrantInvalid(
                f"{shown(text)} is no pattern of repositories: write team-a/app, team-a/* for all below team-a, or *"
            ) from None

    def covers(self, repository: str) -> bool:
        if self == EVERYTHING:
            return True
        return repository.startswith(self[:-1]) if self.endswith("/*") else self == repository


def parse_actions(text: str) -> frozenset[str]:
    """`pull,push`. Raises GRANT_INVALID (400)."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if word not in ACTIONS]
    if unknown or not words:
        raise GrantInvalid(f"{shown(text)} are no actions: write some of {', '.join(ACTIONS)}, separated by commas")
    return frozenset(words)


@dataclass(frozen=True, slots=True)
class Grant:
    """`subject` is a user's name, `anonymous`, or `@` and a group's name."""

    subject: str
    pattern: Pattern
    actions: frozenset[str]

    def allows(self, action: str, repository: str) -> bool:
        return action in self.actions and self.pattern.covers(repository)

    def __str__(self) -> str:
        return f"{self.subject} {self.pattern} {','.join(action for action in ACTIONS if action in self.actions)}"


@dataclass(frozen=True, slots=True)
class Rights:
    """Of one subject: its own grants and those of its groups; an administrator needs none. A token narrows them."""

    grants: Sequence[Grant] = ()
    is_administrator: bool = False
    token: Access | None = None

    def allows(self, action: str, repository: str) -> bool:
        if self.token is not None and not self.token.allows(RepositoryName(repository), _IN_A_TOKEN[action]):
            return False
        return self.is_administrator or self.why(action, repository) is not None

    def why(self, action: str, repository: str) -> Grant | None:
        """The grant that allows it."""
        return next((grant for grant in self.grants if grant.allows(action, repository)), None)

    @property
    def readable(self) -> Sequence[Pattern] | None:
        """What may be listed; None is everything."""
        patterns = {grant.pattern for grant in self.grants if PULL in grant.actions}
        return None if self.is_administrator or EVERYTHING in patterns else sorted(patterns)


EVERY_RIGHT = Rights(is_administrator=True)


def of_user(name: str) -> str:
    """What his limits are kept under, beside those of namespaces: none is called so."""
    return f"user {name}"


@dataclass(frozen=True, slots=True)
class User:
    name: str
    password: str  # its hash
    is_administrator: bool
    is_disabled: bool
    is_from_file: bool = False  # of the htpasswd file

    @property
    def mark(self) -> str:
        """What stands for the password in what is given for it: another one when that changes. It says nothing of it,
        being of the hash."""
        return hashlib.sha256(self.password.encode()).hexdigest()[:MARK_SIZE]


@dataclass(frozen=True, slots=True)
class Login:
    """One that lasts: a refresh token, of which only the SHA-256 is kept. Times are Unix milliseconds."""

    hash: str
    subject: str
    mark: str  # of the password that was given for it
    client: str
    created_at: int
    used_at: int | None = None
    ended_at: int | None = None

    @property
    def id(self) -> str:
        """What it is called by who may not see it."""
        return self.hash[:MARK_SIZE]

    def is_good(self, directory: "Directory") -> bool:
        user = directory.users.get(self.subject)
        return self.ended_at is None and user is not None and not user.is_disabled and user.mark == self.mark


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A secret with rights of its own, of which only the SHA-256 is kept. Times are Unix milliseconds."""

    name: str
    hash: str
    patterns: Sequence[Pattern]
    actions: frozenset[str]
    created_at: int
    expires_at: int | None
    used_at: int | None

    @property
    def subject(self) -> str:
        """No user has a name with a colon."""
        return f"{TOKEN}{self.name}"

    @property
    def grants(self) -> Sequence[Grant]:
        return [Grant(self.subject, pattern, self.actions) for pattern in self.patterns]

    def has_ended(self, now: int) -> bool:
        return self.expires_at is not None and now >= self.expires_at


@dataclass(frozen=True, slots=True)
class Directory:
    """All users, groups and grants, and the limits of namespaces and users, as they were at one generation.

    Without users the registry is open to everybody. With an htpasswd file, be it empty, or with other issuers it is
    not: `is_closed`.
    """

    generation: int = 0
    users: Mapping[str, User] = field(default_factory=dict)
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)  # names of groups to names of users
    grants: Sequence[Grant] = ()
    tokens: Mapping[str, ApiToken] = field(default_factory=dict)  # by hash
    ended_logins: frozenset[str] = frozenset()  # their ids
    # By setting, of each namespace and of each user that has some (`of_user`): see `quotas.py`.
    limits: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    is_closed: bool = False
    file_version: int = 0  # of the htpasswd file; 0 without one

    @property
    def version(self) -> tuple[int, int]:
        """Another one after every change, also of the file."""
        return self.generation, self.file_version

    @property
    def is_open(self) -> bool:
        return not self.users and not self.is_closed

    def with_file(self, users: Mapping[str, User], version: int) -> "Directory":
        """With the users of an htpasswd file. Of two with one name that of the database counts alone."""
        return replace(self, users={**users, **self.users}, file_version=version)

    def rights_of(self, name: str) -> Rights:
        """Of a user; without a name, of whoever does not say who he is. What anonymous may, everybody may."""
        if self.is_open:
            return EVERY_RIGHT
        user = self.users.get(name)
        if user and user.is_disabled:
            return Rights()
        subjects = {ANONYMOUS, name, *(f"@{group}" for group, members in self.groups.items() if name in members)}
        token = self.token_of(name)
        grants = (*self._of(subjects), *(token.grants if token else ()))
        return Rights(grants, is_administrator=bool(user and user.is_administrator))

    def judge(self, subject: str, repository: RepositoryName, action: str) -> tuple[bool, str]:
        """Whether a user, or `anonymous`, may do that, and why, in words."""
        if self.is_open:
            return True, "there are no users, so everybody may do everything"
        user = self.users.get(subject)
        if user is None and subject != ANONYMOUS:
            return False, f"there is no user {subject}"
        if user and user.is_disabled:
            return False, f"{subject} is disabled"
        rights = self.rights_of("" if subject == ANONYMOUS else subject)
        if rights.is_administrator:
            return True, f"{subject} is an administrator"
        reason = rights.why(action, repository)
        if reason is None:
            return False, f"no grant gives {subject} {action} in {repository}"
        return True, f"granted by: {reason}"

    def limits_of(self, subject: str) -> Mapping[str, str]:
        """Of a user or an API token, as they are written."""
        return self.limits.get(of_user(subject), {})

    def token_of(self, subject: str) -> ApiToken | None:
        if not subject.startswith(TOKEN):
            return None
        return next((token for token in self.tokens.values() if token.subject == subject), None)

    def _of(self, subjects: set[str]) -> Iterable[Grant]:
        return (grant for grant in self.grants if grant.subject in subjects)
