"""Namespaces: what each sets for itself, what covers what, and who decides when two places do."""

import dataclasses
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, strategies as st

from charthouse.app import create_app
from charthouse.core import Caller, Registry
from charthouse.errors import Denied, NamespaceConflict, NameUnknown
from charthouse.manifest import CHART_CONFIG, CHART_LAYER, OCI_MANIFEST, PROVENANCE_LAYER
from charthouse.names import Digest, Namespace, RepositoryName, Tag
from charthouse.namespaces import resolve
from charthouse.settings import NAMESPACE_SETTINGS, Settings, SettingsError, load
from helm.charts import chart
from support.charts import Signer
from support.requests import Remote, descriptor, encoded, error_of, image, running

A, AB = Namespace("team-a"), Namespace("team-a/b")
COMPONENT = st.text("ab", min_size=1, max_size=2)
NAMES = st.lists(COMPONENT, min_size=1, max_size=6).map("/".join)


def values(settings: Settings, name: str, stored: Any = None) -> dict[str, str]:
    return {key: value.value for key, value in resolve(settings, stored or {}, name).items()}


# What covers what


@pytest.mark.parametrize(
    ("repository", "covering"),
    [
        ("team-a/b/app", ["team-a/b/app", "team-a/b", "team-a"]),
        ("team-a/app", ["team-a/app", "team-a"]),
        ("app", ["app", "/"]),
    ],
)
def test_a_namespace_covers_what_is_below_it_and_the_root_what_is_below_none(repository: str, covering: list[str]):
    assert Namespace.covering(repository) == covering


@given(NAMES, NAMES)
def test_a_prefix_covers_by_whole_components_only(namespace: str, repository: str):
    """`a_b` is not `axb`, and `team-a` not `team-ab`."""
    covers = Namespace(namespace) in Namespace.covering(repository)
    assert covers == f"{repository}/".startswith(f"{namespace}/")


@given(st.dictionaries(NAMES, st.sampled_from(["mutable", "immutable"])), NAMES)
def test_the_longest_prefix_that_says_something_wins(said: dict[str, str], repository: str):
    stored = {name: {"versions": value} for name, value in said.items()}
    longest = max((name for name in said if f"{repository}/".startswith(f"{name}/")), key=len, default=None)
    expected = said[longest] if longest is not None else "mutable"
    assert values(Settings(), repository, stored)["versions"] == expected


def test_each_setting_is_decided_for_itself_and_says_where_it_came_from():
    settings = load({"names": "warn"}, environ={"CHARTHOUSE_LEGACY": "reject"})
    settings = dataclasses.replace(settings, namespaces={AB: {"policy": "charts"}})
    stored = {"team-a": {"versions": "immutable", "policy": "oci"}, "team-a/b": {"policy": "oci"}}
    found = resolve(settings, stored, "team-a/b/app")
    assert {key: (value.value, value.origin) for key, value in found.items()} == {
        "policy": ("charts", "namespace team-a/b in the TOML file"),
        "versions": ("immutable", "namespace team-a"),
        "names": ("warn", "on the command line"),
        "legacy": ("reject", "from the environment"),
        "images": ("mutable", "by default"),
        "signatures": ("optional", "by default"),
        "untagged_expiry": (0, "by default"),
        "blob_limit": (10 * 1024**3, "by default"),
        "quota_bytes": (0, "by default"),
        "quota_manifests": (0, "by default"),
        "uploads_at_once": (0, "by default"),
    }


# The TOML file


def test_the_toml_file_has_a_table_for_each(tmp_path: Path):
    file = tmp_path / "charthouse.toml"
    file.write_text('[namespaces.team-a]\nversions = "immutable"\n[namespaces."team-a/b"]\nnames = "warn"\n')
    assert load({}, file, {}).namespaces == {"team-a": {"versions": "immutable"}, "team-a/b": {"names": "warn"}}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('namespaces = "team-a"', "namespaces in {file} is 'team-a': give tables"),
        ('[namespaces.Team]\nversions = "mutable"', """[namespaces."Team"] in {file}: repository name 'Team' is not"""),
        ('[namespaces.a]\nversion = "mutable"', """[namespaces."a"] in {file}: a namespace has no setting 'version'"""),
        ('[namespaces.a]\nversions = "no"', """[namespaces."a"] in {file}: versions is 'no': give mutable or"""),
        ("[namespaces]\na = 1", """namespaces."a" in {file} is 1: give a table"""),
    ],
)
def test_a_bad_table_is_one_line_that_names_the_file(tmp_path: Path, line: str, expected: str):
    file = tmp_path / "charthouse.toml"
    file.write_text(line)
    with pytest.raises(SettingsError) as refusal:
        load({}, file, {})
    assert expected.format(file=file) in str(refusal.value)


async def test_what_the_toml_file_says_goes_before_and_cannot_be_set(registry: Registry):
    registry.namespaces._settings = dataclasses.replace(registry.settings, namespaces={A: {"versions": "immutable"}})
    with pytest.raises(NamespaceConflict, match=r'versions of namespace team-a is "immutable" in the TOML file'):
        await registry.namespaces.set(A, {"names": "warn", "versions": "mutable"})
    assert (await registry.namespaces.show("team-a/app"))["names"].value == "strict"  # nothing of it was kept
    await registry.namespaces.set(AB, {"versions": "mutable"})
    assert (await registry.namespaces.show("team-a/b/app"))["versions"].value == "mutable"  # the longer prefix


# What is stored


async def test_a_namespace_is_set_shown_unset_and_removed(registry: Registry):
    await registry.namespaces.set(A, {"versions": "immutable", "policy": "charts"})
    assert [each.name for each in await registry.namespaces.list()] == ["team-a"]
    assert (await registry.namespaces.show("team-a/x"))["versions"].value == "immutable"
    await registry.namespaces.unset(A, "versions")
    assert (await registry.namespaces.show("team-a/x"))["versions"].value == "mutable"
    await registry.namespaces.remove(A)
    assert (await registry.namespaces.show("team-a/x"))["policy"].value == "oci"
    for missing in (registry.namespaces.remove(A), registry.namespaces.unset(A, "versions")):
        with pytest.raises(NameUnknown):
            await missing


async def test_a_deep_repository_is_looked_up_whole(registry: Registry):
    """More components than one statement asks for."""
    await registry.namespaces.set(Namespace("a"), {"versions": "immutable"})
    assert (await registry.namespaces.show("a/b/c/d/e/f/g/h/i/app"))["versions"].value == "immutable"


async def test_an_impossible_value_is_refused_and_nothing_is_kept(registry: Registry):
    for pairs in ({"versions": "no"}, {"names": "warn", "port": "1"}):
        with pytest.raises(ValueError, match=r"versions is 'no': give|a namespace has no setting 'port'"):
            await registry.namespaces.set(A, pairs)
    assert await registry.namespaces.list() == []


# What they do to pushes


class Chart:
    """A chart of that version on its way to a repository; the data makes it another chart."""

    def __init__(self, version: str = "1.0.0", data: bytes = b"", name: str = "app") -> None:
        chart_yaml = f"apiVersion: v2\nname: {name}\nversion: {version}\n".encode()
        self.archive = chart({"data": data}, chart_yaml=chart_yaml, top=name)
        self.config = encoded({"apiVersion": "v2", "name": name, "version": version})
        self.version = version
        self.provenance: bytes | None = None

    async def push(self, remote: Remote, reference: str | None = None, query: str = "") -> httpx.Response:
        layers = [descriptor(self.archive, CHART_LAYER)]
        blobs = [self.config, self.archive]
        if self.provenance is not None:
            layers.append(descriptor(self.provenance, PROVENANCE_LAYER))
            blobs.append(self.provenance)
        for blob in blobs:
            await remote.push_blob(blob)
        body = encoded({"schemaVersion": 2, "config": descriptor(self.config, CHART_CONFIG), "layers": layers})
        return await remote.put_manifest(body, reference, query=query)


@pytest.fixture
def a(client: httpx.AsyncClient) -> Remote:
    return Remote(client, "team-a/app")


async def test_what_is_set_while_the_server_runs_counts_at_the_next_push_and_only_there(app, client, a):
    await app.registry.namespaces.set(A, {"versions": "immutable"})
    b = Remote(client, "team-b/app")
    for remote in (a, b):
        assert (await Chart().push(remote, "1.0.0")).status_code == 201
    assert "cannot be replaced" in error_of(await Chart(data=b"x").push(a, "1.0.0"), 409, "DENIED")
    assert (await Chart(data=b"x").push(b, "1.0.0")).status_code == 201
    await app.registry.namespaces.unset(A, "versions")
    assert (await Chart(data=b"x").push(a, "1.0.0")).status_code == 201


async def test_the_rules_of_a_namespace_hold_on_every_way_in(app, client, a):
    """By digest, by tag, by ?tag=, and by the command line's copy."""
    registry: Registry = app.registry
    await registry.namespaces.set(A, {"versions": "immutable"})
    assert (await Chart().push(a, "1.0.0")).status_code == 201
    other = Chart(data=b"x")
    for reference, query in ((None, ""), ("1.0.0", ""), (None, "?tag=1.0.0")):
        error_of(await other.push(a, reference, query), 409, "DENIED")
    assert (await other.push(Remote(client, "team-b/app"), "1.0.0")).status_code == 201
    from charthouse import transfer

    source, target = RepositoryName("team-b/app"), RepositoryName("team-a/app")
    with pytest.raises(Denied, match="cannot be replaced"):
        await transfer.copy(registry, source, Tag("1.0.0"), target, Tag("1.0.0"), Caller())


async def test_policy_charts_refuses_images_in_its_namespace_alone(app, client, a):
    await app.registry.namespaces.set(A, {"policy": "charts"})
    await a.push_blob(b"{}")
    error_of(await a.put_manifest(image(), "1"), 400, "MANIFEST_INVALID")
    await Remote(client, "team-b/app").push_image("1")


async def test_names_can_be_relaxed(app, a):
    await app.registry.namespaces.set(Namespace("team-a/app"), {"names": "warn"})
    assert (await Chart(name="other").push(a, "latest")).status_code == 201


async def test_tags_of_images_move_unless_a_namespace_says_otherwise_and_those_of_digests_always(app, client, a):
    await app.registry.namespaces.set(A, {"images": "immutable", "versions": "immutable"})
    signatures = f"sha256-{'0' * 64}.sig"
    for tag in ("1", signatures):
        await a.push_image(tag)
    other = image(annotations={"n": "2"})
    text = error_of(await a.put_manifest(other, "1"), 409, "DENIED")
    assert "team-a/app has tag 1 already, and tags cannot be replaced" in text
    assert (await a.put_manifest(image(), "1")).status_code == 201  # the same again
    assert (await a.put_manifest(other, signatures)).status_code == 201
    b = Remote(client, "team-b/app")
    await b.push_image("1")
    assert (await b.put_manifest(other, "1")).status_code == 201


async def test_rules_that_change_while_a_push_is_checked_hold_for_it(app, a, monkeypatch: pytest.MonkeyPatch):
    """Between the check and the transaction somebody fixes the versions: the transaction decides by what holds then."""
    registry: Registry = app.registry
    assert (await Chart().push(a, "1.0.0")).status_code == 201
    admit = registry._admit

    async def slow(*args: Any) -> Any:
        found = await admit(*args)
        await registry.namespaces.set(A, {"versions": "immutable"})
        return found

    monkeypatch.setattr(registry, "_admit", slow)
    error_of(await Chart(data=b"x").push(a, "1.0.0"), 409, "DENIED")


async def test_a_hint_names_the_registry_as_the_client_does(client, a):
    assert (await Chart().push(a, "1.0.0")).status_code == 201
    below = Remote(client, "team-a/app/app")
    assert "did you mean oci://localhost:5000/team-a?" in error_of(await Chart().push(below), 400, "MANIFEST_INVALID")


# Namespaces that have to be made


async def test_where_namespaces_have_to_be_made_no_push_begins_elsewhere(make_settings):
    async with running(create_app(make_settings(require_namespaces=True), durable=False)) as client:
        registry: Registry = client._transport.app.registry
        for name, namespace in (("team-a/app", "team-a"), ("app", "/")):
            remote = Remote(client, name)
            path = f"blobs/uploads/?digest={Digest.of(b'{}')}"
            for response in (
                await remote.call("POST", "blobs/uploads/"),
                await remote.call("POST", path, content=b"{}"),
            ):
                text = error_of(response, 403, "DENIED")
                assert f"there is no namespace {namespace}, and a push makes none here" in text
                assert f"charthouse namespace add {namespace}" in text
            error_of(await remote.put_manifest(image(), "1"), 403, "DENIED")
            assert await registry.namespaces.add(Namespace(namespace))
            assert not await registry.namespaces.add(Namespace(namespace))
            await remote.push_image("1")
        await Remote(client, "team-a/deep/app").push_image("1")  # it covers what is below


async def test_a_namespace_of_the_toml_file_need_not_be_made(make_settings):
    settings = dataclasses.replace(make_settings(require_namespaces=True), namespaces={A: {}})
    async with running(create_app(settings, durable=False)) as client:
        await Remote(client, "team-a/app").push_image("1")


# Rules off


def test_rules_can_be_off_in_a_registry_for_tests_alone():
    with pytest.raises(SettingsError, match="--rules on the command line is 'off': only with ephemeral"):
        load({"rules": "off"}, environ={})


async def test_with_rules_off_a_broken_chart_is_stored(make_settings):
    settings = make_settings(rules="off", ephemeral=True, policy="charts")
    async with running(create_app(settings, durable=False)) as client:
        broken = Chart(name="other")
        broken.archive = b"no archive"
        assert (await broken.push(Remote(client, "team-a/app"), "latest")).status_code == 201
        await Remote(client, "team-a/image").push_image("1")
        layerless = encoded({"schemaVersion": 2, "config": descriptor(broken.config, CHART_CONFIG), "layers": []})
        remote = Remote(client, "team-a/app")
        assert (await remote.put_manifest(layerless, "none", OCI_MANIFEST)).status_code == 201


# Signatures


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("keys"))


def signed(signer: Signer, folder: Path, version: str = "1.0.0") -> Chart:
    pushed = Chart(version)
    archive = folder / f"app-{version}.tgz"
    archive.write_bytes(pushed.archive)
    pushed.provenance = signer.sign(archive).read_bytes()
    return pushed


async def signature(registry: Registry, name: str = "team-a/app") -> tuple[str, str]:
    (found,) = await registry.list_charts(RepositoryName(name))
    return found.signature, found.signed_by


async def test_a_chart_is_verified_with_its_namespaces_keyring(app, a, client, signer, tmp_path):
    (key,) = await app.registry.namespaces.add_keys(A, signer.public_key)
    pushed = signed(signer, tmp_path)
    for name in ("team-a/app", "team-b/app"):
        assert (await pushed.push(Remote(client, name), "1.0.0")).status_code == 201
    assert await signature(app.registry) == ("verified", key.user_ids)
    assert await signature(app.registry, "team-b/app") == ("", "")  # no keyring to ask


async def test_a_demanded_signature_is_refused_in_each_way_it_can_be_wrong(app, a, signer, tmp_path):
    registry: Registry = app.registry
    await registry.namespaces.set(A, {"signatures": "verified"})
    assert "this one has no provenance file" in error_of(await Chart().push(a), 400, "MANIFEST_INVALID")
    rightly = signed(signer, tmp_path)
    assert "which is in no keyring" in error_of(await rightly.push(a), 400, "MANIFEST_INVALID")
    await registry.namespaces.add_keys(A, signer.public_key)
    tampered = signed(signer, tmp_path)
    assert tampered.provenance is not None
    tampered.provenance = tampered.provenance.replace(b"version: 1.0.0", b"version: 1.0.1", 1)
    assert "is not rightly signed" in error_of(await tampered.push(a), 400, "MANIFEST_INVALID")
    assert (await rightly.push(a, "1.0.0")).status_code == 201
    assert (await signature(registry))[0] == "verified"


async def test_without_the_verifier_a_demanded_signature_is_no_silent_pass(app, a, signer, tmp_path, monkeypatch):
    await app.registry.namespaces.set(A, {"signatures": "verified"})
    monkeypatch.setitem(__import__("sys").modules, "pysequoia", None)
    text = error_of(await signed(signer, tmp_path).push(a), 503, "UNSUPPORTED")
    assert "install charthouse[provenance]" in text


async def test_keys_are_added_listed_and_removed(registry: Registry, signer: Signer):
    (key,) = await registry.namespaces.add_keys(A, signer.public_key)
    await registry.namespaces.add_keys(A, signer.public_key)  # again is no other
    assert await registry.namespaces.list_keys() == [key]
    await registry.namespaces.remove_key(A, key.fingerprint.lower())
    with pytest.raises(NameUnknown):
        await registry.namespaces.remove_key(A, key.fingerprint)


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n"])
async def test_a_file_without_a_certificate_is_no_keyring(registry: Registry, content: bytes):
    from charthouse.helm.provenance import ProvenanceInvalid

    with pytest.raises(ProvenanceInvalid, match="it holds no OpenPGP certificate"):
        await registry.namespaces.add_keys(A, content)
    assert await registry.namespaces.list() == []


async def test_a_secret_key_is_not_stored(registry: Registry, signer: Signer):
    from charthouse.helm.provenance import ProvenanceInvalid

    with pytest.raises(ProvenanceInvalid, match="it holds a secret key"):
        await registry.namespaces.add_keys(A, signer.secret_key)
    assert await registry.namespaces.list_keys() == []


def test_every_setting_of_a_namespace_is_a_setting():
    assert set(NAMESPACE_SETTINGS) <= set(Settings.__slots__)
