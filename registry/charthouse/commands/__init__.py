"""The subcommands, a file for each family of them; `__main__.py` joins their `family`.

What a subcommand needs beyond its words is imported when it runs, so that `charthouse --version` waits for nothing.
Here is what they share: the options, and the way to the registry whose data is there already.
"""

import asyncio
import inspect
import re
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from charthouse.names import Digest, Reference, RepositoryName, Tag
from charthouse.settings import FIELDS, Settings, SettingsError, load, switch

if TYPE_CHECKING:
    from charthouse.core import Registry

T = TypeVar("T")


_UNITS = {"m": 60, "h": 3600, "d": 24 * 3600, "y": 365 * 24 * 3600}  # seconds
_PERIOD = re.compile(r"(\d{1,4})([mhdy])", re.ASCII)


def setting_option(name: str) -> Any:
    """An option for a setting, explained by the setting itself."""
    field = FIELDS[name]
    flag = f"--{name.replace('_', '-')}"
    return typer.Option(flag, help=field.metadata["description"], show_default=False)


def setting_flag(name: str) -> inspect.Parameter:
    """A setting's flag as a parameter of its command: it takes a text, or several, which `settings.py` parses; a switch
    takes nothing."""
    parse = FIELDS[name].metadata["parse"]
    kind: Any = bool if parse is switch else list[str] if isinstance(FIELDS[name].default, tuple) else str
    annotation = Annotated[kind | None, setting_option(name)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


DataOption = Annotated[Path | None, setting_option("data")]
DatabaseOption = Annotated[str | None, setting_option("database")]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="CHARTHOUSE_CONFIG", help="TOML file with settings.", show_envvar=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def existing(data: Path | None, database: str | None, config: Path | None, **flags: Any) -> Settings:
    """The settings of a registry that is there, having said which it is."""
    settings = load({"data": data, "database": database, **flags}, config)
    sys.stderr.write(f"data: {settings.data.absolute()}{' and PostgreSQL' if settings.database else ''}\n")
    return settings


def with_registry(
    settings: Settings,
    work: Callable[["Registry"], Coroutine[Any, Any, T]],
    opening: "Callable[[Settings], Coroutine[Any, Any, Registry]] | None" = None,
) -> T:
    """What `work` gives for that registry, with a server running beside it or without. `opening` may make it."""
    from charthouse.composition import open_existing

    async def run() -> T:
        registry = await (opening or open_existing)(settings)
        try:
            return await work(registry)
        finally:
            await registry.close()

    return asyncio.run(run())


def day(milliseconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(milliseconds / 1000))


def parse_period(text: str, flag: str, otherwise: str = "") -> int:
    """Seconds, of 30m, 12h, 90d or 1y. Raises SettingsError, which names `otherwise` too."""
    match = _PERIOD.fullmatch(text)
    if not match or not int(match[1]):
        raise SettingsError(f"{flag} on the command line is {text!r}: give 30m, 12h, 90d, 1y {otherwise}".rstrip())
    return int(match[1]) * _UNITS[match[2]]


def parse_name(text: str) -> tuple[RepositoryName, Reference | None]:
    """`NAME`, `NAME:VERSION` or `NAME@DIGEST`; a version's + is written _ in its tag."""
    text = text.removeprefix("oci://")
    name, at, digest = text.partition("@")
    if at:
        return RepositoryName.parse(name), Digest.parse(digest)
    name, colon, version = text.partition(":")
    return RepositoryName.parse(name), Tag.parse(version.replace("+", "_")) if colon else None


def parse_pair(text: str) -> tuple[str, str]:
    """`SETTING=VALUE`. Raises SettingsError."""
    setting, equals, value = text.partition("=")
    if not equals:
        raise SettingsError(
            f"{text!r} on the command line sets nothing: write SETTING=VALUE, such as versions=immutable"
        )
    return setting, value
