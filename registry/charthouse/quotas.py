"""How much may be held, and how much may come: limits of namespaces, and what is said to whoever meets one.

A quota counts what a namespace and all below it hold. Each namespace that covers a repository counts for itself, and
the registry's own settings count everything; of `blob_limit`, which is about one blob, the nearest says how large.
A user's quota counts the manifests that he pushed and that are still here, each with the blobs that it names.
A blob counts once in each repository that holds it, whatever is stored of it on the disk. What no manifest names has
as much room again, so that a version can be pushed while what was deleted waits for collection.

The transaction that adds decides. What is asked before it spares a body that could not be kept.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from charthouse import namespaces, queries
from charthouse.auth.access import of_user
from charthouse.database import Connection, Database
from charthouse.errors import BlobTooLarge, QuotaExceeded
from charthouse.names import Digest, Namespace, RepositoryName
from charthouse.namespaces import BY_DEFAULT, StoredSettings
from charthouse.queries import Usage
from charthouse.settings import LIMIT_SETTINGS, Settings, namespace_value

WHOLE = ""  # the registry, where a namespace is named
STEP = 1024  # of one unit to the next
UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


@dataclass(frozen=True, slots=True)
class Quota:
    """What a namespace or a user may hold; 0 is no limit. `name` is what its limits are kept under."""

    name: str
    bytes: int = 0
    manifests: int = 0
    uploads: int = 0  # bodies of blobs at once

    @classmethod
    def of(cls, name: str, own: Mapping[str, int]) -> Self:
        return cls(name, own.get("quota_bytes", 0), own.get("quota_manifests", 0), own.get("uploads_at_once", 0))

    @property
    def whose(self) -> str:
        return whose(self.name)

    def check(self, held: Usage, wanted: Usage) -> None:
        """Raises DENIED when there is no room for `wanted` beside what is held already.

        A blob that no manifest names yet needs room among those that one names: it is pushed to be named.
        """
        unnamed = max(wanted.unnamed, 0)  # what is named was unnamed before
        more = wanted.bytes + unnamed
        if self.bytes and more and held.bytes + more > self.bytes:
            raise self._refuse("quota_bytes", held.bytes, more, said(held.bytes), said(self.bytes), said(more))
        if self.bytes and unnamed and held.unnamed + unnamed > self.bytes:
            raise QuotaExceeded(
                f"{self.whose} has {said(held.unnamed)} of blobs that no manifest names, and may have"
                f" {said(self.bytes)}; this push needs {said(unnamed)} more: they go when gc_grace is over, with"
                " the next garbage collection",
                detail=_numbers("unnamed_bytes", held.unnamed, self.bytes, unnamed),
            )
        if self.manifests and wanted.manifests and held.manifests + wanted.manifests > self.manifests:
            raise self._refuse(
                "quota_manifests",
                held.manifests,
                wanted.manifests,
                f"{held.manifests:,}",
                f"{self.manifests:,} manifests",
                f"{wanted.manifests:,}",
            )

    def check_full(self, held: Usage) -> None:
        """Raises DENIED where nothing can be added."""
        if self.bytes and held.bytes >= self.bytes:
            raise self._refuse("quota_bytes", held.bytes, 0, said(held.bytes), said(self.bytes))
        if self.manifests and held.manifests >= self.manifests:
            raise self._refuse(
                "quota_manifests", held.manifests, 0, f"{held.manifests:,}", f"{self.manifests:,} manifests"
            )

    def _refuse(self, setting: str, held: int, more: int, *words: str) -> QuotaExceeded:
        holds, limit, *needs = words
        push = f"; this push needs {needs[0]} more" if needs else ""
        return QuotaExceeded(
            f"{self.whose} holds {holds} of {'his' if user_of(self.name) else 'its'} {limit}{push}: delete versions"
            f" (`charthouse delete`), or have the quota raised ({self._larger(setting)})",
            detail=_numbers(
                setting.removeprefix("quota_"), held, self.bytes if "bytes" in setting else self.manifests, more
            ),
        )

    def _larger(self, setting: str) -> str:
        if not self.name:
            return f"setting {setting}"
        user = user_of(self.name)
        return f"`charthouse {f'user limit {user}' if user else f'namespace set {self.name}'} {setting}=…`"


def whose(name: str) -> str:
    """In words: what limits are kept under."""
    if not name:
        return "this registry"
    return name if user_of(name) else f"namespace {name}"


def user_of(name: str) -> str:
    """The user whose limits are kept so; empty for a namespace."""
    return name.removeprefix(of_user("")) if name.startswith(of_user("")) else ""


def _numbers(what: str, held: int, limit: int, wanted: int) -> str:
    return f"{what}: used {held}, limit {limit}, wanted {wanted}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for a push to a repository. `uploads` are namespaces and the pusher, and how many bodies may come at
    once."""

    blob: int
    blob_origin: str = BY_DEFAULT
    quotas: Sequence[Quota] = ()
    pushers: Quota | None = None
    uploads: Sequence[tuple[str, int]] = ()

    @property
    def all_quotas(self) -> Sequence[Quota]:
        return (*self.quotas, self.pushers) if self.pushers else self.quotas

    def check_blob(self, size: int) -> None:
        """Of one that comes or says it will. Raises SIZE_INVALID (413)."""
        if size > self.blob:
            raise BlobTooLarge(f"the blob has more than {self.blob:,} bytes (blob_limit, {self.blob_origin})")


def limits_of(settings: Settings, stored: StoredSettings, repository: RepositoryName, by: str = "") -> Limits:
    """For a push of that user, if he said who he is. `stored` has what namespaces and users have of LIMIT_SETTINGS."""
    covering = Namespace.covering(repository)
    blob = namespaces.resolve_one(settings, stored, covering, "blob_limit")
    each = [Quota.of(name, _own(settings, stored, name)) for name in (*covering, WHOLE)]
    limited = stored.get(of_user(by)) if by else None
    own = {setting: namespace_value(setting, value) for setting, value in (limited or {}).items()}
    pushers = Quota.of(of_user(by), own)
    smaller = own.get("blob_limit", blob.value) < blob.value
    return Limits(
        own["blob_limit"] if smaller else blob.value,
        of_user(by) if smaller else blob.origin,
        tuple(quota for quota in each if quota.bytes or quota.manifests),
        pushers if pushers.bytes or pushers.manifests else None,
        tuple((quota.name, quota.uploads) for quota in (*each, pushers) if quota.uploads),
    )


def _own(settings: Settings, stored: StoredSettings, name: str) -> Mapping[str, int]:
    """What a namespace sets for itself, the TOML file before the database; and the registry for all."""
    if name == WHOLE:
        return {setting: getattr(settings, setting) for setting in LIMIT_SETTINGS}
    own = {setting: namespace_value(setting, value) for setting, value in stored.get(name, {}).items()}
    return {**own, **settings.namespaces.get(Namespace(name), {})}


def _added_up(each: Sequence[tuple[str, Usage]], namespace: str) -> Usage:
    found = (usage for name, usage in each if namespace in (WHOLE, *Namespace.covering(name)))
    return sum(found, start=Usage())


def demand(connection: Connection, quotas: Sequence[Quota], repository_id: int, before: Usage) -> None:
    """Last in a transaction that may have added to a repository, which held `before`. Raises DENIED.

    Two that add to one namespace, each to another repository, come here one after the other.
    """
    for quota in quotas:
        queries.take_turn(connection, quota.name)
        held, own = queries.usage(connection, quota.name, repository_id)
        quota.check(held - (own - before), own - before)


def demand_of_user(connection: Connection, quota: Quota, weight: int) -> None:
    """Last in a transaction that has added a manifest of his, which counts so many bytes. Raises DENIED."""
    queries.take_turn(connection, quota.name)
    wanted = Usage(1, weight)
    quota.check(queries.usage_of_user(connection, user_of(quota.name)) - wanted, wanted)


@dataclass(frozen=True, slots=True)
class Held:
    """What a namespace holds, and what it may. The whole registry's is called `*`."""

    name: str
    usage: Usage
    quota: Quota


class Quotas:
    """What is asked before a body is taken, and what people are shown."""

    def __init__(self, settings: Settings, database: Database, stored: Callable[[], Awaitable[StoredSettings]]) -> None:
        self._settings = settings
        self._database = database
        self._stored = stored
        in_file = any(not own.keys().isdisjoint(LIMIT_SETTINGS) for own in settings.namespaces.values())
        everywhere = limits_of(settings, {}, RepositoryName("any"))
        is_limited = in_file or everywhere.all_quotas or everywhere.uploads
        self._unless_stored = None if is_limited else everywhere  # what holds for all while nobody sets anything

    async def limits(self, repository: RepositoryName, stored: StoredSettings | None, by: str) -> Limits:
        """`stored` where it is known already, as it was when the request came."""
        return self._limits(repository, await self._stored() if stored is None else stored, by)

    def _limits(self, repository: RepositoryName, stored: StoredSettings, by: str) -> Limits:
        if not stored and self._unless_stored is not None:
            return self._unless_stored
        return limits_of(self._settings, stored, repository, by)

    def are_set(self, repository: RepositoryName, stored: StoredSettings, by: str) -> bool:
        return bool(self._limits(repository, stored, by).all_quotas)

    async def check_begin(self, repository: RepositoryName, limits: Limits) -> None:
        """Before an upload of which nothing is known. What is damaged may be pushed again where all is full.

        Raises DENIED.
        """
        try:
            for quota in limits.all_quotas:
                quota.check_full(await self._held(quota))
        except QuotaExceeded:
            if not await self._database.read(queries.holds_damaged, repository):
                raise

    async def check_blob(self, repository: RepositoryName, limits: Limits, size: int, digest: Digest | None) -> None:
        """Before so many bytes of a blob are taken; 0 where that is not said. Raises DENIED, SIZE_INVALID (413)."""
        limits.check_blob(size)
        if not limits.all_quotas or (digest and await self._database.read(queries.holds, repository, digest)):
            return
        for quota in limits.all_quotas:
            quota.check(await self._held(quota), Usage(unnamed=size))

    async def usage(self, name: str | None = None) -> Sequence[Held]:
        """Of a namespace or a repository; of every namespace that there is, and of the whole, when none is named."""
        stored = await self._stored()
        if name is not None:
            return [Held(name, await self._held(Quota(name)), self._quota(stored, name))]
        each = await self._database.scan(queries.usage_of_each)
        names: set[str] = {above for repository, _ in each for above in Namespace.covering(repository)[1:]}
        named = [name for name in (*stored, *self._settings.namespaces) if not user_of(name)]
        names |= {name for name in named if self._quota(stored, name) != Quota(name)}
        found = [Held(name, _added_up(each, name), self._quota(stored, name)) for name in sorted(names)]
        return [*found, Held("*", _added_up(each, WHOLE), self._quota(stored, WHOLE))]

    async def usage_of_users(self, name: str | None = None) -> Sequence[Held]:
        """Of a user; of each who has pushed something or has a limit, when none is named."""
        stored = await self._stored()
        if name is not None:
            quota = self._quota(stored, of_user(name))
            return [Held(name, await self._held(quota), quota)]
        each = await self._database.scan(queries.usage_of_each_user)
        limited = {user_of(name) for name in stored if user_of(name)}
        users = sorted(limited | each.keys())
        return [Held(user, each.get(user, Usage()), self._quota(stored, of_user(user))) for user in users]

    def _quota(self, stored: StoredSettings, name: str) -> Quota:
        return Quota.of(name, _own(self._settings, stored, name))

    async def _held(self, quota: Quota) -> Usage:
        if user := user_of(quota.name):
            return await self._database.scan(queries.usage_of_user, user)
        return (await self._database.scan(queries.usage, quota.name))[0]


def said(size: int) -> str:
    """Bytes for people: 9.8 GiB."""
    power = 0
    while size >= STEP ** (power + 1):
        power += 1
    if not power:
        return f"{size} byte{'' if size == 1 else 's'}"
    return f"{size / STEP**power:.1f} {UNITS[power - 1]}".replace(".0 ", " ")
