"""What `make_chart` gives is to Helm a chart like any other; and every Helm finds a registry of `charthouse exec`."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from charthouse.testing import Registry, make_chart
from charthouse.testing.signing import SigningKey
from support.kubernetes import Kubernetes
from support.tools import Tool, find

pytestmark = pytest.mark.clients

LIBRARY = make_chart(
    "library", "0.1.0", templates={"_names.tpl": '{{ define "library.name" }}{{ .Chart.Name }}{{ end }}'}
)
TEMPLATES = {
    "config.yaml": """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-{{ include "library.name" . }}
data:
  greeting: {{ .Values.greeting | quote }}
""",
    "NOTES.txt": "made\n",
}


@pytest.fixture(params=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest, tmp_path: Path) -> Tool:
    return Tool(find(request.param), tmp_path / "home")


@pytest.fixture(scope="session")
def key() -> SigningKey:
    return SigningKey()


@pytest.fixture
def archive(key: SigningKey, tmp_path: Path) -> Path:
    chart = make_chart(
        "app",
        "1.2.3",
        values={"greeting": "hello", "replicas": 2},
        templates=TEMPLATES,
        files={"README.md": "# app\n", "values.schema.json": '{"type": "object"}'},
        dependencies=[LIBRARY],
        signed_by=key,
        appVersion="7",
        icon="https://charthouse.example/icon.svg",
    )
    return chart.write(tmp_path)


def test_helm_lints_it(helm: Tool, archive: Path) -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in helm("lint", "--strict", archive)


def test_helm_packs_the_same_files(helm: Tool, archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked")  # our own, and Python 3.11.2 has no filters
    helm("package", tmp_path / "unpacked" / "app")
    assert contents(helm.home / archive.name) == contents(archive)


def contents(archive: Path) -> dict[str, bytes]:
    """But Chart.yaml, which Helm writes anew, and charts within it, which it unpacks."""
    with tarfile.open(archive) as tar:
        files = {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}
    return {name: content for name, content in files.items() if "/charts/" not in name and "Chart.yaml" not in name}


def test_helm_verifies_it_and_nothing_else(helm: Tool, archive: Path, key: SigningKey, tmp_path: Path) -> None:
    keyring = key.write_keyring(tmp_path / "keyring.gpg")
    assert "Chart Hash Verified" in helm("verify", archive, "--keyring", keyring)
    other = SigningKey("somebody else").write_keyring(tmp_path / "other.gpg")
    helm("verify", archive, "--keyring", other, status=1)
    archive.write_bytes(make_chart("app", "1.2.3").content)
    helm("verify", archive, "--keyring", keyring, status=1)


def test_helm_installs_it_from_the_registry(helm: Tool, archive: Path, key: SigningKey, tmp_path: Path) -> None:
    keyring = key.write_keyring(tmp_path / "keyring.gpg")
    with Registry() as registry, Kubernetes().running() as kubernetes:
        registry.push(archive, "team-a")
        config = kubernetes.write_config(tmp_path / "kubeconfig")
        where = f"oci://{registry.host}/team-a/app"
        words = ["--version", "1.2.3", "--plain-http", "--verify", "--keyring", keyring]
        answer = helm("install", "mine", where, *words, KUBECONFIG=str(config))
        assert "STATUS: deployed" in answer
        assert "hello" in helm("get", "manifest", "mine", KUBECONFIG=str(config))


@pytest.mark.parametrize("auth", ["none", "bearer"])
@pytest.mark.parametrize("version", ["helm3.8", "helm3.14", "helm3.17", "helm3", "helm4"])
def test_every_helm_pushes_and_pulls_without_a_flag_or_a_login(version: str, auth: str, tmp_path: Path) -> None:
    archive = make_chart("app", "1.2.3").write(tmp_path)
    (tmp_path / "pulled").mkdir()
    helm = find(version)
    script = f"""
        {helm} push {archive} oci://$CHART_REGISTRY_HOST/team-a
        {helm} pull oci://$CHART_REGISTRY_HOST/team-a/app --version 1.2.3 -d {tmp_path}/pulled
    """
    done = subprocess.run(
        [sys.executable, "-m", "charthouse", "exec", "--tls", "--auth", auth, "--", "bash", "-euc", script],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "pulled" / archive.name).read_bytes() == archive.read_bytes()
