"""Content management: end-9 and end-10."""

import pytest

from charthouse.manifest import OCI_MANIFEST
from charthouse.names import Digest
from support.requests import Remote, descriptor, error_of, image

pytest_plugins = ("support.shared",)

ABSENT = "sha256:" + "0" * 64


async def test_end_9_a_tag_goes_alone(remote):
    body = await remote.push_image("1.0")
    await remote.push_manifest(body, "latest")
    response = await remote.call("DELETE", "manifests/1.0")
    assert (response.status_code, response.content) == (202, b"")
    assert await remote.statuses("manifests/1.0", "manifests/latest", f"manifests/{Digest.of(body)}") == [404, 200, 200]
    assert (await remote.call("GET", "tags/list")).json()["tags"] == ["latest"]


async def test_end_9_a_manifest_goes_with_all_its_tags_and_leaves_its_blobs(remote):
    body, other = await remote.push_image("1.0"), await remote.push_image("other", annotations={"an": "other"})
    await remote.push_manifest(body, "latest")
    assert (await remote.call("DELETE", f"manifests/{Digest.of(body)}")).status_code == 202
    paths = ["manifests/1.0", "manifests/latest", f"manifests/{Digest.of(body)}", f"blobs/{Digest.of(b'{}')}"]
    assert await remote.statuses(*paths) == [404, 404, 404, 200]
    assert (await remote.call("GET", "tags/list")).json()["tags"] == ["other"]
    assert (await remote.call("GET", "manifests/other")).content == other


async def test_end_9_what_was_deleted_may_be_pushed_again(remote):
    body = await remote.push_image("1.0")
    for _ in range(2):
        await remote.call("DELETE", f"manifests/{Digest.of(body)}")
        await remote.push_manifest(body, "1.0")
        assert (await remote.call("GET", "manifests/1.0")).content == body


async def test_end_9_a_child_may_go_before_its_index(remote):
    child = await remote.push_image()
    parent = await remote.push_index(child, tag="index")
    assert (await remote.call("DELETE", f"manifests/{Digest.of(child)}")).status_code == 202
    assert (await remote.call("GET", "manifests/index")).content == parent


async def test_end_10_a_blob_that_nothing_names_goes(remote):
    for content in (b"small", b"large" * 10_000):
        digest = await remote.push_blob(content)
        response = await remote.call("DELETE", f"blobs/{digest}")
        assert (response.status_code, response.content) == (202, b"")
        assert await remote.statuses(f"blobs/{digest}") == [404]
        await remote.push_blob(content)
        assert (await remote.call("GET", f"blobs/{digest}")).content == content


async def test_end_10_a_blob_that_a_manifest_names_stays_and_the_answer_names_the_manifest(remote):
    config, layer = await remote.push_blob(b"{}"), await remote.push_blob(b"layer")
    manifest = await remote.push_manifest(image(b"{}", b"layer"), "1.0")
    for digest in (config, layer):
        response = await remote.call("DELETE", f"blobs/{digest}")
        message = error_of(response, 405, "UNSUPPORTED")
        assert manifest in message
        assert digest in message
        assert await remote.statuses(f"blobs/{digest}") == [200]
    await remote.call("DELETE", f"manifests/{manifest}")
    for digest in (config, layer):
        assert (await remote.call("DELETE", f"blobs/{digest}")).status_code == 202


async def test_end_10_a_subject_and_a_child_are_no_blobs_that_are_named(remote):
    child = await remote.push_image()
    await remote.push_index(child, tag="index", subject=descriptor(child, OCI_MANIFEST))
    await remote.push_blob(child)
    assert (await remote.call("DELETE", f"blobs/{Digest.of(child)}")).status_code == 202


async def test_end_10_a_blob_goes_from_one_repository_only(remote):
    other = Remote(remote.client, remote.name + "/other")
    for repository in (remote, other):
        digest = await repository.push_blob(b"large" * 10_000)
    await remote.call("DELETE", f"blobs/{digest}")
    assert (await remote.statuses(f"blobs/{digest}"), await other.statuses(f"blobs/{digest}")) == ([404], [200])
    await other.push_blob(b"large" * 10_000)  # CVE-2026-35172: nobody brings it back by touching it elsewhere
    assert await remote.statuses(f"blobs/{digest}") == [404]
    assert (await other.call("GET", f"blobs/{digest}")).content == b"large" * 10_000


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        pytest.param("manifests/2.0", 404, "MANIFEST_UNKNOWN", id="end-9-tag"),
        pytest.param(f"manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN", id="end-9-digest"),
        pytest.param("manifests/-bad", 400, "MANIFEST_INVALID", id="end-9-bad-tag"),
        pytest.param("manifests/sha256:bad", 400, "DIGEST_INVALID", id="end-9-bad-digest"),
        pytest.param(f"blobs/{ABSENT}", 404, "BLOB_UNKNOWN", id="end-10-digest"),
        pytest.param("blobs/bad", 400, "DIGEST_INVALID", id="end-10-bad-digest"),
    ],
)
async def test_what_is_not_here_cannot_be_deleted(remote, path, status, code):
    if status == 404:
        assert remote.name in error_of(await remote.call("DELETE", path), 404, "NAME_UNKNOWN")
    await remote.push_image("1.0")
    error_of(await remote.call("DELETE", path), status, code)
    assert (await remote.call("GET", "tags/list")).json()["tags"] == ["1.0"]


async def test_what_is_in_another_repository_cannot_be_deleted_from_here(remote):
    other = Remote(remote.client, remote.name + "/other")
    body = await other.push_image("1.0")
    await remote.push_blob(b"mine")
    error_of(await remote.call("DELETE", "manifests/1.0"), 404, "MANIFEST_UNKNOWN")
    error_of(await remote.call("DELETE", f"manifests/{Digest.of(body)}"), 404, "MANIFEST_UNKNOWN")
    error_of(await remote.call("DELETE", f"blobs/{Digest.of(b'{}')}"), 404, "BLOB_UNKNOWN")
    assert await other.statuses("manifests/1.0", f"blobs/{Digest.of(b'{}')}") == [200, 200]
