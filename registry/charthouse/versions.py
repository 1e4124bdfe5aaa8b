"""What may become of a tag that is there already; decided inside the write transaction, so of two who race one wins."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from charthouse.errors import Denied, ManifestInvalid, VersionImmutable
from charthouse.helm import rules
from charthouse.helm.versions import Version, VersionInvalid, tag_of as tag_of_version
from charthouse.names import Tag

if TYPE_CHECKING:
    from charthouse.queries import Chart, Tagged
    from charthouse.transactions import ManifestPush


def tag_of(chart: Chart) -> Tag:
    return Tag(tag_of_version(chart.version))


def order(version: str) -> tuple[bool, Version | None]:
    """For sorting; what Helm could not compare is the oldest."""
    try:
        return True, Version.parse(version)
    except VersionInvalid:
        return False, None


def moves(there: Tagged | None, tag: Tag, push: ManifestPush) -> bool:
    """Whether the tag is to name what is pushed; False when it stays with the same chart, pushed before.

    Raises MANIFEST_INVALID when a chart would become something else or the other way round, and DENIED (409) for
    another chart of a version that may not be replaced.
    """
    if there is None or there.digest == push.stored.digest:
        return True
    if push.tags:
        _keep_kind(there, tag, push)
    if push.chart is None:
        _keep_image(there, tag, push)
        _demand_overwrite(tag, there, push)
        return True
    if not _is_fixed_version(there, tag, push.rules.versions):
        if (there.config, there.layer) != (push.chart.config, push.chart.layer):
            _demand_overwrite(tag, there, push)
        return True
    if (there.config, there.layer) != (push.chart.config, push.chart.layer):
        raise VersionImmutable(_refusal(there, push, push.chart))
    if there.provenance is None:
        return push.chart.provenance is not None
    if push.chart.provenance not in (None, there.provenance):
        raise VersionImmutable(_refusal(there, push, push.chart))
    return False


def is_fixed(version: str, policy: str) -> bool:
    """Whether the policy lets nobody replace this version."""
    if policy != "releases-immutable":
        return policy == "immutable"
    try:
        return not Version.parse(version).is_prerelease
    except VersionInvalid:
        return True


def _is_fixed_version(there: Tagged, tag: Tag, policy: str) -> bool:
    """Where names are relaxed a chart may have other tags than its version, and those move."""
    return there.version is not None and tag == tag_of_version(there.version) and is_fixed(there.version, policy)


def _keep_image(there: Tagged, tag: Tag, push: ManifestPush) -> None:
    """Never the tags of digests: clients keep lists of signatures there, and move them."""
    if push.rules.images == "immutable" and not there.is_chart and not rules.is_digest_tag(tag):
        raise VersionImmutable(f"{_there(there, push, f'tag {tag}', 'tags')}\npush it under another tag")


def _demand_overwrite(tag: Tag, there: Tagged, push: ManifestPush) -> None:
    """The same chart again, or its first provenance file, replaces nothing."""
    if not push.may_overwrite:
        who = push.by or "who does not sign in"
        raise Denied(
            f"{push.repository} has {tag} already ({there.digest}), and {who} may push but not overwrite: raise the"
            " version, or have the action overwrite granted"
        )


def _keep_kind(there: Tagged, tag: Tag, push: ManifestPush) -> None:
    was: rules.Kind = "chart" if there.is_chart else "other"
    faults = list(rules.kind_of_tag_changes(tag, was=was, becomes="chart" if push.manifest.is_chart else "other"))
    if faults:
        raise ManifestInvalid("\n".join(map(str, faults)))


def _refusal(there: Tagged, push: ManifestPush, chart: Chart) -> str:
    which = "released versions" if push.rules.versions == "releases-immutable" else "versions"
    fact = _there(there, push, f"version {there.version}", which)
    if there.contents and there.contents == chart.contents and there.layer != chart.layer:
        return (
            f"{fact}\nthe files are the same, only their times differ: with Helm 4 set SOURCE_DATE_EPOCH before"
            " packaging, with Helm 3 push the same .tgz again instead of packaging it again; or raise the version"
        )
    return f"{fact}\nraise the version in Chart.yaml"


def _there(there: Tagged, push: ManifestPush, what: str, which: str) -> str:
    when = datetime.fromtimestamp(there.pushed_at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    by = f" by {there.pushed_by}" if there.pushed_by else ""
    return f"{push.repository} has {what} already, and {which} cannot be replaced: {there.digest} was pushed {when}{by}"
