"""The routes of `/api/v1`: each is one operation of the registry, done by whoever asked."""

from typing import Annotated, Any, cast, get_args

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from charthouse.addressee import addressee
from charthouse.api import models
from charthouse.api.models import LARGEST, NAME_LENGTH, Action, Text
from charthouse.audit import Actor
from charthouse.auth.access import Directory, Pattern
from charthouse.core import Registry
from charthouse.errors import UserUnknown
from charthouse.names import RepositoryName, shown
from charthouse.settings import limit_value

PAGE = 1000  # rows of the audit
ADMINISTRATOR = "charthouse.administrator"  # where a request says who asks

router = APIRouter(
    responses={
        401: {"model": models.Errors, "description": "Nobody has signed in, or not rightly."},
        403: {"model": models.Errors, "description": "Whoever asks is no administrator."},
        400: {"model": models.Errors, "description": "A name, a pattern or a subject that cannot be, or no body."},
        409: {"model": models.Errors, "description": "There are no users yet, or it would leave no administrator."},
        413: {"model": models.Errors, "description": "The body has more than 64 KiB."},
        422: {"model": models.Errors, "description": "What was sent cannot be understood; a line says each fault."},
        429: {"model": models.Errors, "description": "Too many wrong passwords."},
    }
)
Responses = dict[int | str, dict[str, Any]]

NOT_FOUND: Responses = {404: {"model": models.Errors, "description": "There is none of that name."}}
INVALID: Responses = {400: {"model": models.Errors, "description": "A name, a pattern or a subject that cannot be."}}
EXISTS: Responses = {409: {"model": models.Errors, "description": "There is one of that name."}}


def _administrator(request: Request) -> Actor:
    """Whoever was let in."""
    actor: Actor = request.scope[ADMINISTRATOR]
    return actor


def _registry(request: Request) -> Registry:
    return addressee(request.scope).registry


By = Annotated[Actor, Depends(_administrator)]
There = Annotated[Registry, Depends(_registry)]
UserName = Annotated[Text, Path(max_length=NAME_LENGTH, examples=["ann"])]
GroupName = Annotated[Text, Path(max_length=NAME_LENGTH, examples=["devs"])]


@router.get("/whoami")
async def who_am_i(by: By) -> models.WhoAmI:
    """Who asks. Only an administrator gets so far."""
    return models.WhoAmI(name=by.name, administrator=True)


# --- users ------------------------------------------------------------------------------------------------------------


@router.get("/users")
async def list_users(registry: There) -> list[models.User]:
    directory = await registry.users.directory()
    return [_user(directory, name) for name in directory.users]


@router.post("/users", status_code=201, responses=INVALID | EXISTS)
async def add_user(registry: There, by: By, user: models.NewUser) -> models.User:
    """He may do nothing until it is granted, unless he is an administrator."""
    await registry.users.add(user.name, user.password, administrator=user.administrator, by=by)
    return _user(await registry.users.directory(), user.name)


@router.get("/users/{name}", responses=NOT_FOUND)
async def get_user(registry: There, name: UserName) -> models.User:
    return _user(await registry.users.directory(), name)


@router.patch("/users/{name}", responses=NOT_FOUND | INVALID)
async def change_user(registry: There, by: By, name: UserName, change: models.UserChange) -> models.User:
    """His password, whether he may sign in, or both at once. It counts at the next request, everywhere."""
    await registry.users.change(name, password=change.password, disabled=change.disabled, by=by)
    return _user(await registry.users.directory(), name)


@router.delete("/users/{name}", status_code=204, responses=NOT_FOUND)
async def remove_user(registry: There, by: By, name: UserName) -> Response:
    """With all that was granted to him."""
    await registry.users.remove(name, by)
    return Response(status_code=204)


@router.get("/users/{name}/limits", responses=NOT_FOUND)
async def get_limits(registry: There, name: UserName) -> models.Usage:
    """What he has pushed, and what he may. An API token is written token:NAME."""
    return await _usage(registry, name)


@router.put("/users/{name}/limits", responses=NOT_FOUND)
async def set_limits(registry: There, by: By, name: UserName, limits: models.Limits) -> models.Usage:
    """In place of those that there were. They count at the next request, everywhere."""
    values = {setting: None if value is None else str(value) for setting, value in limits.model_dump().items()}
    await registry.users.limit(name, values, by)
    return await _usage(registry, name)


async def _usage(registry: Registry, name: str) -> models.Usage:
    directory = await registry.users.directory()
    if name not in directory.users and directory.token_of(name) is None:
        raise UserUnknown(f"there is no user {shown(name)}")
    (held,) = await registry.quotas.usage_of_users(name)
    limits = {setting: limit_value(setting, value) or None for setting, value in directory.limits_of(name).items()}
    return models.Usage(bytes=held.usage.bytes, manifests=held.usage.manifests, limits=models.Limits(**limits))


def _user(directory: Directory, name: str) -> models.User:
    user = directory.users.get(name)
    if user is None:
        raise UserUnknown(f"there is no user {shown(name)}")
    return models.User(
        name=name,
        administrator=user.is_administrator,
        disabled=user.is_disabled,
        from_file=user.is_from_file,
        groups=sorted(group for group, members in directory.groups.items() if name in members),
    )


# --- groups and grants ------------------------------------------------------------------------------------------------


@router.get("/groups")
async def list_groups(registry: There) -> dict[str, list[str]]:
    """The members of each group."""
    directory = await registry.users.directory()
    return {group: sorted(members) for group, members in sorted(directory.groups.items())}


@router.put("/groups/{group}/members/{name}", status_code=204, responses=NOT_FOUND | INVALID)
async def add_to_group(registry: There, by: By, group: GroupName, name: UserName) -> Response:
    """A group is there as long as it has members."""
    await registry.users.add_to_group(group, name, by)
    return Response(status_code=204)


@router.delete("/groups/{group}/members/{name}", status_code=204, responses=NOT_FOUND)
async def remove_from_group(registry: There, by: By, group: GroupName, name: UserName) -> Response:
    await registry.users.remove_from_group(group, name, by)
    return Response(status_code=204)


@router.get("/grants")
async def list_grants(registry: There) -> list[models.Grant]:
    directory = await registry.users.directory()
    return [
        models.Grant(subject=grant.subject, pattern=grant.pattern, actions=_in_order(grant.actions))
        for grant in directory.grants
    ]


@router.put("/grants", status_code=204, responses=NOT_FOUND | INVALID)
async def grant(registry: There, by: By, wanted: models.Grant) -> Response:
    """In place of what the subject had for that pattern."""
    await registry.users.grant(wanted.subject, Pattern.parse(wanted.pattern), frozenset(wanted.actions), by)
    return Response(status_code=204)


@router.delete("/grants", status_code=204, responses=NOT_FOUND | INVALID)
async def revoke(
    registry: There,
    by: By,
    subject: Annotated[Text, Query(max_length=NAME_LENGTH + 1, examples=["ann"])],
    pattern: Annotated[Text, Query(max_length=300, examples=["team-a/*"])],
) -> Response:
    await registry.users.revoke(subject, Pattern.parse(pattern), by)
    return Response(status_code=204)


@router.get("/grants/test", responses=INVALID)
async def judge(
    registry: There,
    subject: Annotated[Text, Query(max_length=NAME_LENGTH, examples=["ann"])],
    repository: Annotated[Text, Query(max_length=300, examples=["team-a/app"])],
    action: Annotated[Action, Query(examples=["push"])],
) -> models.Judgement:
    """Whether somebody may do something, and why."""
    directory = await registry.users.directory()
    allowed, why = directory.judge(subject, RepositoryName.parse(repository), action)
    return models.Judgement(allowed=allowed, why=why)


# --- API tokens -------------------------------------------------------------------------------------------------------


@router.get("/tokens")
async def list_tokens(registry: There) -> list[models.Token]:
    return [
        models.Token(
            name=token.name,
            repositories=list(token.patterns),
            actions=_in_order(token.actions),
            created_at=token.created_at,
            expires_at=token.expires_at,
            used_at=token.used_at,
        )
        for token in await registry.api_tokens.list()
    ]


@router.post("/tokens", status_code=201, responses=INVALID | EXISTS)
async def add_token(registry: There, by: By, token: models.NewToken) -> models.MadeToken:
    """The answer has the secret, which nobody can read again."""
    patterns = [Pattern.parse(pattern) for pattern in token.repositories]
    secret = await registry.api_tokens.add(token.name, patterns, frozenset(token.actions), token.expires_at, by)
    return models.MadeToken(name=token.name, secret=secret)


@router.delete("/tokens/{name}", status_code=204, responses=NOT_FOUND)
async def revoke_token(
    registry: There, by: By, name: Annotated[Text, Path(max_length=NAME_LENGTH, examples=["ci"])]
) -> Response:
    """It ends with the next request."""
    await registry.api_tokens.revoke(name, by)
    return Response(status_code=204)


def _in_order(actions: frozenset[str]) -> list[Action]:
    return [action for action in cast("tuple[Action, ...]", get_args(Action)) if action in actions]


# --- the audit --------------------------------------------------------------------------------------------------------


@router.get("/audit")
async def audit(
    registry: There,
    since: Annotated[int, Query(ge=0, le=LARGEST, description="Unix milliseconds.")] = 0,
    who: Annotated[Text, Query(max_length=200, description="One caller's alone.", examples=["ann"])] = "",
    after: Annotated[int, Query(ge=0, le=LARGEST, description="Behind that row.")] = 0,
    limit: Annotated[int, Query(ge=1, le=PAGE)] = PAGE,
) -> models.Entries:
    """Who did what, oldest first."""
    found = await registry.audit.list(since=since, name=who, after=after, limit=limit)
    entries = [models.Entry.model_validate(entry, from_attributes=True) for entry in found]
    return models.Entries(entries=entries, after=found[-1].id if len(found) == limit else None)
