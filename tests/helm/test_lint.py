"""What is warned of: each warning's words, file and line, for a chart that Helm takes all the same."""

import json

import pytest

from charthouse.helm import archive, lint
from charthouse.helm.findings import Finding
from charthouse.helm.inspection import Inspection, inspect
from helm.charts import CHART_YAML, chart, member, tgz
from support.tools import Tool

GOOD = {"values.yaml": b"a: 1\n", "templates/NOTES.txt": b""}
CRD = b"apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
DEPENDS = CHART_YAML + b'dependencies:\n- name: db\n  version: "1"\n'
NO_RANGE = "; ranges of versions, and installs without --version, will not find it"


def linted(files: dict[str, bytes] | None = None, chart_yaml: bytes = CHART_YAML) -> Inspection:
    return inspect(chart({**GOOD, **(files or {})}, chart_yaml=chart_yaml), archive.DEFAULT, linting=True)


def said(found: Inspection) -> list[str]:
    assert {each.severity for each in found.lint} <= {"warn"}
    return [f"{each.rule}: {each}" for each in found.lint]


def test_a_good_chart_has_no_warnings() -> None:
    assert said(linted()) == []


def fields(text: str) -> bytes:
    return text.encode() + b"icon: https://example.com/i.png\n"


CHART_YAMLS = {
    "api_version_is_given": (
        "name: app\nversion: 1.2.3\n",
        "Chart.yaml: apiVersion is not given, so this is read as a chart of Helm 2; write apiVersion: v2",
    ),
    "fields_are_known": (
        "apiVersion: v2\nname: app\nversion: 1.2.3\nengine: gotpl\n",
        "Chart.yaml:4: unknown field 'engine'",
    ),
    "fields_are_known ": (
        "apiVersion: v2\nname: app\nversion: 1.2.3\nmaintainers:\n- name: a\n  mail: b\n",
        "Chart.yaml:6: unknown field 'maintainers[0].mail'",
    ),
    "fields_stand_once": (
        "apiVersion: v2\nname: app\nversion: 1.2.2\nversion: 1.2.3\n",
        "Chart.yaml:4: the field 'version' stands twice",
    ),
    "versions_are_texts": (
        "apiVersion: v2\nname: app\nversion: 1.2.3\nappVersion: 1.10\n",
        "Chart.yaml:4: appVersion is a number or a boolean, and is read as '1.1'; put it in quotes",
    ),
    "version_is_strict": (
        'apiVersion: v2\nname: app\nversion: "01.2"\n',
        "Chart.yaml:3: the version is '01.2': it is no strict semantic version (three numbers, no leading v or zeros)"
        + NO_RANGE,
    ),
    "version_has_no_v": (
        "apiVersion: v2\nname: app\nversion: v1.2.3\n",
        "Chart.yaml:3: the version 'v1.2.3' begins with v" + NO_RANGE,
    ),
    "version_is_above_zero": (
        "apiVersion: v2\nname: app\nversion: 0.0.0-0\n",
        "Chart.yaml:3: the version 0.0.0-0 is lower than any range",
    ),
    "maintainers_can_be_reached": (
        "apiVersion: v2\nname: app\nversion: 1.2.3\nmaintainers: [{email: a@example.com}]\n",
        "Chart.yaml:4: a maintainer has no name",
    ),
    "maintainers_can_be_reached ": (
        "apiVersion: v2\nname: app\nversion: 1.2.3\nmaintainers: [{name: a, email: nobody}]\n",
        "Chart.yaml:4: maintainer 'a' has the email 'nobody'",
    ),
    "maintainers_can_be_reached  ": (
        "apiVersion: v2\nname: app\nversion: 1.2.3\nmaintainers: [{name: a, url: a b}]\n",
        "Chart.yaml:4: maintainer 'a' has the url 'a b'",
    ),
    "sources_are_urls": (
        "apiVersion: v2\nname: app\nversion: 1.2.3\nsources: [example.com]\n",
        "Chart.yaml:4: the source 'example.com' is no URL",
    ),
    "fields_belong_to_the_api_version": (
        "apiVersion: v1\nname: app\nversion: 1.2.3\ntype: application\n",
        "Chart.yaml:4: type has no meaning in apiVersion v1; write apiVersion: v2",
    ),
    "kube_version_is_a_range": (
        "apiVersion: v2\nname: app\nversion: 1.2.3\nkubeVersion: new\n",
        "Chart.yaml:4: kubeVersion is 'new': improper constraint 'new'",
    ),
}
FILES = {
    "values_yaml_can_be_read": (
        {"values.yaml": b"a: 1\nb: [\n"},
        (
            "values.yaml:3: not valid YAML: while parsing a flow node, did not find expected node content;"
            " Helm cannot load the chart"
        ),
    ),
    "values_satisfy_the_schema": (
        {"values.schema.json": b'{"properties": {"a": {"type": "string"}}}'},
        "values.yaml: a: 1 is not of type 'string'; values.schema.json demands it",
    ),
    "values_satisfy_the_schema ": (
        {"values.schema.json": b'{"type": "objekt"}'},
        "values.schema.json: the schema cannot be used: type: 'objekt' is not valid under any of the given schemas",
    ),
    "values_satisfy_the_schema  ": (
        {"values.schema.json": b"{"},
        (
            "values.schema.json: the schema cannot be used: it is not valid JSON: "
            "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
        ),
    ),
    "charts_are_dependencies": (
        {"charts/db/Chart.yaml": b"name: db\nversion: 1.0.0"},
        "Chart.yaml: dependencies lacks db, in charts/",
    ),
    "subcharts_can_be_read": (
        {"charts/db-1.0.0.tgz": b"junk"},
        (
            "charts/db-1.0.0.tgz: the subchart cannot be read: the chart's archive is no gzip tar:"
            " it cannot be inflated (Error -3 while decompressing data: incorrect header check);"
            " Helm cannot load the chart"
        ),
    ),
    "lock_is_of_these_dependencies": (
        {"Chart.lock": b"dependencies: [{name: db}]"},
        "Chart.lock: it locks db, and the dependencies are none; run helm dependency update",
    ),
    "templates_have_known_extensions": (
        {"templates/a.json": b""},
        "templates/a.json: a template's extension is '.json'; use .yaml, .yml, .tpl, .txt",
    ),
    "api_versions_are_not_removed": (
        {"templates/a.yaml": b"# first\napiVersion: extensions/v1beta1\nkind: Ingress\n"},
        (
            "templates/a.yaml:2: extensions/v1beta1 Ingress is gone since Kubernetes 1.16 to 1.22;"
            " write apps/v1, networking.k8s.io/v1 or policy/v1"
        ),
    ),
    "crds_are_crds": (
        {"crds/a.yaml": CRD + b"---\napiVersion: apiextensions.k8s.io/v1\nkind: Pod\n"},
        "crds/a.yaml:4: kind is 'Pod', not CustomResourceDefinition",
    ),
    "crds_are_crds ": (
        {"crds/a.yaml": b"kind: CustomResourceDefinition"},
        "crds/a.yaml:1: apiVersion is '', not apiextensions.k8s.io",
    ),
    "crds_are_crds  ": (
        {"crds/a.yaml": CRD + b"a: [\n"},
        "crds/a.yaml:4: not valid YAML: did not find expected node content; CRDs are no templates",
    ),
    "crds_are_crds    ": (
        {"crds/a.yaml": b"[" * 2_000},
        "crds/a.yaml:1: not checked: nested deeper than 1,000 levels",
    ),
    "crds_are_crds   ": ({"crds": b""}, "crds: crds is a file, it must be a folder"),
}


@pytest.mark.parametrize(("rule", "text", "message"), [(rule, *case) for rule, case in CHART_YAMLS.items()])
def test_a_fault_of_chart_yaml_is_warned_of(rule: str, text: str, message: str) -> None:
    assert said(linted(chart_yaml=fields(text))) == [f"{rule.strip()}: {message}"]


@pytest.mark.parametrize(("rule", "files", "message"), [(rule, *case) for rule, case in FILES.items()])
def test_a_fault_of_a_file_is_warned_of(rule: str, files: dict[str, bytes], message: str) -> None:
    assert said(linted(files)) == [f"{rule.strip()}: {message}"]


def test_an_icon_is_recommended_and_must_be_a_url() -> None:
    bare = b"apiVersion: v2\nname: app\nversion: 1.2.3\n"
    assert said(linted(chart_yaml=bare)) == ["icon_is_given: Chart.yaml: there is no icon"]
    assert said(linted(chart_yaml=bare + b"icon: logo.png")) == [
        "icon_is_a_url: Chart.yaml:4: the icon 'logo.png' is no URL"
    ]


def test_a_chart_without_values_and_templates_is_warned_of() -> None:
    found = inspect(chart(), archive.DEFAULT, linting=True)
    assert said(found) == [
        "values_yaml_is_there: values.yaml: there is no values.yaml",
        "templates_are_there: there is no folder templates/",
    ]


def test_a_dependency_is_in_charts_as_an_archive_or_a_folder() -> None:
    db = chart(chart_yaml=b"apiVersion: v2\nname: db\nversion: 1.0.0", top="db")
    assert said(linted({"charts/db-1.0.0.tgz": db}, DEPENDS)) == []
    assert said(linted({"charts/db/Chart.yaml": b"name: db\nversion: 1.0.0"}, DEPENDS)) == []
    assert said(linted({"charts/_db/x": b"", "charts/db-1.0.0.tgz.prov": b""}, DEPENDS)) == [
        "dependencies_are_in_charts: charts/ lacks the dependencies db; run helm dependency build first"
    ]
    message = "Chart.yaml:5: the version of dependency 'db' is 'x.y': improper constraint 'x.y'"
    found = said(linted(chart_yaml=DEPENDS.replace(b'"1"', b"x.y")))
    assert f"dependency_versions_are_ranges: {message}" in found


def test_an_api_version_is_not_warned_of_where_the_template_asks_the_cluster() -> None:
    content = b'{{ if .Capabilities.APIVersions.Has "x" }}\napiVersion: extensions/v1beta1\nkind: Ingress\n{{ end }}'
    assert said(linted({"templates/a.yaml": content})) == []


def test_a_schema_is_never_fetched_from_elsewhere() -> None:
    schema = json.dumps({"$ref": "https://example.com/schema.json"}).encode()
    (found,) = said(linted({"values.schema.json": schema}))
    assert found.startswith(
        "values_satisfy_the_schema: values.schema.json: not checked, the schema refers to another one: "
    )


def test_a_schema_that_refers_to_itself_without_end_is_named() -> None:
    (found,) = said(linted({"values.schema.json": b'{"$ref": "#"}'}))
    assert found.endswith("the schema cannot be used: it refers to itself without end")


def test_a_schema_is_of_the_draft_it_names() -> None:
    """`dependencies` was a word until draft 7; without `$schema` Helm reads 2020-12."""
    body = '"dependencies": {"a": ["b"]}}'
    assert said(linted({"values.schema.json": b"{" + body.encode()})) == []
    old = '{"$schema": "http://json-schema.org/draft-07/schema#", ' + body
    assert len(said(linted({"values.schema.json": old.encode()}))) == 1


def test_links_and_paths_that_stand_twice_are_warned_of() -> None:
    members = [member(f"app/{path}", content) for path, content in {"Chart.yaml": CHART_YAML, **GOOD}.items()]
    found = inspect(tgz(*members, members[1], member("app/l", type=b"2", linkname="x")), archive.DEFAULT, linting=True)
    assert said(found) == [
        "members_are_read_as_they_stand: l: a link, which Helm reads as an empty file; pack the file itself",
        "members_are_read_as_they_stand: values.yaml: stands more than once in the archive, the last one counts",
    ]


def test_a_chart_that_is_too_large_for_a_secret_is_warned_of() -> None:
    noise = bytes.fromhex("".join(f"{number * 2654435761 % 2**32:08x}" for number in range(300_000)))
    (found,) = linted({"files/noise": noise}).lint
    assert found.rule == "release_fits_into_a_secret"
    assert found.message.endswith("bytes of a release, and Kubernetes allows 1,048,576 in a Secret")
    assert said(linted({"files/zeros": bytes(2_000_000)})) == []


def test_every_warning_has_a_test_here() -> None:
    tested = {rule.strip() for rule in [*CHART_YAMLS, *FILES]} | {
        *(
            "icon_is_given",
            "icon_is_a_url",
            "values_yaml_is_there",
            "templates_are_there",
            "dependencies_are_in_charts",
        ),
        *("dependency_versions_are_ranges", "members_are_read_as_they_stand", "release_fits_into_a_secret"),
    }
    assert {each.__name__ for each in lint.LINTS} == tested


def test_what_people_read_is_kept_as_text() -> None:
    found = linted({"README.md": b"# App\xff", "values.schema.json": b"{}"})
    assert found.texts == {
        "README.md": "# App\ufffd",
        "values.yaml": "a: 1\n",
        "values.schema.json": "{}",
        "Chart.yaml": CHART_YAML.decode(),
    }
    assert inspect(chart(GOOD), archive.DEFAULT).texts == {}


def test_findings_survive_the_process_boundary() -> None:
    found = linted(chart_yaml=b"name: app\nversion: [1]\nkeywords: a")
    assert isinstance(found.faults[0], Finding)
    assert Inspection.from_json(found.to_json()) == found


OURS_ALONE = {
    "kube_version_is_a_range",
    "lock_is_of_these_dependencies",
    "api_versions_are_not_removed",
    "fields_stand_once",
}


def test_helm_lint_finds_fault_with_the_same_charts(helm4: Tool) -> None:
    """Wherever the rule is Helm's own: it finds nothing in the good chart, and something in each of the others."""
    charts = {"good": GOOD} | {name: {**GOOD, **files} for name, (files, _) in FILES.items()}
    charts |= {name: {**GOOD, "Chart.yaml": fields(text)} for name, (text, _) in CHART_YAMLS.items()}
    folders = {name: f"{number}/app" for number, name in enumerate(charts) if name.strip() not in OURS_ALONE}
    for name, folder in folders.items():
        for path, content in {"Chart.yaml": CHART_YAML, **charts[name]}.items():
            (helm4.home / folder / path).parent.mkdir(parents=True, exist_ok=True)
            (helm4.home / folder / path).write_bytes(content)
    answer = helm4("lint", *folders.values(), status=1).split("==> Linting ")[1:]
    found = {name for name, said in zip(folders, answer, strict=True) if "[" in said}
    assert set(folders) - found == {"good"}
