"""API tokens, and the keys of access tokens: `charthouse token …` and `charthouse token-keys …`."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from charthouse.auth.access import ACTIONS, Pattern, parse_actions
from charthouse.commands import (
    ConfigOption,
    DatabaseOption,
    DataOption,
    JsonOption,
    day,
    existing,
    parse_period,
    setting_option,
    with_registry,
)
from charthouse.errors import DatabaseError
from charthouse.settings import Settings, load

if TYPE_CHECKING:
    from charthouse.auth.access import ApiToken

family = typer.Typer()
token = typer.Typer(no_args_is_help=True, help="API tokens: secrets for pipelines, with rights of their own.")
token_keys = typer.Typer(no_args_is_help=True, help="The keys that sign access tokens.")
family.add_typer(token, name="token")
family.add_typer(token_keys, name="token-keys")

WARN_BEFORE = 14 * 24 * 3600 * 1000  # milliseconds

NameArgument = Annotated[str, typer.Argument(help="The token's name, such as ci.")]


@token.command("add")
def add_token(
    name: NameArgument,
    patterns: Annotated[list[str], typer.Option("--repo", metavar="PATTERN", help="team-a/app, team-a/* or *.")],
    actions: Annotated[str, typer.Option("--actions", help=f"Some of {','.join(ACTIONS)}.")] = "pull",
    expires: Annotated[str, typer.Option("--expires", help="12h, 90d, 1y or never.")] = "90d",
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Make an API token. Its secret is printed once, on standard output, and how to use it on standard error.

    Examples:

      charthouse token add ci --repo 'team-a/*' --actions pull,push --expires 90d

      charthouse token add cluster --repo 'charts/*' --repo team-a/app --expires never
    """
    parsed = [Pattern.parse(pattern) for pattern in patterns]
    allowed, seconds = (
        parse_actions(actions),
        None if expires == "never" else parse_period(expires, "--expires", "or never"),
    )
    ends = None if seconds is None else int((time.time() + seconds) * 1000)
    settings = existing(data, database, config)
    secret = with_registry(settings, lambda registry: registry.api_tokens.add(name, parsed, allowed, ends))
    typer.echo(secret)
    sys.stderr.write(_usage(settings, name, f"{', '.join(parsed)}: {actions}; ends {_end(ends)}"))


def _usage(settings: Settings, name: str, what: str) -> str:
    host = urlsplit(settings.public_url).netloc or f"localhost:{settings.port}"
    return f"""token {name}, {what}. The secret above is not shown again. With it in TOKEN:
  helm registry login {host} --username {name} --password-stdin <<<"$TOKEN"
  kubectl create secret docker-registry {name} --docker-server={host} --docker-username={name} \
--docker-password="$TOKEN"
"""


@token.command("list")
def list_tokens(
    data: DataOption = None, database: DatabaseOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List the API tokens, when each was used last, and which of them end soon.

    Example:

      charthouse token list
    """
    found = with_registry(existing(data, database, config), lambda registry: registry.api_tokens.list())
    if as_json:
        typer.echo(json.dumps([_described(each) for each in found]))
        return
    for each in found:
        used = day(each.used_at) if each.used_at else "never used"
        rights = f"{','.join(each.patterns)} {','.join(action for action in ACTIONS if action in each.actions)}"
        typer.echo(f"{each.name:<20} {rights:<40} {_state(each):<28} {used}")


def _described(each: "ApiToken") -> dict[str, object]:
    return {
        "name": each.name,
        "repositories": list(each.patterns),
        "actions": [action for action in ACTIONS if action in each.actions],
        "created_at": each.created_at,
        "expires_at": each.expires_at,
        "used_at": each.used_at,
    }


def _state(each: "ApiToken") -> str:
    now = time.time() * 1000
    if each.expires_at is None:
        return "never ends"
    if each.has_ended(int(now)):
        return f"ended {day(each.expires_at)}"
    soon = each.expires_at - now < WARN_BEFORE
    return f"ends {day(each.expires_at)}" + (", soon!" if soon else "")


@token.command("revoke")
def revoke_token(
    name: NameArgument, data: DataOption = None, database: DatabaseOption = None, config: ConfigOption = None
) -> None:
    """Revoke an API token: from the next request on it is not known any more.

    Example:

      charthouse token revoke ci
    """
    with_registry(existing(data, database, config), lambda registry: registry.api_tokens.revoke(name))
    typer.echo(f"revoked token {name}")


def _end(milliseconds: int | None) -> str:
    return "never" if milliseconds is None else day(milliseconds)


@token_keys.command()
def rotate(
    forget: Annotated[
        bool, typer.Option("--forget", help="Somebody has the keys: use none of them again, and end all access tokens.")
    ] = False,
    data: DataOption = None,
    database: DatabaseOption = None,
    key_file: Annotated[Path | None, setting_option("token_keys")] = None,
    config: ConfigOption = None,
) -> None:
    """Sign with the next key from now on, also while the server runs. Nobody is logged out.

    Examples:

      charthouse token-keys rotate

      charthouse token-keys rotate --forget
    """
    from charthouse.auth import keys
    from charthouse.composition import is_there

    settings = load({"data": data, "database": database, "token_keys": key_file}, config)
    try:
        kid = keys.rotate(settings.key_file, time.time(), forget=forget)
    except OSError as error:
        raise DatabaseError(f"the keys cannot be rotated: {error}") from None
    if is_there(settings):  # a file that several registries share may lie beside none of them
        what = f"{kid}, forgetting those before" if forget else kid
        with_registry(settings, lambda registry: registry.users.keys_changed(what))
    typer.echo(f"{settings.key_file.absolute()}: signing with {kid}")
