"""A chart's archive is read as Helm's loader reads it, and nothing in it can do harm."""

import gzip
import io
import itertools
import tarfile
import zlib

import pytest
from hypothesis import given, settings, strategies as st

from charthouse.helm.archive import DEFAULT, Archive, ArchiveInvalid, ArchiveTooLarge, Limits, read
from helm.charts import CHART_YAML, Zeros, chart, member, tar, tgz
from support.tools import Tool

FORMS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}
CHART = member("app/Chart.yaml", CHART_YAML)
VALUES = b"a: 1\n"
DEEP = "app/" + "d/" * 45 + "f.txt"
LONG = "app/templates/" + "l" * 180


def fault(content: bytes, limits: Limits = DEFAULT) -> ArchiveInvalid:
    with pytest.raises(ArchiveInvalid) as raised:
        read(content, limits)
    return raised.value


def shifted(content: bytes, at: int, value: bytes) -> bytes:
    """The tar with other bytes in its first header, whose checksum is right again."""
    block = bytearray(content[:512])
    block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return gzip.compress(bytes(block) + content[512:])


# What is taken


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_files_are_read_in_the_archives_order(form: int) -> None:
    files = {
        "values.yaml": VALUES,
        DEEP.removeprefix("app/"): b"x" * 513,
        "templates/é.yaml": b"",
        "big": bytes(200_000),
    }
    found = read(tgz(CHART, *(member(f"app/{path}", content) for path, content in files.items()), form=form))
    assert found.files == {"Chart.yaml": CHART_YAML, **files}
    assert list(found.files) == ["Chart.yaml", *files]
    assert (found.top, list(found.tops)) == ("app", ["app"])


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_longer_than_a_header_are_read(form: int) -> None:
    assert LONG.removeprefix("app/") in read(tgz(CHART, member(LONG, b"x"), form=form)).files


def test_a_leading_dot_folder_is_a_top_folder() -> None:
    found = read(
        tgz(member("./", type=tarfile.DIRTYPE), member("./Chart.yaml", CHART_YAML), member("./values.yaml", VALUES))
    )
    assert found.files == {"Chart.yaml": CHART_YAML, "values.yaml": VALUES}
    assert found.top == "."


def test_of_a_path_that_stands_twice_the_last_counts() -> None:
    found = read(tgz(CHART, member("app/values.yaml", b"a: 1"), member("app/./values.yaml", b"a: 2")))
    assert found.files["values.yaml"] == b"a: 2"
    assert found.repeated == ["values.yaml"]


def test_backslashes_of_windows_separate_folders() -> None:
    found = read(tgz(member("app\\Chart.yaml", CHART_YAML), member("app\\templates\\a.yaml", b"")))
    assert list(found.files) == ["Chart.yaml", "templates/a.yaml"]


def test_a_byte_order_mark_is_taken_off() -> None:
    assert read(chart({"values.yaml": b"\xef\xbb\xbfa: 1"})).files["values.yaml"] == b"a: 1"


def test_links_are_read_as_empty_files() -> None:
    link = member("app/link", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    found = read(tgz(CHART, link, member("app/hard", type=tarfile.LNKTYPE, linkname="app/Chart.yaml")))
    assert (found.files["link"], found.files["hard"]) == (b"", b"")
    assert found.links == ["link", "hard"]


def test_several_gzip_members_are_one_archive() -> None:
    whole = tar([CHART, member("app/values.yaml", VALUES)])
    assert read(gzip.compress(whole[:700]) + gzip.compress(whole[700:])).files["values.yaml"] == VALUES


def test_what_follows_the_archives_end_is_not_looked_at() -> None:
    assert "Chart.yaml" in read(gzip.compress(tar([CHART]) + b"more" * 200) + b"garbage").files


def test_a_file_object_is_read_like_bytes() -> None:
    assert read(io.BytesIO(chart())) == read(chart())


# What is not


REFUSED = {
    "../evil": "members_stay_in_the_folder",
    "app/../../evil": "members_stay_in_the_folder",
    "app/..evil": "members_stay_in_the_folder",
    "app/.": "members_stay_in_the_folder",
    "evil": "members_stay_in_the_folder",
    "./../evil": "members_stay_in_the_folder",
    "/etc/passwd": "members_stay_in_the_folder",
    "app//etc/passwd": "members_stay_in_the_folder",
    "\\windows": "members_stay_in_the_folder",
    "\\..\\..\\evil": "members_stay_in_the_folder",
    "\\\\host\\share": "members_stay_in_the_folder",
    "app/c:/evil": "members_stay_in_the_folder",
    "app\\.\\c:\\evil": "members_stay_in_the_folder",
    "Chart.yaml": "chart_yaml_is_in_the_top_folder",
    "Chart.yaml/x": "chart_yaml_is_in_the_top_folder",
}


@pytest.mark.parametrize(("name", "rule"), REFUSED.items())
def test_a_name_that_leaves_the_folder_is_refused(name: str, rule: str) -> None:
    refused = fault(tgz(CHART, member(name, b"x")))
    assert refused.rule == rule


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_device_is_refused_by_its_name(kind: bytes) -> None:
    refused = fault(tgz(CHART, member("app/dev", type=kind)))
    assert (refused.rule, refused.message) == ("members_are_files", "the archive has the device 'app/dev'")


def test_a_link_that_claims_to_have_content_is_refused_as_by_helm(helm4: Tool) -> None:
    link = tarfile.TarInfo("app/link")
    link.type, link.linkname, link.size = tarfile.LNKTYPE, "app/Chart.yaml", 5
    content = gzip.compress(link.tobuf() + tar([CHART]))
    assert fault(content).message == "the archive has the link 'app/link' with a size"
    (helm4.home / "app.tgz").write_bytes(content)
    helm4("show", "chart", "app.tgz", status=1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        gzip.compress(b""),
        gzip.compress(bytes(1024)),
        gzip.compress(b"x" * 600),
        gzip.compress(tar([member("app/", type=tarfile.DIRTYPE)])),
        chart()[: len(chart()) // 2],
        gzip.compress(tar([CHART])[:560]),
        gzip.compress(tar([CHART])[:200]),
        gzip.compress(bytes(512) + tar([CHART])),
        gzip.compress(tar([CHART])[:1024]) + b"garbage",
        zlib.compress(tar([CHART])),
    ],
    ids=itertools.count(),  # their bytes have the time in them
)
def test_what_is_no_gzip_tar_is_refused(content: bytes) -> None:
    assert fault(content).rule == "archive_is_a_gzip_tar"


def test_an_archive_without_chart_yaml_names_what_it_has() -> None:
    refused = fault(tgz(member("app/sub/Chart.yaml", CHART_YAML)))
    assert refused.message == "the archive has no <chart>/Chart.yaml (its first file is 'app/sub/Chart.yaml')"
    assert refused.rule == "chart_yaml_is_in_the_top_folder"


def test_helm_reads_and_refuses_the_same_archives(helm4: Tool) -> None:
    """`helm show chart`, for names that leave the folder and for all that is taken above."""
    for name in REFUSED:
        (helm4.home / "app.tgz").write_bytes(tgz(CHART, member(name, b"x")))
        if name in ("../evil", "/etc/passwd", "\\windows"):
            continue  # Helm takes the first part away, whatever it is, and goes on
        helm4("show", "chart", "app.tgz", status=1)
    links = [CHART, member("app/link", type=tarfile.SYMTYPE, linkname="x")]
    for content in (tgz(CHART, member(LONG)), tgz(*links), tgz(member("app\\Chart.yaml", CHART_YAML)), chart(top=".")):
        (helm4.home / "app.tgz").write_bytes(content)
        assert "name: app" in helm4("show", "chart", "app.tgz")


# Limits


def test_as_many_members_as_allowed_are_read_and_one_more_is_not() -> None:
    files = [member(f"app/f{number}") for number in range(9)]
    assert len(read(tgz(CHART, *files), Limits(members=10)).files) == 10
    refused = fault(tgz(CHART, *files, member("app/", type=tarfile.DIRTYPE)), Limits(members=10))
    assert isinstance(refused, ArchiveTooLarge)
    assert refused.message == "the archive has more than 10 members"


def test_a_file_as_large_as_allowed_is_read_and_one_byte_more_is_not() -> None:
    read(chart({"f": bytes(1000)}), Limits(file=1000))
    refused = fault(chart({"f": bytes(1001)}), Limits(file=1000))
    assert refused.message == "'f' has 1,001 bytes, at most 1,000 are allowed in one file"


def test_files_that_reach_the_limit_together_are_refused_as_in_helm() -> None:
    limits = Limits(total=1000)
    read(chart({"f": bytes(999 - len(CHART_YAML))}), limits)
    assert isinstance(fault(chart({"f": bytes(1000 - len(CHART_YAML))}), limits), ArchiveTooLarge)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, b"Z", b"g"])
def test_ten_gibibytes_of_zeros_are_not_inflated(kind: bytes) -> None:
    size = 10 * 1024**3
    info = tarfile.TarInfo("app/zeros")
    info.size, info.type = size, kind
    bomb = Zeros(info.tobuf(tarfile.GNU_FORMAT), size)
    with pytest.raises(ArchiveInvalid):
        read(io.BufferedReader(bomb))
    assert bomb.served < 1024 * 1024


def test_endless_members_without_content_end_at_the_limit() -> None:
    """A million directories, a million extended headers, a million empty gzip members."""
    directory = tarfile.TarInfo("app/d/")
    directory.type = tarfile.DIRTYPE
    many = gzip.compress(directory.tobuf() * 20_000)
    assert isinstance(fault(many), ArchiveTooLarge)
    extended = tarfile.TarInfo.create_pax_global_header({"comment": "x"})
    assert isinstance(fault(gzip.compress(extended * 20_000), Limits(total=1000, members=10)), ArchiveTooLarge)
    assert isinstance(fault(gzip.compress(b"") * 400_000, Limits(total=1000, members=10)), ArchiveTooLarge)


def test_a_million_members_are_refused_after_ten_thousand() -> None:
    member_bytes = tarfile.TarInfo("app/f").tobuf() * 1000
    bomb = io.BytesIO(zlib.compress(member_bytes, 1, wbits=31) * 1000)
    with pytest.raises(ArchiveTooLarge, match="more than 10,000 members"):
        read(bomb)


@pytest.mark.parametrize("size", [-1, -512, -(2**40)])
def test_a_negative_size_does_not_lead_back(size: int) -> None:
    """CVE-2025-8194: Python's tarfile reads such an archive for ever."""
    number = (size & (1 << 95) - 1 | 1 << 95).to_bytes(12, "big")
    assert fault(shifted(tar([CHART]), 124, number)).rule == "archive_is_a_gzip_tar"
    records = b"%d size=%d\n" % (len(str(size)) + 8 + (len(str(size)) > 1), size)
    pax = tarfile.TarInfo("pax")
    pax.type, pax.size = tarfile.XHDTYPE, len(records)
    content = pax.tobuf() + records.ljust(512, b"\0") + tar([CHART])
    assert fault(gzip.compress(content)).rule == "archive_is_a_gzip_tar"


@pytest.mark.parametrize(
    "records",
    [b"0 a=b\n", b"3 a\n", b"9999999999999999999 a=b\n", b"-5 a=b\n", b"6 a=b", b"a=b\n", b" \n", b"6 =bc\n", b"4 =\n"],
)
def test_a_broken_extended_header_is_refused(records: bytes) -> None:
    pax = tarfile.TarInfo("pax")
    pax.type, pax.size = tarfile.XHDTYPE, len(records)
    content = pax.tobuf() + records.ljust(512, b"\0") + tar([CHART])
    assert fault(gzip.compress(content)).rule == "archive_is_a_gzip_tar"


def test_an_extended_header_of_two_mebibytes_is_refused() -> None:
    pax = tarfile.TarInfo("pax")
    pax.type, pax.size = tarfile.XHDTYPE, 2 * 1024 * 1024
    assert "extended header" in fault(gzip.compress(pax.tobuf() + bytes(2 * 1024 * 1024))).message


@pytest.mark.parametrize("changed", [(0, b"B"), (148, b"000000"), (124, b"9"), (108, b"\xff\xff"), (136, b"x")])
def test_a_header_that_does_not_agree_with_its_checksum_or_form_is_refused(changed: tuple[int, bytes]) -> None:
    at, value = changed
    content = bytearray(tar([CHART]))
    content[at : at + len(value)] = value
    assert fault(gzip.compress(bytes(content))).rule == "archive_is_a_gzip_tar"


# Anything at all


@settings(deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for each in (content, gzip.compress(content)):
        attempt(each)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1535), st.integers(0, 255)), max_size=12), st.integers(0, 2560))
def test_any_damage_is_read_or_refused(changes: list[tuple[int, int]], length: int) -> None:
    content = bytearray(tar([CHART, member("app/x", b"x")]))
    for at, value in changes:
        content[at] = value
    for begin in (0, 1024):
        block = content[begin : begin + 512]
        block[148:156] = b" " * 8
        content[begin + 148 : begin + 156] = b"%06o\0 " % sum(block)
    attempt(gzip.compress(bytes(content)))
    attempt(gzip.compress(bytes(content))[:length])


def attempt(content: bytes) -> Archive | ArchiveInvalid:
    """Nothing but ArchiveInvalid ever comes out."""
    try:
        return read(content, Limits(total=100_000, members=100))
    except ArchiveInvalid as error:
        return error
