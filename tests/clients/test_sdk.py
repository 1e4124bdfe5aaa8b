"""helm-python-sdk: Helm 4's own code in this process. It needs no binary, so these tests run wherever the others do."""

from pathlib import Path

import helm_python
import pytest

from support import charts
from support.charts import Signer
from support.recorder import Recorder
from support.server import Server


@pytest.fixture
def helm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A client in plain HTTP, with Helm's folders to itself."""
    for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    with helm_python.RegistryClient(plain_http=True, credentials_file=tmp_path / "credentials.json") as client:
        yield client


def test_a_chart_comes_back_as_it_was_pushed(
    helm: helm_python.RegistryClient, server: Server, recorder: Recorder, namespace: str, work: Path, tmp_path: Path
) -> None:
    archive, app = charts.pack(work, "app", "0.1.0"), f"{namespace}/app"
    print(helm.push(archive, f"oci://{recorder.host}/{namespace}", plain_http=True))
    digests = server.digests(app, "0.1.0")
    assert recorder.take(**digests) == [
        f"HEAD {app}/manifests/<manifest> 404",
        f"HEAD {app}/blobs/<chart> 404",
        f"HEAD {app}/blobs/<config> 404",
        f"POST {app}/blobs/uploads/ 202",
        f"POST {app}/blobs/uploads/ 202",
        f"PUT {app}/blobs/uploads/<id>?digest=<chart> 201",
        f"PUT {app}/blobs/uploads/<id>?digest=<config> 201",
        f"PUT {app}/manifests/<manifest> 201",
        f"GET {app}/manifests/<manifest> 200",
        f"PUT {app}/manifests/0.1.0 201",
    ]
    helm.push(archive, f"oci://{recorder.host}/{namespace}", plain_http=True)
    assert len(recorder.take(**digests)) == 3
    helm.pull(f"oci://{recorder.host}/{app}", version="0.1.0", destination=tmp_path, plain_http=True)
    assert (tmp_path / archive.name).read_bytes() == archive.read_bytes()
    assert recorder.take(**digests) == [
        f"GET {app}/manifests/0.1.0 200",
        f"GET {app}/blobs/<chart> 200",
        f"GET {app}/blobs/<config> 200",
    ]


def test_versions_are_listed_newest_first_and_a_range_takes_the_newest_that_fits(
    helm: helm_python.RegistryClient, server: Server, namespace: str, work: Path, tmp_path: Path
) -> None:
    for version in ("1.2.0", "1.10.0+build.5", "2.0.0-rc.1"):
        helm.push(charts.pack(work, "app", version), f"oci://{server.host}/{namespace}", plain_http=True)
    app = f"oci://{server.host}/{namespace}/app"
    assert helm.tags(app) == ["2.0.0-rc.1", "1.10.0+build.5", "1.2.0"]
    helm.pull(app, version="^1.0", destination=tmp_path, plain_http=True)
    assert [archive.name for archive in tmp_path.glob("*.tgz")] == ["app-1.10.0+build.5.tgz"]
    described = helm.resolve(f"{app}:1.2.0")
    assert described["digest"] == server.digests(f"{namespace}/app", "1.2.0")["manifest"]
    assert "greeting: hello from app 1.2.0" in helm.show(f"{app}:1.2.0", plain_http=True)


def test_a_signed_chart_keeps_its_provenance(
    helm: helm_python.RegistryClient, server: Server, namespace: str, work: Path, tmp_path: Path, signer: Signer
) -> None:
    archive = charts.pack(work, "app", "0.1.0")
    provenance = signer.sign(archive)
    helm.push(archive, f"oci://{server.host}/{namespace}", plain_http=True)
    digests = server.digests(f"{namespace}/app", "0.1.0")
    pulled = {
        archive.name: server.request("GET", f"{namespace}/app/blobs/{digests['chart']}").content,
        provenance.name: server.request("GET", f"{namespace}/app/blobs/{digests['prov']}").content,
    }
    for name, content in pulled.items():
        (tmp_path / name).write_bytes(content)
    helm_python.verify(tmp_path / archive.name, keyring=signer.keyring)
    assert pulled[provenance.name] == provenance.read_bytes()


@pytest.mark.parametrize("asked", ["1.0.0", "^1.0"], ids=["exact", "range"])
def test_a_dependency_is_downloaded_and_rendered(
    helm: helm_python.RegistryClient, server: Server, namespace: str, work: Path, asked: str
) -> None:
    where = f"oci://{server.host}/{namespace}"
    helm.push(charts.pack(work, "library", "1.0.0"), where, plain_http=True)
    dependency = {"name": "library", "version": asked, "repository": where}
    parent = charts.write(work, "parent", "0.1.0", dependencies=[dependency])
    helm_python.dependency_update(parent, plain_http=True)
    with helm_python.Chart.load(parent) as chart:
        rendered = chart.render(name="mine")
    assert 'greeting: "hello from library 1.0.0"' in rendered["parent/charts/library/templates/settings.yaml"]


def test_what_is_not_there_is_an_error_that_says_so(
    helm: helm_python.RegistryClient, server: Server, namespace: str, tmp_path: Path
) -> None:
    with pytest.raises(helm_python.HelmError, match="there is no repository"):
        helm.pull(f"oci://{server.host}/{namespace}/other", destination=tmp_path, plain_http=True)
