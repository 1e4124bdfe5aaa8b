"""The official conformance suite, with every optional setting on: nothing failed, nothing skipped, nothing left out."""

import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest
import yaml

from charthouse.testing import Registry
from support.server import serving
from support.tools import Tool, find

EVERYTHING = {
    "OCI_API_BLOBS_DIGEST_HEADER": "true",
    "OCI_API_BLOBS_MOUNT_ANONYMOUS": "true",
    "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
    "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
    "OCI_API_MANIFESTS_TAG_PARAM": "true",
    "OCI_DATA_SHA512": "true",
    "OCI_DATA_SPARSE": "true",
}


@pytest.mark.usefixtures("anyio_backend")  # `database_url` is made in it
@pytest.mark.parametrize("version", ["1.1", "dev"])
def test_the_registry_conforms_to_the_whole_specification(version: str, tmp_path: Path, database_url: str) -> None:
    with serving(tmp_path, "--policy", "oci", "--sparse-manifests", database=database_url) as server:
        _conforms(server.host, version, tmp_path / "home")


@pytest.mark.parametrize("version", ["1.1", "dev"])
def test_the_registry_for_tests_is_no_less(version: str, tmp_path: Path) -> None:
    with Registry(sparse_manifests=True) as registry:
        _conforms(registry.host, version, tmp_path / "home")
        assert len(registry.requests) > 500


def _conforms(host: str, version: str, home: Path) -> None:
    suite = Tool(find("conformance"), home, EVERYTHING)
    suite(OCI_REGISTRY=host, OCI_TLS="disabled", OCI_VERSION=version)
    results = suite.home / "results"
    found = Counter(case.get("status") for case in ET.parse(results / "junit.xml").iter("testcase"))
    report = yaml.safe_load((results / "results.yaml").read_text())
    print(f"conformance {version}: {dict(found)}")
    assert not _switched_off({name: report["config"][name] for name in ("apis", "data")})
    assert set(report["apis"].values()) == {"Pass"}
    assert set(report["data"].values()) == {"Pass"}
    assert found.keys() == {"passed"}
    assert found["passed"] > 500


def _switched_off(settings: dict) -> list[str]:
    """What the suite's own report of its settings says it leaves out."""
    groups = [group for group in settings.values() if isinstance(group, dict)]
    off = [name for name, value in settings.items() if value is False]
    return off + [name for group in groups for name in _switched_off(group)]
