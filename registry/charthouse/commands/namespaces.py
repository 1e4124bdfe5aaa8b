"""Namespaces and their keyrings: `charthouse namespace …` and `charthouse keyring …`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charthouse.commands import (
    ConfigOption,
    DatabaseOption,
    DataOption,
    JsonOption,
    existing,
    parse_pair,
    with_registry,
)
from charthouse.names import Namespace
from charthouse.settings import SettingsError

if TYPE_CHECKING:
    from charthouse.queries import Key

family = typer.Typer()
namespace = typer.Typer(
    no_args_is_help=True,
    help="Namespaces, and what each sets for itself.",
)
keyring = typer.Typer(
    no_args_is_help=True,
    help="Keys that charts of a namespace may be signed with.",
)
family.add_typer(namespace, name="namespace")
family.add_typer(keyring, name="keyring")

NameArgument = Annotated[str, typer.Argument(help="A namespace: team-a, team-a/b, or / for what is below none.")]


@namespace.command("add")
def add_namespace(
    name: NameArgument, data: DataOption = None, database: DatabaseOption = None, config: ConfigOption = None
) -> None:
    """Make a namespace, where require_namespaces keeps pushes from doing it.

    Example:

      charthouse namespace add team-a
    """
    parsed = Namespace.parse(name)
    is_new = with_registry(existing(data, database, config), lambda registry: registry.namespaces.add(parsed))
    typer.echo(f"{'added' if is_new else 'there already:'} namespace {parsed}")


@namespace.command("list")
def list_namespaces(
    data: DataOption = None, database: DatabaseOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List the namespaces that were made, or that set something for themselves.

    Example:

      charthouse namespace list --json
    """
    settings = existing(data, database, config)
    stored = with_registry(settings, lambda registry: registry.namespaces.list())
    names = sorted({each.name for each in stored} | settings.namespaces.keys())
    if as_json:
        typer.echo(json.dumps(names))
    else:
        typer.echo("\n".join(names) or "no namespaces yet: a push to team-a/app needs none")


@namespace.command("show")
def show_namespace(
    name: Annotated[str, typer.Argument(help="A namespace or a repository: team-a, team-a/app.")],
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what holds for a repository, and which namespace or setting says so.

    Example:

      charthouse namespace show team-a/app
    """
    parsed = Namespace.parse(name)
    values = with_registry(existing(data, database, config), lambda registry: registry.namespaces.show(parsed))
    if as_json:
        typer.echo(json.dumps({key: {"value": each.value, "origin": each.origin} for key, each in values.items()}))
        return
    for key, each in values.items():
        typer.echo(f"{key:<15} {each.value:<18} {each.origin}")


@namespace.command("set")
def set_namespace(
    name: NameArgument,
    values: Annotated[list[str], typer.Argument(metavar="SETTING=VALUE...", help="Such as versions=immutable.")],
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Set something for a namespace and all that is below it; the next push is told by it.

    Examples:

      charthouse namespace set team-a versions=immutable names=warn

      charthouse namespace set / policy=charts
    """
    parsed = Namespace.parse(name)
    pairs = dict(map(parse_pair, values))
    settings = existing(data, database, config)
    try:
        with_registry(settings, lambda registry: registry.namespaces.set(parsed, pairs))
    except ValueError as error:
        raise SettingsError(str(error)) from None
    typer.echo(f"set {', '.join(values)} for namespace {parsed}")


@namespace.command("unset")
def unset_namespace(
    name: NameArgument,
    setting: Annotated[str, typer.Argument(help="Such as versions.")],
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Let a setting be again what the namespace above says.

    Example:

      charthouse namespace unset team-a versions
    """
    parsed = Namespace.parse(name)
    settings = existing(data, database, config)
    with_registry(settings, lambda registry: registry.namespaces.unset(parsed, setting))
    typer.echo(f"unset {setting} for namespace {parsed}")


@namespace.command("usage")
def show_usage(
    name: Annotated[str | None, typer.Argument(help="A namespace or a repository; all namespaces without.")] = None,
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what namespaces hold, and what they may hold at most. `waiting` is what no manifest names.

    Examples:

      charthouse namespace usage

      charthouse namespace usage team-a --json
    """
    from charthouse.listing import print_usage

    parsed = Namespace.parse(name) if name is not None else None
    print_usage(
        with_registry(existing(data, database, config), lambda registry: registry.quotas.usage(parsed)),
        "namespace",
        as_json=as_json,
    )


@namespace.command("remove")
def remove_namespace(
    name: NameArgument, data: DataOption = None, database: DatabaseOption = None, config: ConfigOption = None
) -> None:
    """Forget a namespace, what it sets and its keyring. Its charts stay.

    Example:

      charthouse namespace remove team-a
    """
    parsed = Namespace.parse(name)
    with_registry(existing(data, database, config), lambda registry: registry.namespaces.remove(parsed))
    typer.echo(f"removed namespace {parsed}; its charts stay")


@keyring.command("add")
def add_keys(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(help="Public keys, as gpg --export writes them, armored or not.")],
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Add keys to a namespace's keyring. Charts that are pushed from now on are verified with it.

    Example:

      charthouse keyring add team-a pubkey.gpg
    """
    from charthouse.helm.provenance import ProvenanceInvalid, VerifierMissing

    parsed = Namespace.parse(name)
    settings = existing(data, database, config)
    try:
        content = file.read_bytes()
        keys = with_registry(settings, lambda registry: registry.namespaces.add_keys(parsed, content))
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}") from None
    except (ProvenanceInvalid, VerifierMissing) as error:
        raise SettingsError(f"{file} cannot be used as a keyring: {error}") from None
    for key in keys:
        typer.echo(f"added {_described(key)} to the keyring of namespace {parsed}")


@keyring.command("list")
def list_keys(
    data: DataOption = None, database: DatabaseOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List the keys of all keyrings.

    Example:

      charthouse keyring list
    """
    keys = with_registry(existing(data, database, config), lambda registry: registry.namespaces.list_keys())
    if as_json:
        rows = [
            {"namespace": key.namespace, "fingerprint": key.fingerprint, "user_ids": key.user_ids.splitlines()}
            for key in keys
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    typer.echo("\n".join(f"{key.namespace}: {_described(key)}" for key in keys) or "no keys yet")


@keyring.command("remove")
def remove_key(
    name: NameArgument,
    fingerprint: Annotated[str, typer.Argument(help="As `charthouse keyring list` shows it.")],
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Remove a key from a namespace's keyring. Charts that are here keep what was found when they came.

    Example:

      charthouse keyring remove team-a 0123456789ABCDEF0123456789ABCDEF01234567
    """
    parsed = Namespace.parse(name)
    settings = existing(data, database, config)
    with_registry(settings, lambda registry: registry.namespaces.remove_key(parsed, fingerprint))
    typer.echo(f"removed {fingerprint} from the keyring of namespace {parsed}")


def _described(key: "Key") -> str:
    from charthouse.listing import plain

    return " ".join([key.fingerprint, *(plain(f"({user_id})") for user_id in key.user_ids.splitlines())])
