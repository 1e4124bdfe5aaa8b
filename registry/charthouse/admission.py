"""Whether a manifest may come in: the chart rules over what its blobs say, and the policy over everything else."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from charthouse.errors import ManifestInvalid
from charthouse.helm import metadata, rules
from charthouse.helm.findings import Finding
from charthouse.helm.inspection import Inspection
from charthouse.helm.isolation import Inspector
from charthouse.manifest import Descriptor, Manifest
from charthouse.names import Digest, RepositoryName, Tag
from charthouse.queries import Chart
from charthouse.settings import Settings

INSPECTIONS_KEPT = 64
MESSAGE_LIMIT = 8000  # bytes as JSON: Helm shows nothing of an error of more than 8 KiB
LINE_LIMIT = 1000  # characters

Read = Callable[[Descriptor], Awaitable[bytes]]


class Admission:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inspector = Inspector()
        self._inspections: dict[Digest, Inspection] = {}

    def admit_other(self, manifest: Manifest, tags: Sequence[Tag]) -> None:
        """What is no chart. Raises MANIFEST_INVALID under policy `charts`."""
        if self._settings.policy == "charts":
            _refuse(finding for tag in tags or (None,) for finding in rules.is_for_charts(manifest, tag))

    async def admit_chart(
        self,
        repository: RepositoryName,
        digest: Digest,
        manifest: Manifest,
        tags: Sequence[Tag],
        *,
        read: Read,
        parent_is_a_chart: bool,
        now: int,
    ) -> Chart:
        """A chart whose blobs are here. Raises MANIFEST_INVALID with every rule that it breaks, a line each."""
        assert manifest.config is not None  # noqa: S101 - it is what makes it a chart
        config = metadata.from_config(await read(manifest.config))
        layer, signature = _only(manifest.chart_layers()), _only(manifest.provenance_layers())
        found = await self._inspect(layer, read) if layer else Inspection()
        push = rules.ChartPush(
            repository,
            manifest,
            config,
            found,
            provenance=await read(signature) if signature else None,
            parent_is_a_chart=parent_is_a_chart,
            names=self._settings.names,
            legacy=self._settings.legacy,
        )
        _refuse(finding for tag in tags or (None,) for finding in rules.check(replace(push, tag=tag)))
        assert layer is not None  # noqa: S101 - a rule demands one
        return Chart(
            repository=repository,
            digest=digest,
            name=config.metadata.name,
            version=config.metadata.version,
            app_version=config.metadata.app_version,
            description=config.metadata.description,
            deprecated=config.metadata.deprecated,
            config=manifest.config.digest,
            layer=layer.digest,
            provenance=signature.digest if signature else None,
            contents=found.contents,
            size=layer.size,
            pushed_at=now,
        )

    async def _inspect(self, layer: Descriptor, read: Read) -> Inspection:
        """Once for each archive: Helm puts a manifest twice, and under one digest the archive is the same."""
        known = self._inspections.get(layer.digest)
        if known is None:
            known = await asyncio.to_thread(self._inspector.inspect, await read(layer))
            self._inspections[layer.digest] = known
            while len(self._inspections) > INSPECTIONS_KEPT:
                del self._inspections[next(iter(self._inspections))]
        return known

    async def close(self) -> None:
        await asyncio.to_thread(self._inspector.close)


def _only(descriptors: Sequence[Descriptor]) -> Descriptor | None:
    return descriptors[0] if len(descriptors) == 1 else None


def _refuse(findings: Iterable[Finding]) -> None:
    """Each fault once, a line each. Raises MANIFEST_INVALID."""
    faults = dict.fromkeys(str(finding) for finding in findings if finding.severity == "reject")
    if faults:
        raise ManifestInvalid("\n".join(_fitting(list(faults))))


def _fitting(faults: Sequence[str]) -> Iterator[str]:
    """As many as Helm shows, and how many there are beside them."""
    left = MESSAGE_LIMIT
    for count, fault in enumerate(faults):
        line = fault if len(fault) <= LINE_LIMIT else f"{fault[:LINE_LIMIT]}…"
        left -= len(json.dumps(line))
        if count and left < 0:
            yield f"and {len(faults) - count:,} more"
            return
        yield line
