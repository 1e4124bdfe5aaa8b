"""OpenPGP signature packets whose numbers were written with the wrong length, written anew with the right one.

A number's length and leading zeros are no part of what is signed: this changes no verdict, only whether there is one.
Source: RFC 9580, 3.2 (numbers), 4.2 (packet headers), 5.2 (signatures).
"""

_SIGNATURE_TAG = 2
_VERSION_4 = 4


def repaired(packets: bytes) -> bytes:
    """The same packets, numbers without leading zeros. Raises ValueError."""
    written = b""
    position = 0
    while position < len(packets):
        tag, begin, end = _packet(packets, position)
        body = packets[begin:end]
        if tag == _SIGNATURE_TAG and body[:1] == bytes([_VERSION_4]):
            body = _signature(body)
        written += bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body
        position = end
    return written


def _packet(packets: bytes, position: int) -> tuple[int, int, int]:
    """Tag, and where the body begins and ends."""
    first = packets[position]
    if not first & 0x40:  # the old format: the length of the length stands in the tag
        octets = 1 << (first & 3)
        begin = position + 1 + octets
        tag, size = first >> 2 & 15, int.from_bytes(packets[position + 1 : begin], "big")
    else:
        tag = first & 63
        begin, size = _length(packets, position + 1)
    if begin + size > len(packets) or not first & 0x80:
        raise ValueError("a packet is cut off")
    return tag, begin, begin + size


def _length(packets: bytes, position: int) -> tuple[int, int]:
    first = int.from_bytes(packets[position : position + 1], "big")
    if first < 192:  # noqa: PLR2004 - one octet
        return position + 1, first
    if first < 224:  # noqa: PLR2004 - two octets
        return position + 2, (first - 192 << 8) + int.from_bytes(packets[position + 1 : position + 2], "big") + 192
    return position + 5, int.from_bytes(packets[position + 1 : position + 5], "big")


def _signature(body: bytes) -> bytes:
    position = 4  # version, type, two algorithms
    for _ in ("hashed", "unhashed"):
        position += 2 + int.from_bytes(body[position : position + 2], "big")
    position += 2  # the first octets of the digest
    written = body[:position]
    while position < len(body):
        end = position + 2 + (int.from_bytes(body[position : position + 2], "big") + 7) // 8
        if end > len(body):
            raise ValueError("a number is cut off")
        number = int.from_bytes(body[position + 2 : end], "big")
        written += number.bit_length().to_bytes(2, "big") + number.to_bytes((number.bit_length() + 7) // 8, "big")
        position = end
    return written
