"""What is read from a chart's archive for people: once, after the push was answered, kept by the archive's digest.

What can refuse a chart is decided before the answer (`admission.py`). Lint and texts follow, one archive at a time, in
a helper process that gives way to everybody else. Whatever a crash leaves out is read when the server starts, or when
somebody asks for it first.
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
from charthouse.helm.inspection import EXTRACTOR_VERSION, Inspection
from charthouse.helm.isolation import HelperMissing, Inspector
from charthouse.names import Digest, Reference, RepositoryName
from charthouse.queries import StoredChart

log = logging.getLogger(__name__)

REST_AFTER = 30.0  # seconds without a push, after which the helper process ends

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

    def later(self, layer: Digest) -> None:
        """Reads the archive as soon as those before it are done."""
        self._waiting.put_nowait(layer)
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
        inspection = await self._known(Digest(chart.layer)) or await self._extract(Digest(chart.layer))
        warned = tuple(Finding(**each) for each in json.loads(chart.findings))
        return Facts(chart, inspection, (*inspection.faults, *warned, *inspection.lint))

    async def reindex(self, *, anew: bool) -> AsyncIterator[tuple[Digest, int]]:
        """Reads what is not read yet, or everything. Gives each archive, and how many there are in all."""
        layers = await self._database.scan(queries.not_extracted, EXTRACTOR_VERSION, anew=anew)
        for layer in layers:
            await self._extract(Digest(layer))
            yield Digest(layer), len(layers)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await asyncio.to_thread(self._inspector.close)

    async def _work(self) -> None:
        while True:
            try:
                async with asyncio.timeout(REST_AFTER):  # wait_for, before 3.12, can swallow the end of this task
                    layer = await self._waiting.get()
            except TimeoutError:
                await asyncio.to_thread(self._inspector.rest)
                layer = await self._waiting.get()
            try:
                if await self._known(layer) is None:
                    await self._extract(layer)
            except Exception:
                log.exception("the chart layer %s could not be read for people", layer)
            self._waiting.task_done()

    async def _known(self, layer: Digest) -> Inspection | None:
        facts = await self._database.read(queries.find_facts, layer, EXTRACTOR_VERSION)
        return Inspection.from_json(json.loads(facts)) if facts is not None else None

    async def _extract(self, layer: Digest) -> Inspection:
        archive = await self._read(layer)
        try:
            found = await asyncio.to_thread(self._inspector.inspect, archive, linting=True)
        except HelperMissing as missing:
            raise Unavailable(f"the chart cannot be read: {missing}") from missing
        facts = json.dumps(found.to_json())
        await self._database.write(queries.put_facts, layer, EXTRACTOR_VERSION, facts, self._now())
        return found
