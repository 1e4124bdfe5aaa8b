"""`charthouse exec`."""

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from charthouse.commands import setting_flag
from charthouse.settings import FIELDS, OF_TESTS

family = typer.Typer()

# Of the server's settings those that tests need most, and all of their own but the file that says when it is ready.
OPTIONS = [name for name in FIELDS if name in OF_TESTS and name != "ready_file"] + ["policy", "versions", "host"]


def execute(command: list[str], log: Path | None = None, *, tls: bool | None = None, **options: Any) -> None:
    """Run a command with a registry for tests of its own.

    The command finds it by CHART_REGISTRY_HOST, CHART_REGISTRY_URL, CHART_REGISTRY_USERNAME, CHART_REGISTRY_PASSWORD,
    CHART_REGISTRY_CA_FILE, CHART_REGISTRY_CLIENT_CERT_FILE, CHART_REGISTRY_CLIENT_KEY_FILE, CHART_REGISTRY_CONTROL_URL
    and CHART_REGISTRY_CONTROL_TOKEN; Helm and Docker are configured for it.

    Examples:

      charthouse exec -- go test ./...

      charthouse exec --tls --seed charts --log requests.jsonl -- make test
    """
    from charthouse.testing.running import run

    raise typer.Exit(run(command, log, tls=tls, **options))


_WORDS = Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="What to run, with its own words.")]
_LOG = Annotated[Path | None, typer.Option("--log", help="Write the requests here: a line of JSON each, or a .har.")]
_TLS = Annotated[bool | None, typer.Option("--tls", help="Speak TLS, and plain HTTP on the same port.")]

# Typer reads a command's options from its signature.
execute.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter("command", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=_WORDS),
        inspect.Parameter("tls", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_TLS),
        *map(setting_flag, OPTIONS),
        inspect.Parameter("log", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_LOG),
    ]
)
family.command(name="exec", context_settings={"allow_interspersed_args": False})(execute)
