"""What a registry for tests is told: the settings of the server, and what it may not be."""

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from charthouse.errors import PasswordInvalid
from charthouse.settings import Settings, SettingsError, load

if TYPE_CHECKING:
    from charthouse.testing.rules import Rule

DEFAULTS = {"policy": "oci", "versions": "mutable", "port": 0, "open_to_everyone": True, "ephemeral": True}


def load_options(words: Mapping[str, Any], origin: str = "of a registry for tests") -> Settings:
    """Of `words` alone, None is not given: the environment of a test is not its registry's. Raises SettingsError, which
    says that they are of that origin."""
    return load({**DEFAULTS, **words}, environ={}, flags_are=origin)


def checked(settings: Settings) -> Settings:
    """With all names that it is known by. Raises SettingsError for what a registry for tests cannot be."""
    if settings.database or settings.workers != 1:
        raise SettingsError("--ephemeral is one process with everything in memory: leave --database and --workers out")
    if given := settings.tls_cert or settings.tls_key:
        raise SettingsError(f"{given}: an ephemeral registry makes its own certificate, by --tls self-signed and --san")
    if settings.anonymous_pull and settings.auth == "none" and not settings.is_closed:
        raise SettingsError("--anonymous-pull says that pulls need no user, and nothing does: give --auth as well")
    rules_of(settings.personality)
    _check_password(settings.tester_password)
    if not settings.on_loopback:
        return settings
    # On loopback other names than this machine's have to be allowed; elsewhere all are, unless some are named.
    return dataclasses.replace(settings, host_name=(*settings.host_name, *settings.san))


def _check_password(password: str) -> None:
    if not password:
        return
    from charthouse.auth.passwords import check  # only for one that is given

    try:
        check(password)
    except PasswordInvalid as error:
        raise SettingsError(f"tester_password: {error.message}") from None


@dataclass(frozen=True, slots=True)
class User:
    name: str
    password: str


@cache
def user(password: str = "") -> User:
    """The administrator of all closed registries of the process: hashing a password for each would take 30 ms. Without
    a password, one is made."""
    return User("tester", password or secrets.token_urlsafe(12))


def user_for(settings: Settings) -> User | None:
    """Who may do everything; None where everybody may."""
    return None if settings.auth == "none" else user(settings.tester_password)


def rules_of(personality: str) -> "Sequence[Rule]":
    if not personality:
        return ()
    from charthouse.testing.personalities import PERSONALITIES

    if personality not in PERSONALITIES:
        raise SettingsError(f"there is no personality {personality!r}; there are {', '.join(PERSONALITIES)}")
    return PERSONALITIES[personality].rules
