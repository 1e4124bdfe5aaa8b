"""Who may do what: `charthouse init`, `user …`, `group …` and `grant …`. On the machine itself they need no login."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from charthouse.auth.access import ACTIONS, ANONYMOUS, Directory, Pattern, parse_actions
from charthouse.commands import (
    ConfigOption,
    DatabaseOption,
    DataOption,
    JsonOption,
    YesOption,
    day,
    existing,
    parse_pair,
    with_registry,
)
from charthouse.names import RepositoryName
from charthouse.settings import PASSWORD_FILE, SettingsError, load

if TYPE_CHECKING:
    from charthouse.auth.access import Login
    from charthouse.core import Registry

family = typer.Typer()


class WithoutSet(TyperGroup):
    """`grant ann …` is `grant set ann …`: the word that people leave out."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["set", *args])


user = typer.Typer(no_args_is_help=True, help="Users of the registry.")
group = typer.Typer(no_args_is_help=True, help="Groups of users, which are granted rights together.")
grant = typer.Typer(cls=WithoutSet, no_args_is_help=True, help="What users, groups and everybody may do.")
family.add_typer(user, name="user")
family.add_typer(group, name="group")
family.add_typer(grant, name="grant")

NameArgument = Annotated[str, typer.Argument(metavar="USER", help="A user's name.")]
LimitedArgument = Annotated[str, typer.Argument(metavar="USER", help="A user, or token: and an API token's name.")]
StdinOption = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
SubjectArgument = Annotated[str, typer.Argument(metavar="SUBJECT", help=f"A user, @ and a group, or {ANONYMOUS}.")]
PatternArgument = Annotated[str, typer.Argument(metavar="PATTERN", help="team-a/app, team-a/* or *.")]


@family.command()
def init(
    administrator: Annotated[str, typer.Option("--admin", metavar="USER", help="The administrator's name.")] = "admin",
    password_stdin: StdinOption = False,
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Make the administrator, which closes the registry to whoever does not sign in.

    The password is asked for, or read from standard input, or from the file that CHARTHOUSE_ADMIN_PASSWORD_FILE names.

    Examples:

      charthouse init

      charthouse init --admin ann --password-stdin <password.txt
    """
    from charthouse.composition import open_registry

    settings = load({"data": data, "database": database}, config)
    file = os.environ.get(PASSWORD_FILE, "")
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = with_registry(settings, lambda registry: registry.users.directory(), open_registry)
    if file and administrator in directory.users:  # a service that makes it is run at every start
        typer.echo(f"there is a user {administrator} already: nothing was changed")
        return
    password = _password(password_stdin, file)
    with_registry(settings, lambda registry: registry.users.add(administrator, password, administrator=True))
    typer.echo(f"""{settings.data.absolute()} has the administrator {administrator} now. From the next request on:
  who may push   {administrator}, and whom you grant it: charthouse user add, charthouse grant
  who may pull   likewise; charthouse grant anonymous 'charts/*' pull opens charts/ to all
  policy         charts and what belongs to them (setting policy)
  versions       released ones cannot be replaced (setting versions)
sign in with: helm registry login HOST --username {administrator}""")


@user.command("add")
def add_user(
    name: NameArgument,
    password_stdin: StdinOption = False,
    administrator: Annotated[bool, typer.Option("--admin", help="He may do everything.")] = False,
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Add a user, who may do nothing until it is granted.

    Examples:

      charthouse user add ann

      charthouse user add ci --password-stdin <password.txt
    """
    settings = existing(data, database, config)
    password = _password(password_stdin)
    with_registry(settings, lambda registry: registry.users.add(name, password, administrator=administrator))
    typer.echo(f"added user {name}")


@user.command("limit")
def limit_user(
    name: LimitedArgument,
    values: Annotated[list[str], typer.Argument(metavar="SETTING=VALUE...", help="Such as quota_bytes=10GiB.")],
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Limit what a user may push: quota_bytes, quota_manifests, blob_limit, uploads_at_once. An empty value is none.

    Examples:

      charthouse user limit ann quota_bytes=10GiB quota_manifests=1000

      charthouse user limit token:ci blob_limit=100MiB uploads_at_once=8

      charthouse user limit ann quota_bytes=
    """
    pairs = {setting: value or None for setting, value in map(parse_pair, values)}
    settings = existing(data, database, config)
    try:
        with_registry(settings, lambda registry: registry.users.limit(name, pairs))
    except ValueError as error:
        raise SettingsError(str(error)) from None
    typer.echo(f"set {', '.join(values)} for {name}")


@user.command("usage")
def show_usage(
    name: Annotated[str | None, typer.Argument(metavar="USER", help="All users without.")] = None,
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what users have pushed that is still here, and what they may push at most.

    Example:

      charthouse user usage ann
    """
    from charthouse.listing import print_usage

    settings = existing(data, database, config)
    found = with_registry(settings, lambda registry: registry.quotas.usage_of_users(name))
    print_usage(found, "user", as_json=as_json)


@user.command("list")
def list_users(data: DataOption = None, database: DatabaseOption = None, config: ConfigOption = None) -> None:
    """List the users, with their groups.

    Example:

      charthouse user list
    """
    directory = _directory(data, database, config)
    for each in directory.users.values():
        words = [each.name, *(["administrator"] if each.is_administrator else [])]
        words += ["disabled"] if each.is_disabled else []
        words += ["htpasswd"] if each.is_from_file else []
        words += [f"@{group}" for group, members in sorted(directory.groups.items()) if each.name in members]
        typer.echo("  ".join(words))
    if directory.is_open:
        typer.echo("no users: the registry is open to everybody; charthouse init closes it")


@user.command("passwd")
def set_password(
    name: NameArgument,
    password_stdin: StdinOption = False,
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Give a user a new password; the old one ends with the next request.

    Example:

      charthouse user passwd ann
    """
    settings = existing(data, database, config)
    password = _password(password_stdin)
    with_registry(settings, lambda registry: registry.users.change(name, password=password))
    typer.echo(f"changed the password of {name}")


@user.command("disable")
def disable_user(
    name: NameArgument, data: DataOption = None, database: DatabaseOption = None, config: ConfigOption = None
) -> None:
    """Keep a user out from the next request on, and everything that was granted to him.

    Example:

      charthouse user disable ann
    """
    with_registry(existing(data, database, config), lambda registry: registry.users.change(name, disabled=True))
    typer.echo(f"disabled user {name}")


@user.command("enable")
def enable_user(
    name: NameArgument, data: DataOption = None, database: DatabaseOption = None, config: ConfigOption = None
) -> None:
    """Let a user in again.

    Example:

      charthouse user enable ann
    """
    with_registry(existing(data, database, config), lambda registry: registry.users.change(name, disabled=False))
    typer.echo(f"enabled user {name}")


@user.command("remove")
def remove_user(
    name: NameArgument,
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
    yes: YesOption = False,
) -> None:
    """Remove a user with all that was granted to him.

    Example:

      charthouse user remove ann --yes
    """
    settings = existing(data, database, config)
    if not yes and not typer.confirm(f"remove {name} and what was granted to him?"):
        raise typer.Exit(1)
    with_registry(settings, lambda registry: registry.users.remove(name))
    typer.echo(f"removed user {name}")


@user.command("logins")
def list_logins(data: DataOption = None, database: DatabaseOption = None, config: ConfigOption = None) -> None:
    """List the logins that last: which user's, with which program, since when, and their last use.

    Example:

      charthouse user logins
    """
    settings = existing(data, database, config)

    async def run(registry: "Registry") -> "list[Login]":
        directory = await registry.users.directory()
        return [each for each in await registry.logins.list() if each.is_good(directory)]

    for each in with_registry(settings, run):
        used = f"used {day(each.used_at)}" if each.used_at else "not used since"
        typer.echo(f"{each.id}  {each.subject:<20} {each.client or 'unknown':<20} {day(each.created_at)}  {used}")


@user.command("logout")
def end_logins(
    name: NameArgument,
    login: Annotated[str, typer.Argument(metavar="[ID]", help="One login alone, as `user logins` calls it.")] = "",
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """End a user's logins that last, or one of them: from the next request on he has to sign in again.

    Examples:

      charthouse user logout ann

      charthouse user logout ann 5f2a9c01d3e4b678
    """
    ended = with_registry(existing(data, database, config), lambda registry: registry.logins.end(name, login))
    typer.echo(f"ended {ended} login{'s' if ended > 1 else ''} of {name}")


@group.command("add")
def add_to_group(
    name: Annotated[str, typer.Argument(metavar="GROUP", help="A group's name.")],
    users: Annotated[list[str], typer.Argument(metavar="USER...", help="Who is to be in it.")],
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Put users into a group, which is made when it is not there.

    Example:

      charthouse group add developers ann bob
    """
    settings = existing(data, database, config)

    async def run(registry: "Registry") -> None:
        for member in users:
            await registry.users.add_to_group(name, member)

    with_registry(settings, run)
    typer.echo(f"{', '.join(users)} in group {name}")


@group.command("remove")
def remove_from_group(
    name: Annotated[str, typer.Argument(metavar="GROUP", help="A group's name.")],
    member: NameArgument,
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Take a user out of a group.

    Example:

      charthouse group remove developers bob
    """
    settings = existing(data, database, config)
    with_registry(settings, lambda registry: registry.users.remove_from_group(name, member))
    typer.echo(f"{member} is not in group {name} any more")


@group.command("list")
def list_groups(data: DataOption = None, database: DatabaseOption = None, config: ConfigOption = None) -> None:
    """List the groups and who is in them.

    Example:

      charthouse group list
    """
    groups = _directory(data, database, config).groups
    typer.echo("\n".join(f"{name}: {', '.join(sorted(groups[name]))}" for name in sorted(groups)) or "no groups yet")


@grant.command("set")
def set_grant(
    subject: SubjectArgument,
    pattern: PatternArgument,
    actions: Annotated[str, typer.Argument(metavar="ACTIONS", help=f"Some of {','.join(ACTIONS)}.")],
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Say what a user, a group or everybody may do with the repositories of a pattern, from the next request on.

    Examples:

      charthouse grant set ann 'team-a/*' pull,push

      charthouse grant ann 'team-a/*' pull,push

      charthouse grant @developers 'team-a/*' pull,push,overwrite

      charthouse grant anonymous 'charts/*' pull
    """
    parsed, words = Pattern.parse(pattern), parse_actions(actions)
    settings = existing(data, database, config)
    with_registry(settings, lambda registry: registry.users.grant(subject, parsed, words))
    typer.echo(f"{subject} may {', '.join(word for word in ACTIONS if word in words)} in {parsed}")


@grant.command("remove")
def remove_grant(
    subject: SubjectArgument,
    pattern: PatternArgument,
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Take back what was granted for a pattern.

    Example:

      charthouse grant remove ann 'team-a/*'
    """
    parsed = Pattern.parse(pattern)
    with_registry(existing(data, database, config), lambda registry: registry.users.revoke(subject, parsed))
    typer.echo(f"{subject} has no grant for {parsed} any more")


@grant.command("list")
def list_grants(data: DataOption = None, database: DatabaseOption = None, config: ConfigOption = None) -> None:
    """List all grants.

    Example:

      charthouse grant list
    """
    grants = _directory(data, database, config).grants
    typer.echo("\n".join(map(str, grants)) or "nothing was granted yet: charthouse grant ann 'team-a/*' pull,push")


@grant.command("test")
def judge(
    subject: Annotated[str, typer.Argument(metavar="USER", help=f"A user, or {ANONYMOUS}.")],
    repository: Annotated[str, typer.Argument(metavar="REPOSITORY", help="team-a/app.")],
    action: Annotated[str, typer.Argument(metavar="ACTION", help=f"One of {', '.join(ACTIONS)}.")],
    data: DataOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Say whether somebody may do something, and why. Ends with 1 when he may not.

    Example:

      charthouse grant test ann team-a/app push
    """
    (word,) = parse_actions(action)
    directory = _directory(data, database, config)
    allowed, why = directory.judge(subject, RepositoryName.parse(repository), word)
    typer.echo(f"{'yes' if allowed else 'no'}: {why}")
    raise typer.Exit(0 if allowed else 1)


def _directory(data: Path | None, database: str | None, config: Path | None) -> Directory:
    return with_registry(existing(data, database, config), lambda registry: registry.users.directory())


def _password(from_stdin: bool, file: str = "") -> str:
    """Without the end of its line."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    if file:
        try:
            return Path(file).read_text(encoding="utf-8").rstrip("\n")
        except OSError as error:
            raise SettingsError(f"{PASSWORD_FILE} names {file}, which cannot be read: {error.strerror}") from None
    if not sys.stdin.isatty():
        raise SettingsError("there is no terminal to ask for a password at: give --password-stdin")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
