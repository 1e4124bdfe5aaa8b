"""Namespaces: which settings hold for a repository, and where each value came from.

A namespace covers what is below it, and the longest prefix that says something of a setting wins, each for itself:
`team-a` may fix versions and `team-a/b` the policy. What the TOML file says of a namespace goes before what
`charthouse namespace set` has stored for it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from charthouse import queries
from charthouse.audit import ON_THE_MACHINE, Actor, Change, audited
from charthouse.database import Connection, Database
from charthouse.errors import Denied, NamespaceConflict, NameUnknown
from charthouse.helm import provenance
from charthouse.names import ROOT, Namespace, RepositoryName
from charthouse.queries import Key, StoredNamespace
from charthouse.settings import NAMESPACE_SETTINGS, Settings, namespace_value

BY_DEFAULT = "by default"

StoredSettings = Mapping[str, Mapping[str, str]]  # by namespace and setting


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for the pushes to a repository; the fields are those of Settings."""

    policy: Literal["charts", "oci"]
    versions: Literal["mutable", "immutable", "releases-immutable"]
    names: Literal["strict", "warn"]
    legacy: Literal["accept", "reject"]
    images: Literal["mutable", "immutable"]
    signatures: Literal["optional", "verified"]


_RULES = tuple(field.name for field in fields(Rules))


@dataclass(frozen=True, slots=True)
class Value:
    """A setting's value, and the place that says so."""

    value: Any
    origin: str


# What holds where nobody says otherwise, once there are users: who closes a registry hosts charts for others.
WITH_USERS = {"policy": "charts", "versions": "releases-immutable"}


def resolve(
    settings: Settings,
    stored: StoredSettings,
    repository: str,
    *,
    has_users: bool = False,
    wanted: Iterable[str] = NAMESPACE_SETTINGS,
) -> dict[str, Value]:
    """Each of the settings that are wanted, for a repository or a namespace."""
    covering = [each for each in Namespace.covering(repository) if each in settings.namespaces or each in stored]
    found = {setting: resolve_one(settings, stored, covering, setting) for setting in wanted}
    if has_users and not settings.ephemeral:
        by_default = {setting for setting, value in found.items() if value.origin == BY_DEFAULT}
        found |= {
            setting: Value(WITH_USERS[setting], "by default with users") for setting in by_default & WITH_USERS.keys()
        }
    return found


def resolve_one(settings: Settings, stored: StoredSettings, covering: Sequence[Namespace], setting: str) -> Value:
    for namespace in covering:
        if setting in settings.namespaces.get(namespace, {}):
            return Value(settings.namespaces[namespace][setting], f"namespace {namespace} in the TOML file")
        if setting in stored.get(namespace, {}):
            return Value(namespace_value(setting, stored[namespace][setting]), f"namespace {namespace}")
    return Value(getattr(settings, setting), settings.origins.get(setting, BY_DEFAULT))


def rules_of(connection: Connection, settings: Settings, repository: RepositoryName) -> Rules:
    """As they are in this transaction."""
    values = values_of(connection, settings, repository, _RULES)
    return Rules(**{setting: value.value for setting, value in values.items()})


def value_of(connection: Connection, settings: Settings, name: str, setting: str) -> Value:
    """What holds for a repository, whoever uses the registry."""
    covering = Namespace.covering(name)
    stored, _ = queries.namespace_settings(connection, covering)
    return resolve_one(settings, stored, covering, setting)


def is_set(connection: Connection, settings: Settings, setting: str) -> bool:
    """Whether it has another value than none for anything at all."""
    in_file = any(setting in values for values in settings.namespaces.values())
    return bool(getattr(settings, setting)) or in_file or queries.is_set_somewhere(connection, setting)


def values_of(
    connection: Connection, settings: Settings, name: str, wanted: Iterable[str] = NAMESPACE_SETTINGS
) -> dict[str, Value]:
    """What holds for a repository or a namespace, and why."""
    stored, has_users = queries.namespace_settings(connection, Namespace.covering(name))
    return resolve(settings, stored, name, has_users=has_users or settings.is_closed, wanted=wanted)


def demand(connection: Connection, settings: Settings, repository: RepositoryName) -> None:
    """Raises DENIED where namespaces have to be made before they are pushed to, and this one was not."""
    covering = Namespace.covering(repository)
    if settings.namespaces.keys().isdisjoint(covering) and not queries.has_namespace(connection, covering):
        namespace = repository.parent or ROOT
        raise Denied(
            f"there is no namespace {namespace}, and a push makes none here: whoever runs the registry makes it with"
            f" `charthouse namespace add {namespace}`"
        )


class Namespaces:
    """Every operation on namespaces and their keyrings, over a registry's database."""

    def __init__(self, settings: Settings, database: Database, now: Callable[[], int]) -> None:
        self._settings = settings
        self._database = database
        self._now = now

    async def add(self, name: Namespace, by: Actor = ON_THE_MACHINE) -> bool:
        """False when it is there already."""
        change = self._change(by, "namespace add", name)
        return await change(queries.add_namespace, name, by.name, self._now())

    async def remove(self, name: Namespace, by: Actor = ON_THE_MACHINE) -> None:
        """With its settings and keys; its repositories stay. Raises NAME_UNKNOWN."""
        if not await self._change(by, "namespace remove", name)(_remove, name):
            raise NameUnknown(f"there is no namespace {name}: `charthouse namespace list` shows them")

    async def list(self) -> list[StoredNamespace]:
        return await self._database.scan(queries.list_namespaces)

    async def show(self, name: str) -> dict[str, Value]:
        """What holds for a repository or a namespace, and why."""
        return await self._database.read(values_of, self._settings, name)

    async def set(self, name: Namespace, values: Mapping[str, str], by: Actor = ON_THE_MACHINE) -> None:
        """Makes the namespace when it is not there. Raises NAME_INVALID (409) where the TOML file goes before."""
        fixed = self._settings.namespaces.get(name, {})
        for setting, value in values.items():
            namespace_value(setting, value)
            if setting in fixed:
                raise NamespaceConflict(
                    f'{setting} of namespace {name} is "{fixed[setting]}" in the TOML file, which goes before: change'
                    f' it there, under [namespaces."{name}"]'
                )
        target = " ".join([name, *(f"{setting}={value}" for setting, value in values.items())])
        await self._change(by, "namespace set", target)(_set, name, values, by.name, self._now())

    async def unset(self, name: Namespace, setting: str, by: Actor = ON_THE_MACHINE) -> None:
        """Raises NAME_UNKNOWN when it was not set."""
        change = self._change(by, "namespace unset", f"{name} {setting}")
        if not await change(_unset, name, setting):
            raise NameUnknown(f"namespace {name} does not set {setting}: `charthouse namespace show {name}` shows why")

    # --- keyrings -----------------------------------------------------------------------------------------------------

    async def add_keys(self, name: Namespace, keyring: bytes, by: Actor = ON_THE_MACHINE) -> Sequence[Key]:
        """Each certificate of the keyring, binary or armored. Raises ProvenanceInvalid when it holds none."""
        now = self._now()
        keys = [
            Key(name, each.fingerprint, "\n".join(each.user_ids), each.content, now)
            for each in provenance.certificates(keyring)
        ]
        target = " ".join([name, *(key.fingerprint for key in keys)])
        await self._change(by, "keyring add", target)(_add_keys, name, keys, by.name, now)
        return keys

    async def remove_key(self, name: Namespace, fingerprint: str, by: Actor = ON_THE_MACHINE) -> None:
        """Raises NAME_UNKNOWN."""
        fingerprint = fingerprint.upper().replace(" ", "")
        if not await self._change(by, "keyring remove", f"{name} {fingerprint}")(queries.remove_key, name, fingerprint):
            raise NameUnknown(f"namespace {name} has no key {fingerprint}: `charthouse keyring list` shows them")

    async def list_keys(self) -> Sequence[Key]:
        return await self._database.scan(queries.list_keys)

    def _change(self, by: Actor, action: str, target: str) -> Change:
        return audited(self._database, by, action, target, self._now)


def _set(connection: Connection, name: Namespace, values: Mapping[str, str], by: str, now: int) -> None:
    queries.raise_access_generation(connection)  # limits are remembered beside rights
    queries.add_namespace(connection, name, by, now)
    for setting, value in values.items():
        queries.set_namespace(connection, name, setting, value)


def _unset(connection: Connection, name: Namespace, setting: str) -> bool:
    queries.raise_access_generation(connection)
    return queries.unset_namespace(connection, name, setting)


def _remove(connection: Connection, name: Namespace) -> bool:
    queries.raise_access_generation(connection)
    return queries.remove_namespace(connection, name)


def _add_keys(connection: Connection, name: Namespace, keys: Sequence[Key], by: str, now: int) -> None:
    queries.add_namespace(connection, name, by, now)
    for key in keys:
        queries.add_key(connection, key)
