"""Versions and ranges as Masterminds' semver reads them; the table is compared with the real helm."""

import itertools
import random
import string
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from charthouse.helm.versions import Version, VersionInvalid, check_constraint, tag_of
from support.tools import Tool

# What NewVersion takes, and whether StrictNewVersion takes it too.
VERSIONS = {
    "1.2.3": "strict",
    "0.0.0": "strict",
    "0.0.0-0": "strict",
    "10.20.30": "strict",
    "1.2.3-alpha": "strict",
    "1.2.3-alpha.1": "strict",
    "1.2.3-0.3.7": "strict",
    "1.2.3-x.7.z.92": "strict",
    "1.2.3-x-y-z.--": "strict",
    "1.2.3---RC-SNAPSHOT.12.9.1--.12": "strict",
    "1.2.3-0A.is.legal": "strict",
    "1.2.3+build": "strict",
    "1.2.3+001": "strict",
    "1.2.3+21AF26D3---117B344092BD": "strict",
    "1.2.3-beta+exp.sha.5114f85": "strict",
    "1.2.3+meta-valid": "strict",
    "1.0.0-alpha.beta.1": "strict",
    "2.0.1-alpha.1227": "strict",
    "1.0.0-0-0": "strict",
    "18446744073709551615.0.0": "strict",
    "0.0.1-20240101": "strict",
    "1.2.3-99999999999999999999": "strict",
    "v1.2.3": "lenient",
    "v0.6.0": "lenient",
    "v1": "lenient",
    "v1.2": "lenient",
    "1": "lenient",
    "1.2": "lenient",
    "0.1": "lenient",
    "01.2.3": "lenient",
    "1.02.3": "lenient",
    "0.3.000": "lenient",
    "1-alpha": "lenient",
    "1.2-rc1": "lenient",
    "1.2+b": "lenient",
    "1.2-beta+b": "lenient",
    "v01.02.03": "lenient",
    "0": "lenient",
    "20240101": "lenient",
    "V1.2.3": "invalid",
    "vv1.2.3": "invalid",
    "1.2.3.4": "invalid",
    "1.2.3-": "invalid",
    "1.2.3+": "invalid",
    "1.2.3-01": "invalid",
    "1.2.3-a.01": "invalid",
    "1.2.3-a..b": "invalid",
    "1.2.3+a..b": "invalid",
    "1.2.3+a+b": "invalid",
    "1.2.3_b": "invalid",
    "1.2.3-a_b": "invalid",
    "1..3": "invalid",
    ".1.2": "invalid",
    "1.2.": "invalid",
    "1.2.x": "invalid",
    "-1.2.3": "invalid",
    "+1.2.3": "invalid",
    "1.2.3 ": "invalid",
    " 1.2.3": "invalid",
    "1,2,3": "invalid",
    "latest": "invalid",
    "v": "invalid",
    "1.2.3-é": "invalid",
    "\u0661.\u0662.\u0663": "invalid",
    "18446744073709551616.0.0": "invalid",
    "1.18446744073709551616": "invalid",
    "1.2.3-" + "a" * 251: "invalid",
}
ASCENDING = (
    *(
        "0.0.0-0",
        "0.0.0",
        "0.0.1-1",
        "0.0.1-2",
        "0.0.1-10",
        "0.0.1-a",
        "0.0.1-a.1",
        "0.0.1-a.a",
        "0.0.1-a-b",
        "0.0.1-b",
    ),
    *("0.0.1", "0.0.2", "0.1", "0.10.0", "1-rc", "1", "v2.0.0", "10"),
)
RANGES = (
    *("*", "x", "1", "1.x", "1.2.*", "v1.2", "=1.2.3", "!=1", ">1.2", "<=1.2.3-rc", "=>1", "=<1", "~1.2", "~>1.2"),
    *("^1.2.3+b", ">=1,<2", "1||2", ">= 1.2, < 2", ">=1.2 <2", "1.2 - 2.3.4", "1 || 2 || >3 <4", "  1.2 ", "^ 1.2"),
    *(">=1.10.0-0 < 2.0.0-0", "^0.1.x", "1 ,2"),
)
NO_RANGES = (
    *(
        "",
        " ",
        "latest",
        "1.2.3.4",
        "==1",
        "<>1",
        "><1",
        "1 2,",
        ",1",
        "1 -2 -",
        "a.b",
        "1.2.3-",
        "|| 1",
        "||1",
        "1.x.y",
    ),
    *("1x", "1.2.3-01", "1.x-01", "1\u00a02", "1" * 513, "||".join(["1"] * 33), "18446744073709551616", "1.2-3 -"),
)


def taken(read: object, text: str) -> bool:
    try:
        read(text)
    except VersionInvalid:
        return False
    return True


@pytest.mark.parametrize(("version", "kind"), VERSIONS.items())
def test_new_version_and_strict_new_version_take_what_masterminds_takes(version: str, kind: str) -> None:
    assert taken(Version.parse, version) == (kind != "invalid")
    assert taken(Version.parse_strict, version) == (kind == "strict")


def test_helm_package_takes_the_same_versions(helm: Tool, tmp_path: Path) -> None:
    """It takes any number of charts, and ends at the first that it refuses."""
    valid = []
    for number, (version, kind) in enumerate(VERSIONS.items()):
        chart = tmp_path / f"{number}/app"
        chart.mkdir(parents=True)
        (chart / "Chart.yaml").write_text(f'apiVersion: v2\nname: app\nversion: "{version}"\n', encoding="utf-8")
        if kind == "invalid":
            assert f'version "{version}" is invalid' in helm("package", chart, status=1), version
        else:
            valid.append(chart)
    assert helm("package", *valid).count("Successfully packaged chart") == len(valid)


def test_precedence_is_that_of_semantic_versioning() -> None:
    versions = [Version.parse(text) for text in ASCENDING]
    assert sorted(random.Random(1).sample(versions, len(versions))) == versions
    assert all(one < other and one != other for one, other in itertools.pairwise(versions))


@pytest.mark.parametrize(("one", "other"), [("1.2.3+a", "1.2.3+b"), ("v1.2", "1.2.0"), ("01.2.3", "1.2.3")])
def test_metadata_and_spelling_do_not_count(one: str, other: str) -> None:
    assert Version.parse(one) == Version.parse(other)
    assert hash(Version.parse(one)) == hash(Version.parse(other))
    assert not Version.parse(one) < Version.parse(other)


def test_a_prerelease_is_known_as_one() -> None:
    assert Version.parse("1.0.0-rc.1").is_prerelease
    assert not Version.parse("1.0.0+b").is_prerelease


def test_a_tag_has_an_underscore_for_a_plus() -> None:
    assert tag_of("1.2.3-rc+b.1") == "1.2.3-rc_b.1"


@pytest.mark.parametrize("text", RANGES)
def test_a_range_is_one_that_masterminds_takes(text: str) -> None:
    check_constraint(text)


@pytest.mark.parametrize("text", NO_RANGES)
def test_anything_else_is_no_range(text: str) -> None:
    with pytest.raises(VersionInvalid):
        check_constraint(text)


NEARLY = st.text(alphabet="01.-+vxX*a |<>=!~^,\t" + string.ascii_lowercase, max_size=40) | st.text()


@settings(deadline=None)
@given(NEARLY)
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but VersionInvalid ever comes out, and what is read strictly is read leniently."""
    assert taken(Version.parse, text) or not taken(Version.parse_strict, text)
    taken(check_constraint, text)
