"""What a registry for tests can be told beside the settings of the server."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from charthouse.settings import FIELDS, Settings, SettingsError, switch
from charthouse.testing import shared
from charthouse.testing.shared import User

if TYPE_CHECKING:
    from charthouse.testing.rules import Rule

DEFAULTS = {"policy": "oci", "versions": "mutable", "port": 0, "open_to_everyone": True, "ephemeral": True}
AUTH = ("none", "basic", "bearer")  # bearer takes Basic too, as Charthouse itself does; basic knows no tokens


def parse_switch(name: str, value: bool | str) -> bool:
    try:
        return switch(value)
    except ValueError as error:
        raise SettingsError(f"{name} is {value!r}: {error}") from None


def check_names(settings: Iterable[str]) -> None:
    """From a test or a pytest.ini they are no flags of a command line, as which `load` takes them."""
    own = ("auth", "anonymous_pull", "tls", "mtls", "san", "personality")
    if unknown := [name for name in settings if name not in FIELDS]:
        raise SettingsError(
            f"a registry for tests has no setting {unknown[0]!r}; it has {', '.join(dict.fromkeys((*own, *FIELDS)))}"
        )


def user_for(auth: str) -> User | None:
    if auth not in AUTH:
        raise SettingsError(f"auth is {auth!r}: give {' or '.join(AUTH)}")
    return None if auth == "none" else shared.user()


def named(settings: Settings, names: Sequence[str]) -> Settings:
    """On loopback other names than this machine's have to be allowed; elsewhere all are, unless some are named."""
    if not settings.on_loopback:
        return settings
    return dataclasses.replace(settings, host_name=(*settings.host_name, *names))


def rules_of(personality: str | None) -> "Sequence[Rule]":
    if personality is None:
        return ()
    from charthouse.testing.personalities import PERSONALITIES

    if personality not in PERSONALITIES:
        raise SettingsError(f"there is no personality {personality!r}; there are {', '.join(PERSONALITIES)}")
    return PERSONALITIES[personality].rules
