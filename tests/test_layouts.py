"""OCI image layouts: out of a registry and into another, and what may not come in."""

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from charthouse import layouts
from charthouse.composition import open_registry
from charthouse.core import Caller, Registry
from charthouse.errors import VaultError
from charthouse.layouts import Carried
from charthouse.manifest import OCI_INDEX, OCI_MANIFEST
from charthouse.names import Digest, Reference, RepositoryName, Tag
from charthouse.settings import Settings, load
from charthouse.transfer import push_chart
from support.charts import pack
from support.requests import descriptor, image, index
from test_cli import Run, run  # noqa: F401 - a fixture

NAME = RepositoryName("team-a/app")
LARGE = b"a layer" * 300_000  # more than is hashed in one piece
CHILDREN = image(b"{}", b"amd"), image(b"{}", b"arm")
INDEX = index(*CHILDREN)
SIGNATURE = image(b"{}", b"signed", subject=descriptor(INDEX, OCI_INDEX), artifactType="application/vnd.signature")
OF_A_CHILD = image(b"{}", b"a bill", subject=descriptor(CHILDREN[0], OCI_MANIFEST))
PLAIN = image(b"{}", LARGE)


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(policy="oci")


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Registry]:
    """Another registry, with nothing in it."""
    settings = load({"data": tmp_path / "target", "policy": "oci"}, environ={})
    registry = await open_registry(settings, durable=False)
    yield registry
    await registry.close()


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def fill(registry: Registry) -> None:
    for content in (b"{}", b"amd", b"arm", b"signed", b"a bill", LARGE):
        await registry.push_blob(NAME, Caller(), Digest.of(content), pieces(content))
    for manifest in (*CHILDREN, SIGNATURE, OF_A_CHILD):
        await registry.push_manifest(NAME, Digest.of(manifest), manifest, OCI_MANIFEST, Caller())
    await registry.push_manifest(NAME, Tag("1.0.0"), INDEX, OCI_INDEX, Caller(), (Tag("latest"),))
    await registry.push_manifest(NAME, Tag("plain"), PLAIN, OCI_MANIFEST, Caller())


async def export(registry: Registry, folder: Path, *names: tuple[RepositoryName, Reference | None]) -> list[Carried]:
    return [each async for each in layouts.export(registry, await layouts.select(registry, names), folder)]


async def take(registry: Registry, folder: Path, to: str = "") -> list[Carried]:
    return [each async for each in layouts.take(registry, layouts.find(folder), to, Caller())]


async def read(registry: Registry, digest: Digest) -> bytes:
    blob = await registry.pulls.get_blob(NAME, digest)
    return b"".join([piece async for piece in blob.read(0, blob.size)])


def faults(carried: list[Carried]) -> list[str]:
    return [each.fault for each in carried if each.fault]


async def test_what_is_exported_and_imported_is_the_same(registry: Registry, target: Registry, tmp_path: Path):
    """Bytes, tags, children of an index, what refers to it and to its children."""
    await fill(registry)
    await export(registry, tmp_path / "out")
    assert faults(await take(target, tmp_path / "out")) == []
    assert await target.list_tags(NAME, "", 10) == (["1.0.0", "latest", "plain"], False)
    for reference, content in (("1.0.0", INDEX), ("latest", INDEX), ("plain", PLAIN)):
        assert (await target.pulls.get_manifest(NAME, Tag(reference))).content == content
    for content in (*CHILDREN, SIGNATURE, OF_A_CHILD):
        assert (await target.pulls.get_manifest(NAME, Digest.of(content))).content == content
    for subject, referrer in ((INDEX, SIGNATURE), (CHILDREN[0], OF_A_CHILD)):
        found, _ = await target.list_referrers(NAME, Digest.of(subject), None, "", 10)
        assert [each.digest for each in found] == [Digest.of(referrer)]
    assert await read(target, Digest.of(LARGE)) == LARGE


async def test_an_export_is_an_oci_image_layout(registry: Registry, tmp_path: Path):
    """Each file has the digest that is its name; the index has tags by name and referrers without one."""
    await fill(registry)
    await export(registry, tmp_path / "out")
    folder = tmp_path / "out" / NAME
    assert json.loads((folder / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    for path in folder.glob("blobs/*/*"):
        assert Digest.of(path.read_bytes()) == f"{path.parent.name}:{path.name}"
    entries = json.loads((folder / "index.json").read_bytes())["manifests"]
    named = sorted((each.get("annotations", {}).get(layouts.REF_NAME, ""), each["digest"]) for each in entries)
    untagged = sorted(("", Digest.of(manifest)) for manifest in (SIGNATURE, OF_A_CHILD))
    tagged = [("1.0.0", Digest.of(INDEX)), ("latest", Digest.of(INDEX)), ("plain", Digest.of(PLAIN))]
    assert named == untagged + tagged
    assert {path.name for path in folder.iterdir()} == {"oci-layout", "index.json", "blobs"}


async def test_one_version_is_exported_alone_and_no_layout_is_written_over(registry: Registry, tmp_path: Path):
    await fill(registry)
    carried = await export(registry, tmp_path / "out", (NAME, Tag("plain")), (NAME, Tag("none")))
    assert [(each.name, bool(each.fault)) for each in carried] == [(f"{NAME}:plain", False), (f"{NAME}:none", True)]
    assert len(list((tmp_path / "out").glob("**/sha256/*"))) == 3
    with pytest.raises(VaultError, match="is a layout already"):
        await export(registry, tmp_path / "out")


async def test_bytes_that_went_bad_in_a_layout_are_refused_and_the_rest_comes_in(
    registry: Registry, target: Registry, tmp_path: Path
):
    await fill(registry)
    await export(registry, tmp_path / "out")
    for content in (LARGE, CHILDREN[1]):
        blob = tmp_path / "out" / NAME / "blobs/sha256" / Digest.of(content).hex
        blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    refused = faults(await take(target, tmp_path / "out"))
    assert len(refused) == 3
    assert any(f"not {Digest.of(LARGE)}" in fault for fault in refused)
    assert any(f"manifest {Digest.of(CHILDREN[1])} is damaged" in fault for fault in refused)
    assert (await target.pulls.get_manifest(NAME, Digest.of(SIGNATURE))).content == SIGNATURE


def _layout(folder: Path, *entries: Any) -> Path:
    (folder / "blobs/sha256").mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    return folder


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"digest": "sha256:../../../secret"}, "must have 64 lower-case hexadecimal characters"),
        ({"digest": "../..:x"}, "has the algorithm '../..'"),
        ({"digest": 5}, "'digest' of an entry of index.json is not a string"),
        ("text", "is not a descriptor"),
        ({"digest": Digest.of(b"x")}, f"there is no file blobs/sha256/{Digest.of(b'x').hex}"),
        ({"digest": Digest.of(b"x"), "annotations": {layouts.REF_NAME: "../a"}}, "tag '../a' is not valid"),
    ],
)
async def test_a_hostile_entry_is_one_line(entry: Any, expected: str, target: Registry, tmp_path: Path):
    _layout(tmp_path / "in/app", entry)
    (fault,) = faults(await take(target, tmp_path / "in"))
    assert expected in fault


async def test_links_in_a_layout_are_not_followed(target: Registry, tmp_path: Path):
    """A blob, the folder of all, and a folder of another layout."""
    for number, link in enumerate(("blobs/sha256", f"blobs/sha256/{Digest.of(PLAIN).hex}")):
        folder = _layout(tmp_path / f"in/app{number}", descriptor(PLAIN, OCI_MANIFEST))
        outside = tmp_path / f"outside{number}"
        if number:
            outside.write_bytes(PLAIN)
        else:
            (folder / link).rmdir()
            outside.mkdir()
            (outside / Digest.of(PLAIN).hex).write_bytes(PLAIN)
        (folder / link).symlink_to(outside)
    _layout(tmp_path / "elsewhere/other")
    (tmp_path / "in/elsewhere").symlink_to(tmp_path / "elsewhere")
    carried = await take(target, tmp_path / "in")
    assert [each.name.split()[0] for each in carried] == ["app0", "app1"]
    assert all("is a link, or behind one" in fault for fault in faults(carried))


async def test_indexes_within_indexes_have_an_end(target: Registry, tmp_path: Path):
    manifest, kind = index(), OCI_INDEX
    folder = _layout(tmp_path / "in/app")
    for _ in range(layouts.DEPTH_LIMIT + 2):
        (folder / "blobs/sha256" / Digest.of(manifest).hex).write_bytes(manifest)
        last, manifest = manifest, index(manifest, media_type=kind)
    (folder / "index.json").write_text(json.dumps({"manifests": [descriptor(last, kind)]}))
    (fault,) = faults(await take(target, tmp_path / "in"))
    assert "is an index within more than 32 others" in fault


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "[]", '{"manifests": 5}'])
async def test_an_index_that_cannot_be_read_is_one_line(content: str, target: Registry, tmp_path: Path):
    (_layout(tmp_path / "in/app") / "index.json").write_text(content)
    (fault,) = faults(await take(target, tmp_path / "in"))
    assert "index.json" in fault
    with pytest.raises(VaultError, match="there is no OCI image layout"):
        layouts.find(tmp_path / "in/app/blobs")


async def test_a_chart_that_breaks_a_rule_is_listed_and_the_rest_is_imported(
    registry: Registry,
    settings: Settings,
    tmp_path: Path,
    run: Run,  # noqa: F811
):
    """The command line, both ways: the chart app may not be called other."""
    archive = pack(tmp_path, "app", "1.0.0")
    await push_chart(registry, "team-a", archive.read_bytes(), None, datetime.now(UTC), Caller())
    flags = ["--data", settings.data, *(["--database", settings.database] if settings.database else [])]
    done = run("export", "--to", tmp_path / "out", *flags)
    assert "exported team-a/app:1.0.0" in done.stderr
    assert done.stdout == f"exported to {tmp_path}/out: 1 of 1\n"
    (tmp_path / "out/team-a/app").rename(tmp_path / "out/other")
    await export(registry, tmp_path / "out")
    done = run("import", tmp_path / "out", "--to", "prod", *flags, status=1)
    assert "refused prod/other '1.0.0': " in done.stdout
    assert done.stdout.endswith(f"imported from {tmp_path}/out: 1 of 2\n")
    assert await registry.list_tags(RepositoryName("prod/team-a/app"), "", 10) == (["1.0.0"], False)
