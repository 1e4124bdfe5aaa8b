"""What is read from a chart's archive for people: once, after the push was answered, kept by the archive's digest.

What can refuse a chart is decided before the answer (`admission.py`). Lint and texts follow, in a helper process that
gives way to everybody else: at once where nothing else is pushed, and in a tenth of the time while more and more is.
Whatever a crash leaves out is read when the server starts, or when somebody asks for it first.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from charthouse import queries
from charthouse.database import Database
from charthouse.errors import ManifestUnknown, Unavailable
from charthouse.helm.findings import Finding
from charthouse.helm.helper import HelperMissing
from charthouse.helm.inspection import EXTRACTOR_VERSION, Inspection
from charthouse.helm.isolation import Inspector
from charthouse.names import Digest, Reference, RepositoryName
from charthouse.queries import StoredChart

log = logging.getLogger(__name__)

REST_AFTER = 30.0  # seconds without a push, after which the helper process ends
QUIET = 0.1  # seconds without a push, after which no push is disturbed
GIVEN_WAY = 9.0  # times as long as reading took, until it goes on although there are pushes
MOST, MOST_BYTES = 16, 1024 * 1024  # read and kept together: archives, and their bytes before the last of them

Read = Callable[[Digest], Awaitable[bytes]]  # a stored blob, in whatever repository; raises BLOB_UNKNOWN


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of a chart: its parts, what its archive holds, and what the rules and lint say of it."""

    chart: StoredChart
    inspection: Inspection
    findings: tuple[Finding, ...]


class Extraction:
    def __init__(self, database: Database, read: Read, inspector: Inspector, now: Callable[[], int]) -> None:
        self._database = database
        self._read = read
        self._inspector = inspector
        self._now = now
        self._waiting: asyncio.Queue[Digest] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._pushed_at = 0.0  # by the event loop's clock

    def later(self, layer: Digest) -> None:
        """Reads the archive as soon as those before it are done, or with some of them."""
        self._waiting.put_nowait(layer)
        self._pushed_at = asyncio.get_running_loop().time()
        if self._task is None:
            self._task = asyncio.create_task(self._work())

    async def catch_up(self) -> None:
        """What nobody has read yet, or only a reader of another version."""
        for layer in await self._database.scan(queries.not_extracted, EXTRACTOR_VERSION):
            self.later(Digest(layer))

    async def settled(self) -> None:
        """When all that was put off has been read."""
        await self._waiting.join()

    async def of(self, repository: RepositoryName, reference: Reference) -> Facts:
        """Read now, if nobody has yet. Raises MANIFEST_UNKNOWN for what is no chart here."""
        chart = await self._database.read(queries.find_chart, repository, reference)
        if chart is None:
            raise ManifestUnknown(f"{repository} has no chart {reference}")
        layer = Digest(chart.layer)
        inspection = Inspection.from_json(await self._known(layer) or await self._extract_one(layer))
        warned = tuple(Finding(**each) for each in json.loads(chart.findings))
        return Facts(chart, inspection, (*inspection.faults, *warned, *inspection.lint))

    async def reindex(self, *, anew: bool) -> AsyncIterator[tuple[Digest, int]]:
        """Reads what is not read yet, or everything. Gives each archive, and how many there are in all."""
        layers = await self._database.scan(queries.not_extracted, EXTRACTOR_VERSION, anew=anew)
        for layer in layers:
            await self._extract_one(Digest(layer))
            yield Digest(layer), len(layers)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        while True:
            try:
                async with asyncio.timeout(REST_AFTER):  # wait_for, before 3.12, can swallow the end of this task
                    layer = await self._waiting.get()
            except TimeoutError:
                await asyncio.to_thread(self._inspector.helper.rest)
                layer = await self._waiting.get()
            begin = asyncio.get_running_loop().time()
            layers, archives = [layer], await self._unknown(layer)
            while not self._waiting.empty() and len(layers) < MOST and sum(map(len, archives.values())) < MOST_BYTES:
                layers.append(self._waiting.get_nowait())
                archives |= await self._unknown(layers[-1])
            await self._try(archives)
            for _ in layers:
                self._waiting.task_done()
            await self._give_way(begin)

    async def _give_way(self, begin: float) -> None:
        """To pushes, after what began then."""
        clock = asyncio.get_running_loop().time
        until = clock() + GIVEN_WAY * (clock() - begin)
        while (now := clock()) < until and now < self._pushed_at + QUIET:  # noqa: ASYNC110 - an event would cost a push
            await asyncio.sleep(min(until, self._pushed_at + QUIET) - now)

    async def _unknown(self, layer: Digest) -> dict[Digest, bytes]:
        """Its content, unless that has been read."""
        try:
            return {layer: await self._read(layer)} if await self._known(layer) is None else {}
        except Exception:
            log.exception("the chart layer %s could not be read for people", layer)
            return {}

    async def _try(self, archives: dict[Digest, bytes]) -> None:
        try:
            await self._extract(archives)
        except Exception:
            log.exception("the chart layers %s could not be read for people", ", ".join(archives))

    async def _known(self, layer: Digest) -> str | None:
        """As JSON."""
        return await self._database.read(queries.find_facts, layer, EXTRACTOR_VERSION)

    async def _extract_one(self, layer: Digest) -> str:
        return (await self._extract({layer: await self._read(layer)}))[layer]

    async def _extract(self, archives: dict[Digest, bytes]) -> dict[Digest, str]:
        """What each holds, as JSON, which is kept as it came from the helper."""
        if not archives:
            return {}
        try:
            found = await asyncio.to_thread(self._inspector.extract, list(archives.values()))
        except HelperMissing as missing:
            raise Unavailable(f"the chart cannot be read: {missing}") from missing
        facts = dict(zip(archives, found, strict=True))
        await self._database.write(queries.put_facts, facts, EXTRACTOR_VERSION, self._now())
        return facts
