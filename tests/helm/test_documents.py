"""YAML is read as go-yaml 2 and sigs.k8s.io/yaml read it, and bombs are found before they are built."""

import contextlib
import math

import pytest
from hypothesis import given, settings, strategies as st

from charthouse.helm.documents import DocumentInvalid, Limits, as_text, heads, load, merged

SCALARS = {
    "1.10": 1.1,
    "1": 1,
    "-0": 0,
    "010": 8,
    "0o17": 15,
    "08": 8.0,
    "0x1F": 31,
    "0b11": 3,
    "-0b1": -1,
    "1_000": 1000,
    "1e3": 1000.0,
    "1e999": "1e999",
    ".5": 0.5,
    "._5": "._5",
    "+5": 5,
    "18446744073709551615": 2**64 - 1,
    "18446744073709551616": 2.0**64,
    "yes": True,
    "Off": False,
    "y": True,
    "N": False,
    "True": True,
    "tRUE": "tRUE",
    "~": None,
    "": None,
    "Null": None,
    "2024-01-01": "2024-01-01",
    "1:30": "1:30",
    "1.2.3": "1.2.3",
    "'1'": "1",
    '"yes"': "yes",
    "! 12": "12",
    "!!str 1.10": "1.10",
    '!!int "3"': 3,
    "!!float 1": 1.0,
    "!!binary aGVsbG8=": "hello",
    "!foo bar": "bar",
    "=": "=",
    ".inf": math.inf,
    "|\n  text\n": "text\n",
}


@pytest.mark.parametrize(("text", "value"), SCALARS.items())
def test_a_scalar_has_go_yamls_type(text: str, value: object) -> None:
    found = load(f"a: {text}".encode())["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["!!int foo", "!!bool 1", "!!null 1", "!!float yes", "!!binary '!'"])
def test_a_tag_that_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(DocumentInvalid, match=r"cannot decode|base64"):
        load(f"a: {text}".encode())


NUMBERS = (
    *(
        (1.1, "1.1"),
        (1000000.0, "1e+06"),
        (123456.7, "123456.7"),
        (100000.0, "100000"),
        (0.00001, "1e-05"),
        (0.1, "0.1"),
    ),
    *((True, "true"), (False, "false"), (12, "12"), (1e21, "1e+21"), (1e39, "+Inf"), (math.nan, "NaN"), (-0.5, "-0.5")),
)


@pytest.mark.parametrize(("value", "text"), NUMBERS)
def test_a_number_is_written_as_go_writes_it(value: float, text: str) -> None:
    assert as_text(value) == text


def test_keys_become_texts() -> None:
    assert load(b"{1: a, 1.50: b, yes: c, .inf: d}") == {"1": "a", "1.5": "b", "true": "c", ".inf": "d"}


@pytest.mark.parametrize("text", ["~: a", "[a]: b", "{a: b}: c", "? - a\n: b"])
def test_a_key_that_is_no_text_is_refused(text: str) -> None:
    with pytest.raises(DocumentInvalid, match="key of a mapping"):
        load(text.encode())


def test_merge_keys_count_where_they_stand() -> None:
    document = load(b"x: &x {a: 1, b: 1}\none: {<<: *x, a: 2}\ntwo: {a: 2, <<: *x}\nthree: {<<: [{a: 3}, *x]}\n")
    assert document["one"] == {"a": 2, "b": 1}
    assert document["two"] == {"a": 1, "b": 1}
    assert document["three"] == {"a": 3, "b": 1}
    with pytest.raises(DocumentInvalid, match="map merge"):
        load(b"<<: 1")


def test_only_the_first_document_is_read() -> None:
    assert load(b"a: 1\n---\n{{{") == {"a": 1}
    assert load(b"") is None


def test_a_fault_says_its_line() -> None:
    with pytest.raises(DocumentInvalid) as raised:
        load(b"a: 1\nb: [1\nc: 2\n")
    assert raised.value.line == 3


def test_keys_know_their_lines_and_their_doubles() -> None:
    document = load(b"a: 1\nb:\n  c: 2\na: 3\n")
    assert document.lines == {"a": 4, "b": 2}
    assert document.repeated == [("a", 4)]
    assert document["b"].lines == {"c": 3}


# Bombs


def test_an_alias_counts_as_often_as_what_it_stands_for() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(DocumentInvalid, match="more than 100,000 values") as raised:
        load("\n".join(lines).encode())
    assert raised.value.is_limit


def test_ten_thousand_levels_are_not_followed() -> None:
    for bomb in (b"[" * 10_000, b"{a: " * 10_000, b"- " * 10_000):
        with pytest.raises(DocumentInvalid, match="nested deeper than 100 levels"):
            load(bomb)


@pytest.mark.parametrize("text", ["&a [*a]", "&a {b: *a}", "&a {*a : b}", "a: *b"])
def test_an_anchor_that_contains_itself_is_refused(text: str) -> None:
    with pytest.raises(DocumentInvalid, match="anchor"):
        load(text.encode())


@pytest.mark.parametrize(
    ("limits", "enough", "too_much"),
    [
        (Limits(nodes=3), b"[a, b]", b"[a, b, c]"),
        (Limits(depth=2), b"[[a]]", b"[[[a]]]"),
        (Limits(aliases=1), b"[&a x, *a]", b"[&a x, *a, *a]"),
    ],
)
def test_a_limit_may_be_reached_and_not_passed(limits: Limits, enough: bytes, too_much: bytes) -> None:
    load(enough, limits)
    with pytest.raises(DocumentInvalid):
        load(too_much, limits)


# Files of several documents


def test_later_values_go_over_earlier_ones() -> None:
    assert merged(b"a: {b: 1, c: 2}\n---\na: {b: 3}\n--- # more\nd: 4") == {"a": {"b": 3, "c": 2}, "d": 4}
    assert merged(b"") == {}
    with pytest.raises(DocumentInvalid) as raised:
        merged(b"a: 1\n---\nb: [\n")
    assert raised.value.line >= 3
    with pytest.raises(DocumentInvalid, match="not a mapping"):
        merged(b"- a")


def test_heads_are_read_without_building_what_is_below() -> None:
    content = b"apiVersion: v1\nkind: A\nspec: {kind: B, deep: [1]}\n---\n- a\n---\nkind: C\n"
    found = list(heads(content))
    assert found[0] == (1, {"apiVersion": "v1", "kind": "A", "spec": ""})
    assert found[2] == (7, {"kind": "C"})
    with pytest.raises(DocumentInvalid):
        list(heads(b"a: [\n"))


@settings(deadline=None)
@given(st.text(alphabet="a1.-:[]{}&*<>!|#\"' \n\t~,?%@`", max_size=60) | st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    attempt(text.encode(errors="surrogatepass"))


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    attempt(content)


def attempt(content: bytes) -> None:
    """Nothing but DocumentInvalid ever comes out."""
    for reader in (load, merged, lambda each: list(heads(each))):
        with contextlib.suppress(DocumentInvalid):
            reader(content)
