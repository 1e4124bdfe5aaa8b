"""A gzip tar, member by member, as Go's archive/tar reads it, and counted while it is inflated.

Python's own tarfile is not used: it forgives other things than Helm's reader does, and some archives keep it busy for
ever (CVE-2025-8194 in Python 3.11.7). This reader only goes forward, and every step costs bytes of its budget.
Source: Go 1.26, src/archive/tar/reader.go, format.go, strconv.go.
"""

import functools
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
CHUNK = 64 * 1024
SPECIAL_LIMIT = 1024 * 1024  # bytes of one extended header or long name, as in Go

_ZEROS = bytes(BLOCK)
_GZIP = 31  # zlib's word for: with gzip header and checksum
_OCTAL = re.compile(rb"[0-7]+")
_DECIMAL = re.compile(rb"[-+]?[0-9]{1,19}")
_TIME = re.compile(rb"[-+]?[0-9]{1,19}(?:\.[0-9]*)?")
_INT64 = 2**63
_NUMBERS = ((124, 136), (100, 108), (108, 116), (116, 124), (136, 148))  # size, mode, uid, gid, mtime
_DEVICES = ((329, 337), (337, 345))  # major, minor; not in the oldest format
_WITHOUT_DATA = frozenset(b"123456")
_DIRECTORY_BITS = 0o040000
_SHORTEST_RECORD = 5


class TarInvalid(ValueError):
    """The bytes are no gzip tar."""


class TarTooLarge(ValueError):
    """The bytes inflate to more than the budget."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member's header. `kind` is the type flag; `size` in bytes, 0 for what has no content, whatever it says."""

    name: bytes
    kind: int
    size: int
    mode: int
    declared: int

    @property
    def is_directory(self) -> bool:
        return self.kind == ord("5") or self.mode & ~0o7777 == _DIRECTORY_BITS

    @property
    def is_device(self) -> bool:
        return self.kind in b"346"

    @property
    def is_link(self) -> bool:
        return self.kind in b"12"


class Inflater:
    """Inflates a stream of gzip members, at most `budget` bytes of them, holding little at a time."""

    def __init__(self, source: BinaryIO, budget: int) -> None:
        self._source = source
        self._budget = budget
        self._deflatable = budget + CHUNK
        self._member = zlib.decompressobj(_GZIP)
        self._buffer = b""
        self._position = 0

    def read(self, size: int) -> bytes:
        """`size` bytes; fewer only where the stream ends. Raises TarInvalid, TarTooLarge."""
        end = self._position + size
        if end <= len(self._buffer):
            found, self._position = self._buffer[self._position : end], end
            return found
        parts = [self._buffer[self._position :]]
        missing = size - len(parts[0])
        self._buffer, self._position = b"", 0
        while missing and (chunk := self._inflate()):
            parts.append(chunk[:missing])
            if len(chunk) > missing:
                self._buffer, self._position = chunk, missing
            missing -= len(parts[-1])
        return b"".join(parts)

    def skip(self, size: int) -> None:
        while size > 0 and (skipped := len(self.read(min(size, CHUNK)))):
            size -= skipped
        if size > 0:
            raise TarInvalid("it ends in the middle of a member")

    def _inflate(self) -> bytes:
        while True:
            if self._member.eof:
                deflated = self._member.unused_data or self._fetch()
                if not deflated:
                    return b""
                self._member = zlib.decompressobj(_GZIP)  # gzip files may be strung together
            else:
                deflated = self._member.unconsumed_tail or self._fetch()
            try:
                inflated = self._member.decompress(deflated, CHUNK)
            except zlib.error as error:
                raise TarInvalid(f"it cannot be inflated ({error})") from None
            if inflated:
                self._budget -= len(inflated)
                if self._budget < 0:
                    raise TarTooLarge
                return inflated
            if not deflated and not self._member.eof:
                raise TarInvalid("it ends in the middle")

    def _fetch(self) -> bytes:
        """Deflated bytes are bounded too: a stream of empty gzip members inflates to nothing for ever."""
        deflated = self._source.read(CHUNK)
        self._deflatable -= len(deflated)
        if self._deflatable < 0:
            raise TarTooLarge
        return deflated


def members(stream: Inflater) -> Iterator[Member]:
    """Each member's header; the caller reads `size` bytes of the stream, or fewer, before the next is asked for.

    Directories, links and devices are among them; extended headers are not. Raises TarInvalid, TarTooLarge.
    """
    extended: dict[bytes, bytes] = {}
    long_name = b""
    while header := _header(stream):
        kind, size = header[156], _number(header[124:136])
        if kind in b"xg":
            records = _records(_special(stream, size))
            extended = records if kind == ord("x") else extended
        elif kind in b"LK":
            name = _text(_special(stream, size))
            long_name = name if kind == ord("L") else long_name
        else:
            member = _member(header, extended, long_name)
            extended, long_name = {}, b""
            yield member
            stream.read(-member.size % BLOCK)  # the padding of the last member may be missing


def _header(stream: Inflater) -> bytes:
    """The next header; nothing at the end, which is two blocks of zeros or the end of the stream."""
    block = stream.read(BLOCK)
    if not block:
        return b""
    if block == _ZEROS:
        block = stream.read(BLOCK)
        if block in (b"", _ZEROS):
            return b""
        raise TarInvalid("a block of zeros stands alone")
    if len(block) < BLOCK:
        raise TarInvalid("it ends in the middle of a header")
    _check_sum(block)
    for begin, end in _NUMBERS + (_DEVICES if block[257:262] == b"ustar" else ()):
        _number(block[begin:end])
    return block


def _check_sum(block: bytes) -> None:
    stored = _octal(block[148:156])
    unsigned = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if stored == unsigned:
        return
    signed = unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:])  # noqa: PLR2004 - the largest int8
    if stored != signed:
        raise TarInvalid("a header's checksum is wrong")


def _member(header: bytes, extended: dict[bytes, bytes], long_name: bytes) -> Member:
    if any(key.startswith(b"GNU.sparse.") for key in extended) or header[156] == ord("S"):
        raise TarInvalid("it has a sparse file; pack the chart with helm package")
    name = long_name or extended.get(b"path") or _ustar_name(header)
    kind = header[156]
    if kind == 0:  # the oldest archives know a directory by its name
        kind = ord("5") if name.endswith(b"/") else ord("0")
    size = _decimal(extended[b"size"]) if extended.get(b"size") else _number(header[124:136])
    content = 0 if kind in _WITHOUT_DATA else size
    if content < 0:
        raise TarInvalid("a member has a negative size")
    return Member(name, kind, content, _number(header[100:108]), size)


def _ustar_name(header: bytes) -> bytes:
    name, prefix = _text(header[:100]), b""
    if header[257:263] == b"ustar\0":
        is_star = header[508:512] == b"tar\0"
        prefix = _text(header[345:476] if is_star else header[345:500])
    elif header[257:265] == b"ustar  \0" and not _has_times(header):
        prefix = _text(header[345:500])  # written by Go before 1.8 (golang.org/issues/12594)
        prefix = prefix if prefix.isascii() else b""
    return prefix + b"/" + name if prefix else name


def _has_times(header: bytes) -> bool:
    try:
        for begin, end in ((345, 357), (357, 369)):
            if header[begin]:
                _number(header[begin:end])
    except TarInvalid:
        return False
    return True


def _special(stream: Inflater, size: int) -> bytes:
    if not 0 <= size <= SPECIAL_LIMIT:
        raise TarInvalid(f"an extended header has {size:,} bytes, at most {SPECIAL_LIMIT:,} are allowed")
    content = stream.read(size)
    if len(content) < size:
        raise TarInvalid("it ends in the middle of an extended header")
    stream.read(-size % BLOCK)
    return content


def _records(content: bytes) -> dict[bytes, bytes]:
    """`<length> <key>=<value>\\n`, the length counting itself."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(content):
        space = content.find(b" ", position, position + 20)
        length = _decimal(content[position:space]) if space >= 0 else 0
        end = position + length
        if length < _SHORTEST_RECORD or end > len(content) or end - 1 <= space or content[end - 1] != ord("\n"):
            raise TarInvalid("an extended header cannot be read")
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        is_name = key in (b"path", b"linkpath", b"uname", b"gname")
        if not equals or not key or b"\0" in (value if is_name else key):
            raise TarInvalid("an extended header cannot be read")
        _check_record(key, value)
        records[key] = value
        position = end
    return records


def _check_record(key: bytes, value: bytes) -> None:
    numeric = key in (b"uid", b"gid", b"size") and not _DECIMAL.fullmatch(value)
    timed = key in (b"mtime", b"atime", b"ctime") and not _TIME.fullmatch(value)
    if value and (numeric or timed):
        raise TarInvalid(f"the {key.decode()} of an extended header is no number")


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _decimal(text: bytes) -> int:
    if not _DECIMAL.fullmatch(text) or not -_INT64 <= int(text) < _INT64:
        raise TarInvalid("an extended header cannot be read")
    return int(text)


@functools.lru_cache(1024)  # mode, owner and time are the same in most headers of an archive
def _number(field: bytes) -> int:
    """Octal, or base 256 in two's complement where the first bit is set."""
    if not field[0] & 0x80:
        return _octal(field)
    value = int.from_bytes(field, "big") & (1 << (8 * len(field) - 1)) - 1
    if field[0] & 0x40:
        value -= 1 << (8 * len(field) - 1)
    if not -_INT64 <= value < _INT64:
        raise TarInvalid("a header's number is too large")
    return value


def _octal(field: bytes) -> int:
    digits = _text(field.strip(b" \0"))
    if not digits:
        return 0
    if not _OCTAL.fullmatch(digits):
        raise TarInvalid("a header's number cannot be read")
    return int(digits, 8)
