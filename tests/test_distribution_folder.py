"""The folder of a distribution is taken over, and what may not come in."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from charthouse import layouts
from charthouse.core import Caller, Registry
from charthouse.errors import BlobUnknown, ManifestUnknown, VaultError
from charthouse.layouts import Carried
from charthouse.names import Digest, RepositoryName, Tag
from charthouse.settings import Settings
from support.distribution_folder import DistributionFolder, write
from support.requests import descriptor, image, index
from support.server import serving
from test_cli import Run, run  # noqa: F401 - the fixture

NAME = RepositoryName("team-a/app")
LAYER = b"a layer" * 2_000
PLAIN = image(b"{}", LAYER, mediaType=None)  # as oras and Helm leave it: nothing says that it is an image
CHILDREN = image(b"{}", b"amd"), image(b"{}", b"arm")
INDEX = index(*CHILDREN)
SIGNATURE = image(b"{}", b"signed", subject=descriptor(PLAIN))


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(policy="oci")


@pytest.fixture
def source(tmp_path: Path) -> DistributionFolder:
    source = DistributionFolder(tmp_path / "in")
    for content in (b"{}", LAYER, b"amd", b"arm", b"signed"):
        source.add_blob(NAME, content)
    source.add_manifest(NAME, PLAIN, "1.0.0", "latest")
    for manifest in (*CHILDREN, SIGNATURE):
        source.add_manifest(NAME, manifest)
    source.add_manifest(NAME, INDEX, "all")
    source.add_blob("tools", b"{}")
    source.add_manifest("tools", image(b"{}"), "1")
    return source


async def take(registry: Registry, folder: Path, to: str = "") -> list[Carried]:
    return [each async for each in layouts.take(registry, layouts.find(folder), to, Caller())]


async def content(registry: Registry, reference: Tag | Digest) -> bytes:
    return (await registry.pulls.get_manifest(NAME, reference)).content


async def test_tags_and_what_has_none_come_in_with_the_same_bytes(registry: Registry, source: DistributionFolder):
    carried = await take(registry, source.root)
    assert [each.fault for each in carried] == [""] * 7
    assert await registry.list_tags(NAME, "", 10) == (["1.0.0", "all", "latest"], False)
    for tag, manifest in (("1.0.0", PLAIN), ("latest", PLAIN), ("all", INDEX)):
        assert await content(registry, Tag(tag)) == manifest
    for manifest in (*CHILDREN, SIGNATURE):
        assert await content(registry, Digest.of(manifest)) == manifest
    referrers, _ = await registry.list_referrers(NAME, Digest.of(PLAIN), None, "", 10)
    assert [each.digest for each in referrers] == [Digest.of(SIGNATURE)]
    blob = await registry.pulls.get_blob(NAME, Digest.of(LAYER))
    assert b"".join([piece async for piece in blob.read(0, blob.size)]) == LAYER
    assert (await registry.list_tags(RepositoryName("tools"), "", 10))[0] == ["1"]


async def test_a_namespace_may_be_put_before_all_of_it(registry: Registry, source: DistributionFolder):
    await take(registry, source.root, "old")
    names, _ = await registry.list_repositories("", 10, Caller())
    assert names == ["old/team-a/app", "old/tools"]


async def test_what_was_deleted_stays_deleted_though_its_bytes_are_there(
    registry: Registry, source: DistributionFolder
):
    """Distribution takes the links away, and the bytes when somebody collects its garbage."""
    source.revision_link(NAME, Digest.of(SIGNATURE)).unlink()
    source.layer_link(NAME, Digest.of(b"arm")).unlink()
    source.revision_link("tools", Digest.of(image(b"{}"))).unlink()
    faults = {each.name: each.fault for each in await take(registry, source.root) if each.fault}
    assert set(faults) == {f"{NAME} 'all'", f"{NAME} '{Digest.of(CHILDREN[1])}'", "tools '1'"}
    assert f"{NAME} has no blob {Digest.of(b'arm')}: it was deleted" in faults[f"{NAME} 'all'"]
    assert "tools has no manifest" in faults["tools '1'"]
    for missing in (Tag("all"), Digest.of(SIGNATURE), Digest.of(CHILDREN[1])):
        with pytest.raises(ManifestUnknown):
            await content(registry, missing)
    assert await content(registry, Tag("1.0.0")) == PLAIN


async def test_another_repositorys_blob_is_not_handed_on(registry: Registry, source: DistributionFolder):
    """The store of blobs is one for all; a manifest that only names a digest does not get it."""
    source.add_manifest("tools", image(b"{}", LAYER), "2")
    (fault,) = [each for each in await take(registry, source.root) if each.fault]
    assert fault.name == "tools '2'"
    with pytest.raises(BlobUnknown):
        await registry.pulls.get_blob(RepositoryName("tools"), Digest.of(LAYER))


async def hostile(registry: Registry, source: DistributionFolder, name: str, expected: str) -> None:
    """One entry is refused, with a line, and everything else comes in."""
    carried = await take(registry, source.root)
    (fault,) = [each for each in carried if each.fault]
    assert (fault.name, expected in fault.fault) == (name, True), fault
    assert "\n" not in fault.fault
    with pytest.raises(ManifestUnknown):
        await content(registry, Tag("latest"))
    assert await content(registry, Tag("all")) == INDEX


LINKS = {
    "no digest": (b"../../../../../../etc/passwd", "passwd' is not of the form"),
    "empty": (b"", "of an unreadable link"),  # distribution issue 4478: after a power cut
    "no text": (b"\xff" * 70, "of an unreadable link"),
    "long": (b"sha256:" + b"a" * 10_000_000, "of an unreadable link"),
    "of what is not there": (Digest.of(b"nowhere").encode(), "has no manifest"),
    "of a blob": (Digest.of(LAYER).encode(), "has no manifest"),
}


@pytest.mark.parametrize(("link", "expected"), LINKS.values(), ids=LINKS)
async def test_a_link_that_leads_nowhere_is_one_line(
    registry: Registry, source: DistributionFolder, link: bytes, expected: str
):
    source.tag_link(NAME, "latest").write_bytes(link)
    await hostile(registry, source, f"{NAME} 'latest'", expected)


async def test_a_tag_that_cannot_be_is_one_line(registry: Registry, source: DistributionFolder):
    source.tag_link(NAME, "latest").parents[1].rename(source.tag_link(NAME, "-latest").parents[1])
    await hostile(registry, source, f"{NAME} '-latest'", "tag '-latest' is not valid")


async def test_links_of_the_file_system_are_not_followed(
    registry: Registry, source: DistributionFolder, tmp_path: Path
):
    write(tmp_path / "outside", Digest.of(PLAIN).encode())
    link = source.tag_link(NAME, "latest")
    link.unlink()
    link.symlink_to(tmp_path / "outside")
    other = source.repository("other/app")
    other.parent.mkdir()
    other.symlink_to(source.repository(NAME))
    tags = source.repository("third/_manifests/tags")
    tags.parent.mkdir(parents=True)
    tags.symlink_to(tmp_path)
    await hostile(registry, source, f"{NAME} 'latest'", "of an unreadable link")
    assert (await registry.list_repositories("", 10, Caller()))[0] == [NAME, "tools"]


@pytest.mark.parametrize("damage", ["other bytes", "a link", "nothing"])
async def test_a_manifest_whose_bytes_are_not_its_own_is_refused(
    registry: Registry, source: DistributionFolder, tmp_path: Path, damage: str
):
    data = source.data(Digest.of(PLAIN))
    data.unlink()
    if damage == "other bytes":
        data.write_bytes(image(b"{}"))
    if damage == "a link":
        write(tmp_path / "outside", PLAIN)
        data.symlink_to(tmp_path / "outside")
    carried = await take(registry, source.root)
    assert {each.name for each in carried if each.fault} == {f"{NAME} '1.0.0'", f"{NAME} 'latest'"}
    assert (await registry.list_tags(NAME, "", 10))[0] == ["all"]


@pytest.mark.parametrize("damage", ["other bytes", "a link", "nothing"])
async def test_a_blob_whose_bytes_are_not_its_own_is_refused_with_all_that_names_it(
    registry: Registry, source: DistributionFolder, tmp_path: Path, damage: str
):
    data = source.data(Digest.of(LAYER))
    data.unlink()
    if damage == "other bytes":
        data.write_bytes(LAYER[:-1] + b"!")
    if damage == "a link":
        write(tmp_path / "outside", LAYER)
        data.symlink_to(tmp_path / "outside")
    carried = await take(registry, source.root)
    assert {each.name for each in carried if each.fault} == {f"{NAME} '1.0.0'", f"{NAME} 'latest'"}
    with pytest.raises(BlobUnknown):
        await registry.pulls.get_blob(NAME, Digest.of(LAYER))
    assert await content(registry, Tag("all")) == INDEX


def test_a_folder_of_neither_kind_is_one_line(tmp_path: Path):
    (tmp_path / "docker/registry/v2").mkdir(parents=True)
    with pytest.raises(VaultError, match="nor is it the root folder of distribution, with docker/registry/v2/repos"):
        layouts.find(tmp_path)


def test_a_person_takes_it_over(source: DistributionFolder, tmp_path: Path, run: Run):  # noqa: F811 - the fixture
    data = ["--data", tmp_path / "data"]
    with serving(tmp_path):
        pass
    source.tag_link(NAME, "latest").write_bytes(b"")
    done = run("import", source.root, *data, status=1)
    assert done.stdout.splitlines()[-1] == f"imported from {source.root}: 6 of 7"
    assert f"refused {NAME} 'latest': digest 'of an unreadable link' is not" in done.stdout
    assert json.loads(run("charts", "--json", *data).stdout) == []  # no chart is in it
