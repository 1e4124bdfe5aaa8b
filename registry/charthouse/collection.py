"""Garbage collection: what nobody can reach any more goes, while everybody else works.

A blob goes when no manifest of a repository has named it for the whole grace; the grace begins when its last manifest
goes, and anew with each answer that it is here. One transaction decides, and looks again in it; the file goes after it,
by a key that no other push ever gets. What a crash leaves is a file without a row, which a later pass finds.
"""

import asyncio
import logging
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from charthouse import clocks, namespaces, queries
from charthouse.audit import ON_THE_MACHINE, THE_SCHEDULE, Actor
from charthouse.blobs import BlobStore, StoredFile
from charthouse.clocks import Clock
from charthouse.database import Connection, Database
from charthouse.names import Digest
from charthouse.queries import collection as statements
from charthouse.queries.collection import AT_ONCE, Moment, Taken, Untagged
from charthouse.settings import Settings

log = logging.getLogger(__name__)

COLLECTED = "gc"  # in the audit
SHOWN = 1000  # lines of what would go
EARLY = 10  # parts of gc_every, one of which a pass may be early: two servers never wake up at the same moment
TOLERANCE = 10.0  # seconds by which the two clocks may part between two passes
DRIFT = 0.001  # and what a clock may gain or lose while it is being set right: 500 ppm is the most that NTP does


@dataclass(frozen=True, slots=True)
class Item:
    """Something that goes: a blob, manifest, upload or file. `size` in bytes."""

    kind: str
    repository: str
    name: str
    size: int
    why: str


@dataclass(slots=True)
class Report:
    """What a pass removed, or would remove: numbers, and bytes of what is deleted.

    `released` counts blobs for each repository that held them; their bytes go with the last. `items` are at most SHOWN.
    """

    blobs: int = 0
    blob_bytes: int = 0
    released: int = 0
    manifests: int = 0
    uploads: int = 0
    files: int = 0
    file_bytes: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    clock_jumped: float = 0.0  # seconds; then nothing was removed, and every grace begins anew
    items: list[Item] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.blobs or self.released or self.manifests or self.uploads or self.files)

    def add(self, taken: Taken) -> None:
        self.released += taken.released
        self.blobs += taken.blobs
        self.blob_bytes += taken.size

    def show(self, items: Iterable[Item]) -> None:
        for item in items:
            if len(self.items) == SHOWN:
                return
            self.items.append(item)

    def __str__(self) -> str:
        parts = [
            (self.blobs, f"{_counted(self.blobs, 'blob')} of {self.blob_bytes:,} bytes"),
            (self.manifests, _counted(self.manifests, "manifest")),
            (self.released > self.blobs, f"{_counted(self.released, 'blob')} from repositories"),
            (self.uploads, _counted(self.uploads, "unfinished upload")),
            (self.files, f"{_counted(self.files, 'file')} of {self.file_bytes:,} bytes that no blob has"),
        ]
        return ", ".join(text for count, text in parts if count) or "nothing"


class Collector:
    def __init__(self, settings: Settings, database: Database, store: BlobStore, clock: Clock, steady: Clock) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._clock = clock
        self._steady = steady

    async def run_when_due(self) -> Report | None:
        """The pass that the schedule asks for; None when it was done lately, here or by another server."""
        every = self._settings.gc_every * 1000
        return await self._run(THE_SCHEDULE, due_within=every - every // EARLY)

    async def run(self) -> Report:
        """A pass now."""
        report = await self._run(ON_THE_MACHINE, due_within=0)
        assert report is not None  # noqa: S101 - it is always due
        return report

    async def begin(self) -> None:
        """Notes the clocks of a new registry: else nobody would see that one was set before the first pass."""
        await self._database.write(statements.begin_clocks, self._moment())

    async def plan(self) -> Report:
        """What a pass would remove now, and why. It changes nothing, and does not look at the clocks."""
        moment = self._moment()
        cutoff = self._cutoff(moment)
        report = Report()
        for repository_id, name, expiry in await self._expiring():
            order = await self._expired(repository_id, moment.now - expiry * 1000)
            report.manifests += len(order)
            report.show(Item("manifest", name, each.digest, each.size, _why_manifest(each)) for each in order)
        due = await self._database.scan(statements.due_blobs, cutoff, SHOWN)
        report.show(Item("blob", each.repository, each.digest, each.size, _why_blob(each)) for each in due)
        report.blobs, report.blob_bytes = await self._database.scan(statements.due_bytes, cutoff)
        for upload_id, size in (await self._store.stale_uploads(self._upload_cutoff(moment))).items():
            report.uploads += 1
            report.show([Item("upload", "", upload_id, size, "it was begun, and not finished in upload_expiry")])
        async for file in self._nameless_files(moment):
            report.files += 1
            report.file_bytes += file.size
            report.show([Item("file", "", file.key, file.size, "no blob is stored under this key: a crash left it")])
        report.waiting, report.waiting_bytes = await self._database.scan(statements.waiting_blobs, cutoff)
        return report

    async def _run(self, by: Actor, due_within: int) -> Report | None:
        moment = self._moment()
        due = moment.now - due_within
        is_taken, before = await self._database.write(statements.take_pass, moment, due)
        if not is_taken:
            return None
        report = Report(clock_jumped=self._jump(before, moment))
        if report.clock_jumped:
            await self._begin_anew(report, moment)
        else:
            try:
                await self._remove(report, moment)
            except Exception:
                await self._note(report, by, moment)
                raise
            await self._note(report, by, moment)
        waiting = await self._database.scan(statements.waiting_blobs, self._cutoff(moment))
        report.waiting, report.waiting_bytes = waiting
        return report

    async def _note(self, report: Report, by: Actor, moment: Moment) -> None:
        """One row of a pass: each thing that goes was let go of before, which has its own."""
        if not report.is_empty:
            await self._database.write(queries.add_audit, by, COLLECTED, str(report), moment.now)

    # --- clocks -------------------------------------------------------------------------------------------------------

    def _moment(self) -> Moment:
        return Moment(int(self._clock() * 1000), int(self._steady() * 1000), clocks.boot())

    def _cutoff(self, moment: Moment) -> int:
        return moment.now - self._settings.gc_grace * 1000

    def _upload_cutoff(self, moment: Moment) -> float:
        return moment.now / 1000 - self._settings.upload_expiry

    def _jump(self, before: Moment | None, now: Moment) -> float:
        """Seconds by which the clock was set forward since the last pass, or back; 0 when nobody set it.

        Times in the database are worth what the clock is. After a start of the machine, or on another one, there is
        nothing to compare it with: a time without a pass that is longer than the grace is then taken for a jump,
        which costs one more grace where it was none.
        """
        if before is None:
            return 0.0
        passed = (now.now - before.now) / 1000
        if now.boot == before.boot:
            really = (now.steady - before.steady) / 1000
            is_right = abs(passed - really) <= TOLERANCE + really * DRIFT
            return 0.0 if is_right else passed - really
        return 0.0 if 0 <= passed <= self._settings.gc_grace else passed

    async def _begin_anew(self, report: Report, moment: Moment) -> None:
        count = await self._database.write(statements.begin_graces_anew, moment.now)
        if await self._expiring():
            await self._database.write(statements.begin_expiries_anew, moment.now)
        way = "forward" if report.clock_jumped > 0 else "back"
        log.warning(
            "the clock was set %s by %s since the last collection: nothing is removed, and the grace of %s begins anew",
            way,
            timedelta(seconds=round(abs(report.clock_jumped))),
            _counted(count, "blob"),
        )

    # --- what goes ----------------------------------------------------------------------------------------------------

    async def _remove(self, report: Report, moment: Moment) -> None:
        for repository_id, _, expiry in await self._expiring():
            await self._remove_expired(report, repository_id, moment, moment.now - expiry * 1000)
        cutoff = self._cutoff(moment)
        while await self._take(report, statements.take_due_blobs, cutoff) == AT_ONCE:
            """There may be more."""
        last = ""
        while digests := await self._database.scan(statements.unheld_blobs, last):
            await self._take(report, statements.take_unheld_blobs, digests)
            last = digests[-1]
        async for file in self._nameless_files(moment):
            await self._store.delete(file.key)
            report.files += 1
            report.file_bytes += file.size
        report.uploads = await self._store.forget_uploads(self._upload_cutoff(moment))

    async def _take(self, report: Report, query: Callable[..., Taken], *args: object) -> int:
        """Returns how much was looked at. Begun, it comes to its end also when the server ends: else files stay that
        SQL has forgotten."""
        taking = asyncio.ensure_future(self._take_whole(report, query, *args))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            await asyncio.wait([taking])
            raise

    async def _take_whole(self, report: Report, query: Callable[..., Taken], *args: object) -> int:
        """The files go when the transaction is on the disk."""
        taken = await self._database.write(query, *args)
        report.add(taken)
        for key in taken.keys:
            await self._store.delete(key)
        return taken.found

    async def _remove_expired(self, report: Report, repository_id: int, moment: Moment, cutoff: int) -> None:
        order = [each.digest for each in await self._expired(repository_id, cutoff)]
        for start in range(0, len(order), AT_ONCE):
            chunk = order[start : start + AT_ONCE]
            report.manifests += await self._database.write(_expire, repository_id, chunk, cutoff, moment.now)

    async def _expiring(self) -> list[tuple[int, str, int]]:
        return await self._database.scan(_expiring, self._settings)

    async def _expired(self, repository_id: int, cutoff: int) -> list[Untagged]:
        untagged = await self._database.scan(statements.untagged_manifests, repository_id, cutoff)
        return expired(untagged, await self._database.scan(statements.children, repository_id) if untagged else ())

    async def _nameless_files(self, moment: Moment) -> AsyncIterator[StoredFile]:
        """Older than any request that may still be about to name its file: a key is named once, by whoever made it."""
        async for files in self._store.files(self._upload_cutoff(moment)):
            known = await self._database.scan(statements.known_keys, [file.digest for file in files])
            for file in files:
                if file.key not in known:
                    yield file


def expired(untagged: Sequence[Untagged], children: Iterable[tuple[str, str]]) -> list[Untagged]:
    """Those of `untagged` that may go, each after all that keep it: the indexes that list it, and its subject."""
    found = {each.digest: each for each in untagged}
    kept: dict[str, list[str]] = defaultdict(list)  # by what keeps it
    keepers: Counter[str] = Counter()
    subjects = ((each.subject, each.digest) for each in untagged if each.subject is not None)
    for keeper, digest in (*children, *subjects):
        if digest in found:
            kept[keeper].append(digest)
            keepers[digest] += 1
    free = deque(digest for digest in found if not keepers[digest])
    order = []
    while free:
        order.append(found[free[0]])
        for digest in kept[free.popleft()]:
            keepers[digest] -= 1
            if not keepers[digest]:
                free.append(digest)
    return order


def _expiring(connection: Connection, settings: Settings) -> list[tuple[int, str, int]]:
    """Id and name of each repository whose untagged manifests go, and after how many seconds."""
    if not namespaces.is_set(connection, settings, "untagged_expiry"):
        return []
    value_of = partial(namespaces.value_of, connection, settings, setting="untagged_expiry")
    return [
        (repository_id, name, expiry)
        for repository_id, name in statements.all_repositories(connection)
        if (expiry := value_of(name).value)
    ]


def _expire(connection: Connection, repository_id: int, digests: Sequence[str], cutoff: int, now: int) -> int:
    """Deletes those that may still go, in this order. Returns their number."""
    statements.raise_generation(connection, repository_id)  # which nobody else writes to until the end
    count = 0
    for digest in digests:
        if statements.is_expired(connection, repository_id, digest, cutoff):
            queries.unname_blobs(connection, repository_id, digest, now)
            count += queries.delete_manifest(connection, repository_id, Digest(digest))
    return count


def _why_manifest(manifest: Untagged) -> str:
    return f"no tag names it since {_date(manifest.since)}, and untagged_expiry is over"


def _why_blob(blob: statements.DueBlob) -> str:
    if blob.since is None:
        return "no repository holds it"
    return f"no manifest names it since {_date(blob.since)}, and gc_grace is over"


def _date(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
