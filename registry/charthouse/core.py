"""The registry: every operation, in the order of the specification's chapters. Read this first.

HTTP, the command line and the test fixture stand on top of `Registry`; nothing else talks to the database or to the
blob store. Names, digests and references come parsed. What an operation raises stands in its docstring, in the
specification's words; every operation may raise DatabaseError or OSError when the registry itself fails.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

from charthouse import namespaces, queries, transactions
from charthouse.admission import Admission, Admitted, Place, look_around
from charthouse.audit import ON_THE_MACHINE, Actor, Audit
from charthouse.auth.access import EVERY_RIGHT, OVERWRITE, PULL, Rights
from charthouse.auth.access_tokens import AccessTokens
from charthouse.auth.external import ExternalTokens
from charthouse.auth.issued import ApiTokens
from charthouse.auth.logins import Logins
from charthouse.auth.users import Users
from charthouse.backup import Backup
from charthouse.blobs import BlobStore, Upload, UploadBusy, UploadEnded
from charthouse.clocks import Clock
from charthouse.collection import Collector
from charthouse.database import Database
from charthouse.errors import (
    BlobTooLarge,
    BlobUploadInvalid,
    BlobUploadUnknown,
    ChunkOutOfOrder,
    DigestInvalid,
    ManifestInvalid,
    NameUnknown,
    QuotaExceeded,
    RegistryError,
    SizeInvalid,
    StorageFull,
)
from charthouse.extraction import Extraction
from charthouse.helm import archive
from charthouse.helm.helper import Helper
from charthouse.helm.isolation import Inspector
from charthouse.manifest import Descriptor, Manifest, parse
from charthouse.names import Digest, Reference, RepositoryName, Tag
from charthouse.namespaces import Namespaces, StoredSettings
from charthouse.pulls import Pulls
from charthouse.queries import Chart, Referrer, StoredBlob, StoredManifest
from charthouse.queries.repositories import GENERATIONS_AT_ONCE
from charthouse.quotas import Limits, Quotas
from charthouse.reading import WHOLE_LIMIT, Reading, digest_of
from charthouse.reserve import MakingRoom, Reserve
from charthouse.settings import Settings
from charthouse.slots import Slots
from charthouse.uploads import UploadIds
from charthouse.verification import Verification

log = logging.getLogger(__name__)

Pieces = AsyncIterator[bytes]

HOLDER_LIMIT = 100  # repositories looked at for a mount without `from`
REFERRERS_SIZE = 3 * 1024 * 1024  # bytes of annotations on one page: clients read at most 4 MiB of an index
ARCHIVE_LIMIT = 100 * 1024 * 1024  # bytes of a chart's blob: inflated, an archive may not have more either


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, what he calls this registry, and what he may. The name is empty for whoever did not say."""

    name: str = ""
    host: str = "<registry>"
    rights: Rights = EVERY_RIGHT
    actor: Actor = ON_THE_MACHINE  # as the audit calls him
    limits: StoredSettings | None = None  # of namespaces and users, when he asked; None where nobody has looked


@dataclass(frozen=True, slots=True)
class Coming:
    """A blob on its way into a repository, and the limits that hold for it."""

    repository: RepositoryName
    digest: Digest
    limits: Limits


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of a manifest: where it is, what it refers to, which tags name it now."""

    digest: Digest
    subject: Digest | None = None
    tags: Sequence[Tag] = field(default=())


class Registry:
    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: BlobStore,
        upload_ids: UploadIds,
        clock: Clock,
        steady: Clock,
        reserve: Reserve,
        helper: Helper | None = None,
    ) -> None:
        """`helper` is shared with other registries, and stays when this one is closed; without, it has its own."""
        self.settings = settings
        self._database = database
        self._reserve = reserve
        self._making_room = MakingRoom(database, reserve)
        self._store = store
        self._upload_ids = upload_ids
        self._clock = clock
        self._reading = Reading(database, store, self._now)
        self.pulls = Pulls(database, self._reading, self._now, grace=settings.gc_grace * 1000)
        checking, reading = (helper, helper) if helper else (Helper(), Helper(gives_way=True))
        self._own_helpers = [] if helper else [checking, reading]
        limits = archive.Limits(members=settings.archive_members)
        self._admission = Admission(settings, Inspector(checking, limits))
        self.users = Users(database, self._now, settings.htpasswd, is_closed=settings.is_closed)
        self.api_tokens = ApiTokens(database, self._now, is_closed=settings.is_closed)
        self.logins = Logins(database, self._now)
        self.access_tokens = AccessTokens(
            settings.key_file, clock, (rule for each in settings.issuers for rule in each.rules)
        )
        self.external_tokens = ExternalTokens(settings.issuers, clock, steady)
        self.audit = Audit(database, self._now, settings.audit_days)
        self.namespaces = Namespaces(settings, database, self._now)
        self.quotas = Quotas(settings, database, self._stored_limits)
        self._slots = Slots(settings.data)
        self.collector = Collector(settings, self._making_room, store, clock, steady)
        self.verification = Verification(database, store, self._now)
        self.backup = Backup(database, store, self._now)
        self.extraction = Extraction(database, self._reading.content_of, Inspector(reading, limits), self._now)

    # --- push: blobs --------------------------------------------------------------------------------------------------

    async def start_upload(self, repository: RepositoryName, caller: Caller) -> str:
        """The id of an upload that has received nothing yet. Nothing is kept of it.

        Raises DENIED where namespaces have to be made first, and where a quota is reached: no client then sends what
        could not be kept.
        """
        await self._demand_room()
        await self._demand_namespace(repository)
        await self.quotas.check_begin(repository, await self._limits(repository, caller))
        return self._upload_ids.new(repository, caller.name, self._clock())

    def start_upload_at_once(self, repository: RepositoryName, caller: Caller) -> str | None:
        """The same; None where it takes waiting."""
        if self.settings.require_namespaces or not self._reserve.is_there():
            return None
        if caller.limits is None or self.quotas.are_set(repository, caller.limits, caller.name):
            return None
        return self._upload_ids.new(repository, caller.name, self._clock())

    async def upload_offset(self, repository: RepositoryName, upload_id: str, caller: Caller) -> int:
        """Bytes received so far. Raises BLOB_UPLOAD_UNKNOWN."""
        return await self._received(repository, upload_id, caller) or 0

    async def _received(self, repository: RepositoryName, upload_id: str, caller: Caller) -> int | None:
        self._check_upload(repository, upload_id, caller)
        try:
            return await self._store.upload_size(upload_id)
        except UploadEnded:
            raise _ended() from None

    async def append(
        self,
        repository: RepositoryName,
        upload_id: str,
        caller: Caller,
        pieces: Pieces,
        chunk: tuple[int, int] | None,
        length: int = 0,
    ) -> int:
        """Adds a chunk; `chunk` is its first and last position where the client named them. Returns the bytes so far.

        `length` is how many bytes the client says that `pieces` are. Raises BLOB_UPLOAD_UNKNOWN, BLOB_UPLOAD_INVALID
        (416 when it is out of order: the upload stays), SIZE_INVALID, DENIED beyond a quota.
        """
        await self._demand_room()
        async with self._taking(repository, upload_id, caller, length) as limits:
            upload = await self._open_upload(repository, upload_id, caller)
            before = upload.offset
            try:
                await self._receive(upload, pieces, chunk, limits)
            except StorageFull:
                await upload.rewind(before)  # what is half there has no room to become whole
                raise
            else:
                return upload.offset
            finally:
                await upload.close()

    @contextlib.asynccontextmanager
    async def _taking(
        self, repository: RepositoryName, upload_id: str, caller: Caller, length: int, digest: Digest | None = None
    ) -> AsyncIterator[Limits]:
        """Around the taking of a body, when it may come: what it says of itself fits, and there is a place for it."""
        self._check_upload(repository, upload_id, caller)
        limits = await self._limits(repository, caller)
        await self.quotas.check_blob(repository, limits, length, digest)
        async with self._slots.taken(limits.uploads):
            yield limits

    async def cancel_upload(self, repository: RepositoryName, upload_id: str, caller: Caller) -> None:
        """Raises BLOB_UPLOAD_UNKNOWN, BLOB_UPLOAD_INVALID."""
        upload = await self._open_upload(repository, upload_id, caller)
        try:
            await upload.discard()
        finally:
            await upload.close()

    async def finish_upload(
        self,
        repository: RepositoryName,
        upload_id: str,
        caller: Caller,
        digest: Digest,
        pieces: Pieces,
        chunk: tuple[int, int] | None = None,
        length: int = 0,
    ) -> None:
        """Adds the last bytes, if any, and makes the whole a blob of the repository.

        Raises BLOB_UPLOAD_UNKNOWN, BLOB_UPLOAD_INVALID (416), SIZE_INVALID, DIGEST_INVALID for other bytes, and DENIED
        beyond a quota.
        """
        await self._demand_room()
        async with self._taking(repository, upload_id, caller, length, digest) as limits:
            blob = Coming(repository, digest, limits)
            if chunk is None and await self._received(repository, upload_id, caller) is None:
                head, complete = await _take(pieces, WHOLE_LIMIT)
                if complete:
                    await self._push_whole(blob, upload_id, head)
                    return
                pieces = _chain(head, pieces)
            upload = await self._open_upload(repository, upload_id, caller)
            try:
                await self._finish(blob, upload, pieces, chunk)
            finally:
                await upload.close()

    async def push_blob(
        self, repository: RepositoryName, caller: Caller, digest: Digest, pieces: Pieces, length: int = 0
    ) -> None:
        """A blob in one request. Raises DIGEST_INVALID, SIZE_INVALID, DENIED beyond a quota."""
        upload_id = await self.start_upload(repository, caller)
        await self.finish_upload(repository, upload_id, caller, digest, pieces, length=length)

    async def _limits(self, repository: RepositoryName, caller: Caller) -> Limits:
        return await self.quotas.limits(repository, caller.limits, caller.name)

    async def _stored_limits(self) -> StoredSettings:
        return (await self.users.directory()).limits

    async def mount_blob(
        self, repository: RepositoryName, digest: Digest, source: RepositoryName | None, caller: Caller
    ) -> bool:
        """Whether the blob is in the repository now, taken from `source` or from any that the caller may pull.

        False says nothing of why: absent and forbidden are alike. Raises DENIED beyond a quota.
        """
        sources = [source] if source is not None else await self._database.read(queries.holders, digest, HOLDER_LIMIT)
        readable = [name for name in map(RepositoryName, sources) if caller.rights.allows(PULL, name)]
        if not readable:
            return False
        await self._demand_room()
        await self._demand_namespace(repository)
        quotas = (await self._limits(repository, caller)).quotas
        return await self._database.write(transactions.mount, repository, digest, readable, self._now(), quotas)

    async def _demand_room(self) -> None:
        """Whoever needs room waits until the reserve is back. Raises StorageFull (507)."""
        if not self._reserve.is_there():
            await asyncio.to_thread(self._reserve.make)

    async def _demand_namespace(self, repository: RepositoryName) -> None:
        if self.settings.require_namespaces:
            await self._database.read(namespaces.demand, self.settings, repository)

    async def _push_whole(self, blob: Coming, upload_id: str, content: bytes) -> None:
        """What came at once needs no upload on the disk: a row, or a file that is written in one go."""
        blob.limits.check_blob(len(content))
        if len(content) <= self.settings.inline_blobs:
            await self._push_inline(blob, content)
            return
        _compare(await digest_of(content, blob.digest.algorithm), blob.digest)
        await self._name_file(blob, len(content), partial(self._store.put, upload_id, content))

    async def _name_file(self, blob: Coming, size: int, publish: Callable[[Digest], Awaitable[str]]) -> bool:
        """Makes the repository hold the blob; False when its bytes were stored already and nothing was published."""
        known = await self._database.read(queries.stored_blob, blob.digest)
        if known is not None and known.is_sound:
            hold, quotas = transactions.hold_blob, blob.limits.quotas
            if await self._database.write(hold, blob.repository, blob.digest, self._now(), quotas):
                return False
        await self._name(blob, StoredBlob(blob.digest, size, key=await publish(blob.digest), content=None))
        return True

    async def _name(self, blob: Coming, stored: StoredBlob) -> None:
        """What nothing names any more goes after SQL has forgotten it, and what cannot be named goes at once."""
        name, quotas = transactions.name_blob, blob.limits.quotas
        try:
            left_over = await self._database.write(name, blob.repository, stored, self._now(), quotas)
        except RegistryError:  # nothing was committed, for certain: after another failure that may be so or not
            if stored.key:
                await self._store.delete(stored.key)
            raise
        if left_over:
            await self._store.delete(left_over)

    async def _push_inline(self, blob: Coming, content: bytes) -> None:
        _compare(Digest.of(content, blob.digest.algorithm), blob.digest)
        await self._name(blob, StoredBlob(blob.digest, len(content), key=None, content=content))

    async def _finish(self, blob: Coming, upload: Upload, pieces: Pieces, chunk: tuple[int, int] | None) -> None:
        before = upload.offset
        try:
            await self._receive(upload, pieces, chunk, blob.limits)
        except ChunkOutOfOrder:
            raise
        except BaseException:
            await upload.rewind(before)  # the bytes of a request that did not end well do not count
            raise
        try:
            _compare(await upload.digest(blob.digest.algorithm), blob.digest)
            await self._name_upload(blob, upload, resumed=before > 0)
        except (DigestInvalid, QuotaExceeded):
            await upload.rewind(0)
            raise

    async def _name_upload(self, blob: Coming, upload: Upload, *, resumed: bool) -> None:
        if upload.offset <= self.settings.inline_blobs:  # in pieces, as crane and Docker send configs
            await self._push_inline(blob, await upload.content())
        elif await self._name_file(blob, upload.offset, upload.publish):
            return
        # What came in this one request may be sent again under the same id by a client that missed the answer.
        await (upload.discard() if resumed else upload.rewind(0))

    async def _receive(self, upload: Upload, pieces: Pieces, chunk: tuple[int, int] | None, limits: Limits) -> None:
        if chunk and chunk[0] != upload.offset:
            raise ChunkOutOfOrder(
                f"the chunk begins at byte {chunk[0]:,}, but {upload.offset:,} bytes are here: continue there",
                headers={"Range": f"0-{max(upload.offset - 1, 0)}"},
            )
        before = upload.offset
        async for piece in pieces:
            await upload.write(piece)
            try:
                limits.check_blob(upload.offset)
            except BlobTooLarge:
                await upload.rewind(before)
                raise
        if chunk and upload.offset != chunk[1] + 1:
            received = upload.offset - before
            await upload.rewind(before)
            raise SizeInvalid(f"Content-Range says {chunk[0]}-{chunk[1]}, but the body has {received:,} bytes")

    def _check_upload(self, repository: RepositoryName, upload_id: str, caller: Caller) -> None:
        self._upload_ids.check(upload_id, repository, caller.name, self._clock())

    async def _open_upload(self, repository: RepositoryName, upload_id: str, caller: Caller) -> Upload:
        self._check_upload(repository, upload_id, caller)
        try:
            return await self._store.open_upload(upload_id)
        except UploadBusy:
            raise BlobUploadInvalid("another request is writing to this upload: wait for its answer") from None
        except UploadEnded:
            raise _ended() from None

    # --- push: manifests ----------------------------------------------------------------------------------------------

    async def push_manifest(
        self,
        repository: RepositoryName,
        reference: Reference,
        body: bytes,
        content_type: str,
        caller: Caller,
        tags: Sequence[Tag] = (),
    ) -> Pushed:
        """Keeps the manifest under its digest and makes its tags name it, in one transaction.

        Raises MANIFEST_INVALID (413 when it is too large) also for a chart that breaks a rule, DIGEST_INVALID when
        `reference` is a digest of other bytes, MANIFEST_BLOB_UNKNOWN when it names what the repository does not hold,
        DENIED (409) for another chart of a version that may not be replaced, DENIED (403) beyond a quota.
        """
        await self._demand_room()
        limits = await self._limits(repository, caller)
        manifest = parse(body, content_type)
        if isinstance(reference, Tag):
            digest, tags = Digest.of(body), (reference, *tags)
        else:
            digest = Digest.of(body, reference.algorithm)
            _compare(digest, reference)
        stored = StoredManifest(digest, manifest.media_type, len(body), body)
        while True:
            place = await self._database.read(look_around, self.settings, repository, manifest)
            admitted = await self._admit(repository, digest, manifest, tags, place, caller)
            chart, findings = (admitted.chart, admitted.findings) if admitted else (None, ())
            push = transactions.ManifestPush(
                repository,
                stored,
                manifest,
                chart,
                findings,
                tuple(tags),
                caller.name,
                caller.actor,
                self._now(),
                place.rules,
                may_overwrite=caller.rights.allows(OVERWRITE, repository),
                quotas=limits.quotas,
                pushers_quota=limits.pushers,
            )
            with contextlib.suppress(transactions.RulesMoved):  # then it is asked again under those that hold now
                await self._database.write(transactions.put_manifest, push, self.settings)
                if chart and not self.settings.ephemeral:
                    self.extraction.later(Digest(chart.layer))
                return Pushed(digest, manifest.subject.digest if manifest.subject else None, tags)

    async def _admit(
        self,
        repository: RepositoryName,
        digest: Digest,
        manifest: Manifest,
        tags: Sequence[Tag],
        place: Place,
        caller: Caller,
    ) -> Admitted | None:
        """The chart, when it is one. Raises MANIFEST_INVALID for what the rules or the policy refuse."""
        if not manifest.is_chart:
            self._admission.admit_other(manifest, tags, place)
            return None
        return await self._admission.admit_chart(
            repository,
            digest,
            manifest,
            tags,
            read=partial(self._content, repository),
            place=place,
            host=caller.host,
            now=self._now(),
        )

    async def _content(self, repository: RepositoryName, descriptor: Descriptor) -> bytes:
        found = await self.pulls.find_blob(repository, descriptor.digest)
        if found.size > ARCHIVE_LIMIT:
            raise ManifestInvalid(f"{descriptor.digest} has {found.size:,} bytes, a chart at most {ARCHIVE_LIMIT:,}")
        content = self._reading.whole_at_once(found)
        return await self._reading.whole(found) if content is None else content

    # --- discovery ----------------------------------------------------------------------------------------------------

    async def list_tags(self, repository: RepositoryName, last: str, limit: int) -> tuple[list[str], bool]:
        """At most `limit` tags after `last` in byte order, and whether there are more. Raises NAME_UNKNOWN."""
        tags = await self._database.read(queries.list_tags, repository, last, limit + 1)
        if tags is None:
            raise NameUnknown(f"there is no repository {repository}")
        return tags[:limit], len(tags) > limit

    async def list_referrers(
        self, repository: RepositoryName, subject: Digest, artifact_type: str | None, last: str, limit: int
    ) -> tuple[list[Referrer], bool]:
        """What refers to `subject`, after the digest `last`, and whether there is more; empty for what is not here."""
        return await self._database.read(
            queries.list_referrers, repository, subject, artifact_type, last, limit, REFERRERS_SIZE
        )

    async def list_repositories(self, last: str, limit: int, caller: Caller) -> tuple[list[str], bool]:
        """At most `limit` repositories after `last` in byte order that the caller may pull, and whether more are."""
        names = await self._database.read(queries.list_repositories, last, limit + 1, caller.rights.readable)
        return names[:limit], len(names) > limit

    async def list_charts(self, repository: RepositoryName | None = None) -> list[Chart]:
        """All charts, or those of one repository. Raises NAME_UNKNOWN."""
        if repository is not None:
            await self._demand(repository)
        return await self._database.scan(queries.list_charts, repository)

    async def _demand(self, repository: RepositoryName) -> None:
        if await self._database.read(queries.repository_id, repository) is None:
            raise NameUnknown(f"there is no repository {repository}")

    # --- management ---------------------------------------------------------------------------------------------------

    async def delete_manifest(
        self, repository: RepositoryName, reference: Reference, by: Actor = ON_THE_MACHINE
    ) -> None:
        """A digest goes with all its tags; a tag goes alone. Raises NAME_UNKNOWN, MANIFEST_UNKNOWN."""
        await self._making_room.write(transactions.delete_manifest, repository, reference, self._now(), by)

    async def delete_version(
        self, repository: RepositoryName, reference: Reference, by: Actor = ON_THE_MACHINE
    ) -> None:
        """What a person means by deleting a version: the tag, and its manifest unless another tag names it.

        Raises NAME_UNKNOWN, MANIFEST_UNKNOWN.
        """
        await self._making_room.write(transactions.delete_version, repository, reference, self._now(), by)

    async def delete_repository(self, repository: RepositoryName, by: Actor = ON_THE_MACHINE) -> int:
        """All manifests and tags; blobs have their grace. Returns the number of manifests. Raises NAME_UNKNOWN."""
        return await self._making_room.write(transactions.delete_repository, repository, self._now(), by)

    async def delete_blob(self, repository: RepositoryName, digest: Digest, by: Actor = ON_THE_MACHINE) -> None:
        """Raises NAME_UNKNOWN, BLOB_UNKNOWN, and UNSUPPORTED while a manifest of the repository names the blob."""
        await self._making_room.write(transactions.delete_blob, repository, digest, self._now(), by)

    # --- the registry itself ------------------------------------------------------------------------------------------

    def stamp(self) -> bytes | None:
        """The same only while nothing was committed; None when that cannot be told without asking."""
        return self._database.stamp()

    async def generations(self, repositories: Collection[RepositoryName]) -> dict[str, int]:
        """Raised in every transaction that changes what a repository answers. Without those that do not exist."""
        found: dict[str, int] = {}
        left = list(repositories)
        while left:
            found |= await self._database.read(queries.generations, left[:GENERATIONS_AT_ONCE])
            del left[:GENERATIONS_AT_ONCE]
        return found

    def generation_at_once(self, repository: RepositoryName) -> int | None:
        """None where that cannot be told without waiting; 0 when there is no such repository."""
        return self._database.read_at_once(queries.generation, repository)

    async def generation(self, repository: RepositoryName) -> int:
        """0 when there is no such repository."""
        return await self._database.read(queries.generation, repository)

    async def check(self) -> None:
        """Raises whatever keeps the registry from answering."""
        self._database.check()
        await self._database.read(queries.is_reachable)
        await self._store.check()

    async def forget_stale_uploads(self) -> int:
        """Removes what unfinished uploads left, once they have expired. Returns their number."""
        return await self._store.forget_uploads(self._clock() - self.settings.upload_expiry)

    def time(self) -> float:
        """Unix seconds, by the clock that a test may move."""
        return self._clock()

    def rest(self) -> None:
        """Lets go of what the next request opens again: for many registries of one process, of which few are used."""
        self._database.rest()

    async def close(self) -> None:
        self.external_tokens.close()
        await self.extraction.close()
        for helper in self._own_helpers:
            await asyncio.to_thread(helper.close)
        await self.audit.close()
        await self._database.close()
        await self._store.close()

    def _now(self) -> int:
        return int(self._clock() * 1000)


# --- small things -----------------------------------------------------------------------------------------------------


def _compare(found: Digest, expected: Digest) -> None:
    if found != expected:
        raise DigestInvalid(f"the content has the digest {found}, not {expected}")


def _ended() -> BlobUploadUnknown:
    return BlobUploadUnknown("this upload is over, it was finished or cancelled: begin again with POST /blobs/uploads/")


async def _take(pieces: Pieces, limit: int) -> tuple[bytes, bool]:
    """The first bytes, at least `limit` + 1 where there are so many, and whether that is all. Copied once at most."""
    head: list[bytes] = []
    size = 0
    async for piece in pieces:
        head.append(piece)
        size += len(piece)
        if size > limit:
            return b"".join(head), False
    return b"".join(head), True


async def _chain(head: bytes, rest: Pieces) -> Pieces:
    yield head
    async for piece in rest:
        yield piece
