"""Content discovery: end-8a, end-8b, end-12a, end-12b, and the catalog."""

import json
import random
import re
from urllib.parse import quote

import pytest

from charthouse.manifest import OCI_INDEX, OCI_MANIFEST
from charthouse.names import Digest
from support.requests import CONFIG_TYPE, Remote, descriptor, error_of, image, index

pytest_plugins = ("support.shared",)

ABSENT = "sha256:" + "0" * 64
# In the order of their bytes, which is that of no language.
TAGS = ["0", "1.0", "1.0-a", "1.0.1", "1.0.1-rc", "1.00", "10", "A", "Z", "_x", "a", "a-", "a.", "a.b", "a_", "ab", "b"]
HUGE = ["1001", "1000000000", str(2**63), "9" * 400]
NO_NUMBERS = ["-1", "a", "", "1.5", "0x10", "\u0663", "1e3", "+1", " 1"]


def next_of(response) -> str | None:
    """The path of the next page, which a client can take from a relative Link alone."""
    link = response.headers.get("link")
    if link is None:
        return None
    match = re.fullmatch(r'<(/v2/[!-~]+)>; rel="next"', link)
    assert match, link
    return match[1]


async def pages_of(client, path, key):
    """All pages from `path` on, each a list."""
    pages = []
    while path:
        response = await client.get(path)
        assert response.status_code == 200, response.text
        pages.append(response.json()[key])
        path = next_of(response)
        assert path is None or pages[-1], "a page that is not the last has entries"
    return pages


def joined(pages):
    return [entry for page in pages for entry in page]


# --- end-8a, end-8b: tags ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def tagged(shared_client):
    remote = Remote(shared_client, "discovery/tags")
    body = await remote.push_image()
    await remote.put_manifest(body, query="?" + "&".join(f"tag={tag}" for tag in random.sample(TAGS, len(TAGS))))
    return remote


async def test_end_8a_tags_come_in_the_order_of_their_bytes(tagged):
    response = await tagged.call("GET", "tags/list")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == {"name": tagged.name, "tags": TAGS}
    assert sorted(TAGS, key=str.encode) == TAGS
    assert "link" not in response.headers


async def test_end_8a_a_repository_without_tags_has_an_empty_list_and_one_that_is_not_there_is_404(remote):
    message = error_of(await remote.call("GET", "tags/list"), 404, "NAME_UNKNOWN")
    assert remote.name in message
    await remote.push_blob(b"only a blob")
    assert (await remote.call("GET", "tags/list")).json() == {"name": remote.name, "tags": []}


@pytest.mark.parametrize("n", range(1, len(TAGS) + 2))
async def test_end_8b_the_pages_together_are_the_whole(tagged, n):
    pages = await pages_of(tagged.client, tagged.url(f"tags/list?n={n}"), "tags")
    assert joined(pages) == TAGS
    assert [len(page) for page in pages[:-1]] == [n] * (len(pages) - 1)


@pytest.mark.parametrize(
    "last", [*TAGS, "1.0-", "~", "zzz", "/", "a\0", "\0", "a\0b", "é", "\U0001f6a2", "1.0&n=0", "a" * 5000]
)
async def test_end_8b_last_is_a_value_that_need_not_be_there(tagged, last):
    after = [tag for tag in TAGS if tag.encode() > last.encode()]
    for query, expected in ((f"last={quote(last)}", after), (f"n=2&last={quote(last)}", after[:2])):
        response = await tagged.call("GET", f"tags/list?{query}")
        assert response.json()["tags"] == expected
    assert (next_of(response) is not None) == (len(after) > 2)


async def test_end_8b_a_page_goes_on_after_a_tag_that_was_deleted_meanwhile(remote):
    body = await remote.push_image()
    await remote.put_manifest(body, query="?tag=a&tag=b&tag=c")
    first = await remote.call("GET", "tags/list?n=2")
    await remote.call("DELETE", "manifests/b")
    assert (await remote.client.get(next_of(first))).json()["tags"] == ["c"]


async def test_end_8b_n_of_zero_is_an_empty_page_without_a_next(tagged):
    response = await tagged.call("GET", "tags/list?n=0")
    assert response.json() == {"name": tagged.name, "tags": []}
    assert "link" not in response.headers


@pytest.mark.parametrize("path", ["tags/list", f"referrers/{ABSENT}", "/v2/_catalog"])
async def test_a_huge_n_is_as_much_as_a_page_holds_and_what_is_no_number_is_400(tagged, path):
    path = path if path.startswith("/") else tagged.url(path)
    for n in HUGE:
        assert (await tagged.client.get(path, params={"n": n})).status_code == 200
    for n in NO_NUMBERS:
        error_of(await tagged.client.get(path, params={"n": n}), 400, "UNSUPPORTED")


async def test_end_8b_a_page_has_at_most_a_thousand_tags(remote):
    body = await remote.push_image()
    tags = [f"v{number:04}" for number in range(1001)]
    for some in (tags[:500], tags[500:]):
        await remote.put_manifest(body, query="?" + "&".join(f"tag={tag}" for tag in some))
    for query in ("", "?n=5000"):
        pages = await pages_of(remote.client, remote.url("tags/list" + query), "tags")
        assert [len(page) for page in pages] == [1000, 1]
        assert joined(pages) == tags


# --- the catalog ------------------------------------------------------------------------------------------------------


async def test_the_catalog_has_each_repository_with_a_manifest_in_the_order_of_bytes(client):
    assert (await client.get("/v2/_catalog")).json() == {"repositories": []}
    names = ["a", "a-b", "a.b", "a/b", "a/b-c", "a/b/c", "a0", "a_b", "ab", "b"]
    for name in random.sample(names, len(names)):
        await Remote(client, name).push_image("1.0")
    await Remote(client, "only-a-blob").push_blob(b"x")
    emptied = Remote(client, "emptied")
    await emptied.call("DELETE", f"manifests/{Digest.of(await emptied.push_image('1.0'))}")
    assert (await client.get("/v2/_catalog")).json() == {"repositories": names}
    for n in range(1, len(names) + 2):
        assert joined(await pages_of(client, f"/v2/_catalog?n={n}", "repositories")) == names
    assert (await client.get("/v2/_catalog?last=a/b")).json()["repositories"] == names[4:]
    assert (await client.get("/v2/_catalog?last=a%00")).json()["repositories"] == names[1:]
    assert (await client.get("/v2/_catalog?n=0")).json()["repositories"] == []


# --- end-12a, end-12b: referrers --------------------------------------------------------------------------------------


async def referrers(remote, subject, query=""):
    response = await remote.call("GET", f"referrers/{subject}{query}")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == OCI_INDEX
    document = response.json()
    assert (document["schemaVersion"], document["mediaType"]) == (2, OCI_INDEX)
    return document["manifests"]


def listed(body, media_type=OCI_MANIFEST, **fields):
    return descriptor(body, media_type, **fields)


async def test_end_12a_nothing_refers_to_what_is_not_here(remote):
    assert await referrers(remote, ABSENT) == []
    await remote.push_image("1.0")
    assert await referrers(remote, ABSENT) == []
    assert await referrers(remote, "sha512:" + "0" * 128) == []


async def test_end_12a_a_referrer_is_listed_with_its_type_and_all_its_annotations(remote):
    subject = descriptor(await remote.push_image("1.0"), OCI_MANIFEST)
    notes = {"org.example.a": "1", "é": "ü", "": ""}
    typed = await remote.push_image(subject=subject, artifactType="application/x", annotations=notes)
    untyped = await remote.push_image(subject=subject)
    bare = await remote.push_index(subject=subject)
    typed_index = await remote.push_index(subject=subject, artifactType="application/x")
    await remote.push_image("unrelated", annotations={"other": "image"})
    expected = [
        listed(typed, artifactType="application/x", annotations=notes),
        listed(untyped, artifactType=CONFIG_TYPE),
        listed(bare, OCI_INDEX),
        listed(typed_index, OCI_INDEX, artifactType="application/x"),
    ]
    assert await referrers(remote, subject["digest"]) == sorted(expected, key=lambda one: one["digest"])


async def test_end_12a_a_referrer_of_what_is_not_here_yet_is_listed_and_stays_when_it_goes(remote):
    later = image(annotations={"later": "yes"})
    signature = await remote.push_image(subject=descriptor(later, OCI_MANIFEST))
    assert await referrers(remote, Digest.of(later)) == [listed(signature, artifactType=CONFIG_TYPE)]
    await remote.push_manifest(later)
    await remote.call("DELETE", f"manifests/{Digest.of(later)}")
    assert await referrers(remote, Digest.of(later)) == [listed(signature, artifactType=CONFIG_TYPE)]
    await remote.call("DELETE", f"manifests/{Digest.of(signature)}")
    assert await referrers(remote, Digest.of(later)) == []


async def test_end_12a_referrers_are_those_of_the_repository(remote):
    subject = descriptor(await remote.push_image("1.0"), OCI_MANIFEST)
    await remote.push_image(subject=subject)
    other = Remote(remote.client, remote.name + "/other")
    await other.push_image("1.0")
    assert await referrers(other, subject["digest"]) == []


async def test_end_12a_a_sha512_subject_has_referrers_of_its_own(remote):
    body = await remote.push_image()
    subject = descriptor(body, OCI_MANIFEST, digest=Digest.of(body, "sha512"))
    signature = await remote.push_image(subject=subject)
    assert await referrers(remote, subject["digest"]) == [listed(signature, artifactType=CONFIG_TYPE)]
    assert await referrers(remote, Digest.of(body)) == []


async def test_end_12b_a_filter_is_applied_and_said(remote):
    subject = descriptor(b"subject", OCI_MANIFEST)
    types = ["application/vnd.x+json", "application/vnd.x", "application/vnd.y+json"]
    bodies = {name: await remote.push_image(subject=subject, artifactType=name) for name in types}
    plain = await remote.call("GET", f"referrers/{subject['digest']}")
    assert "oci-filters-applied" not in plain.headers
    for spelled in (types[0], types[0].replace("+", "%2B"), quote(types[0], safe="")):
        response = await remote.call("GET", f"referrers/{subject['digest']}?artifactType={spelled}")
        assert response.headers["oci-filters-applied"] == "artifactType"
        assert [one["digest"] for one in response.json()["manifests"]] == [Digest.of(bodies[types[0]])]
    assert await referrers(remote, subject["digest"], "?artifactType=application/none") == []
    assert await referrers(remote, subject["digest"], "?artifactType=%00%ff") == []


@pytest.mark.parametrize("n", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("filter_", ["", "&artifactType=application/vnd.x%2Bjson"], ids=["all", "filtered"])
async def test_end_12a_the_pages_together_are_the_whole(remote, n, filter_):
    subject = descriptor(b"subject", OCI_MANIFEST)
    bodies = [
        await remote.push_image(subject=subject, artifactType="application/vnd.x+json", annotations={"n": str(number)})
        for number in range(6)
    ]
    pages = await pages_of(remote.client, remote.url(f"referrers/{subject['digest']}?n={n}{filter_}"), "manifests")
    assert [len(page) for page in pages[:-1]] == [n] * (len(pages) - 1)
    assert [one["digest"] for one in joined(pages)] == sorted(map(Digest.of, bodies))
    assert await referrers(remote, subject["digest"], "?n=0") == []


@pytest.mark.parametrize("field", ["annotations", "artifactType"])
async def test_end_12a_no_page_is_larger_than_what_clients_read(remote, field):
    subject = descriptor(b"subject", OCI_MANIFEST)
    digests = []
    for number in range(5):
        text = str(number) * 1_500_000
        fields = {"annotations": {"text": text}} if field == "annotations" else {"artifactType": text}
        digests.append(Digest.of(await remote.push_image(subject=subject, **fields)))
    path, found = remote.url(f"referrers/{subject['digest']}"), []
    while path:
        response = await remote.client.get(path)
        assert len(response.content) < 4 * 1024 * 1024
        found += [one["digest"] for one in response.json()["manifests"]]
        path = next_of(response)
    assert found == sorted(digests)


async def test_end_12a_the_legacy_tag_schema_is_folded_in_once(remote):
    subject = descriptor(await remote.push_image("1.0"), OCI_MANIFEST)
    new = await remote.push_image(subject=subject, annotations={"by": "subject"})
    old = await remote.push_image(annotations={"by": "tag"}, artifactType="application/x")
    gone = await remote.push_image(annotations={"gone": "yes"})
    await remote.push_index(new, old, gone, tag=subject["digest"].replace(":", "-"))
    await remote.call("DELETE", f"manifests/{Digest.of(gone)}")
    expected = [
        listed(new, artifactType=CONFIG_TYPE, annotations={"by": "subject"}),
        listed(old, artifactType="application/x", annotations={"by": "tag"}),
    ]
    assert await referrers(remote, subject["digest"]) == sorted(expected, key=lambda one: one["digest"])
    assert await referrers(remote, subject["digest"], "?artifactType=application/x") == expected[1:]
    pages = await pages_of(remote.client, remote.url(f"referrers/{subject['digest']}?n=1"), "manifests")
    assert [len(page) for page in pages] == [1, 1]


async def test_end_12a_the_legacy_tag_of_a_sha512_is_cut(remote):
    body = await remote.push_image("1.0")
    digest = Digest.of(body, "sha512")
    old = await remote.push_image(annotations={"by": "tag"})
    await remote.push_index(old, tag="sha512-" + digest.hex[:64])
    assert [one["digest"] for one in await referrers(remote, digest)] == [Digest.of(old)]


@pytest.mark.parametrize("text", ["\0", "\ud800", "a\udfff\0\U0001f6a2", '\\u0000 "quoted" \\', "ünïcödé", "\x1b[31m"])
async def test_end_12a_any_text_comes_back_as_it_was_pushed(remote, text):
    subject = descriptor(b"subject", OCI_MANIFEST)
    notes = {text: text, "plain": ""}
    typed = await remote.push_image(subject=subject, artifactType=text, annotations=notes)
    config = descriptor(b"{}", text)
    untyped = await remote.push_image(subject=subject, config=config)
    body = (await remote.call("GET", f"referrers/{subject['digest']}")).content
    found = {one["digest"]: one for one in json.loads(body)["manifests"]}
    assert found[Digest.of(typed)] == listed(typed, artifactType=text, annotations=notes)
    assert found[Digest.of(untyped)] == listed(untyped, artifactType=text)
    for body in (typed, untyped):
        assert (await remote.call("GET", f"manifests/{Digest.of(body)}")).content == body


async def test_end_12b_a_filter_of_any_text_is_kept_from_page_to_page(remote):
    """Nothing of it may end the Link or its query (threats: Link injection)."""
    subject, odd = descriptor(b"subject", OCI_MANIFEST), 'a/b+c&last=~&n=0#%41 >; rel="x", <é\r\nX: y'
    for number in range(3):
        await remote.push_image(subject=subject, artifactType=odd, annotations={"n": str(number)})
    await remote.push_image(subject=subject)
    path = remote.url(f"referrers/{subject['digest']}?n=1&artifactType={quote(odd, safe='')}")
    pages = await pages_of(remote.client, path, "manifests")
    assert [[one["artifactType"] for one in page] for page in pages] == [[odd]] * 3


async def test_end_12a_a_filter_finds_a_type_with_nul(remote):
    subject = descriptor(b"subject", OCI_MANIFEST)
    body = await remote.push_image(subject=subject, artifactType="a\0b")
    assert [one["digest"] for one in await referrers(remote, subject["digest"], "?artifactType=a%00b")] == [
        Digest.of(body)
    ]


@pytest.mark.parametrize("digest", ["sha256:abc", "latest", "sha384:" + "0" * 96])
async def test_end_12a_referrers_of_what_is_no_digest_is_400(remote, digest):
    error_of(await remote.call("GET", f"referrers/{digest}"), 400, "DIGEST_INVALID")


async def test_head_of_a_listing_has_the_headers_of_get(tagged):
    for path in ("/v2/", "/v2/_catalog", tagged.url("tags/list?n=2"), tagged.url(f"referrers/{ABSENT}")):
        head, get = await tagged.client.head(path), await tagged.client.get(path)
        assert (head.status_code, head.headers) == (200, get.headers)


async def test_an_index_lists_what_it_names_and_not_what_it_refers_to(remote):
    """A child is no referrer of its index, nor the other way round."""
    child = await remote.push_image("1.0")
    parent = await remote.push_index(child, tag="index")
    assert await referrers(remote, Digest.of(child)) == []
    assert await referrers(remote, Digest.of(parent)) == []
    assert json.loads(index(child))["manifests"][0]["digest"] == Digest.of(child)
