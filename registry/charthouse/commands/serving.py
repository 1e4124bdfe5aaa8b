"""`charthouse serve`."""

import inspect
from pathlib import Path
from typing import Any

import typer

from charthouse.commands import ConfigOption, setting_flag
from charthouse.settings import FIELDS, load

family = typer.Typer()


def serve(config: Path | None = None, **flags: Any) -> None:
    """Start the registry.

    Examples:

      charthouse serve

      charthouse serve --port 5001 --data /srv/charts

      charthouse serve --host 0.0.0.0 --open-to-everyone

    Every flag is also a CHARTHOUSE_* variable (CHARTHOUSE_PORT=5001) and a key of the TOML file (port = 5001).
    """
    settings = load(flags, config)

    from charthouse.server import serve as run

    raise typer.Exit(run(settings))


# Typer reads a command's options from its signature: here, one for each setting.
_CONFIG = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ConfigOption)
serve.__signature__ = inspect.Signature([*map(setting_flag, FIELDS), _CONFIG])  # type: ignore[attr-defined]
family.command()(serve)
