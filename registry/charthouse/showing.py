"""How `charthouse show` prints what is known of a chart: as text for people, as JSON for programs."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from charthouse.extraction import Facts
from charthouse.helm.inspection import CRDS, is_readme
from charthouse.listing import plain


def as_json(facts: Facts, part: str) -> str:
    return json.dumps(_PARTS[part](facts), indent=2)


def as_text(facts: Facts, part: str) -> str:
    """Without control characters: a chart holds whatever somebody pushed."""
    found = _PARTS[part](facts)
    if found in (None, "", [], {}):
        return f"the chart has no {part}"
    text = found if isinstance(found, str) else "\n".join(_lines(found))
    return "\n".join(plain(line) for line in text.split("\n"))


def _summary(facts: Facts) -> dict[str, Any]:
    metadata = _metadata(facts)
    shown = {key: metadata.get(key) for key in ("name", "version", "app_version", "description", "type", "home")}
    counts = {
        "files": len(facts.inspection.files),
        "dependencies": len(_dependencies(facts)),
        "findings": len(facts.findings),
    }
    return shown | counts | {"provenance": _provenance(facts).get("state", "none"), "digest": facts.chart.digest}


def _metadata(facts: Facts) -> dict[str, Any]:
    return facts.inspection.metadata.to_json() if facts.inspection.metadata else {}


def _dependencies(facts: Facts) -> list[dict[str, Any]]:
    return list(_metadata(facts).get("dependencies", []))


def _provenance(facts: Facts) -> dict[str, Any]:
    """The state is `not verified` where there was no keyring when the chart came."""
    chart = facts.chart
    if chart.provenance is None:
        return {}
    return {
        "state": chart.signature or "not verified",
        "signer": chart.signer,
        "user_ids": chart.signed_by.splitlines(),
        "digest": chart.provenance,
    }


def _findings(facts: Facts) -> list[dict[str, Any]]:
    return [asdict(finding) for finding in facts.findings]


def _files(facts: Facts) -> dict[str, Any]:
    omitted = {"omitted": list(facts.inspection.omitted)} if facts.inspection.omitted else {}
    return {**facts.inspection.files, **omitted}


def _text(path: str) -> Callable[[Facts], str | None]:
    return lambda facts: facts.inspection.texts.get(path)


def _readme(facts: Facts) -> str | None:
    return next((text for path, text in facts.inspection.texts.items() if is_readme(path)), None)


def _crds(facts: Facts) -> str:
    texts = ((path, text) for path, text in facts.inspection.texts.items() if path.startswith(CRDS))
    return "\n".join(f"---\n# Source: {path}\n{text.removeprefix('---').lstrip()}" for path, text in texts)


_PARTS: dict[str, Callable[[Facts], Any]] = {
    "summary": _summary,
    "metadata": _metadata,
    "readme": _readme,
    "values": _text("values.yaml"),
    "schema": _text("values.schema.json"),
    "files": _files,
    "crds": _crds,
    "dependencies": _dependencies,
    "findings": _findings,
    "provenance": _provenance,
}


def _lines(found: dict[str, Any] | list[dict[str, Any]]) -> list[str]:
    """A line for each value that is there; of a list, a block for each of its entries."""
    if isinstance(found, list):
        return [line for entry in found for line in [*_lines(entry), ""]][:-1]
    width = max(map(len, found), default=0)
    return [f"{key:<{width}}  {_shown(value)}" for key, value in found.items() if value not in (None, "", [], {})]


def _shown(value: object) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return (
        f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else (value if isinstance(value, str) else json.dumps(value))
    )
