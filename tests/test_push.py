"""Push: end-4a, end-4b, end-5, end-6, end-7a, end-7b, end-11, end-13, end-14, each as a client sees it."""

import re

import pytest

from charthouse.app import create_app
from charthouse.manifest import CHART_CONFIG, CHART_LAYER, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from charthouse.names import Digest
from support.requests import LAYER_TYPE, Remote, descriptor, encoded, error_of, image, index, pieces, running

pytest_plugins = ("support.shared",)

# Of at most 4,096 bytes a blob is a row, above a file: both must look the same.
SIZES = [0, 1, 4096, 4097, 3_000_000]
ABSENT = "sha256:" + "0" * 64


def content_of(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + b"x" * (size % 251)


# --- end-4a, end-6: POST, then PUT ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["blobs/uploads/", "blobs/uploads"])
async def test_end_4a_an_upload_begins(remote, path):
    response = await remote.call("POST", path)
    assert (response.status_code, response.content) == (202, b"")
    location = response.headers["location"]
    assert re.fullmatch(rf"/v2/{remote.name}/blobs/uploads/[\w-]+", location)  # relative
    assert location.endswith("/" + response.headers["docker-upload-uuid"])
    assert response.headers["range"] == "0-0"


async def test_end_4a_no_two_uploads_are_one(remote):
    assert len({await remote.start_upload() for _ in range(20)}) == 20


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_end_6_a_blob_in_two_requests(remote, algorithm, size):
    content = content_of(size)
    digest = Digest.of(content, algorithm)
    response = await remote.finish(await remote.start_upload(), digest, content)
    assert response.status_code == 201
    assert response.headers["location"] == remote.url(f"blobs/{digest}")
    assert response.headers["docker-content-digest"] == digest
    assert (await remote.client.get(response.headers["location"])).content == content


@pytest.mark.parametrize("size", SIZES)
async def test_end_4b_a_blob_in_one_request(remote, size):
    content = content_of(size)
    digest = Digest.of(content)
    response = await remote.call("POST", "blobs/uploads/", params={"digest": digest}, content=content)
    assert response.status_code == 201
    assert response.headers["location"] == remote.url(f"blobs/{digest}")
    assert response.headers["docker-content-digest"] == digest
    assert (await remote.client.get(response.headers["location"])).content == content


async def test_a_blob_without_a_content_length_is_pushed(remote):
    content = content_of(10_000)
    digest = Digest.of(content)
    location = await remote.start_upload()
    response = await remote.client.put(
        location, params={"digest": digest}, content=pieces(content[:5000], content[5000:])
    )
    assert response.status_code == 201
    assert (await remote.call("GET", f"blobs/{digest}")).content == content


@pytest.mark.parametrize("size", SIZES)
async def test_a_blob_that_is_here_already_may_be_pushed_again(remote, size):
    content = content_of(size)
    for _ in range(2):
        await remote.push_blob(content)
    other = Remote(remote.client, remote.name + "/other")
    assert (await other.call("GET", f"blobs/{Digest.of(content)}")).status_code == 404
    await other.push_blob(content)
    for repository in (remote, other):
        assert (await repository.call("GET", f"blobs/{Digest.of(content)}")).content == content


@pytest.mark.parametrize("size", SIZES)
async def test_a_client_that_missed_the_answer_may_repeat_the_request(remote, size):
    content = content_of(size)
    location = await remote.start_upload()
    for _ in range(2):
        assert (await remote.finish(location, Digest.of(content), content)).status_code == 201


# --- end-5: chunks ----------------------------------------------------------------------------------------------------


async def test_end_5_chunks_are_joined_and_each_answer_says_how_far_it_is(remote):
    content = content_of(30_000)
    location = await remote.start_upload()
    for first, last in ((0, 9_999), (10_000, 19_999)):
        response = await remote.patch(location, content[first : last + 1], f"{first}-{last}")
        assert (response.status_code, response.headers["range"]) == (202, f"0-{last}")
        location = response.headers["location"]
    response = await remote.finish(location, Digest.of(content), content[20_000:], "20000-29999")
    assert response.status_code == 201
    assert (await remote.call("GET", f"blobs/{Digest.of(content)}")).content == content


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("sizes", [(1, 1), (0, 5), (5, 0), (100, 5000), (5000, 100), (2_000_000, 2_000_000)], ids=str)
async def test_end_5_a_stream_and_a_closing_put_with_or_without_bytes(remote, sizes, algorithm):
    content = content_of(sum(sizes))
    location = await remote.start_upload()
    assert (await remote.patch(location, content[: sizes[0]])).status_code == 202
    response = await remote.finish(location, Digest.of(content, algorithm), content[sizes[0] :])
    assert response.status_code == 201
    assert (await remote.call("GET", f"blobs/{Digest.of(content, algorithm)}")).content == content


@pytest.mark.parametrize("spelling", ["0-9", "bytes 0-9/20", "bytes 0-9/*", " 0-9 "])
async def test_end_5_a_content_range_in_any_spelling_that_clients_use(remote, spelling):
    assert (await remote.patch(await remote.start_upload(), b"0123456789", spelling)).status_code == 202


@pytest.mark.parametrize("wrong", ["0-9", "5-14", "11-20", "20-29", "9223372036854775807-9223372036854775807"])
async def test_end_5_a_chunk_out_of_order_is_416_and_the_upload_lives(remote, wrong):
    content = b"0123456789abcdefghij"
    location = await remote.start_upload()
    await remote.patch(location, content[:10], "0-9")
    for refused in (
        await remote.patch(location, content[:10], wrong),
        await remote.finish(location, Digest.of(content), content[:10], wrong),  # end-6
    ):
        message = error_of(refused, 416, "BLOB_UPLOAD_INVALID")
        assert "10 bytes are here: continue there" in message
        assert refused.headers["range"] == "0-9"
    status = await remote.client.get(location)
    assert (status.status_code, status.headers["range"]) == (204, "0-9")
    assert (await remote.patch(location, content[10:], "10-19")).status_code == 202
    assert (await remote.finish(location, Digest.of(content))).status_code == 201
    assert (await remote.call("GET", f"blobs/{Digest.of(content)}")).content == content


async def test_end_5_the_first_chunk_must_begin_at_the_beginning(remote):
    location = await remote.start_upload()
    error_of(await remote.patch(location, b"56789", "5-9"), 416, "BLOB_UPLOAD_INVALID")
    error_of(await remote.finish(location, Digest.of(b"56789"), b"56789", "5-9"), 416, "BLOB_UPLOAD_INVALID")
    assert (await remote.finish(location, Digest.of(b"01234"), b"01234", "0-4")).status_code == 201


@pytest.mark.parametrize("body", [b"", b"012", b"0123456789"])
async def test_end_5_a_chunk_of_another_length_than_it_says_is_not_kept(remote, body):
    location = await remote.start_upload()
    await remote.patch(location, b"first", "0-4")
    for refused in (
        await remote.patch(location, body, "5-9"),
        await remote.finish(location, Digest.of(b"first" + body), body, "5-9"),
    ):
        message = error_of(refused, 400, "SIZE_INVALID")
        assert "5-9" in message
        assert f"{len(body)} bytes" in message
    assert (await remote.client.get(location)).headers["range"] == "0-4"
    assert (await remote.finish(location, Digest.of(b"first12345"), b"12345", "5-9")).status_code == 201


# --- end-13, end-14: status and cancel --------------------------------------------------------------------------------


@pytest.mark.parametrize(("received", "range_"), [(0, "0-0"), (1, "0-0"), (2, "0-1"), (100_000, "0-99999")])
async def test_end_13_an_upload_says_how_far_it_is(remote, received, range_):
    location = await remote.start_upload()
    await remote.patch(location, content_of(received))
    response = await remote.client.get(location)
    assert (response.status_code, response.content) == (204, b"")
    assert (response.headers["range"], response.headers["location"]) == (range_, location)


@pytest.mark.parametrize("received", [0, 10, 10_000])
async def test_end_14_a_cancelled_upload_is_gone(remote, received):
    location = await remote.start_upload()
    if received:
        await remote.patch(location, content_of(received))
    response = await remote.client.delete(location)
    assert (response.status_code, response.content) == (204, b"")
    await assert_ended(remote, location)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("size", [10, 10_000])
async def test_an_upload_in_chunks_that_was_finished_is_over(remote, size, known):
    content = content_of(size) + remote.name.encode()
    if known:
        await remote.push_blob(content)
    location = await remote.start_upload()
    await remote.patch(location, content)
    assert (await remote.finish(location, Digest.of(content))).status_code == 201
    await assert_ended(remote, location)
    assert (await remote.call("GET", f"blobs/{Digest.of(content)}")).content == content


async def assert_ended(remote, location):
    for response in (
        await remote.client.get(location),
        await remote.patch(location, b"more"),
        await remote.finish(location, Digest.of(b""), b""),
        await remote.finish(location, Digest.of(b"more"), b"more"),
        await remote.client.delete(location),
    ):
        assert "begin again" in error_of(response, 404, "BLOB_UPLOAD_UNKNOWN")
    assert await remote.statuses(f"blobs/{Digest.of(b'more')}") == [404]


# --- end-11: mount ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def source(remote):
    """A repository that holds `CONTENT`."""
    source = Remote(remote.client, remote.name + "/source")
    await source.push_blob(remote.name.encode())
    return source


async def mount(remote, digest, **query):
    return await remote.call("POST", "blobs/uploads/", params={"mount": digest, **query})


@pytest.mark.parametrize("named", [True, False], ids=["from", "anonymous"])
async def test_end_11_a_blob_is_mounted_without_its_bytes(remote, source, named):
    digest = Digest.of(remote.name.encode())
    response = await mount(remote, digest, **({"from": source.name} if named else {}))
    assert response.status_code == 201
    assert response.headers["location"] == remote.url(f"blobs/{digest}")
    assert response.headers["docker-content-digest"] == digest
    assert (await remote.client.get(response.headers["location"])).content == remote.name.encode()


async def test_end_11_what_is_not_there_begins_an_upload_and_says_nothing_of_why(remote, source):
    digest = Digest.of(remote.name.encode())
    answers = [
        await mount(remote, ABSENT),
        await mount(remote, ABSENT, **{"from": source.name}),
        await mount(remote, digest, **{"from": "no/such/repository"}),
        await mount(remote, digest, **{"from": "Not A Name"}),
        await mount(remote, digest, **{"from": remote.name}),
    ]
    await remote.push_blob(b"now it is there")
    answers.append(await mount(remote, digest, **{"from": remote.name}))
    shapes = {
        (answer.status_code, answer.content, tuple(answer.headers), answer.headers["range"]) for answer in answers
    }
    assert len(shapes) == 1
    assert {answer.status_code for answer in answers} == {202}
    assert (await remote.call("GET", f"blobs/{digest}")).status_code == 404
    for answer in answers:
        assert (await remote.finish(answer.headers["location"], digest, remote.name.encode())).status_code == 201


async def test_end_11_a_mount_is_the_repositorys_own(remote, source):
    digest = Digest.of(remote.name.encode())
    await mount(remote, digest, **{"from": source.name})
    assert (await source.call("DELETE", f"blobs/{digest}")).status_code == 202
    assert await source.statuses(f"blobs/{digest}") == [404]
    assert await remote.statuses(f"blobs/{digest}") == [200]
    assert (await mount(source, digest, **{"from": source.name})).status_code == 202


async def test_end_11_what_cannot_be_a_digest_is_no_mount(remote):
    error_of(await mount(remote, "sha256:abc"), 400, "DIGEST_INVALID")


# --- end-7a, end-7b: manifests ----------------------------------------------------------------------------------------


@pytest.fixture
async def parts(remote):
    """A repository that holds what the manifests below name."""
    for content in (b"{}", b"layer"):
        await remote.push_blob(content)
    return remote


IMAGE = image(b"{}", b"layer")
DOCKER = image(b"{}", b"layer", mediaType=DOCKER_MANIFEST)


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        pytest.param(IMAGE, OCI_MANIFEST, id="image"),
        pytest.param(image(b"{}", mediaType=None), OCI_MANIFEST, id="image-without-mediaType-and-layers"),
        pytest.param(image(b"{}", b"layer", artifactType="application/x", custom=[1.50]), OCI_MANIFEST, id="artifact"),
        pytest.param(image(b"{}", config=descriptor(b"{}", data="e30=")), OCI_MANIFEST, id="with-data"),
        pytest.param(DOCKER, DOCKER_MANIFEST, id="docker"),
        pytest.param(index(), OCI_INDEX, id="empty-index"),
        pytest.param(index(mediaType=DOCKER_LIST), DOCKER_LIST, id="docker-list"),
        pytest.param(b'{"any": "thing"}', "application/vnd.example.v1+json", id="any-type"),
        pytest.param(
            image(b"{}", layers=[descriptor(b"far away", urls=["https://x.example"])]),
            OCI_MANIFEST,
            id="non-distributable",
        ),
    ],
)
@pytest.mark.parametrize("by", ["tag", "sha256", "sha512"])
async def test_end_7a_a_manifest_is_kept_byte_for_byte_under_its_digest(parts, by, body, media_type):
    digest = Digest.of(body, "sha256" if by == "tag" else by)
    response = await parts.put_manifest(body, "1.0" if by == "tag" else digest, media_type)
    assert (response.status_code, response.content) == (201, b"")
    assert response.headers["location"] == parts.url(f"manifests/{digest}")
    assert response.headers["docker-content-digest"] == digest
    assert "oci-subject" not in response.headers
    assert "oci-tag" not in response.headers
    for reference in [digest] + (["1.0"] if by == "tag" else []):
        got = await parts.call("GET", f"manifests/{reference}")
        assert (got.content, got.headers["content-type"]) == (body, media_type)
        assert got.headers["docker-content-digest"] == digest


async def test_end_7a_parameters_of_the_content_type_are_no_part_of_it(parts):
    await parts.push_manifest(IMAGE, "1.0", OCI_MANIFEST + "; charset=utf-8")
    assert (await parts.call("HEAD", "manifests/1.0")).headers["content-type"] == OCI_MANIFEST


async def test_end_7a_a_manifest_without_a_content_length_is_pushed(parts):
    response = await parts.call(
        "PUT", "manifests/1.0", content=pieces(IMAGE[:50], IMAGE[50:]), headers={"Content-Type": OCI_MANIFEST}
    )
    assert response.status_code == 201


async def test_end_7a_a_tag_names_what_was_pushed_last(parts):
    await parts.push_manifest(IMAGE, "latest")
    other = image(b"{}")
    await parts.push_manifest(other, "latest")
    assert (await parts.call("GET", "manifests/latest")).content == other
    assert (await parts.call("GET", f"manifests/{Digest.of(IMAGE)}")).content == IMAGE


async def test_end_7a_the_same_bytes_with_another_type_are_read_as_that(parts):
    body = image(b"{}", b"layer", mediaType=None)
    await parts.push_manifest(body, "1.0", OCI_MANIFEST)
    await parts.push_manifest(body, "1.0", DOCKER_MANIFEST)
    assert (await parts.call("HEAD", "manifests/1.0")).headers["content-type"] == DOCKER_MANIFEST


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_end_7b_tags_come_with_a_push_by_digest(parts, algorithm):
    digest = Digest.of(IMAGE, algorithm)
    tags = [f"t{number}" for number in range(12)]
    response = await parts.put_manifest(IMAGE, digest, query="?" + "&".join(f"tag={tag}" for tag in tags))
    assert response.status_code == 201
    assert response.headers.get_list("oci-tag") == tags
    for tag in tags:
        got = await parts.call("GET", f"manifests/{tag}")
        assert (got.content, got.headers["docker-content-digest"]) == (IMAGE, digest)
    assert (await parts.call("GET", "tags/list")).json()["tags"] == sorted(tags)


async def test_end_7b_a_bad_tag_among_good_ones_sets_none(parts):
    response = await parts.put_manifest(IMAGE, query="?tag=good&tag=-bad")
    assert "'-bad'" in error_of(response, 400, "MANIFEST_INVALID")
    assert await parts.statuses("manifests/good", f"manifests/{Digest.of(IMAGE)}") == [404, 404]


async def test_end_7_an_index_of_images_and_an_index_of_that(parts):
    await parts.push_manifest(IMAGE)
    first = await parts.push_index(IMAGE, tag="index")
    nested = await parts.push_index(first, tag="nested", annotations={"deep": "er"})
    assert (await parts.call("GET", "manifests/nested")).content == nested


async def test_end_7_what_is_named_and_not_here_is_404_with_its_digest(parts):
    missing = descriptor(b"missing", LAYER_TYPE)
    also = descriptor(b"also missing", LAYER_TYPE)
    response = await parts.put_manifest(image(b"{}", layers=[missing, also]), "1.0")
    message = error_of(response, 404, "MANIFEST_BLOB_UNKNOWN")
    for digest in (missing["digest"], also["digest"]):
        assert digest in message
    assert Digest.of(b"{}") not in message
    assert "push what the manifest names before" in message
    assert await parts.statuses("manifests/1.0") == [404]


async def test_end_7_a_child_that_is_not_here_is_404_with_its_digest(parts):
    response = await parts.put_manifest(index(IMAGE), "1.0", OCI_INDEX)
    assert Digest.of(IMAGE) in error_of(response, 404, "MANIFEST_BLOB_UNKNOWN")
    await parts.push_blob(IMAGE)  # a blob is no child
    error_of(await parts.put_manifest(index(IMAGE), "1.0", OCI_INDEX), 404, "MANIFEST_BLOB_UNKNOWN")


async def test_end_7_the_message_about_a_thousand_missing_layers_can_be_read(parts):
    layers = [descriptor(str(number).encode(), "x/" + "y\x1b\n" * 50) for number in range(1000)]
    response = await parts.put_manifest(image(b"{}", layers=layers), "1.0")
    message = error_of(response, 404, "MANIFEST_BLOB_UNKNOWN")
    assert len(response.content) < 8192  # of more, oras and Helm show nothing
    assert layers[0]["digest"] in message
    assert "990 more" in message
    assert "\x1b" not in message


async def test_end_7_nothing_is_borrowed_from_another_repository(parts):
    other = Remote(parts.client, parts.name + "/other")
    error_of(await other.put_manifest(IMAGE, "1.0"), 404, "MANIFEST_BLOB_UNKNOWN")
    assert await other.statuses("manifests/1.0") == [404]


async def test_end_7_a_subject_may_be_missing_and_is_named_in_the_answer(parts):
    subject = descriptor(b"not here", OCI_MANIFEST)
    for body, media_type in ((image(b"{}", subject=subject), OCI_MANIFEST), (index(subject=subject), OCI_INDEX)):
        response = await parts.put_manifest(body, None, media_type)
        assert (response.status_code, response.headers["oci-subject"]) == (201, subject["digest"])


async def test_end_7_the_digest_must_be_that_of_the_bytes(parts):
    for reference in (ABSENT, "sha512:" + "0" * 128):
        message = error_of(await parts.put_manifest(IMAGE, reference), 400, "DIGEST_INVALID")
        assert reference in message
        assert Digest.of(IMAGE, reference.partition(":")[0]) in message
        assert await parts.statuses(f"manifests/{reference}", f"manifests/{Digest.of(IMAGE)}") == [404, 404]


async def test_with_sparse_manifests_what_is_named_may_be_missing(make_settings):
    async with running(create_app(make_settings(sparse_manifests=True), durable=False)) as client:
        remote = Remote(client, "sparse/app")
        for tag, body, media_type in (("1.0", IMAGE, OCI_MANIFEST), ("index", index(b"missing"), OCI_INDEX)):
            await remote.push_manifest(body, tag, media_type)
            assert (await remote.call("GET", f"manifests/{tag}")).content == body


async def test_a_chart_without_its_blobs_is_refused_also_where_manifests_may_be_sparse(make_settings):
    app = create_app(make_settings(sparse_manifests=True), durable=False)
    config = b'{"name": "app", "version": "1.0.0"}'
    body = image(config=descriptor(config, CHART_CONFIG), layers=[descriptor(b"chart", CHART_LAYER)])
    async with running(app) as client:
        remote = Remote(client, "sparse/app")
        for missing in (config, b"chart"):
            response = await remote.put_manifest(body, "1.0.0")
            assert Digest.of(missing) in error_of(response, 404, "MANIFEST_BLOB_UNKNOWN")
            await remote.push_blob(config)
        assert await app.registry.list_charts() == []


async def test_a_docker_image_goes_and_comes_as_docker_pushes_it(remote):
    config, layer = b'{"architecture": "amd64"}', content_of(100_000)
    for content in (config, layer):
        assert await remote.statuses(f"blobs/{Digest.of(content)}") == [404]
        location = await remote.start_upload()
        location = (await remote.patch(location, content)).headers["location"]
        assert (await remote.finish(location, Digest.of(content))).status_code == 201
    body = encoded(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": descriptor(config, "application/vnd.docker.container.image.v1+json"),
            "layers": [descriptor(layer, "application/vnd.docker.image.rootfs.diff.tar.gzip")],
        }
    )
    await remote.push_manifest(body, "latest", DOCKER_MANIFEST)
    got = await remote.call("GET", "manifests/latest")
    assert (got.content, got.headers["content-type"]) == (body, DOCKER_MANIFEST)
