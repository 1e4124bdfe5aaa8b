"""The registry for other people's tests: what it does, what it costs, and with whom it works."""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from charthouse.errors import ManifestInvalid, NameUnknown, RegistryError
from charthouse.settings import SettingsError
from charthouse.testing import Registry, make_chart
from charthouse.testing.shared import NAME
from support.passwords import quick_passwords  # noqa: F401 - a fixture
from support.process import children

pytest_plugins = ["pytester"]

ALIVE = 200
PATIENCE = 60  # seconds


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


def get(url: str) -> bytes:
    """Over a connection of its own."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=PATIENCE) as answer:
        content: bytes = answer.read()
        return content


def python(code: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sign_in(registry: Registry) -> dict[str, str]:
    """The header that shows a token, where one is needed."""
    if not registry.username:
        return {}
    asked = f"http://{registry.host}/token?service=charthouse&scope=repository:app:pull"
    with urllib.request.urlopen(urllib.request.Request(asked, headers=basic(registry))) as answer:
        return {"Authorization": f"Bearer {json.load(answer)['token']}"}


def basic(registry: Registry) -> dict[str, str]:
    credentials = base64.b64encode(f"{registry.username}:{registry.password}".encode()).decode()
    return {"Authorization": f"Basic {credentials}"}


def tags(registry: Registry) -> list[str]:
    """As a client reads them: through TLS where there is TLS."""
    context = ssl.create_default_context(cafile=registry.ca_file) if registry.speaks_tls else None
    request = urllib.request.Request(f"{registry.url}/v2/app/tags/list", headers=sign_in(registry))
    with urllib.request.urlopen(request, context=context) as answer:
        found: list[str] = json.load(answer)["tags"]
        return found


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def threads() -> int:
    return sum(thread.name.startswith(NAME) for thread in threading.enumerate())


# --- what it does -----------------------------------------------------------------------------------------------------


def test_what_is_pushed_is_served_and_listed(registry: Registry) -> None:
    pushed = registry.push(make_chart("app", "1.2.3+build.1"), "team-a")
    assert (pushed.repository, pushed.tag) == ("team-a/app", "1.2.3_build.1")
    assert json.loads(get(f"{registry.url}/v2/team-a/app/tags/list")) == {"name": "team-a/app", "tags": [pushed.tag]}
    assert registry.tags("team-a/app") == [pushed.tag]
    (chart,) = registry.charts()
    assert (chart.repository, chart.version, chart.digest) == ("team-a/app", "1.2.3+build.1", pushed.digest)
    assert registry.charts("team-a/app") == [chart]
    manifest = registry.manifest("team-a/app", "1.2.3+build.1")
    assert manifest == registry.manifest("team-a/app", pushed.digest)
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.helm.config.v1+json"


def test_a_chart_may_come_as_words_bytes_or_a_file(registry: Registry, tmp_path: Path) -> None:
    archive = make_chart("app", "1.0.0")
    digests = {
        registry.push({"name": "app", "version": "1.0.0"}, "a").digest,
        registry.push(archive, "b").digest,
        registry.push(archive.content, "c").digest,
    }
    assert len(digests) == 1
    registry.push(archive.write(tmp_path), "d")
    registry.push(str(tmp_path / archive.filename), "e")
    assert [chart.repository for chart in registry.charts()] == ["a/app", "b/app", "c/app", "d/app", "e/app"]


def test_a_folder_of_charts_is_loaded_with_its_folders_as_namespaces(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "team-a").mkdir()
    make_chart("app", "1.0.0").write(tmp_path)
    make_chart("app", "1.0.1").write(tmp_path / "team-a")
    assert registry.seed(tmp_path) == ["app:1.0.0", "team-a/app:1.0.1"]
    (tmp_path / "broken-1.0.0.tgz").write_bytes(b"no chart")
    with pytest.raises(ManifestInvalid) as refused:
        registry.seed(tmp_path, "other")
    assert refused.value.__notes__ == [f"in {tmp_path / 'broken-1.0.0.tgz'}"]


def test_what_the_registry_refuses_is_raised(registry: Registry) -> None:
    with pytest.raises(NameUnknown):
        registry.tags("team-a/app")
    with pytest.raises(RegistryError, match="APP"):
        registry.push(make_chart("APP", "1.0.0"))
    with pytest.raises(SettingsError, match="policy of a registry for tests is 'none': give charts or oci"):
        Registry(policy="none")
    with pytest.raises(SettingsError, match="unknown setting polciy of a registry for tests; there are host, "):
        Registry(polciy="charts")
    with pytest.raises(SettingsError, match="tls of a registry for tests is 'perhaps': give off or self-signed"):
        Registry(tls="perhaps")
    with pytest.raises(SettingsError, match="anonymous-pull says that pulls need no user, and nothing does"):
        Registry(anonymous_pull=True)
    with pytest.raises(SettingsError, match="there is no personality 'quay'; there are distribution, "):
        Registry(personality="quay")
    with pytest.raises(SettingsError, match="tester_password: the password has 3 characters"):
        Registry(auth="basic", tester_password="abc")
    with pytest.raises(SettingsError, match="makes its own certificate"):
        Registry(tls_cert="cert.pem", tls_key="key.pem")
    with pytest.raises(RuntimeError, match="has not been started"):
        Registry().charts()


def test_requests_are_recorded_in_their_order(registry: Registry) -> None:
    get(f"{registry.url}/v2/")
    with pytest.raises(urllib.error.HTTPError):
        get(f"{registry.url}/v2/team-a/app/tags/list?n=2")
    registry.push(make_chart("app", "1.0.0"))  # no request
    first, second = registry.requests
    assert (first.method, first.path, first.status) == ("GET", "/v2/", 200)
    assert (second.path, second.query, second.status) == ("/v2/team-a/app/tags/list", "n=2", 404)
    assert second.headers["user-agent"].startswith("Python-urllib")
    assert second.answer["content-type"] == "application/json"
    assert second.bytes == int(second.answer["content-length"])


def test_whoever_has_an_answer_finds_its_request_in_the_record_as_over(registry: Registry) -> None:
    registry.fail(bandwidth=200)
    for _ in range(5):
        assert get(f"{registry.url}/v2/") == b"{}"
        assert registry.requests[-1].milliseconds > 0


def test_reset_makes_it_empty_at_the_same_address(registry: Registry) -> None:
    url = registry.url
    for version in ("1.0.0", "2.0.0"):
        registry.push(make_chart("app", version))
        assert json.loads(get(f"{url}/v2/app/tags/list"))["tags"] == [version]
        registry.clock.advance(100)
        registry.reset()
        assert registry.url == url
        assert registry.charts() == []
        assert registry.requests == []
    assert json.loads(get(f"{url}/v2/_catalog")) == {"repositories": []}


def test_settings_are_those_of_the_server() -> None:
    with Registry(policy="charts", versions="immutable") as registry:
        registry.push(make_chart("app", "1.0.0"))
        with pytest.raises(RegistryError, match="versions cannot be replaced"):
            registry.push(make_chart("app", "1.0.0", appVersion="2"))
    with Registry() as registry:
        registry.push(make_chart("app", "1.0.0"))
        registry.push(make_chart("app", "1.0.0", appVersion="2"))


def test_a_closed_registry_has_a_user_who_may_do_everything() -> None:
    with Registry(auth="bearer") as registry:
        registry.push(make_chart("app", "1.0.0"))
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(f"{registry.url}/v2/app/tags/list")
        credentials = base64.b64encode(f"{registry.username}:{registry.password}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}"}
        for _ in range(2):
            request = urllib.request.Request(f"{registry.url}/v2/app/tags/list", headers=headers)
            with urllib.request.urlopen(request) as answer:
                assert json.load(answer)["tags"] == ["1.0.0"]
            assert [(each.user, each.status) for each in registry.requests][-1] == (registry.username, 200)
            registry.reset()
            registry.push(make_chart("app", "1.0.0"))
    with Registry(auth="basic", anonymous_pull=True) as registry:
        registry.push(make_chart("app", "1.0.0"))
        assert json.loads(get(f"{registry.url}/v2/app/tags/list"))["tags"] == ["1.0.0"]
        start = urllib.request.Request(f"{registry.url}/v2/app/blobs/uploads/", method="POST")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(start)
    with Registry() as registry:
        assert (registry.username, registry.password) == ("", "")
    with pytest.raises(SettingsError, match="auth of a registry for tests is 'ldap': give none or basic or bearer"):
        Registry(auth="ldap")


def test_a_token_expires_when_the_clock_says_so() -> None:
    with Registry(auth="bearer") as registry:
        registry.push(make_chart("app", "1.0.0"))
        credentials = base64.b64encode(f"{registry.username}:{registry.password}".encode()).decode()
        asked = f"{registry.url}/token?service=charthouse&scope=repository:app:pull"
        with urllib.request.urlopen(
            urllib.request.Request(asked, headers={"Authorization": f"Basic {credentials}"})
        ) as answer:
            headers = {"Authorization": f"Bearer {json.load(answer)['token']}"}
        request = urllib.request.Request(f"{registry.url}/v2/app/tags/list", headers=headers)
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200
        registry.clock.advance(3600)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request)
        assert 'error="invalid_token"' in registry.requests[-1].answer["www-authenticate"]


def test_with_tls_it_answers_both_on_one_port() -> None:
    with Registry(tls=True, san=["charts.test"]) as registry:
        assert registry.url == f"https://localhost:{registry.port}"
        context = ssl.create_default_context(cafile=registry.ca_file)
        for host in ("localhost", "127.0.0.1", "[::1]"):
            with urllib.request.urlopen(f"https://{host}:{registry.port}/v2/", context=context) as answer:
                assert answer.status == 200
        with (
            socket.create_connection(("127.0.0.1", registry.port)) as connection,
            context.wrap_socket(connection, server_hostname="charts.test") as secure,
        ):
            assert secure.version()
        assert get(f"http://{registry.host}/v2/") == b"{}"
        named = urllib.request.Request(f"{registry.url}/v2/", headers={"Host": "charts.test"})
        with urllib.request.urlopen(named, context=context) as answer:
            assert answer.status == 200
        ca_file = registry.ca_file
    assert not ca_file.exists()
    with Registry() as registry, pytest.raises(RuntimeError, match="tls=True"):
        assert registry.ca_file


def test_with_mtls_clients_have_to_show_a_certificate_of_its_own_authority() -> None:
    with Registry(mtls=True) as registry, Registry(mtls=True) as other:

        def get_with(shown: Registry | None) -> bytes:
            context = ssl.create_default_context(cafile=registry.ca_file)
            if shown is not None:
                context.load_cert_chain(shown.client_cert_file, shown.client_key_file)
            with (
                socket.create_connection(("127.0.0.1", registry.port)) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                secure.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return b"".join(iter(lambda: secure.recv(65536), b""))

        assert get_with(registry).endswith(b"\r\n\r\n{}")
        for shown in (None, other):
            with pytest.raises(OSError, match=r"(?i)certificate.required|unknown.ca|decrypt.error|reset|EOF"):
                get_with(shown)
        with pytest.raises(urllib.error.HTTPError, match="400"):
            get(f"http://{registry.host}/v2/")
        assert [request.status for request in registry.requests] == [200]
    with Registry(tls=True) as registry, pytest.raises(RuntimeError, match="give mtls=True"):
        assert registry.client_key_file


def test_a_registry_that_knows_basic_alone_challenges_with_it_and_gives_no_tokens() -> None:
    with Registry(auth="bearer") as registry:
        registry.push(make_chart("app", "1.0.0"))
        token = sign_in(registry)
    with Registry(auth="basic") as registry:
        registry.push(make_chart("app", "1.0.0"))
        where = f"{registry.url}/v2/app/tags/list"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            sign_in(registry)
        for headers in ({}, token):
            with pytest.raises(urllib.error.HTTPError, match="401") as refused:
                urllib.request.urlopen(urllib.request.Request(where, headers=headers))
            assert refused.value.headers["www-authenticate"] == 'Basic realm="Registry"'
            refused.value.close()
        with urllib.request.urlopen(urllib.request.Request(where, headers=basic(registry))) as answer:
            assert json.load(answer)["tags"] == ["1.0.0"]
        assert registry.requests[-1].user == registry.username


def test_broken_charts_are_stored_on_purpose() -> None:
    broken = make_chart("app", "1.0.0", apiVersion="v9")
    with Registry() as registry, pytest.raises(RegistryError):
        registry.push(broken)
    with Registry(rules="off") as registry:
        registry.push(broken)


def test_an_upload_expires_when_the_clock_says_so(registry: Registry) -> None:
    start = urllib.request.Request(f"{registry.url}/v2/app/blobs/uploads/", method="POST")
    with urllib.request.urlopen(start) as answer:
        location = registry.url + answer.headers["location"]
    with urllib.request.urlopen(location) as answer:
        assert answer.status == 204
    registry.clock.advance(24 * 3600 + 1)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(location)


def test_what_nobody_names_is_collected_when_the_clock_says_so(registry: Registry) -> None:
    digest = f"sha256:{hashlib.sha256(b'x').hexdigest()}"
    push = urllib.request.Request(f"{registry.url}/v2/app/blobs/uploads/?digest={digest}", data=b"x", method="POST")
    with urllib.request.urlopen(push) as answer:
        assert answer.status == 201
    registry.push(make_chart("app", "1.0.0"))
    assert registry.collect().blobs == 0
    registry.clock.advance(24 * 3600 + 1)
    assert registry.collect().blobs == 1
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{registry.url}/v2/app/blobs/{digest}")
    assert registry.tags("app") == ["1.0.0"]


def test_the_clock_is_the_registrys(registry: Registry) -> None:
    registry.push(make_chart("app", "1.0.0"))
    registry.clock.advance(3600)
    registry.push(make_chart("app", "2.0.0"))
    first, second = registry.charts()
    assert abs(second.pushed_at - first.pushed_at) > 3_599_000


def test_containers_reach_it_on_another_address() -> None:
    with Registry(host="0.0.0.0") as registry:
        assert json.loads(get(f"http://127.0.0.1:{registry.port}/v2/")) == {}
        assert registry.host == f"127.0.0.1:{registry.port}"
    with Registry(host="0.0.0.0", tls=True, san=["kind-registry"]) as registry:
        for host in ("kind-registry", "172.18.0.1"):
            request = urllib.request.Request(f"http://127.0.0.1:{registry.port}/v2/", headers={"Host": host})
            with urllib.request.urlopen(request) as answer:
                assert answer.status == 200
        context = ssl.create_default_context(cafile=registry.ca_file)
        with (
            socket.create_connection(("127.0.0.1", registry.port)) as connection,
            context.wrap_socket(connection, server_hostname="kind-registry") as secure,
        ):
            assert secure.version()


@pytest.mark.provokes("CancelledError", surely=False)
def test_requests_under_way_end_with_it() -> None:
    with Registry() as registry, contextlib.closing(http.client.HTTPConnection(registry.host)) as client:
        client.putrequest("POST", "/v2/app/blobs/uploads/?digest=sha256:" + "0" * 64)
        client.putheader("Content-Length", "1000")
        client.endheaders(b"x")
        get(f"{registry.url}/v2/")
        registry.end()
        with pytest.raises(ConnectionError):
            client.getresponse()
    assert threads() == 0


# --- what it costs ----------------------------------------------------------------------------------------------------


CLOSED = {"auth": "bearer", "tls": True, "tester_password": "of two hundred canary9f3b1c"}


@pytest.mark.usefixtures("quick_passwords")  # each of them looks at it once
@pytest.mark.parametrize("words", [{}, CLOSED], ids=["open", "closed, with TLS"])
def test_two_hundred_are_alive_at_once_on_ten_threads_and_six_hundred_descriptors(words: dict[str, Any]) -> None:
    """And nothing of them is left."""
    with Registry(**words) as first:  # what a process makes once, such as the user's password, is no registry's cost
        sign_in(first)
    before, others = descriptors(), threading.active_count()
    with contextlib.ExitStack() as alive:
        registries = [alive.enter_context(Registry(**words)) for _ in range(ALIVE)]
        folders = [registry._settings.data for registry in registries]
        for registry in registries:
            registry.push(make_chart("app", "1.0.0"))
            assert tags(registry) == ["1.0.0"]
        assert len({registry.url for registry in registries}) == ALIVE
        assert threads() <= threading.active_count() - others + 1 <= 10
        assert descriptors() - before <= 600
        assert all(folder.exists() for folder in folders)
    assert threads() == 0
    assert threading.active_count() == others
    assert descriptors() <= before
    assert not any(folder.exists() for folder in folders)


def test_one_process_reads_the_large_charts_of_all_of_them() -> None:
    before = children(os.getpid())
    large = {"files/zeros": bytes(2 * 1024 * 1024)}
    with contextlib.ExitStack() as alive:
        for _ in range(3):
            alive.enter_context(Registry()).push(make_chart("app", "1.0.0", files=large))
            assert len(children(os.getpid())) == len(before) + 1
    assert children(os.getpid()) == before


def test_a_registry_that_nobody_ended_leaves_no_folder() -> None:
    code = "from charthouse.testing import Registry; print(Registry(tls=True).start()._settings.data)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert not Path(done.stdout.strip()).parent.exists()


def test_what_a_process_that_was_killed_left_is_removed_and_nothing_that_is_in_use() -> None:
    """In a process each, since a process looks once for each of its homes."""
    code = """if 1:
        import os, signal, sys
        from charthouse.testing import Registry
        from charthouse.testing.home import SETTLED
        registry = Registry().start()
        home = registry._settings.data.parent
        os.utime(home, (0, 0))  # as if made long ago
        print(home, flush=True)
        sys.stdin.readline()
        os.kill(os.getpid(), signal.SIGKILL)"""
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    homes = []
    for child in started:
        assert child.stdout is not None
        homes.append(Path(child.stdout.readline().strip()))
    for child, others in zip(started, (homes[1:], []), strict=True):
        child.communicate("\n")
        python("from charthouse.testing import Registry; Registry().start()")
        assert [home for home in homes if home.exists()] == others


# --- with whom it works -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio.run(main())", "anyio.run(main, backend='trio')"])
def test_async_with_works_under_any_loop(loop: str) -> None:
    code = f"""if 1:
        import anyio, asyncio, httpx
        from charthouse.testing import Registry
        async def main():
            async with Registry() as registry, httpx.AsyncClient(trust_env=False) as client:
                registry.push({{"name": "app", "version": "1.0.0"}})
                print((await client.get(registry.url + "/v2/app/tags/list")).json()["tags"])
        {loop}"""
    assert python(code) == "['1.0.0']\n"


def test_the_child_of_a_fork_has_registries_of_its_own() -> None:
    code = """if 1:
        import os
        from charthouse.testing import Registry
        with Registry() as parent:
            child = os.fork()
            if not child:
                with Registry() as own:
                    own.push({"name": "app", "version": "1.0.0"})
                    found = len(own.charts())
                os._exit(found + 40)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), parent.charts())"""
    assert python(code) == "41 []\n"


def test_unittest_works_with_it(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(
        """if 1:
        import unittest
        from charthouse.testing import Registry
        class PushTest(unittest.TestCase):
            def setUp(self):
                self.registry = self.enterContext(Registry())
            def test_empty(self):
                self.assertEqual(self.registry.charts(), [])
    """
    )
    done = subprocess.run(
        [sys.executable, "-m", "unittest", "-v"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 1 test" in done.stderr


USES = """
    import json, urllib.request
    import pytest

    def push(registry):
        registry.push({"name": "app", "version": "1.0.0"}, "team-a")
        assert [chart.repository for chart in registry.charts()] == ["team-a/app"]
        url = f"http://{registry.host}/v2/team-a/app/tags/list"
        assert json.load(urllib.request.urlopen(url))["tags"] == ["1.0.0"]

    @pytest.mark.parametrize("number", range(4))
    def test_empty_every_time(chart_registry, number):
        assert chart_registry.charts() == []
        push(chart_registry)

    def test_session(chart_registry_session):
        push(chart_registry_session)

    @pytest.mark.chart_registry(policy="charts")
    def test_marker(chart_registry):
        assert (chart_registry._settings.policy, chart_registry._settings.versions) == ("charts", "immutable")

    def test_ini(chart_registry, chart_registry_session):
        for registry in (chart_registry, chart_registry_session):
            assert (registry._settings.policy, registry._settings.versions) == ("oci", "immutable")
            assert registry.url.startswith("https://")
            assert registry._settings.host_name == ("one.test", "two.test")
"""


def run_pytest(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Without plugins that are installed for other tests, and take longer to import than all the rest."""
    return pytester.runpytest_subprocess("-p", "no:schemathesis", "-p", "no:hypothesispytest", *options)


@pytest.mark.parametrize("options", [[], ["-n", "2"]])
def test_the_pytest_fixtures_work_alone_and_with_xdist(pytester: pytest.Pytester, options: list[str]) -> None:
    settings = "versions=immutable tls=true san=one.test,two.test"
    pytester.makeini(f"[pytest]\nchart_registry = {settings}\naddopts = --strict-markers")
    pytester.makepyfile(USES)
    result = run_pytest(pytester, *options)
    result.assert_outcomes(passed=7)


def test_a_marker_takes_settings_by_their_names(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.chart_registry("charts")
        def test_marker(chart_registry): pass
        """
    )
    result = run_pytest(pytester)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("*takes settings by their names, such as policy='charts'*")


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("polcy=charts", "chart_registry: unknown setting polcy of a registry for tests; there are host, *"),
        ("policy=none", "chart_registry: policy of a registry for tests is 'none': give charts or oci"),
        ("policy", "chart_registry in *pytest.ini: write policy=VALUE"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(pytester: pytest.Pytester, setting: str, line: str) -> None:
    pytester.makefile(".ini", pytest=f"[pytest]\nchart_registry = {setting}")
    pytester.makepyfile("def test_it(chart_registry): pass")
    result = run_pytest(pytester, "-q")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(line)
    assert "Traceback" not in result.stdout.str()
    assert "SettingsError" not in result.stdout.str()


def test_pytest_pays_nothing_for_the_plugin_before_a_test_asks_for_a_registry() -> None:
    code = "import sys, charthouse.pytest_plugin; print(sorted(m for m in sys.modules if m.startswith('charthouse')))"
    assert python(code) == "['charthouse', 'charthouse.pytest_plugin']\n"


def test_neither_the_framework_nor_the_models_are_imported_before_something_needs_them() -> None:
    """They are a quarter of what a test would wait for."""
    code = """if 1:
        import sys
        from urllib.request import urlopen
        from charthouse.testing import Registry
        import charthouse.testing.running
        def found():
            return [name for name in ("fastapi", "pydantic") if name in sys.modules]
        with Registry() as registry:
            registry.push({"name": "app", "version": "1.0.0"})
            urlopen(registry.url + "/v2/app/tags/list")
            print(found())
            urlopen(registry.url + "/readyz")
            print(found())"""
    assert python(code) == "[]\n['fastapi', 'pydantic']\n"


def test_nothing_of_it_is_imported_by_a_normal_server() -> None:
    code = "import sys, charthouse.server, charthouse.app; print([m for m in sys.modules if 'charthouse.testing' in m])"
    assert python(code) == "[]\n"


# --- charts -----------------------------------------------------------------------------------------------------------


def test_the_same_words_make_the_same_bytes_everywhere() -> None:
    chart = make_chart(
        "app",
        "1.2.3",
        values={"greeting": "hello"},
        templates={"a.yaml": "a: 1\n"},
        files={"README.md": "# app\n" * 20_000, "crds/one.yaml": b"kind: One\n"},
        dependencies=[make_chart("library", "0.1.0", type="library"), {"name": "db", "version": "1", "repository": ""}],
        appVersion="7",
    )
    digest = hashlib.sha256(chart.content).hexdigest()
    assert digest == "7a210bdf0ebb35a80ba26005159dab89d3feed587e5e55efbdcf5bed3803e18a"
    again = make_chart("app", "1.2.3", values="greeting: hello\n", templates={"a.yaml": {"a": 1}})
    assert again == make_chart("app", "1.2.3", values={"greeting": "hello"}, templates={"a.yaml": b"a: 1\n"})
