"""Chart.yaml and the config blob are read into the fields that Helm knows, and faults are named with their line."""

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings, strategies as st

from charthouse.helm.metadata import CHART_YAML_LIMIT, Dependency, Maintainer, Metadata, from_config, parse, sanitize
from support.tools import Tool

FULL = b"""apiVersion: v2
name: app
version: 1.2.3
description: An app.
appVersion: 1.10
type: application
deprecated: yes
kubeVersion: ">=1.20"
home: https://example.com
icon: https://example.com/icon.png
condition: app.enabled
tags: a,b
keywords: [one, 2, ~]
sources: [https://example.com/src]
maintainers:
  - {name: Ada, email: ada@example.com, url: https://example.com/ada}
annotations: {a: b, c: 1, "null": ~}
dependencies:
  - name: db
    version: ^1
    repository: oci://example.com/charts
    alias: store
    condition: db.enabled
    tags: [x]
    enabled: true
    import-values: [data, {child: a, parent: b}]
engine: gotpl
"""
WHOLE = Metadata(
    name="app",
    version="1.2.3",
    description="An app.",
    api_version="v2",
    app_version="1.1",
    type="application",
    deprecated=True,
    kube_version=">=1.20",
    home="https://example.com",
    icon="https://example.com/icon.png",
    condition="app.enabled",
    tags="a,b",
    keywords=("one", "2", ""),
    sources=("https://example.com/src",),
    maintainers=(Maintainer("Ada", "ada@example.com", "https://example.com/ada"),),
    annotations={"a": "b", "c": "1", "null": ""},
    dependencies=(
        Dependency(
            "db",
            "^1",
            "oci://example.com/charts",
            "db.enabled",
            ("x",),
            enabled=True,
            import_values=("data", {"child": "a", "parent": "b"}),
            alias="store",
        ),
    ),
)


def faults(chart_yaml: bytes) -> list[str]:
    return [str(each) for each in parse(chart_yaml).faults]


def test_every_field_that_helm_knows_is_read() -> None:
    assert parse(FULL).metadata == WHOLE
    assert parse(FULL).faults == ()


def test_every_field_survives_json() -> None:
    assert Metadata.from_json(json.loads(json.dumps(WHOLE.to_json()))) == WHOLE


def test_the_config_blob_is_read_into_the_same_fields() -> None:
    config = {"apiVersion": "v2", "name": "app", "keywords": ["a"], "deprecated": True, "annotations": {"a": "b"}}
    found = from_config(json.dumps(config).encode())
    assert found.metadata == Metadata("app", api_version="v2", keywords=("a",), deprecated=True, annotations={"a": "b"})
    assert from_config(b"null").faults == ()


def test_helm_package_reads_versions_that_are_numbers_alike(helm: Tool) -> None:
    """`1.10` is 1.1, `010` is 8, `1e6` is 1e+06, which is no version."""
    (helm.home / "app").mkdir()
    for text in (
        "1.10",
        "1",
        "010",
        "0x10",
        "1_0",
        "1.0",
        "2024-01-01",
        "0.1",
        "1e3",
        "123456.5",
        "0.00001",
        "1e6",
        "yes",
    ):
        chart_yaml = f"apiVersion: v2\nname: app\nversion: {text}\n"
        (helm.home / "app" / "Chart.yaml").write_text(chart_yaml)
        version = parse(chart_yaml.encode()).metadata.version
        refused = version in ("1e-05", "1e+06", "true")
        answer = helm("package", "app", status=1 if refused else 0)
        assert f'version "{version}" is invalid' in answer if refused else f"app-{version}.tgz" in answer


def test_field_names_are_taken_in_any_case_and_the_last_in_the_alphabet_counts() -> None:
    assert parse(b"NAME: a\nAppVersion: 1.0.0\nAPIVERSION: v2").metadata == Metadata(
        "a", app_version="1.0.0", api_version="v2"
    )
    assert parse(b"name: a\nName: b\nNAME: c").metadata.name == "a"


def test_the_api_version_is_v1_when_none_is_given() -> None:
    assert parse(b"name: a\napiVersion:").metadata.api_version == "v1"
    assert parse(b'name: a\napiVersion: ""').metadata.api_version == "v1"


def test_requirements_go_over_chart_yaml() -> None:
    found = parse(b"name: a\nversion: 1.0.0", b"dependencies: [{name: db}]\nversion: 2.0.0")
    assert found.metadata.dependencies == (Dependency("db"),)
    assert found.metadata.version == "2.0.0"
    broken = parse(b"name: a", b"dependencies: x")
    assert [str(each) for each in broken.faults] == ["requirements.yaml:1: dependencies is 'x', it must be a list"]


def test_control_characters_are_taken_out_and_spaces_made_blank() -> None:
    assert sanitize("a\tb\x1b[31m\u2028c\u00a0d\ufeff\U000e0001é") == "a b[31m c dé"
    assert parse(b'name: "a\\e\\tb"\nversion: "1\\t2"').metadata == Metadata("a b", "1\t2")


@pytest.mark.parametrize(
    ("chart_yaml", "message"),
    [
        (b"a: [", "Chart.yaml:2: not valid YAML: "),
        (b"- a", "Chart.yaml:1: the document is a list, it must be a mapping of fields"),
        (b"text", "Chart.yaml:1: the document is 'text', it must be a mapping of fields"),
        (b"name: a\nversion: [1]", "Chart.yaml:2: version is a list, it must be a text"),
        (b"name: {a: b}", "Chart.yaml:1: name is a mapping, it must be a text"),
        (b"\nkeywords: a", "Chart.yaml:2: keywords is 'a', it must be a list"),
        (b"keywords: [[a]]", "Chart.yaml:1: keywords[0] is a list, it must be a text"),
        (b"deprecated: 'yes'", "Chart.yaml:1: deprecated is 'yes', it must be true or false"),
        (b"annotations: [a]", "Chart.yaml:1: annotations is a list, it must be a mapping of texts"),
        (b"annotations:\n  a: [b]", "Chart.yaml:2: annotations.a is a list, it must be a text"),
        (b"maintainers: [a]", "Chart.yaml:1: maintainers[0] is 'a', it must be a mapping of fields"),
        (b"maintainers: [{name: [a]}]", "Chart.yaml:1: maintainers[0].name is a list, it must be a text"),
        (b"maintainers: [~]", "Chart.yaml:1: maintainers[0] is null: maintainers must not contain empty or null nodes"),
        (
            b"dependencies:\n- ",
            "Chart.yaml:1: dependencies[0] is null: dependencies must not contain empty or null nodes",
        ),
        (b"dependencies: [{tags: a}]", "Chart.yaml:1: dependencies[0].tags is 'a', it must be a list"),
        (b"dependencies: [{import-values: [.inf]}]", "Chart.yaml:1: dependencies[0].import-values is "),
        (b"a: " + b"[" * 200, "Chart.yaml:1: too much YAML: nested deeper than 100 levels"),
        (b"#" * (CHART_YAML_LIMIT + 1), "Chart.yaml: it has 1,048,577 bytes, at most 1,048,576 are allowed"),
    ],
)
def test_what_does_not_fit_is_named(chart_yaml: bytes, message: str) -> None:
    (found,) = faults(chart_yaml)
    assert found.startswith(message)


def test_all_that_does_not_fit_is_named_and_the_rest_is_read() -> None:
    found = parse(b"name: a\nversion: {}\nkeywords: 1\nsources: [[]]\n")
    assert len(found.faults) == 3
    assert found.metadata.name == "a"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"", "the config blob is not valid JSON: "),
        (b"\xff\xfe", "the config blob is not valid JSON: "),
        (b"[" * 100_000, "the config blob is nested too deeply"),
        (b"[]", "the config blob's the document is a list"),
        (b'{"name": 1}', "the config blob's name is '1', it must be a text"),
        (b'{"name": "' + b"a" * 1024 * 1024 + b'"}', "the config blob has 1,048,588 bytes"),
    ],
)
def test_a_config_blob_that_cannot_be_read_is_named(config: bytes, message: str) -> None:
    (found,) = from_config(config).faults
    assert str(found).startswith(message)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["name", "Version", "keywords", "maintainers", "dependencies", "annotations", "deprecated", "type"]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), values))
def test_any_fields_are_read_or_named(document: dict[str, object]) -> None:
    """And what was read can be stored: it is valid Unicode, and JSON without NaN."""
    for found in (parse(json.dumps(document).encode()), from_config(json.dumps(document).encode())):
        stored = json.dumps(found.metadata.to_json(), allow_nan=False, ensure_ascii=False).encode()
        assert Metadata.from_json(json.loads(stored)) == found.metadata


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_read_or_named(content: bytes) -> None:
    for found in (parse(content), from_config(content)):
        assert dataclasses.is_dataclass(found.metadata)


def test_numbers_that_are_no_numbers_are_texts() -> None:
    assert math.isnan(float(parse(b"appVersion: .nan").metadata.app_version))
