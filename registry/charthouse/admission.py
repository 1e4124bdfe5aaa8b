"""Whether a manifest may come in: the chart rules over what its blobs say, and the policy over everything else."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from charthouse import namespaces, queries, transactions
from charthouse.database import Connection
from charthouse.errors import ManifestInvalid, Unavailable
from charthouse.helm import metadata, provenance, rules
from charthouse.helm.findings import Finding
from charthouse.helm.helper import HelperMissing
from charthouse.helm.inspection import Inspection
from charthouse.helm.isolation import Inspector
from charthouse.helm.metadata import Parsed
from charthouse.helm.provenance import Verification, VerifierMissing
from charthouse.manifest import Descriptor, Manifest
from charthouse.names import Digest, Namespace, RepositoryName, Tag
from charthouse.namespaces import Rules
from charthouse.queries import Chart
from charthouse.settings import Settings

log = logging.getLogger(__name__)

INSPECTIONS_KEPT = 64
PARSED_AT_ONCE = 64 * 1024  # bytes of a config blob that is parsed in the event loop: 1 ms
MESSAGE_LIMIT = 8000  # bytes as JSON: Helm shows nothing of an error of more than 8 KiB
LINE_LIMIT = 1000  # characters

Read = Callable[[Descriptor], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a push goes, as it is in one snapshot. `keyring` has the certificates of the namespace."""

    rules: Rules
    keyring: Sequence[bytes] = ()
    parent_is_a_chart: bool = False
    newest: str = ""  # version of the repository's charts


@dataclass(frozen=True, slots=True)
class Admitted:
    """A chart that is let in, and what the rules say of it all the same."""

    chart: Chart
    findings: Sequence[Finding]


def look_around(connection: Connection, settings: Settings, repository: RepositoryName, manifest: Manifest) -> Place:
    """Raises MANIFEST_BLOB_UNKNOWN and MANIFEST_INVALID for a chart whose blobs are not what it says."""
    rules_here = namespaces.rules_of(connection, settings, repository)
    if not manifest.is_chart:
        return Place(rules_here)
    transactions.demand_blobs(connection, repository, manifest)
    parent = repository.parent
    return Place(
        rules_here,
        queries.certificates(connection, Namespace.covering(repository)) if manifest.provenance_layers() else (),
        parent is not None and queries.has_charts(connection, parent),
        queries.newest_version(connection, repository) or "",
    )


class Admission:
    def __init__(self, settings: Settings, inspector: Inspector) -> None:
        self._is_off = settings.rules == "off"
        self._inspector = inspector
        self._inspections: dict[Digest, Inspection] = {}

    def admit_other(self, manifest: Manifest, tags: Sequence[Tag], place: Place) -> None:
        """What is no chart. Raises MANIFEST_INVALID under policy `charts`."""
        if place.rules.policy == "charts" and not self._is_off:
            _refuse(finding for tag in tags or (None,) for finding in rules.is_for_charts(manifest, tag))

    async def admit_chart(
        self,
        repository: RepositoryName,
        digest: Digest,
        manifest: Manifest,
        tags: Sequence[Tag],
        *,
        read: Read,
        place: Place,
        host: str,
        now: int,
    ) -> Admitted | None:
        """A chart whose blobs are here. Raises MANIFEST_INVALID with every rule that it breaks, a line each.

        With the rules off it is None for what cannot be listed as a chart.
        """
        assert manifest.config is not None  # noqa: S101 - it is what makes it a chart
        config = await self._parse(await read(manifest.config))
        layer, signature = _only(manifest.chart_layers()), _only(manifest.provenance_layers())
        found = await self._inspect(layer, read) if layer else Inspection()
        signed = await read(signature) if signature else None
        verification = await self._verify(signed, place) if signed is not None else None
        push = rules.ChartPush(
            repository,
            manifest,
            config,
            found,
            provenance=signed,
            host=host,
            parent_is_a_chart=place.parent_is_a_chart,
            newest=place.newest,
            names=place.rules.names,
            legacy=place.rules.legacy,
            signatures=place.rules.signatures,
            verification=verification,
        )
        findings = [finding for tag in tags or (None,) for finding in rules.check(replace(push, tag=tag))]
        if not self._is_off:
            _refuse(findings)
        if layer is None or config.faults:
            return None
        chart = Chart(
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
            signature=verification.state if verification else "",
            signer=verification.signer if verification else "",
            signed_by="\n".join(verification.user_ids) if verification else "",
        )
        return Admitted(chart, list(dict.fromkeys(findings)))

    async def _parse(self, content: bytes) -> Parsed:
        quick = len(content) <= PARSED_AT_ONCE
        return metadata.from_config(content) if quick else await asyncio.to_thread(metadata.from_config, content)

    async def _verify(self, signed: bytes, place: Place) -> Verification | None:
        """None where no keyring is there to ask and nobody demands it. Raises Unavailable without the verifier."""
        if not place.keyring and place.rules.signatures == "optional":
            return None
        try:
            return await asyncio.to_thread(provenance.verify, signed, place.keyring)
        except VerifierMissing as missing:
            if place.rules.signatures == "optional":
                return None
            raise Unavailable(f"charts of this namespace have to be signed, and {missing}") from None

    async def _inspect(self, layer: Descriptor, read: Read) -> Inspection:
        """Once for each archive: Helm puts a manifest twice, and under one digest the archive is the same."""
        known = self._inspections.get(layer.digest)
        if known is None:
            known = await asyncio.to_thread(self._look_into, await read(layer))
            self._inspections[layer.digest] = known
            while len(self._inspections) > INSPECTIONS_KEPT:
                del self._inspections[next(iter(self._inspections))]
        return known

    def _look_into(self, archive: bytes) -> Inspection:
        try:
            return self._inspector.inspect(archive)
        except HelperMissing as missing:
            log.critical("%s", missing)
            raise Unavailable("charts of this size cannot be checked now, the registry's log says why") from missing


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
