"""A Helm plugin's push and pull, tested with Helm's code: pip install pytest charthouse helm-python-sdk."""

from pathlib import Path

import helm_python
import pytest

from charthouse.testing import Registry, make_chart


@pytest.fixture
def helm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    with helm_python.RegistryClient(plain_http=True, credentials_file=tmp_path / "credentials.json") as client:
        yield client


def test_what_is_pushed_is_pulled(helm: helm_python.RegistryClient, chart_registry: Registry, tmp_path: Path) -> None:
    archive = make_chart("app", "1.2.3", values={"replicas": 2}).write(tmp_path)
    helm.push(archive, f"oci://{chart_registry.host}/team-a", plain_http=True)
    assert chart_registry.tags("team-a/app") == ["1.2.3"]
    pulled = tmp_path / "pulled"
    pulled.mkdir()
    helm.pull(f"oci://{chart_registry.host}/team-a/app", version="1.2.3", destination=pulled, plain_http=True)
    assert (pulled / archive.name).read_bytes() == archive.read_bytes()


def test_a_pull_survives_two_bad_gateways(
    helm: helm_python.RegistryClient, chart_registry: Registry, tmp_path: Path
) -> None:
    chart_registry.push({"name": "app", "version": "1.2.3"})
    chart_registry.fail(path="*/manifests/*", times=2, status=502)
    helm.pull(f"oci://{chart_registry.host}/app", version="1.2.3", destination=tmp_path, plain_http=True)
    assert [request.status for request in chart_registry.requests[:3]] == [502, 502, 200]
