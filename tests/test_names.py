"""Names, tags, digests and references against the words of distribution-spec and image-spec."""

import hashlib
import string

import pytest
from hypothesis import example, given, strategies as st

from charthouse.errors import DigestInvalid, ManifestInvalid, NameInvalid, RegistryError
from charthouse.names import NAME_LIMIT, Digest, RepositoryName, Tag, parse_reference, shown

LOWER, DIGITS = set(string.ascii_lowercase), set(string.digits)
HEX = set("0123456789abcdef")

# Few letters, many separators: what is nearly a name.
nearly_names = st.text(alphabet="az09._-/A\n \0é", max_size=12)
nearly_digests = st.builds(
    "{}{}{}".format,
    st.sampled_from(["sha256", "sha512", "SHA256", "sha384", "md5", "sha256+b64", ""]),
    st.sampled_from([":", "", "::", "-"]),
    st.one_of(
        st.text(alphabet="0af9", min_size=63, max_size=65),
        st.text(alphabet="0af9", min_size=127, max_size=129),
        st.text(alphabet="0afAg\n", min_size=64, max_size=64),
        st.text(),
    ),
)


def is_name(text: str) -> bool:
    """The specification's grammar, read letter by letter instead of as a regular expression."""
    return 0 < len(text) <= NAME_LIMIT and all(is_component(part) for part in text.split("/"))


def is_component(part: str) -> bool:
    if not part or {part[0], part[-1]} - LOWER - DIGITS or set(part) - LOWER - DIGITS - set("._-"):
        return False
    for letter in LOWER | DIGITS:
        part = part.replace(letter, " ")
    return all(run in {".", "_", "__"} or set(run) == {"-"} for run in part.split())


def is_tag(text: str) -> bool:
    allowed = set(string.ascii_letters + string.digits + "._-")
    return 1 <= len(text) <= 128 and set(text) <= allowed and text[0] not in ".-"


def is_digest(text: str) -> bool:
    algorithm, _, encoded = text.partition(":")
    return len(encoded) == {"sha256": 64, "sha512": 128}.get(algorithm, -1) and set(encoded) <= HEX


def accepts(parse, text: str) -> bool:
    try:
        value = parse(text)
    except RegistryError:
        return False
    assert value == text
    return True


@given(st.one_of(nearly_names, st.text()))
@example("a" * 255)
@example("a" * 256)
@example("a/" * 127 + "a")
def test_a_repository_name_is_what_the_grammar_says(text):
    assert accepts(RepositoryName.parse, text) == is_name(text)


@given(st.one_of(nearly_names, st.text()))
@example("a" * 128)
@example("_" * 129)
def test_a_tag_is_what_the_grammar_says(text):
    assert accepts(Tag.parse, text) == is_tag(text)


@given(nearly_digests)
@example("sha256:" + "0" * 64)
@example("sha512:" + "f" * 128)
@example("sha256:" + "0" * 63 + "\n")
@example("sha256:" + "\u0660" * 64)  # digits of another script
def test_a_digest_is_what_the_grammar_says(text):
    assert accepts(Digest.parse, text) == is_digest(text)


@given(st.one_of(nearly_names, nearly_digests, st.text()))
def test_a_reference_is_a_digest_when_it_has_a_colon_and_else_a_tag(text):
    kind, grammar, refusal = (Digest, is_digest, DigestInvalid) if ":" in text else (Tag, is_tag, ManifestInvalid)
    if grammar(text):
        assert type(parse_reference(text)) is kind
    else:
        with pytest.raises(refusal):
            parse_reference(text)


@pytest.mark.parametrize(
    "name", ["a", "0", "a/b", "a.b", "a_b", "a__b", "a-b", "a----b", "team-a/app", "a/b/c/d/e/f", "_".join("abc")]
)
def test_names_that_clients_use(name):
    assert RepositoryName.parse(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "A",
        "a/B",
        "é",
        ".a",
        "a.",
        "-a",
        "a-",
        "_a",
        "a_",
        "a___b",
        "a..b",
        "a.-b",
        "a:b",
        "a b",
        "a\n",
        "a\x00",
        "a\\b",
        "..",
        "a/../b",
        "a%2fb",
        "a+b",
        "a@b",
        "_catalog",
        "٣",
        "a" * 256,
    ],
)
def test_names_that_are_none_are_named_in_the_message(name):
    with pytest.raises(NameInvalid) as caught:
        RepositoryName.parse(name)
    assert shown(name) in caught.value.message
    assert "\n" not in caught.value.message
    assert "\0" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not of the form sha256:<hex>"),
        ("latest", "not of the form sha256:<hex>"),
        ("md5:d41d8cd98f00b204e9800998ecf8427e", "'md5'; this registry has sha256 and sha512"),
        ("sha256:abc", "64 lower-case hexadecimal characters"),
        ("sha256:" + "A" * 64, "64 lower-case hexadecimal characters"),
        ("sha512:" + "a" * 64, "128 lower-case hexadecimal characters"),
    ],
)
def test_a_digest_that_is_none_is_told_what_it_lacks(text, words):
    with pytest.raises(DigestInvalid) as caught:
        Digest.parse(text)
    assert words in caught.value.message


@given(st.binary())
def test_a_digest_is_of_its_content(content):
    for algorithm in ("sha256", "sha512"):
        digest = Digest.of(content, algorithm)
        assert digest == Digest.parse(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")
        assert f"{digest.algorithm}:{digest.hex}" == digest


@given(st.text())
def test_what_is_shown_in_a_message_is_one_short_printable_line(text):
    assert shown(text).isprintable()
    assert len(shown(text)) <= 10 * 121 + 2


def test_the_last_component_of_a_name():
    assert RepositoryName("team-a/charts/app").last_component == "app"
    assert RepositoryName("app").last_component == "app"
