"""The command. Its subcommands are in `commands/`."""

import sys
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from charthouse import __version__
from charthouse.commands import (
    auditing,
    backups,
    checking,
    collecting,
    content,
    layouts,
    measuring,
    namespaces,
    serving,
    testing,
    tokens,
    users,
    verifying,
)
from charthouse.errors import DatabaseError, RegistryError, VaultError
from charthouse.settings import SettingsError

command = typer.Typer(
    name="charthouse",
    help="A registry for Helm charts. `charthouse serve` starts one on localhost:5000.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
for each in (
    serving,
    testing,
    content,
    users,
    tokens,
    auditing,
    namespaces,
    checking,
    collecting,
    verifying,
    backups,
    layouts,
    measuring,
):
    command.add_typer(each.family)


def main() -> None:
    """A fault that a person can mend is one line on standard error: exit 2 for settings, 1 for the registry's no."""
    try:
        sys.exit(command(standalone_mode=False))
    except TyperException as error:
        _fail_usage(error)
    except Abort:
        fail("not done", 1)
    except (SettingsError, DatabaseError, VaultError) as error:
        fail(str(error), 2)
    except RegistryError as error:
        fail(error.message, 1)


def _fail_usage(error: TyperException) -> None:
    """One line in place of Typer's four; a command that was given nothing shows its help."""
    message = error.format_message().strip()
    if "\n" in message:
        sys.stderr.write(f"{message}\n")
        raise SystemExit(2)
    context = getattr(error, "ctx", None)
    command_path = context.command_path if context else "charthouse"
    fail(f"on the command line: {message.rstrip('.')}; see {command_path} --help", 2)


def fail(message: str, status: int) -> None:
    sys.stderr.write(f"charthouse: {message}\n")
    raise SystemExit(status)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"charthouse {__version__}")
        raise typer.Exit


@command.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


if __name__ == "__main__":
    main()
