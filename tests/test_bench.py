"""The benchmark, for a fraction of a second on a real server."""

import dataclasses
import gzip
import io
import itertools
import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from charthouse import bench
from charthouse.__main__ import command
from charthouse.bench import charts, observe
from charthouse.bench.client import Origin, Refused, drive, parse
from charthouse.bench.observe import Processes
from charthouse.bench.plan import MILLISECONDS, Row
from charthouse.bench.results import Result
from charthouse.bench.session import Sample
from charthouse.bench.work import ChartBlobs, Share
from charthouse.helm import archive
from charthouse.settings import SettingsError
from helm.charts import chart
from support.server import Server, serving

TINY = bench.Sizes(
    seconds=0.02,
    connections=2,
    versions=(2, 20),
    repositories=3,
    tags=5,
    referrers=4,
    large=1,
    requests=6,
    flow=2,
)


@dataclass(frozen=True)
class Measured:
    printed: str
    run: dict[str, Any]  # the line in the history
    svg: str
    left: list[str]  # repositories, when it is over


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """All work on one registry, one round."""
    folder = tmp_path_factory.mktemp("everything")
    with serving(folder) as server:
        (folder / "app-1.0.0.tgz").write_bytes(chart())
        return measure(folder, [server], bench.WORDS, rounds=1, charts=(str(folder / "app-1.0.0.tgz"),))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Pulls and listings of two registries, two rounds."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    with serving(folders[0]) as one, serving(folders[1]) as two:
        return measure(folders[0], [one, two], ["pulls", "tags"], rounds=2)


def measure(folder: Path, servers: Sequence[Server], only: Sequence[str], rounds: int, **sizes: Any) -> Measured:
    output, history, svg = io.StringIO(), folder / "history.jsonl", folder / "plot.svg"
    urls = [f"{name}=http://127.0.0.1:{server.port}" for name, server in zip(("one", "two"), servers, strict=False)]
    data = [servers[0].settings.data]
    with redirect_stdout(output):
        bench.run(
            bench.Options(urls, dataclasses.replace(TINY, **sizes), rounds, 1, only, data, history=history, svg=svg)
        )
    [line] = history.read_text(encoding="utf-8").splitlines()
    left = [name for server in servers for name in server.request("GET", "_catalog").json()["repositories"]]
    return Measured(output.getvalue(), json.loads(line), svg.read_text(encoding="utf-8"), left)


def test_every_kind_of_work_is_measured(everything: Measured) -> None:
    rows = {result["work"]: result for result in everything.run["results"]}
    assert len(rows) == 33
    for name, result in rows.items():
        assert result["refusals"] == {}, name
        [figures] = result["rounds"]["one"]
        assert figures["value"] > 0, name
        assert figures["count"] > 0, name


def test_growth_is_given_as_a_share_of_the_rate_at_the_least(everything: Measured) -> None:
    assert "pulls at 20 versions" in everything.printed
    assert "of the rate of pulls at 2 versions" in everything.printed


def test_memory_is_that_of_the_process_behind_the_port(everything: Measured) -> None:
    memory = everything.run["memory"]["one"]
    assert memory["refusal"] == ""
    assert memory["requests"] == 6
    assert all(10 * 1024**2 < memory[moment] < 1024**3 for moment in ("idle", "after", "flowing"))


def test_the_bytes_on_disk_are_counted_before_they_are_deleted(everything: Measured) -> None:
    assert re.search(r"one: [\d,]{6,} bytes on disk, [\d,]+ for each of [\d,]+ manifests", everything.printed)


def test_the_plot_has_a_line_for_pulls_and_one_for_pushes(everything: Measured) -> None:
    root = ET.fromstring(everything.svg)
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [2, 2]


def test_what_was_pushed_is_deleted_at_the_end(everything: Measured, compared: Measured) -> None:
    assert everything.left == compared.left == []
    assert "could be deleted" not in everything.printed + compared.printed


def test_the_first_registry_is_compared_with_the_others(compared: Measured) -> None:
    assert compared.printed.count("one is ") == 2
    assert "one is 1.00 x  (1.00 - 1.00)" not in compared.printed  # beside itself
    assert "The busiest load process used" in compared.printed


def test_every_round_of_every_registry_is_kept(compared: Measured) -> None:
    rounds = {result["work"]: result["rounds"] for result in compared.run["results"]}
    assert rounds.keys() == {"pulls", "tags/list of 5"}
    assert [len(rounds["pulls"][registry]) for registry in ("one", "two")] == [2, 2]


def test_a_registry_elsewhere_is_refused_without_yes() -> None:
    with pytest.raises(SettingsError, match=r"10\.255\.0\.1 is not this machine: give --yes"):
        bench.run(bench.Options(["http://10.255.0.1:5000"]))


def test_the_command_refuses_it_too() -> None:
    result = CliRunner().invoke(command, ["bench", "http://charts.example"])
    assert isinstance(result.exception, SettingsError)
    assert "charts.example is not this machine" in str(result.exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (bench.Options(["https://127.0.0.1"]), "is no URL of a registry that can be measured"),
        (bench.Options(["http://127.0.0.1:x"]), "is no URL of a registry"),
        (bench.Options(["http://127.0.0.1:1"], only=["speed"]), "--only speed: there is memory, manifests"),
        (bench.Options(["http://127.0.0.1:1", "http://127.0.0.1:1"]), "two registries are called 127.0.0.1:1"),
        (bench.Options(["http://127.0.0.1:1"]), "no registry answers at 127.0.0.1:1"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(options: bench.Options, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        bench.run(options)


def test_versions_are_numbers() -> None:
    assert bench.numbers("--versions", "10,2000") == (10, 2000)
    with pytest.raises(SettingsError, match="--versions 10,x: give whole numbers"):
        bench.numbers("--versions", "10,x")


def test_every_chart_is_one_that_helm_loads_and_like_no_other() -> None:
    packages = [
        charts.chart(repository, version) for repository in ("a/chart", "b/chart") for version in ("1.0.0", "1.0.1")
    ]
    layers = [package.contents[1] for package in packages]
    assert len(set(layers)) == len({package.contents[0] for package in packages}) == 4
    for layer in layers:
        assert 4_000 < len(layer) < 6_000
        assert gzip.decompress(layer)
        assert archive.read(layer).top == "chart"
    assert b"version: 1.0.1" in archive.read(layers[1]).files["Chart.yaml"]


def test_a_plain_artifact_has_other_bytes_than_the_chart() -> None:
    blobs = charts.plain("a/chart", "1.0.0").stored.blobs + charts.chart("a/chart", "1.0.0").stored.blobs
    assert len(set(blobs)) == 4


def test_other_bytes_than_were_pushed_end_the_phase() -> None:
    with answering(b"other bytes") as origin, pytest.raises(Refused, match="other bytes than were pushed"):
        drive(origin, [(get(charts.digest_of(b"the bytes"), origin), 1)], 1)


def test_a_status_that_was_not_due_ends_the_phase() -> None:
    with answering(b"gone", status=410) as origin, pytest.raises(Refused, match="answered 410, not 200: gone"):
        drive(origin, [(get(charts.digest_of(b"gone"), origin), 1)], 1)


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_all_operations_are_done_on_kept_and_on_closed_connections(connection: str) -> None:
    body = b"the bytes"
    with answering(body, Connection=connection) as origin:
        five = itertools.islice(get(charts.digest_of(body), origin), 5)
        [tally] = drive(origin, [(five, 2)], 60)
    assert len(tally.latencies) == 5


WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"


@pytest.mark.parametrize("response", [WHOLE, CHUNKED])
def test_a_response_is_taken_when_all_of_it_is_there(response: bytes) -> None:
    assert all(parse(response[:cut], is_head=False) is None for cut in range(len(response)))
    whole = parse(response, is_head=False)
    assert whole
    assert (whole.status, whole.body) == (200, b"hello")


def test_the_answer_to_head_has_no_body() -> None:
    found = parse(WHOLE.removesuffix(b"hello"), is_head=True)
    assert found
    assert found.header("content-length") == "5"


def test_a_ratio_is_that_of_the_medians_and_its_range_that_of_the_rounds() -> None:
    result = Result(Row("pulls"))
    for ours, theirs in ((20.0, 10.0), (30.0, 10.0), (100.0, 25.0)):
        result.add("a", sample(rate=ours))
        result.add("b", sample(rate=theirs))
    ratio = result.times_as_fast("a", "b")
    assert ratio
    assert (ratio.median, ratio.least, ratio.most) == (3, 2, 4)


def test_of_times_the_shorter_one_is_the_faster() -> None:
    result = Result(Row("tags/list", MILLISECONDS))
    result.add("a", sample(median=0.002))
    result.add("b", sample(median=0.006))
    ratio = result.times_as_fast("a", "b")
    assert ratio
    assert ratio.median == pytest.approx(3)


def test_where_nothing_listens_no_process_is_seen() -> None:
    processes = Processes.listening_on(1)
    assert (processes.listeners, processes.cpu, processes.memory) == ((), None, None)
    processes.wait_until_idle(60)  # at once


def test_a_phase_ends_when_the_registry_has_done_what_it_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0, 20, 40, 41, 41, 41])  # at each look: two that worked all the time, and one that hardly did
    monkeypatch.setattr(Processes, "family", lambda _: [1])
    monkeypatch.setattr(observe, "_stat", lambda _: [0] * 11 + [next(ticks), 0, 0, 0])
    monkeypatch.setattr(observe, "LOOK_EVERY", 0.2)
    monkeypatch.setattr(observe.time, "sleep", lambda _: None)
    Processes((1,)).wait_until_idle(60)
    assert next(ticks) == 41
    assert len(list(ticks)) == 1


def sample(rate: float = 1, median: float = 1) -> Sample:
    return Sample(rate, median, p99=1, count=1, client=0)


def get(digest: str, origin: Origin) -> Iterator[Any]:
    stored = charts.Stored("a/chart", "1.0.0", digest, (digest,))
    return ChartBlobs([stored]).operations(origin, Share(0, 1, []))


@contextmanager
def answering(body: bytes, status: int = 200, **headers: str) -> Iterator[Origin]:
    """A server that says the same to everything."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Origin.parse(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
