"""`charthouse token …` and `charthouse token-keys …`, beside the server or without it."""

import asyncio
import json
import stat
import time

import pytest

from charthouse.auth import api_tokens, keys
from charthouse.composition import open_registry
from charthouse.settings import load
from support import forked

PATIENCE = 60  # seconds
DAY = 24 * 3600 * 1000


@pytest.fixture
def data(tmp_path):
    async def close() -> None:
        registry = await open_registry(load({"data": tmp_path}, environ={}), durable=False)
        await registry.users.add("root", "root's canary9f3b1c", administrator=True)
        await registry.close()

    asyncio.run(close())
    return tmp_path


def run(data, *words: str, status: int = 0, **environment: str) -> tuple[str, str]:
    done = forked.run(*words, "--data", data, timeout=PATIENCE, env=environment)
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


def test_a_token_is_made_listed_and_revoked(data):
    secret, usage = run(
        data, "token", "add", "ci", "--repo", "team-a/*", "--repo", "charts/app", "--actions", "pull,push",
        CHARTHOUSE_PUBLIC_URL="https://charts.example.com",
    )  # fmt: skip
    assert api_tokens.is_one(secret.strip(), api_tokens.API)
    assert "helm registry login charts.example.com --username ci" in usage
    assert "kubectl create secret docker-registry ci --docker-server=charts.example.com" in usage
    assert secret.strip() not in usage
    (listed,) = json.loads(run(data, "token", "list", "--json")[0])
    assert (listed["name"], listed["repositories"]) == ("ci", ["team-a/*", "charts/app"])
    assert (listed["actions"], listed["used_at"]) == (["pull", "push"], None)
    assert abs(listed["expires_at"] - (time.time() * 1000 + 90 * DAY)) < DAY
    assert secret.strip() not in run(data, "token", "list")[0]
    assert run(data, "token", "revoke", "ci")[0] == "revoked token ci\n"
    assert "there is no token 'ci'" in run(data, "token", "revoke", "ci", status=1)[1]


def test_tokens_that_end_soon_are_marked(data):
    for name, expires in (("soon", "13d"), ("later", "15d"), ("always", "never")):
        run(data, "token", "add", name, "--repo", "*", "--expires", expires)
    lines = {line.split()[0]: line for line in run(data, "token", "list")[0].splitlines()}
    assert "soon!" in lines["soon"]
    assert "soon!" not in lines["later"]
    assert "never ends" in lines["always"]
    assert "never used" in lines["always"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--repo", "team-*"], 1, "is no pattern of repositories"),
        (["--repo", "*", "--actions", "fly"], 1, "are no actions"),
        (["--repo", "*", "--expires", "soon"], 2, "give 30m, 12h, 90d, 1y or never"),
        (["--repo", "*", "--expires", "0d"], 2, "give 30m, 12h, 90d, 1y or never"),
    ],
)
def test_what_cannot_be_is_one_line(data, words, status, message):
    error = run(data, "token", "add", "ci", *words, status=status)[1]
    assert message in error.splitlines()[-1]


def test_keys_are_rotated_and_stay_for_their_owner_alone(data):
    assert "the first login makes them" in run(data, "token-keys", "rotate", status=2)[1]
    path = data / "token-keys.json"
    keys.make(path)
    following, _ = keys.TokenKeys(path).published["keys"]
    assert run(data, "token-keys", "rotate")[0] == f"{path}: signing with {following['kid']}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    run(data, "token-keys", "rotate", "--forget")
    assert len(keys.TokenKeys(path).published["keys"]) == 2


def test_no_secret_is_in_what_a_dump_of_the_database_has(data):
    secret = run(data, "token", "add", "ci", "--repo", "*")[0].strip()
    keys.make(data / "token-keys.json")
    private = [each["d"] for each in json.loads((data / "token-keys.json").read_text())["keys"]]
    stored = b"".join(path.read_bytes() for path in data.glob("charthouse.db*"))
    for each in (secret, *private, "root's canary9f3b1c"):
        assert each.encode() not in stored
