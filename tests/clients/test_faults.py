"""Faults on demand, each met by a real client: what it does then, and what the record shows of it."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from charthouse.testing import Registry, make_chart
from charthouse.testing.personalities import PERSONALITIES
from support import charts
from support.tools import Tool, find, find_installed

pytestmark = pytest.mark.clients

APP = make_chart("app", "1.2.3")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        registry.push(APP, "team-a")
        yield registry
        print(*registry.requests, sep="\n")


def client(name: str, folder: Path) -> Tool:
    return Tool(find(name), folder / name)


@pytest.fixture
def helm(tmp_path: Path) -> Tool:
    return client("helm4", tmp_path)


@pytest.fixture
def pull(helm: Tool, registry: Registry):
    """`helm pull` of the one chart."""

    def pull(status: int = 0, version: str = "1.2.3") -> str:
        where = f"oci://{registry.host}/team-a/app"
        return helm("pull", where, "--version", version, "--plain-http", status=status)

    return pull


def digest(registry: Registry, media_type: str) -> str:
    manifest = registry.manifest("team-a/app", "1.2.3")
    found: str = next(
        each["digest"] for each in [manifest["config"], *manifest["layers"]] if media_type in each["mediaType"]
    )
    return found


def lines(registry: Registry, part: str = "") -> list[str]:
    return [str(request) for request in registry.requests if part in request.path]


# --- in place of the registry -----------------------------------------------------------------------------------------


def test_helm_survives_two_502s_and_the_record_shows_the_retries(registry: Registry, helm: Tool, pull) -> None:
    registry.fail(method="GET", path="*/manifests/*", times=2, status=502)
    pull()
    assert (helm.home / APP.filename).read_bytes() == APP.content
    assert lines(registry, "/manifests/") == [
        "GET /v2/team-a/app/manifests/1.2.3 502",
        "GET /v2/team-a/app/manifests/1.2.3 502",
        "GET /v2/team-a/app/manifests/1.2.3 200",
    ]
    assert [bool(request.fault) for request in registry.requests[:3]] == [True, True, False]


def test_a_rule_may_begin_with_the_nth_request(registry: Registry, pull) -> None:
    registry.fail(path="*/manifests/*", skip=1, status=403, body={"errors": [{"code": "DENIED", "message": "no more"}]})
    pull()
    assert "403: denied: no more" in pull(status=1)


def test_a_429_says_when_to_come_back(registry: Registry, pull) -> None:
    registry.fail(path="*/manifests/*", times=1, retry_after=1)
    pull()
    first, second = [request for request in registry.requests if "/manifests/" in request.path]
    assert (first.status, second.status) == (429, 200)
    assert second.time - first.time >= 1


def test_a_challenge_makes_a_client_ask_for_credentials(registry: Registry, pull) -> None:
    registry.fail(challenge='Basic realm="tests"')
    assert "basic credential not found" in pull(status=1)


def test_an_expired_token_is_asked_for_anew(registry: Registry, tmp_path: Path) -> None:
    """Only a token is refused: a request without one is the registry's to answer, or another rule's."""
    challenge = f'Bearer realm="{registry.url}/token",service="tests"'
    registry.fail(expired_token=True, challenge=challenge)
    registry.fail(path="/v2/*", times=1, challenge=challenge)
    (tmp_path / "config.json").write_text(json.dumps({"auths": {registry.host: {"registrytoken": "old"}}}))
    oras = client("oras", tmp_path)
    where = f"{registry.host}/team-a/app:1.2.3"
    oras("manifest", "fetch", "--plain-http", "--registry-config", tmp_path / "config.json", where, status=1)
    first, second, *_ = registry.requests
    assert ("authorization" in first.headers, second.headers["authorization"]) == (False, "Bearer old")
    assert 'error="invalid_token"' in second.answer["www-authenticate"]


@pytest.mark.parametrize("to", ["{path}?again", "http://127.0.0.1:PORT{path}"])
def test_a_redirect_is_followed_to_this_and_to_another_origin(registry: Registry, pull, to: str) -> None:
    registry.fail(method="GET", path="*/blobs/*", times=1, redirect=to.replace("PORT", str(registry.port)))
    pull()
    blobs = [request for request in registry.requests if "/blobs/" in request.path]
    assert sorted(request.status for request in blobs) == [200, 200, 307]
    assert any("again" in request.query or "127.0.0.1" in request.headers["host"] for request in blobs)


def test_slow_starts_end_when_the_clock_says_so(registry: Registry, pull) -> None:
    registry.fail(seconds=1, status=503)
    pull()
    statuses = [request.status for request in registry.requests if "/manifests/" in request.path]
    assert (statuses[0], statuses[-1]) == (503, 200)
    registry.fail(seconds=3600, status=503)
    registry.clock.advance(3600)
    assert httpx.get(f"{registry.url}/v2/", trust_env=False).status_code == 200


@pytest.mark.parametrize(("upload_at", "status"), [(2000, 0), (7, 1)])
def test_an_upload_goes_on_where_the_registry_says_or_is_given_up(
    registry: Registry, tmp_path: Path, upload_at: int, status: int
) -> None:
    regctl = client("regctl", tmp_path)
    regctl("registry", "set", registry.host, "--tls", "disabled", "--blob-max", "1000", "--blob-chunk", "2000")
    registry.fail(method="PATCH", skip=1, times=1, upload_at=upload_at)
    text = tmp_path / "text"
    text.write_bytes(b"x" * 5000)
    where = f"{registry.host}/team-a/text:1"
    regctl("artifact", "put", "-f", text, "--artifact-type", "application/x.test", where, status=status)
    patches = [request for request in registry.requests if request.method == "PATCH"]
    assert [request.status for request in patches][:2] == [202, 416]
    assert [request.headers["content-range"] for request in patches][2:3] == ([] if status else ["2000-3999"])
    assert any(request.method == "DELETE" for request in registry.requests) == bool(status)


def test_the_record_says_what_tokens_are_asked_for_and_who_has_them(helm: Tool, tmp_path: Path) -> None:
    with Registry(auth="bearer") as registry:
        registry.push(APP, "team-a")
        config = tmp_path / "config.json"
        credentials = base64.b64encode(f"{registry.username}:{registry.password}".encode()).decode()
        config.write_text(json.dumps({"auths": {registry.host: {"auth": credentials}}}))
        where = f"oci://{registry.host}/team-a/app"
        helm("pull", where, "--version", "1.2.3", "--plain-http", "--registry-config", config)
        wanted = ["repository:team-a/app:pull"]
        found = [(request.path, request.scopes, request.user, request.status) for request in registry.requests[:3]]
        manifest = "/v2/team-a/app/manifests/1.2.3"
        assert found[0] == (manifest, [], "", 401)
        assert (found[1][0], found[1][1], found[1][3]) == ("/token", wanted, 200)
        assert found[2] == (manifest, wanted, registry.username, 200)


# --- what the registry says, changed ----------------------------------------------------------------------------------


def test_a_wrong_digest_is_refused_by_helm(registry: Registry, pull) -> None:
    registry.fail(digest=digest(registry, "chart.content"), flip=100)
    assert "mismatch" in pull(status=1)


def test_a_body_that_ends_too_early_is_refused(registry: Registry, pull) -> None:
    registry.fail(digest=digest(registry, "chart.content"), truncate=100)
    assert re.search("size|length|EOF|mismatch", pull(status=1))


def test_a_connection_that_is_cut_in_the_middle_is_an_error(registry: Registry, pull) -> None:
    registry.fail(digest=digest(registry, "chart.content"), cut=100)
    assert "EOF" in pull(status=1)
    assert [request.bytes for request in registry.requests if "/blobs/" in request.path and request.fault] == [100]


def test_a_connection_that_is_cut_before_an_answer_is_an_error(registry: Registry, pull) -> None:
    registry.fail(path="*/manifests/*", cut=0)
    assert "EOF" in pull(status=1)
    assert {request.status for request in registry.requests} == {0}


def test_without_its_digest_a_tag_cannot_be_resolved(registry: Registry, tmp_path: Path) -> None:
    registry.fail(method="HEAD", without=["Docker-Content-Digest"])
    oras = client("oras", tmp_path)
    answer = oras("resolve", "--plain-http", f"{registry.host}/team-a/app:1.2.3", status=1)
    assert "Docker-Content-Digest" in answer


def test_without_a_location_nothing_is_uploaded(registry: Registry, helm: Tool, tmp_path: Path) -> None:
    registry.fail(method="POST", without=["Location"])
    archive = make_chart("app", "2.0.0").write(tmp_path)
    answer = helm("push", archive, f"oci://{registry.host}/team-a", "--plain-http", status=1)
    assert "ocation" in answer


def test_an_upload_at_another_host_is_refused_by_helm(registry: Registry, helm: Tool, tmp_path: Path) -> None:
    registry.fail(method="POST", other_host="http://elsewhere.example")
    archive = make_chart("app", "2.0.0").write(tmp_path)
    answer = helm("push", archive, f"oci://{registry.host}/team-a", "--plain-http", status=1)
    assert "elsewhere.example" in answer


def test_pages_are_followed_and_never_to_another_host(registry: Registry, pull) -> None:
    for version in ("1.3.0", "1.4.0"):
        registry.push(make_chart("app", version), "team-a")
    registry.fail(page_size=1)
    pull(version="~1.4")
    assert len(lines(registry, "/tags/list")) == 3
    registry.fail(path="*/tags/list", other_host="http://elsewhere.example")
    assert "not the same origin" in pull(status=1, version="~1.4")


def test_without_links_only_the_first_page_is_seen(registry: Registry, pull) -> None:
    registry.push(make_chart("app", "1.4.0"), "team-a")
    registry.fail(page_size=1, without=["Link"])
    assert "could not locate a version" in pull(status=1, version="~1.4").lower()


def test_a_list_that_ignores_pages_is_whole(registry: Registry, tmp_path: Path) -> None:
    registry.push(make_chart("app", "1.4.0"), "team-a")
    regctl = client("regctl", tmp_path)
    regctl("registry", "set", registry.host, "--tls", "disabled")
    where = f"{registry.host}/team-a/app"
    assert regctl("tag", "ls", "--limit", "1", where).split() == ["1.2.3"]
    registry.fail(unpaged=True)
    assert regctl("tag", "ls", "--limit", "1", where).split() == ["1.2.3", "1.4.0"]


def test_delay_and_bandwidth_take_their_time(registry: Registry, pull) -> None:
    registry.fail(path="*/manifests/*", delay=0.3)
    registry.fail(digest=digest(registry, "chart.content"), bandwidth=len(APP.content) * 2)
    pull()
    slow = [request for request in registry.requests if request.fault]
    assert [request.milliseconds >= 250 for request in slow] == [True, True]  # a timer may be early


# --- personalities ----------------------------------------------------------------------------------------------------


def test_without_a_referrers_api_oras_keeps_a_tag_in_its_place(registry: Registry, tmp_path: Path) -> None:
    oras = client("oras", tmp_path)
    (oras.home / "note.txt").write_text("note")
    words = "attach", "--plain-http", "--artifact-type", "application/x.note"
    where = f"{registry.host}/team-a/app:1.2.3"
    oras(*words, where, "note.txt:text/plain")
    assert registry.tags("team-a/app") == ["1.2.3"]
    registry.imitate("distribution")
    (oras.home / "note.txt").write_text("another")
    oras(*words, where, "note.txt:text/plain")
    (tag,) = [tag for tag in registry.tags("team-a/app") if tag.startswith("sha256-")]
    assert tag == registry.charts()[0].digest.replace(":", "-")
    assert "application/x.note" in oras("discover", "--plain-http", where)


def test_where_repositories_are_made_first_helm_cannot_push(registry: Registry, helm: Tool, tmp_path: Path) -> None:
    archive = make_chart("app", "2.0.0").write(tmp_path)
    registry.imitate("ecr")
    answer = helm("push", archive, f"oci://{registry.host}/team-b", "--plain-http", status=1)
    assert "name unknown: The repository with name" in answer
    registry.clear_faults()
    helm("push", archive, f"oci://{registry.host}/team-b", "--plain-http")


def test_where_pulls_are_limited_helm_tries_again_and_then_says_why(registry: Registry, pull) -> None:
    registry.imitate("docker-hub")
    assert "toomanyrequests: You have reached your unauthenticated pull rate limit" in pull(status=1)
    assert len(lines(registry, "/manifests/")) == 6


def test_where_tags_cannot_be_listed_helm_pulls_a_version_but_no_range(registry: Registry, pull) -> None:
    pull(version="~1")
    registry.imitate("ecr-public")
    pull(version="1.2.3")
    refused = pull(status=1, version="~1")
    assert "tags/list" in refused
    assert "404" in refused


def test_where_lists_have_no_pages_regctl_gets_all_tags_at_once(registry: Registry, tmp_path: Path) -> None:
    registry.push(make_chart("app", "1.4.0"), "team-a")
    regctl = client("regctl", tmp_path)
    regctl("registry", "set", registry.host, "--tls", "disabled")
    assert regctl("tag", "ls", "--limit", "1", f"{registry.host}/team-a/app").split() == ["1.2.3"]
    registry.imitate("distribution-2")
    assert regctl("tag", "ls", "--limit", "1", f"{registry.host}/team-a/app").split() == ["1.2.3", "1.4.0"]


@pytest.fixture
def closed() -> Iterator[Registry]:
    """Everybody may pull."""
    with Registry(auth="bearer", anonymous_pull=True) as registry:
        registry.push(APP, "team-a")
        yield registry
        print(*registry.requests, sep="\n")


def write_credentials(registry: Registry, path: Path) -> Path:
    credentials = base64.b64encode(f"{registry.username}:{registry.password}".encode()).decode()
    path.write_text(json.dumps({"auths": {registry.host: {"auth": credentials}}}))
    return path


def test_where_tokens_are_given_for_get_alone_helm_3_17_asks_again(closed: Registry, tmp_path: Path) -> None:
    helm, config = client("helm3.17", tmp_path), write_credentials(closed, tmp_path / "config.json")
    words = (f"oci://{closed.host}/team-a", "--plain-http", "--registry-config", config)
    helm("push", make_chart("app", "2.0.0").write(tmp_path), *words)
    assert {(request.method, request.status) for request in closed.requests if request.path == "/token"} == {
        ("POST", 200)
    }
    closed.reset()
    closed.imitate("harbor")
    helm("push", make_chart("app", "3.0.0").write(tmp_path), *words)
    assert {(request.method, request.status) for request in closed.requests if request.path == "/token"} == {
        ("POST", 405),
        ("GET", 200),
    }


def test_where_a_ping_is_not_challenged_skopeo_never_says_who_it_is(closed: Registry, tmp_path: Path) -> None:
    config = write_credentials(closed, tmp_path / "auth.json")
    skopeo = Tool(find_installed("skopeo"), tmp_path / "skopeo", {"REGISTRY_AUTH_FILE": str(config)})
    (skopeo.home / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    words = ("--policy", "policy.json", "copy", "--src-tls-verify=false", "--dest-tls-verify=false")
    source = f"docker://{closed.host}/team-a/app:1.2.3"
    skopeo(*words, source, f"docker://{closed.host}/team-b/app:1.2.3")
    closed.imitate("zot")
    assert "unauthorized" in skopeo(*words, source, f"docker://{closed.host}/team-c/app:1.2.3", status=1)
    assert closed.tags("team-b/app") == ["1.2.3"]


@pytest.mark.parametrize("name", ["helm4", "helm3", "helm3.17", "helm3.8", "oras", "crane", "regctl", "skopeo"])
def test_no_client_sends_a_blob_in_a_single_post(registry: Registry, tmp_path: Path, name: str) -> None:
    """As end-4b would allow: so there is no personality that lacks it, until one of them begins to."""
    folder = tmp_path / "work"
    folder.mkdir()
    if name == "skopeo":
        skopeo = Tool(find_installed("skopeo"), folder / "home")
        (skopeo.home / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        words = ("--policy", "policy.json", "copy", "--src-tls-verify=false", "--dest-tls-verify=false")
        source = f"docker://{registry.host}/team-a/app:1.2.3"
        skopeo(*words, source, "dir:app")
        skopeo(*words, "dir:app", f"docker://{registry.host}/team-b/app:1.2.3")
    elif name == "crane":
        image = f"{registry.host}/team-b/app:1"
        client(name, folder)("append", "--oci-empty-base", "-f", charts.layer(folder, "one"), "-t", image)
    elif name == "regctl":
        regctl = client(name, folder)
        regctl("registry", "set", registry.host, "--tls", "disabled")
        (regctl.home / "note.txt").write_text("note")
        words = ("artifact", "put", "-f", "note.txt", "--artifact-type", "application/x.test")
        regctl(*words, f"{registry.host}/team-b/app:1")
    elif name == "oras":
        oras = client(name, folder)
        (oras.home / "note.txt").write_text("note")
        oras("push", "--plain-http", f"{registry.host}/team-b/app:1", "note.txt")
    else:
        helm, flags = client(name, folder), [] if name == "helm3.8" else ["--plain-http"]
        helm("push", make_chart("app", "2.0.0").write(folder), f"oci://{registry.host}/team-b", *flags)
    posts = [request for request in registry.requests if request.method == "POST"]
    assert posts
    assert [request.query for request in posts if "digest=" in request.query] == []
    assert {request.headers.get("content-length", "0") for request in posts} == {"0"}
    assert any(request.method == "PUT" and "digest=" in request.query for request in registry.requests)


def test_each_personality_names_what_it_imitates() -> None:
    assert all(personality.source.startswith("https://") for personality in PERSONALITIES.values())
    named = Path(__file__).read_text()
    assert all(f'imitate("{name}")' in named for name in PERSONALITIES)
