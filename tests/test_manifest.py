"""Manifests: what is read from the bytes, and what is refused, against image-spec and its known ambiguities."""

import contextlib
import json
import time

import pytest
from hypothesis import example, given, strategies as st

from charthouse.errors import ManifestInvalid, ManifestTooLarge
from charthouse.manifest import (
    CHART_CONFIG,
    CHART_LAYER,
    DESCRIPTOR_LIMIT,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    LEGACY_CHART_LAYER,
    MANIFEST_LIMIT,
    OCI_INDEX,
    OCI_MANIFEST,
    PROVENANCE_LAYER,
    SIZE_LIMIT,
    parse,
)
from charthouse.names import Digest
from support.requests import CONFIG_TYPE, LAYER_TYPE, descriptor, encoded, image, index

ANY = "application/vnd.example+json"


def refused(body, content_type=OCI_MANIFEST) -> str:
    with pytest.raises(ManifestInvalid) as caught:
        parse(body, content_type)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_an_image_is_read():
    subject = descriptor(b"subject", OCI_MANIFEST)
    body = image(b"config", b"one", b"two", subject=subject, artifactType="application/x", annotations={"k": "v"})
    manifest = parse(body, OCI_MANIFEST)
    assert manifest.media_type == OCI_MANIFEST
    assert [(d.media_type, d.digest, d.size) for d in manifest.blobs] == [
        (CONFIG_TYPE, Digest.of(b"config"), 6),
        (LAYER_TYPE, Digest.of(b"one"), 3),
        (LAYER_TYPE, Digest.of(b"two"), 3),
    ]
    assert manifest.subject.digest == subject["digest"]
    assert (manifest.artifact_type, manifest.annotations, manifest.manifests) == ("application/x", {"k": "v"}, ())


def test_an_index_is_read():
    manifest = parse(index(b"child"), OCI_INDEX)
    assert [child.digest for child in manifest.manifests] == [Digest.of(b"child")]
    assert manifest.blobs == ()


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_an_image_without_layers_is_one(media_type):
    assert parse(image(mediaType=media_type), media_type).layers == ()


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_an_empty_index_is_one(media_type):
    assert parse(index(mediaType=media_type), media_type).manifests == ()


def test_the_type_is_what_the_request_says_or_else_what_the_manifest_says():
    assert parse(image(mediaType=None), OCI_MANIFEST).media_type == OCI_MANIFEST  # Helm sends no mediaType
    assert parse(image(), "").media_type == OCI_MANIFEST
    assert "no Content-Type and the manifest no mediaType" in refused(image(mediaType=None), "")
    message = refused(image(), DOCKER_MANIFEST)
    assert DOCKER_MANIFEST in message
    assert OCI_MANIFEST in message


@pytest.mark.parametrize("media_type", ["text", "a/b/c", "a b/c", "/", "a/", "é/é", "*/*", "a/b\n", "a" * 128 + "/b"])
def test_what_is_no_media_type_is_refused(media_type):
    assert "is not a media type" in refused(image(mediaType=None), media_type)


def test_the_type_of_a_referrer_is_its_own_or_its_configs_or_none():
    assert parse(image(artifactType="application/x"), OCI_MANIFEST).referrer_type == "application/x"
    assert parse(image(), OCI_MANIFEST).referrer_type == CONFIG_TYPE
    assert parse(index(), OCI_INDEX).referrer_type == ""
    assert parse(index(artifactType="application/x"), OCI_INDEX).referrer_type == "application/x"


def test_a_chart_is_known_by_its_config_and_its_layers_by_their_types_in_any_order():
    config = descriptor(b"{}", CHART_CONFIG)
    chart, legacy = descriptor(b"chart", CHART_LAYER), descriptor(b"legacy", LEGACY_CHART_LAYER)
    provenance = descriptor(b"prov", PROVENANCE_LAYER)
    manifest = parse(image(config=config, layers=[provenance, chart, legacy]), OCI_MANIFEST)
    assert manifest.is_chart
    assert [layer.digest for layer in manifest.chart_layers()] == [chart["digest"], legacy["digest"]]
    assert [layer.digest for layer in manifest.provenance_layers()] == [provenance["digest"]]
    assert not parse(image(layers=[chart]), OCI_MANIFEST).is_chart
    assert not parse(index(), OCI_INDEX).is_chart


def test_a_layer_with_urls_is_elsewhere():
    layers = [descriptor(b"x", urls=["https://example.org/x"]), descriptor(b"y", urls=[]), descriptor(b"z", urls=None)]
    assert [d.is_elsewhere for d in parse(image(layers=layers), OCI_MANIFEST).layers] == [True, False, False]


def test_the_blobs_of_an_artifact_manifest_are_layers():
    body = encoded({"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": [descriptor(b"x")]})
    assert [d.digest for d in parse(body, "").layers] == [Digest.of(b"x")]


def test_a_manifest_of_another_type_needs_neither_config_nor_layers():
    assert parse(b"{}", ANY).blobs == ()


BROKEN = [
    (b"", "not valid JSON"),
    (b"{", "not valid JSON"),
    (b"\xff\xfe{}", "not valid JSON"),
    (b"\xef\xbb\xbf{}", "not valid JSON"),
    (b'{"a": "\xed\xa0\x80"}', "not valid JSON"),
    (b'{"a": NaN}', "NaN"),
    (b'{"a": -Infinity}', "Infinity"),
    (b'{"a": 1,}', "not valid JSON"),
    (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    (b"{} {}", "not valid JSON"),
    (b"[]", "not a JSON object"),
    (b"null", "not a JSON object"),
    (b'"text"', "not a JSON object"),
    (b"1e999", "not a JSON object"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"a":' * 100_000, "nested too deeply"),
    (b'{"schemaVersion": 2, "schemaVersion": 2}', "the key 'schemaVersion' stands twice"),
    (b'{"layers": [{"size": 1, "size": 2}]}', "the key 'size' stands twice"),
    (b'{"a": 1, "\\u0061": 2}', "the key 'a' stands twice"),
]


@pytest.mark.parametrize(("body", "words"), BROKEN, ids=[body[:30].decode("latin-1") for body, _ in BROKEN])
def test_what_is_no_json_object_is_refused(body, words):
    assert words in refused(body)


HUGE, LIST = "x" * 100_000, [[]] * 100_000
WRONG = [
    ({"schemaVersion": None}, "schemaVersion"),
    ({"schemaVersion": 1}, "schemaVersion is 1, it must be 2"),
    ({"schemaVersion": "2"}, "schemaVersion"),
    ({"schemaVersion": HUGE}, "schemaVersion"),
    ({"schemaVersion": LIST}, "schemaVersion"),
    ({"mediaType": 2}, "'mediaType' of the manifest is not a string"),
    ({"mediaType": HUGE}, "Content-Type is"),
    ({"config": None}, "no 'config'"),
    ({"config": []}, "'config' of the manifest is not a descriptor"),
    ({"config": {}}, "'size' of 'config'"),
    ({"config": "sha256:0"}, "'config' of the manifest is not a descriptor"),
    ({"layers": None}, "'layers' of the manifest is not a list"),
    ({"layers": {}}, "'layers' of the manifest is not a list"),
    ({"layers": [1]}, "'layers[0]' of the manifest is not a descriptor"),
    ({"layers": [descriptor(b""), None]}, "'layers[1]' of the manifest is not a descriptor"),
    ({"manifests": []}, "both 'layers' and 'manifests'"),
    ({"manifests": [descriptor(b"")]}, "both 'layers' and 'manifests'"),
    ({"manifests": {}}, "'manifests' of the manifest is not a list"),
    ({"blobs": [descriptor(b"")] * (DESCRIPTOR_LIMIT + 1)}, "'blobs' of the manifest has 1,001 entries"),
    (
        {"layers": [descriptor(b"")] * (DESCRIPTOR_LIMIT + 1)},
        "'layers' of the manifest has 1,001 entries, at most 1,000",
    ),
    ({"subject": "sha256:0"}, "'subject' of the manifest is not a descriptor"),
    ({"subject": descriptor(b"", digest="sha256:0")}, "'subject': digest 'sha256:0'"),
    ({"artifactType": ["x"]}, "'artifactType' of the manifest is not a string"),
    ({"annotations": []}, "'annotations' of the manifest is not an object of strings"),
    ({"annotations": {"a": 1}}, "'annotations' of the manifest is not an object of strings"),
    ({"annotations": {"a": None}}, "'annotations' of the manifest is not an object of strings"),
]
WRONG_DESCRIPTORS = [
    ({"size": None}, "'size' of 'layers[0]'"),
    ({"size": "1"}, "'size' of 'layers[0]'"),
    ({"size": 1.0}, "'size' of 'layers[0]'"),
    ({"size": True}, "'size' of 'layers[0]'"),
    ({"size": -1}, "between 0 and 2^63-1"),
    ({"size": SIZE_LIMIT + 1}, "between 0 and 2^63-1"),
    ({"size": 10**400}, "between 0 and 2^63-1"),
    ({"digest": None}, "'layers[0]': digest '' is not"),
    ({"digest": 1}, "'digest' of 'layers[0]' is not a string"),
    ({"digest": "sha256:" + "A" * 64}, "'layers[0]': digest"),
    ({"digest": HUGE}, "'layers[0]': digest"),
    ({"digest": "\ud800"}, "'layers[0]': digest"),
    ({"mediaType": 1}, "'mediaType' of 'layers[0]' is not a string"),
    ({"urls": "https://example.org"}, "'urls' of 'layers[0]' is not a list of strings"),
    ({"urls": 5}, "'urls' of 'layers[0]' is not a list of strings"),
    ({"urls": {"a": "b"}}, "'urls' of 'layers[0]' is not a list of strings"),
    ({"urls": [1]}, "'urls' of 'layers[0]' is not a list of strings"),
]
WRONG += [({"layers": [descriptor(b"") | fields]}, words) for fields, words in WRONG_DESCRIPTORS]


@pytest.mark.parametrize(("fields", "words"), WRONG, ids=[str(fields)[:60] for fields, _ in WRONG])
def test_what_is_no_manifest_is_refused_in_one_short_line(fields, words):
    document = json.loads(image()) | fields
    message = refused(json.dumps(document).encode())
    assert words in message
    assert len(message) < 500


def test_the_largest_size_and_the_most_layers_are_accepted():
    layers = [descriptor(b"", size=SIZE_LIMIT)] * DESCRIPTOR_LIMIT
    manifest = parse(image(layers=layers), OCI_MANIFEST)
    assert len(manifest.layers) == DESCRIPTOR_LIMIT
    assert manifest.layers[0].size == SIZE_LIMIT


def test_four_mebibytes_are_the_limit():
    body = image(annotations={"pad": ""})
    body = body.replace(b'"pad": ""', b'"pad": "' + b"x" * (MANIFEST_LIMIT - len(body)) + b'"')
    assert len(body) == MANIFEST_LIMIT
    assert parse(body, OCI_MANIFEST).config
    with pytest.raises(ManifestTooLarge, match="4,194,305 bytes, at most 4,194,304"):
        parse(body + b" ", OCI_MANIFEST)


def test_the_first_schema_of_docker_is_refused_by_name():
    assert "schema 1" in refused(b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws")


def test_nul_and_lone_surrogates_are_text_like_any_other():
    body = image(annotations={"a\0": "\ud800"}, artifactType="\udfff")
    manifest = parse(body, OCI_MANIFEST)
    assert (manifest.annotations, manifest.artifact_type) == ({"a\0": "\ud800"}, "\udfff")


def test_finding_the_key_that_stands_twice_is_no_work_for_minutes():
    keys = [f'"{number}": ""' for number in range(200_000)]
    body = ("{" + ", ".join([*keys, keys[-1]]) + "}").encode()
    started = time.process_time()
    assert "'199999' stands twice" in refused(body)
    assert time.process_time() - started < 30  # it was an hour: a square of the number of keys


# Values that are nearly manifests: the real fields, with anything in them.
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 3),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from([OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, CHART_CONFIG, "sha256:" + "0" * 64, "\ud800", "\0"]),
)
fields = st.sampled_from(
    [
        "schemaVersion",
        "mediaType",
        "config",
        "layers",
        "manifests",
        "blobs",
        "subject",
        "artifactType",
        "annotations",
        "digest",
        "size",
        "urls",
        "data",
        "other",
    ]
)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=6), max_leaves=20
)
types = st.sampled_from(["", OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST, ANY]) | st.text(max_size=10)


@given(st.dictionaries(fields, documents, max_size=9), types)
@example(
    {"schemaVersion": 2, "config": {"digest": "sha256:" + "0" * 64, "size": 1, "urls": 1}, "layers": []}, OCI_MANIFEST
)
def test_no_document_is_more_than_refused(document, content_type):
    try:
        manifest = parse(json.dumps(document).encode(), content_type)
    except ManifestInvalid as error:
        manifest = error
    if not isinstance(manifest, ManifestInvalid):
        assert manifest.media_type in (content_type, document.get("mediaType"))
        assert all(0 <= d.size <= SIZE_LIMIT for d in (*manifest.blobs, *manifest.manifests))
        assert not (manifest.layers and manifest.manifests)


@given(st.binary(), types)
def test_no_bytes_are_more_than_refused(body, content_type):
    with contextlib.suppress(ManifestInvalid):
        parse(body, content_type)


@pytest.mark.parametrize("depth", range(900, 1000, 7))
def test_no_depth_is_more_than_refused(depth):
    """Also where the parser just about manages and whoever handles the value does not."""
    nested = b"[" * depth + b"]" * depth
    for field in (b"schemaVersion", b"config", b"annotations"):
        with pytest.raises(ManifestInvalid):
            parse(b'{"%s": %s}' % (field, nested), OCI_MANIFEST)
