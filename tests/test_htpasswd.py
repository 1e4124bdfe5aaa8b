"""Users of an htpasswd file: beside those of the database, and as the file has them now."""

import logging
import os
from pathlib import Path

import bcrypt
import httpx
import pytest
from passlib.hash import argon2

from charthouse.auth import htpasswd
from charthouse.auth.access import Pattern, parse_actions
from charthouse.core import Registry
from charthouse.errors import UserUnknown
from charthouse.server import is_closed
from charthouse.settings import Settings, SettingsError, load

PASSWORD = "carl's canary9f3b1c"
APP = "/v2/team-a/app"


def bcrypted(password: str = PASSWORD, mark: str = "2y") -> str:
    """As `htpasswd -B` of Apache writes it."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", f"${mark}$")


ARGON2 = argon2.using(memory_cost=64, time_cost=1, parallelism=1).hash(PASSWORD)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "users.htpasswd"
    path.write_text(f"# ours\n\ncarl:{bcrypted()}\ndora:{ARGON2}\n")
    return path


@pytest.fixture
def settings(make_settings, file: Path) -> Settings:
    return make_settings(htpasswd=file, policy="oci")


async def status(client: httpx.AsyncClient, name: str, password: str = PASSWORD, path: str = "/v2/") -> int:
    return (await client.get(path, auth=(name, password))).status_code


async def may(registry: Registry, name: str, actions: str) -> None:
    await registry.users.grant(name, Pattern("team-a/*"), parse_actions(actions))


async def test_they_sign_in_with_bcrypt_or_argon2_and_the_registry_is_closed(client, app):
    assert (await client.get("/v2/")).status_code == 401
    assert [await status(client, name) for name in ("carl", "dora")] == [200, 200]
    assert [await status(client, name, "wrong canary9f3b1c") for name in ("carl", "dora", "emil")] == [401] * 3
    assert await status(client, "carl", "x" * 73) == 401  # more than bcrypt takes
    assert await status(client, "carl", "\0") == 401


@pytest.mark.parametrize("mark", ["2a", "2b", "2y"])
async def test_every_writing_of_bcrypt_is_known(client, file, mark):
    file.write_text(f"carl:{bcrypted(mark=mark)}\n")
    assert await status(client, "carl") == 200


async def test_they_are_granted_rights_and_put_into_groups_like_all_others(client, app):
    assert await status(client, "carl", path=f"{APP}/tags/list") == 403
    await may(app.registry, "carl", "pull")
    assert await status(client, "carl", path=f"{APP}/tags/list") == 404
    await app.registry.users.add_to_group("team", "dora")
    await may(app.registry, "@team", "pull")
    assert await status(client, "dora", path=f"{APP}/tags/list") == 404
    with pytest.raises(UserUnknown, match="there is no user emil"):
        await may(app.registry, "emil", "pull")


async def test_a_change_of_the_file_counts_at_the_next_request_and_for_access_tokens_too(client, app, file):
    await may(app.registry, "carl", "pull,push")
    query = {"scope": "repository:team-a/app:pull,push", "service": "charthouse", "offline_token": "true"}
    given = (await client.get("/token", params=query, auth=("carl", PASSWORD))).json()
    headers = {"Authorization": f"Bearer {given['token']}"}
    form = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"], "service": "charthouse"}
    assert (await client.post(f"{APP}/blobs/uploads/", headers=headers)).status_code == 202
    file.write_text(file.read_text().replace("carl:", "carla:"))  # the same second, another size
    assert [await status(client, name) for name in ("carl", "carla")] == [401, 200]
    assert (await client.post(f"{APP}/blobs/uploads/", headers=headers)).status_code == 401
    assert "carl may not sign in here any more" in (await client.post("/token", data=form)).text
    file.write_text(f"carl:{bcrypted('another canary9f3b1c')}\n")
    assert [await status(client, "carl", password) for password in (PASSWORD, "another canary9f3b1c")] == [401, 200]
    assert (await client.post(f"{APP}/blobs/uploads/", headers=headers)).status_code == 401
    assert "the password of carl has changed" in (await client.post("/token", data=form)).text


async def test_a_file_of_the_same_size_written_at_the_same_time_is_seen(client, file):
    """Some file systems tell times of a write apart by seconds only."""
    before = file.stat()
    assert await status(client, "carl") == 200
    file.write_text(file.read_text().replace("carl:", "emil:"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [await status(client, name) for name in ("carl", "emil")] == [401, 200]


async def test_a_file_that_stays_is_looked_at_and_not_read_again(client, file, monkeypatch):
    os.utime(file, (1, 1))
    monkeypatch.setattr(htpasswd, "SETTLED", -1.0)
    assert await status(client, "carl") == 200
    monkeypatch.setattr(htpasswd, "_read", pytest.fail)
    assert await status(client, "carl") == 200


async def test_a_file_that_is_gone_or_empty_opens_nothing_and_is_said_once(client, file, caplog):
    content = file.read_bytes()
    file.unlink()
    assert [await status(client, "carl") for _ in range(3)] == [401] * 3
    assert (await client.get("/v2/")).status_code == 401
    assert caplog.text.count("cannot be read, and nobody of it may sign in") == 1
    file.write_bytes(b"")
    assert (await client.get("/v2/")).status_code == 401
    file.write_bytes(content)
    assert await status(client, "carl") == 200


async def test_of_two_with_one_name_that_of_the_database_counts_alone(client, app):
    assert await status(client, "carl") == 200
    await app.registry.users.add("root", "root's canary9f3b1c", administrator=True)
    await app.registry.users.add("carl", "another canary9f3b1c")
    assert [await status(client, "carl", password) for password in (PASSWORD, "another canary9f3b1c")] == [401, 200]
    await app.registry.users.remove("carl")
    assert await status(client, "carl") == 200


async def test_the_command_that_would_change_one_names_the_file(app, file):
    users = app.registry.users
    for change in (users.change("carl", password="another canary9f3b1c"), users.remove("carl")):
        with pytest.raises(UserUnknown, match=r"carl is a user of the htpasswd file: .*users\.htpasswd"):
            await change


async def test_an_api_token_can_be_made_where_all_users_are_in_the_file(app):
    assert await app.registry.api_tokens.add("ci", [Pattern("*")], parse_actions("pull"), None)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("emil:$apr1$x$y", "neither bcrypt nor argon2: htpasswd -B"),
        ("emil:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "neither bcrypt nor argon2"),
        ("emil:secret", "neither bcrypt nor argon2"),
        ("secret", "neither bcrypt nor argon2"),
        ("e mil:" + ARGON2, "the name"),
        ("anonymous:" + ARGON2, "the name"),
        ("dora:" + ARGON2, "in a line before"),
        ("emil:" + bcrypted().replace("$04$", "$31$"), "cost above 15"),
        ("emil:" + ARGON2.replace("m=64", "m=99999999"), "more than 256 MiB"),
        ("emil:" + ARGON2.replace("t=1", "t=9999"), "16 passes"),
    ],
    ids=map(str, range(10)),  # the salts are others each time
)
def test_a_line_that_cannot_count_is_named_by_its_number_and_nothing_else_of_it(line, why, caplog, tmp_path):
    content = f"dora:{ARGON2}\n{line}\nfritz:{ARGON2}\n".encode()
    assert list(htpasswd.parse(content, tmp_path)) == ["dora", "fritz"]
    ((_, level, text),) = caplog.record_tuples
    assert level == logging.WARNING
    assert text.startswith("line 2 of the htpasswd file")
    assert why in text
    assert not any(word in text for word in (line, line.partition(":")[2] or "secret", "emil"))


def test_a_server_does_not_start_without_the_file_that_it_was_given(tmp_path):
    with pytest.raises(SettingsError, match=r"--htpasswd .*none cannot be read: No such file"):
        is_closed(load({"htpasswd": tmp_path / "none"}, environ={}))
