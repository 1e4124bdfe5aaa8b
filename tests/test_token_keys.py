"""The keys of access tokens: made once, for their owner alone, and replaced without logging anyone out."""

import base64
import hashlib
import json
import logging
import os
import stat
import threading

import pytest

from charthouse.auth import api_tokens, keys, scope, tokens
from charthouse.auth.keys import KEPT_AFTER, TokenKeys
from charthouse.auth.tokens import LEEWAY, LIFETIME, TokenInvalid

NOW = 1_800_000_000.0
ACCESS = scope.parse(["repository:app:pull"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "token-keys.json"


def token(by: TokenKeys, now: float = NOW) -> str:
    return tokens.make(by.signing, "ann", "1", ACCESS, now)


def verifies(by: TokenKeys, text: str, now: float = NOW) -> bool:
    try:
        return tokens.verify(text, by.find, now).subject == "ann"
    except TokenInvalid:
        return False


def test_the_keys_are_made_once_for_their_owner_alone(path):
    first = TokenKeys(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert verifies(TokenKeys(path), token(first))
    keys.rotate(path, NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_installations_share_no_key(tmp_path):
    one, other = (TokenKeys(tmp_path / name) for name in ("one", "other"))
    assert not verifies(other, token(one))
    assert not {each["kid"] for each in one.published["keys"]} & {each["kid"] for each in other.published["keys"]}


def test_processes_that_start_together_have_one_key(path):
    together, found = threading.Barrier(8), []

    def load() -> None:
        together.wait()
        found.append(TokenKeys(path).signing.kid)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_what_is_published_has_no_private_part_and_is_named_by_its_thumbprint(path):
    (following, signing) = TokenKeys(path).published["keys"]
    assert set(signing) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert signing["kid"] == TokenKeys(path).signing.kid != following["kid"]
    canonical = f'{{"crv":"P-256","kty":"EC","x":"{signing["x"]}","y":"{signing["y"]}"}}'  # RFC 7638, 3
    expected = base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()
    assert signing["kid"] == expected
    private = json.loads(path.read_text())["keys"][1]["d"]
    assert private not in json.dumps(TokenKeys(path).published)


def test_no_coordinate_begins_with_a_zero_byte():
    """One in 128 keys has one, and then distribution computes another thumbprint."""
    for made in (keys._new() for _ in range(300)):
        for name in ("x", "y"):
            coordinate = base64.urlsafe_b64decode(made[name] + "=")
            assert len(coordinate) == 32
            assert coordinate[0]


def test_rotation_logs_nobody_out(path):
    server = TokenKeys(path)
    before, following = token(server), server.published["keys"][0]["kid"]
    assert keys.rotate(path, NOW) == following  # whoever has the published keys of before knows it
    assert server.signing.kid == following
    assert verifies(server, before)
    assert verifies(server, token(server))


def test_a_key_verifies_as_long_as_its_tokens_live_however_often_it_is_rotated(path):
    server = TokenKeys(path)
    before = token(server)
    for step in range(5):
        keys.rotate(path, NOW + step)
    end = NOW + LIFETIME + LEEWAY
    assert verifies(server, before, end)
    keys.rotate(path, NOW + KEPT_AFTER + 10)
    assert len(server.published["keys"]) == 3
    assert not verifies(server, before, end)


def test_keys_that_were_stolen_are_forgotten_at_once(path):
    server = TokenKeys(path)
    before, stamp = token(server), server.stamp
    keys.rotate(path, NOW, forget=True)
    assert server.stamp != stamp
    assert not verifies(server, before)
    assert verifies(server, token(server))


def test_a_damaged_file_is_one_line_that_says_what_to_do(path):
    for content in ("", "{}", '{"keys":[]}', '{"keys":[{},{}]}', '{"keys":[1,2]}', "[]"):
        path.write_text(content)
        with pytest.raises(OSError, match=r"token-keys\.json is damaged: restore it"):
            TokenKeys(path)


def test_a_server_goes_on_with_its_keys_when_the_file_is_gone(path, caplog):
    server = TokenKeys(path)
    before = token(server)
    path.unlink()
    with caplog.at_level(logging.ERROR):
        assert verifies(server, before)
        assert verifies(server, token(server))
    assert len(caplog.records) == 1


@pytest.mark.parametrize("prefix", [api_tokens.API, api_tokens.REFRESH])
def test_a_secret_is_known_by_its_form_and_kept_as_a_hash(prefix):
    secret = api_tokens.new(prefix)
    assert secret.startswith(prefix)
    assert len(secret) == len(prefix) + 43 + 6
    assert api_tokens.is_one(secret, prefix)
    assert api_tokens.hashed(secret) == hashlib.sha256(secret.encode()).hexdigest()
    assert api_tokens.matches(secret, api_tokens.hashed(secret))
    assert not api_tokens.matches(api_tokens.new(prefix), api_tokens.hashed(secret))
    assert len({api_tokens.new(prefix) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: "",
        lambda secret: secret[:-1],
        lambda secret: secret + "0",
        lambda secret: secret + "\n",
        lambda secret: secret.swapcase(),
        lambda secret: secret[:10] + ("a" if secret[10] != "a" else "b") + secret[11:],
        lambda secret: secret.replace(api_tokens.API, api_tokens.REFRESH),
        lambda secret: "é" * len(secret),
    ],
)
def test_what_was_cut_or_mistyped_is_no_secret(spoil):
    assert not api_tokens.is_one(spoil(api_tokens.new(api_tokens.API)), api_tokens.API)


def test_the_folder_is_on_disk_too_before_a_rotation_is_said_to_be_done(tmp_path, monkeypatch):
    """Else keys that were to be forgotten could come back after a power cut."""
    path, synced = tmp_path / "token-keys.json", []
    keys.make(path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    keys.rotate(path, 0.0, forget=True)
    assert synced == [path.stat().st_ino, tmp_path.stat().st_ino]
