"""Upload ids: what is not made here, for this repository and caller, and lately, is unknown."""

import threading
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from charthouse.errors import BlobUploadUnknown
from charthouse.names import RepositoryName
from charthouse.uploads import KEY_SIZE, UploadIds, begun, load_key
from support import faults

NOW = 1_800_000_000.0
EXPIRY = 3600
REPOSITORY = RepositoryName("team-a/app")
IDS = UploadIds(bytes(range(KEY_SIZE)), EXPIRY)


def is_known(
    upload_id: str, *, ids: UploadIds = IDS, repository: str = REPOSITORY, caller: str = "ann", now=NOW
) -> bool:
    try:
        return ids.check(upload_id, RepositoryName(repository), caller, now) == upload_id
    except BlobUploadUnknown:
        return False


@pytest.fixture(scope="module")
def upload_id() -> str:
    return IDS.new(REPOSITORY, "ann", NOW)


def test_an_id_is_known_to_every_worker_with_the_key(upload_id):
    assert is_known(upload_id)
    assert is_known(upload_id, ids=UploadIds(bytes(range(KEY_SIZE)), EXPIRY))


@pytest.mark.parametrize(
    "other",
    [
        {"ids": UploadIds(bytes(KEY_SIZE), EXPIRY)},
        {"repository": "team-a/ap"},
        {"repository": "team-b/app"},
        {"caller": "bob"},
        {"caller": ""},
        {"repository": "team-a/ap", "caller": "p\0ann"},
    ],
)
def test_an_id_of_another_key_repository_or_caller_is_unknown(upload_id, other):
    assert not is_known(upload_id, **other)


def test_no_two_ids_are_one():
    assert len({IDS.new(REPOSITORY, "ann", NOW) for _ in range(1000)}) == 1000


def test_an_id_expires_by_the_clock_it_was_made_with(upload_id):
    assert is_known(upload_id, now=NOW + EXPIRY)
    assert not is_known(upload_id, now=NOW + EXPIRY + 0.001)
    assert is_known(upload_id, now=NOW - 86400)  # a clock set back ends no upload
    assert begun(upload_id) == NOW


@given(st.data())
def test_an_id_with_any_character_changed_added_or_left_out_is_unknown(data):
    upload_id = IDS.new(REPOSITORY, "ann", NOW)
    start = data.draw(st.integers(0, len(upload_id)))
    end = data.draw(st.integers(start, min(start + 3, len(upload_id))))
    inserted = data.draw(st.text(st.sampled_from("AZaz09-_+/=\n .\0é\ud800"), max_size=3))
    tampered = upload_id[:start] + inserted + upload_id[end:]
    assert is_known(tampered) == (tampered == upload_id)


@pytest.mark.parametrize(("written", "other"), ["-+", "_/"])
def test_an_id_has_one_spelling(written, other):
    """It names a file: base64 decoders take both alphabets, and a slash would name another folder."""
    upload_id = next(made for made in iter(lambda: IDS.new(REPOSITORY, "ann", NOW), None) if written in made)
    assert not is_known(upload_id.replace(written, other))


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_what_is_no_id_is_unknown_and_has_no_beginning(text):
    assert not is_known(text)
    assert begun(text) > 1e300


def test_processes_that_start_together_have_one_key(tmp_path: Path):
    """They meet at the file's lock, before any of them has looked into it."""
    path = tmp_path / "upload.key"
    code = (
        "import sys, pathlib; from charthouse.uploads import load_key; print(load_key(pathlib.Path(sys.argv[1])).hex())"
    )
    with faults.lock_held(path) as holder, faults.child(code, tmp_path) as one, faults.child(code, tmp_path) as two:
        while faults.waiting_for(path) < 2:
            assert one.is_running()
            assert two.is_running()
        holder.go_on()
        assert {one.says(), two.says()} == {load_key(tmp_path).hex()}


def test_threads_that_start_together_have_one_key(tmp_path: Path):
    together, keys = threading.Barrier(8), []

    def load() -> None:
        together.wait()
        keys.append(load_key(tmp_path))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_the_key_is_random_kept_and_for_its_owner_alone(tmp_path: Path):
    key = load_key(tmp_path)
    assert len(key) == KEY_SIZE
    assert load_key(tmp_path) == key
    assert (tmp_path / "upload.key").stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["upload.key"]
    (tmp_path / "other").mkdir()
    assert load_key(tmp_path / "other") != key


def test_a_key_that_was_being_made_when_the_power_went_is_made_again(tmp_path: Path):
    (tmp_path / "upload.key").touch()
    assert len(load_key(tmp_path)) == KEY_SIZE


@pytest.mark.parametrize("content", [b"short", bytes(KEY_SIZE + 1)], ids=["short", "long"])
def test_a_damaged_key_is_one_line_that_says_what_to_do(tmp_path: Path, content: bytes):
    (tmp_path / "upload.key").write_bytes(content)
    with pytest.raises(OSError, match=r"upload\.key is damaged: remove it"):
        load_key(tmp_path)
