"""What is kept of a chart for people: read once after the push, shown by commands, and never in the way of anybody."""

import asyncio
import contextlib
import functools
import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from charthouse import extraction, queries, showing
from charthouse.app import Application
from charthouse.composition import open_registry
from charthouse.core import Registry
from charthouse.errors import ManifestUnknown, Unavailable
from charthouse.extraction import Facts
from charthouse.helm.helper import Helper, HelperMissing
from charthouse.helm.inspection import EXTRACTOR_VERSION, PATHS_LIMIT, README_LIMIT, Inspection
from charthouse.helm.isolation import Inspector
from charthouse.names import Digest, RepositoryName, Tag
from helm.charts import Zeros, chart
from support.requests import Remote, encoded, error_of
from support.server import serving
from test_cli import Run, run  # noqa: F401 - a fixture
from test_namespaces import Chart

NAME = RepositoryName("team-a/app")
PATIENCE = 30  # seconds for what follows a push within one on an idle machine
CHART_YAML = b"""apiVersion: v2
name: app
version: 1.0.0
description: Shows what it holds
dependencies:
- name: redis
  version: 1.x
  repository: oci://example.com/charts
"""
FILES = {
    "README.md": b"# App\n\n\x1b[31mred\x1b[0m\n",
    "values.yaml": b"replicas: 1\n",
    "values.schema.json": b'{"type": "object"}',
    "crds/thing.yaml": b"---\nkind: CustomResourceDefinition\n",
    "templates/a.yaml": b"kind: ConfigMap\n",
}


def full_chart(version: str = "1.0.0", **files: bytes) -> Chart:
    pushed = Chart(version)
    pushed.archive = chart({**FILES, **files}, chart_yaml=CHART_YAML.replace(b"1.0.0", version.encode()))
    config = {"apiVersion": "v2", "name": "app", "version": version, "description": "Shows what it holds"}
    pushed.config = encoded(config)
    return pushed


@pytest.fixture
def remote(client: httpx.AsyncClient) -> Remote:
    return Remote(client, NAME)


async def push(remote: Remote, pushed: Chart) -> None:
    response = await pushed.push(remote, pushed.version)
    assert response.status_code == 201, response.text


async def stored(registry: Registry, pushed: Chart) -> str | None:
    return await registry._database.read(queries.find_facts, Digest.of(pushed.archive), EXTRACTOR_VERSION)


async def until_extracted(registry: Registry, pushed: Chart) -> None:
    await asyncio.wait_for(registry.extraction.settled(), PATIENCE)
    assert await stored(registry, pushed) is not None


async def facts_of(registry: Registry, version: str = "1.0.0") -> Facts:
    return await registry.extraction.of(NAME, Tag(version))


# Extracted


async def test_what_a_chart_holds_is_read_after_its_push_without_anybody_asking(app: Application, remote: Remote):
    pushed = full_chart()
    await push(remote, pushed)
    await until_extracted(app.registry, pushed)
    facts = await facts_of(app.registry)
    assert facts.inspection.metadata.dependencies[0].name == "redis"
    assert facts.inspection.texts["README.md"].startswith("# App")
    assert facts.inspection.texts["crds/thing.yaml"] == FILES["crds/thing.yaml"].decode()
    assert facts.inspection.files["templates/a.yaml"] == len(FILES["templates/a.yaml"])
    assert "icon_is_given" in {finding.rule for finding in facts.findings}


async def test_who_asks_before_it_was_read_does_not_wait_for_the_others(app: Application, remote: Remote):
    await push(remote, full_chart())
    assert (await facts_of(app.registry)).inspection.texts["values.yaml"] == "replicas: 1\n"


async def test_reading_waits_for_a_pause_between_pushes_and_who_asks_does_not(app, remote, monkeypatch):
    monkeypatch.setattr(extraction, "QUIET", 3600)
    monkeypatch.setattr(extraction, "GIVEN_WAY", 1_000_000)
    first, second = full_chart("1.0.0"), full_chart("1.0.1")
    await push(remote, first)
    await until_extracted(app.registry, first)
    await push(remote, second)
    assert (await facts_of(app.registry, "1.0.1")).inspection.texts["values.yaml"] == "replicas: 1\n"
    assert app.registry.extraction._waiting.qsize() == 1


async def test_an_archive_is_read_once_whoever_holds_it(app, client, remote, monkeypatch: pytest.MonkeyPatch):
    pushed = full_chart()
    for each in (remote, Remote(client, "team-b/app")):
        await push(each, pushed)
    await until_extracted(app.registry, pushed)
    monkeypatch.setattr(app.registry.extraction._inspector, "extract", pytest.fail)
    assert await app.registry.extraction.of(RepositoryName("team-b/app"), Tag("1.0.0"))


async def test_what_a_crash_left_out_is_read_at_the_next_start(settings, clock, app, remote):
    pushed = full_chart()
    await push(remote, pushed)
    await until_extracted(app.registry, pushed)
    await app.registry._database.write(
        queries.put_facts, {Digest.of(pushed.archive): Inspection().to_json()}, EXTRACTOR_VERSION - 1, 0
    )
    again = await open_registry(settings, clock=clock, durable=False)
    assert await stored(again, pushed) is None  # another version's do not count
    await again.extraction.catch_up()
    await until_extracted(again, pushed)
    await again.close()


async def test_reindex_reads_what_is_missing_and_anew_all_of_it(app, remote):
    for version in ("1.0.0", "1.0.1"):
        pushed = full_chart(version)
        await push(remote, pushed)
        await until_extracted(app.registry, pushed)
    assert [each async for each in app.registry.extraction.reindex(anew=False)] == []
    assert [total async for _, total in app.registry.extraction.reindex(anew=True)] == [2, 2]


async def test_what_is_no_chart_has_no_facts(app, remote):
    await remote.push_image("1.0.0")
    for reference in (Tag("1.0.0"), Tag("none")):
        with pytest.raises(ManifestUnknown):
            await app.registry.extraction.of(NAME, reference)


async def test_facts_go_with_the_bytes_they_were_read_from(app, remote):
    """A collector that removes the blob's row need not know of them."""
    pushed = full_chart()
    await push(remote, pushed)
    await until_extracted(app.registry, pushed)
    from sqlalchemy import text

    def collect(connection: Any) -> None:
        connection.execute(text("DELETE FROM repository_blobs"))
        connection.execute(text("DELETE FROM blobs"))

    await app.registry.delete_repository(NAME)
    await app.registry._database.write(collect)
    assert await stored(app.registry, pushed) is None


@pytest.mark.parametrize("name", ["README.md", "readme.md", "README.txt", "Readme"])
async def test_the_readme_is_found_as_helm_show_finds_it(app, remote, name):
    pushed = full_chart()
    files = {path: content for path, content in FILES.items() if path != "README.md"}
    pushed.archive = chart({**files, name: b"read me"}, chart_yaml=CHART_YAML)
    await push(remote, pushed)
    assert showing.as_text(await facts_of(app.registry), "readme") == "read me"


# Bounded


@pytest.mark.provokes("does not start")
async def test_a_helper_that_does_not_start_is_a_503_that_says_so(app, remote, monkeypatch: pytest.MonkeyPatch):
    def missing(*_: object, **__: object) -> None:
        raise HelperMissing("python -m charthouse.helm.helper does not start")

    with monkeypatch.context() as patched:
        patched.setattr(app.registry._admission._inspector, "inspect", missing)
        text = error_of(await full_chart().push(remote, "1.0.0"), 503, "UNSUPPORTED")
        assert "cannot be checked now" in text
    monkeypatch.setattr(app.registry.extraction._inspector, "extract", missing)
    pushed = full_chart()
    await push(remote, pushed)
    async with asyncio.timeout(PATIENCE):
        await app.registry.extraction.settled()  # in vain, and the log says so
    with pytest.raises(Unavailable, match="cannot be read"):
        await facts_of(app.registry)


async def test_what_is_too_much_to_keep_is_left_out_and_said(app, remote):
    many = {f"files/{'x' * 200}{number:05}": b"" for number in range(PATHS_LIMIT // 200 + 10)}
    pushed = full_chart(**{"README.md": b"a" * (README_LIMIT + 7), **many})
    await push(remote, pushed)
    facts = await facts_of(app.registry)
    assert len(facts.inspection.texts["README.md"]) == README_LIMIT
    assert f"7 of {README_LIMIT + 7:,} bytes of README.md" in facts.inspection.omitted
    assert any("more files" in each for each in facts.inspection.omitted)
    assert len(await stored(app.registry, pushed)) < 6 * 1024 * 1024


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 50_000,
        b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 120)),
        b'{"$ref": "http://127.0.0.1:1/x", "pattern": "(a+)+$"}',
        b"\x00\xff\xfe" * 1000,
        gzip.compress(bytes(5_000_000)),
    ],
    ids=["nesting", "aliases", "remote $ref", "no text", "zeros"],
)
async def test_hostile_files_become_facts_or_findings_and_never_an_error(app, remote, content, caplog, monkeypatch):
    """Wherever they are in a chart."""
    paths = ("values.yaml", "values.schema.json", "crds/a.yaml", "charts/x-1.0.0.tgz", "templates/a.yaml")
    with contextlib.closing(Helper(cpu_limit=0.3, gives_way=True)) as helper:  # seconds, of which nesting takes all
        monkeypatch.setattr(app.registry.extraction._inspector, "helper", helper)
        for number, path in enumerate(paths):
            await push(remote, full_chart(f"1.0.{number}", **{path: content}))
            assert (await facts_of(app.registry, f"1.0.{number}")).findings, path
            assert [record for record in caplog.records if record.exc_info] == [], path


@functools.cache
def zeros() -> bytes:
    """10 GiB of them."""
    head = tarfile.TarInfo("app/zeros")
    head.size = 10 * 1024**3
    return Zeros(head.tobuf(), 10 * 1024**3).readall()


@functools.cache
def members() -> bytes:
    """A million, each an empty file."""
    entry = tarfile.TarInfo("app/x").tobuf()
    return gzip.compress(tarfile.TarInfo("app/Chart.yaml").tobuf() + entry * 1_000_000, 1)


def aliases() -> bytes:
    """Each line stands for the one before twice: 2^60 nodes."""
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 61))]
    return chart(chart_yaml=CHART_YAML + "\n".join(lines).encode())


def nesting() -> bytes:
    return chart(chart_yaml=CHART_YAML + b"a: " + b"[" * 50_000)


def loop() -> bytes:
    """A size below zero, over which a reader goes back and never ends (CVE-2025-8194)."""
    header = bytearray(tarfile.TarInfo("app/x").tobuf())
    header[124:136] = b"\xff" * 12
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return gzip.compress(bytes(header) * 3)


def yaml_of_a_mebibyte() -> bytes:
    """What costs the parser most: seconds and hundreds of MiB, in one call that no thread can end."""
    return chart(chart_yaml=CHART_YAML + b"a: [" + b"{a: b}," * 149_000 + b"]")


@pytest.mark.parametrize("make", [zeros, members, aliases, nesting, loop, yaml_of_a_mebibyte])
async def test_other_requests_are_answered_while_a_bomb_is_looked_into(
    app: Application, remote: Remote, make, monkeypatch
):
    """The push waits for its refusal, and meanwhile others are pulled."""
    await push(remote, full_chart())
    bomb = Chart("2.0.0")
    bomb.archive = await asyncio.to_thread(make)
    answered = 0
    with contextlib.closing(Helper(cpu_limit=0.3)) as helper:  # seconds, of which some take all
        monkeypatch.setattr(app.registry._admission._inspector, "helper", helper)
        pushing = asyncio.create_task(bomb.push(remote, "2.0.0"))
        while not pushing.done():
            assert (await remote.call("GET", "manifests/1.0.0")).status_code == 200
            answered += not pushing.done()
            await asyncio.sleep(0)
    assert error_of(pushing.result(), 400, "MANIFEST_INVALID")
    assert answered  # one that took no part of the loop's time; how many there are is the machine's affair


# The rules' own warnings


async def test_what_the_rules_warned_of_is_kept_with_the_chart(app, remote):
    for version in ("2.0.0", "v3.0.0", "1.0.0"):
        await push(remote, full_chart(version))
    rules = {finding.rule: finding.message for finding in (await facts_of(app.registry)).findings}
    assert rules["version_is_not_lower_than_the_newest"] == (
        "the version 1.0.0 is lower than v3.0.0, which is here already"
    )
    assert "version_has_no_v" in {finding.rule for finding in (await facts_of(app.registry, "v3.0.0")).findings}


async def test_the_newest_version_is_looked_for_again_when_it_was_deleted(app, remote):
    for version in ("1.0.0", "3.0.0", "2.0.0"):
        await push(remote, full_chart(version))
    assert await app.registry._database.read(queries.newest_version, NAME) == "3.0.0"
    await app.registry.delete_version(NAME, Tag("3.0.0"))
    assert await app.registry._database.read(queries.newest_version, NAME) is None
    await push(remote, full_chart("1.5.0"))
    assert await app.registry._database.read(queries.newest_version, NAME) == "2.0.0"


# Shown


SHOWN = [
    ("summary", "name          app\n"),
    ("metadata", "description   Shows what it holds"),
    ("readme", "# App\n\n\ufffd[31mred"),
    ("values", "replicas: 1\n"),
    ("schema", '{"type": "object"}'),
    ("files", "templates/a.yaml    16"),
    ("crds", "---\n# Source: crds/thing.yaml\nkind: CustomResourceDefinition"),
    ("dependencies", "oci://example.com/charts"),
    ("findings", "icon_is_given"),
    ("provenance", "the chart has no provenance"),
]


async def test_each_part_is_shown_as_text_and_as_json(app: Application, remote: Remote):
    await push(remote, full_chart())
    facts = await facts_of(app.registry)
    for part, expected in SHOWN:
        assert expected in showing.as_text(facts, part)
        assert "\x1b" not in showing.as_text(facts, part)
        assert json.loads(showing.as_json(facts, part)) is not ...


def test_the_commands_show_lint_and_reindex_what_a_server_has(
    run: Run,  # noqa: F811 - the fixture
    tmp_path: Path,
):
    """`charthouse push` leaves the reading to whoever asks first."""
    archive = tmp_path / "app-1.0.0.tgz"
    archive.write_bytes(full_chart().archive)
    with serving(tmp_path):
        data = ["--data", tmp_path / "data"]
        run("push", archive, "--to", "team-a", *data)
        assert run("show", "team-a/app:1.0.0", "values", *data).stdout == "replicas: 1\n"
        assert "icon" in run("lint", "team-a/app:1.0.0", *data).stdout
        both = run("lint", "team-a/app:1.0.0", archive, *data).stdout
        assert "accepted with warnings" in both
        assert "read 1 archive\n" in run("reindex", "--all", *data).stdout
        missing = run("lint", "team-a/app:9.9.9", *data, status=2).stderr
        assert "there is no file team-a/app:9.9.9, and team-a/app has no chart 9.9.9" in missing
        assert "there is no file" in run("lint", "a" * 300, *data, status=2).stderr
        assert "names no version" in run("show", "team-a/app", *data, status=2).stderr
        assert "has no chart 9.9.9" in run("show", "team-a/app:9.9.9", *data, status=1).stderr


def test_what_is_read_apart_is_what_a_thread_reads():
    content = chart({"values.yaml": FILES["values.yaml"], "README.md": FILES["README.md"]}, chart_yaml=CHART_YAML)
    with contextlib.closing(Helper()) as helper:
        inspector = Inspector(helper)
        here = inspector.inspect(content, linting=True)
        assert helper.pid is None
        assert Inspection.from_json(inspector.inspect_apart(content, linting=True)) == here
        assert helper.pid is not None
        helper.rest()
        assert helper.pid is None


@pytest.mark.provokes("there is no blob", surely=False)
async def test_a_registry_that_ends_just_after_a_push_ends(settings, clock):
    """Whatever the reader is about at that moment: again and again, a moment later each time."""
    for moment in range(12):
        registry = await open_registry(settings, clock=clock, durable=False)
        for number in range(3):
            registry.extraction.later(Digest.of(b"%d" % number))
        for _ in range(moment):
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            await registry.close()
