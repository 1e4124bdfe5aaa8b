"""YAML as Helm reads it: the first document, resolved as go-yaml 2 does, counted before anything is built.

Values are built straight from libyaml's events, so a bomb is found while it is read: an alias counts as often as what
it stands for. The rules by which `1.10` is a number and `2024-01-01` a text are go-yaml's, not PyYAML's.
Source: go.yaml.in/yaml/v2 v2.4.4, resolve.go and decode.go; sigs.k8s.io/yaml v1.6.0, yaml.go.
"""

import base64
import binascii
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

NODE_LIMIT = 100_000
DEPTH_LIMIT = 100
ALIAS_LIMIT = 10_000
HEADS_DEPTH = 1_000  # levels: what libyaml takes grows with their square, 3 s at 32,000


class DocumentInvalid(ValueError):
    """The text is no YAML that Helm can use, or (`is_limit`) more of it than is read here.

    `line` counts from 1; 0 when it is not known.
    """

    def __init__(self, message: str, line: int = 0, *, is_limit: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.is_limit = is_limit


class Mapping(dict[str, Any]):
    """A mapping that remembers on which line each key stands, and which keys stand twice (the last one counts)."""

    __slots__ = ("lines", "repeated")

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}
        self.repeated: list[tuple[str, int]] = []

    def put(self, key: str, value: Any, line: int) -> None:
        if key in self:
            self.repeated.append((key, line))
        self[key] = value
        self.lines[key] = line


@dataclass(frozen=True, slots=True)
class Limits:
    nodes: int = NODE_LIMIT
    depth: int = DEPTH_LIMIT
    aliases: int = ALIAS_LIMIT


def load(content: bytes, limits: Limits = Limits()) -> Any:
    """The first document; what follows it is not read, as in Helm. Raises DocumentInvalid."""
    parser = yaml.CSafeLoader(content)
    try:
        return _Builder(parser, limits).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(part for part in (error.context, error.problem) if part)
        raise DocumentInvalid(words or "not valid YAML", mark.line + 1 if mark else 0) from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise DocumentInvalid(" ".join(str(error).split())) from None
    finally:
        parser.dispose()


class _Builder:
    """Builds values from events, each of which is counted first."""

    def __init__(self, parser: yaml.CSafeLoader, limits: Limits) -> None:
        self._parser = parser
        self._limits = limits
        self._nodes = 0
        self._aliases = 0
        self._anchors: dict[str, tuple[Any, int] | None] = {}  # value and number of nodes; None while it is being built

    def _next(self) -> Any:
        return self._parser.get_event()

    def document(self) -> Any:
        self._next()  # the stream's start
        if isinstance(self._next(), yaml.StreamEndEvent):
            return None
        return self._node(self._next(), 0)

    def _node(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._nodes
        self._count(1, event)
        if depth > self._limits.depth:
            raise DocumentInvalid(f"nested deeper than {self._limits.depth} levels", _line(event), is_limit=True)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            value = scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = [self._node(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        else:
            value = self._mapping(depth + 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._nodes - before)
        return value

    def _until(self, end: type) -> Iterator[Any]:
        while not isinstance(event := self._next(), end):
            yield event

    def _mapping(self, depth: int) -> Mapping:
        mapping = Mapping()
        for event in self._until(yaml.MappingEndEvent):
            merges = isinstance(event, yaml.ScalarEvent) and event.value == "<<" and _may_merge(event)
            key = self._node(event, depth)
            value = self._node(self._next(), depth)
            if merges:
                _merge(mapping, value, _line(event))
            else:
                mapping.put(_key(key, event), value, _line(event))
        return mapping

    def _alias(self, event: Any) -> Any:
        self._aliases += 1
        if self._aliases > self._limits.aliases:
            raise DocumentInvalid(f"more than {self._limits.aliases:,} aliases", _line(event), is_limit=True)
        if event.anchor not in self._anchors:
            raise DocumentInvalid(f"unknown anchor {event.anchor!r}", _line(event))
        anchored = self._anchors[event.anchor]
        if anchored is None:
            raise DocumentInvalid(f"anchor {event.anchor!r} contains itself", _line(event))
        self._count(anchored[1], event)
        return anchored[0]

    def _count(self, nodes: int, event: Any) -> None:
        self._nodes += nodes
        if self._nodes > self._limits.nodes:
            message = f"more than {self._limits.nodes:,} values, aliases counted in full"
            raise DocumentInvalid(message, _line(event), is_limit=True)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _may_merge(event: yaml.ScalarEvent) -> bool:
    return event.implicit[0] or event.tag == "tag:yaml.org,2002:merge"


def _merge(mapping: Mapping, value: Any, line: int) -> None:
    """The order of the keys decides what wins; of a list, the first."""
    for source in reversed(value) if isinstance(value, list) else (value,):
        if not isinstance(source, Mapping):
            raise DocumentInvalid("map merge requires map or sequence of maps as the value", line)
        mapping.update(source)
        mapping.lines.update(dict.fromkeys(source, line))


def _key(key: Any, event: Any) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, (list, dict)) or (isinstance(key, int) and key >= _INT64):
        raise DocumentInvalid("a key of a mapping is neither text nor number", _line(event))
    text = as_text(key)
    return _KEYS.get(text, text) if isinstance(key, float) else text


# Scalars

_TAG = "tag:yaml.org,2002:"
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_NUMBER_STARTS = frozenset("+-0123456789.")
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_POINT = re.compile(r"\.[0-9](?:_?[0-9])*(?:[eE][-+]?[0-9]+)?")
_KEYS = {"+Inf": ".inf", "-Inf": "-.inf", "NaN": ".nan"}
_BASES = (16, 2, 8, 10)
_INT64 = 2**63
_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (float,),
    "null": (type(None),),
}


def scalar(event: yaml.ScalarEvent) -> Any:
    """The value of a scalar, quoted or plain, tagged or not."""
    text: str = event.value
    tag: str | None = event.tag
    if tag is None:
        return resolve(text) if event.implicit[0] else text
    kind = tag.removeprefix(_TAG) if tag.startswith(_TAG) else ""
    if kind == "binary":
        return _binary(text, _line(event))
    return _tagged(kind, text, _line(event)) if kind in _TYPES else text


def resolve(text: str) -> Any:
    """A plain scalar: word, number, or text."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    plain = text.replace("_", "")
    if text[0] == "." and not _POINT.fullmatch(text):
        return text
    if found := _INTEGER.fullmatch(plain):
        number = _integer(found)
        if -_INT64 <= number < 2 * _INT64:
            return number
    if len(plain) <= _FLOAT_LIMIT and _FLOAT.fullmatch(plain) and math.isfinite(value := float(plain)):
        return value
    return text


_FLOAT_LIMIT = 10_000  # characters; no number of that length means anything


def _integer(found: re.Match[str]) -> int:
    digits, base = next((part, base) for part, base in zip(found.group(2, 3, 4, 5), _BASES, strict=True) if part)
    if len(digits) > 64:  # noqa: PLR2004 - the longest uint64, in base 2
        return 2 * _INT64
    return -int(digits, base) if found[1] == "-" else int(digits, base)


def _tagged(kind: str, text: str, line: int) -> Any:
    value = resolve(text)
    if kind == "float" and type(value) is int:
        return float(value)
    if type(value) not in _TYPES[kind]:
        raise DocumentInvalid(f"cannot decode {text[:40]!r} as a !!{kind}", line)
    return value


def _binary(text: str, line: int) -> str:
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode(errors="replace")
    except (binascii.Error, ValueError):
        raise DocumentInvalid("!!binary value contains invalid base64 data", line) from None


def as_text(value: float | bool) -> str:
    """A number or boolean where a text is wanted, as sigs.k8s.io/yaml writes it: `1.10` becomes `1.1`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else _float32(value)


def _float32(value: float) -> str:
    """Go's strconv.FormatFloat(value, 'g', -1, 32)."""
    try:
        narrow = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        narrow = math.copysign(math.inf, value)
    if not math.isfinite(narrow):
        return "NaN" if math.isnan(narrow) else "+Inf" if narrow > 0 else "-Inf"
    written = next(text for digits in range(9) if _narrowed(text := f"{narrow:.{digits}e}") == narrow)
    mantissa, _, exponent = written.partition("e")
    if -4 <= int(exponent) < 6:  # noqa: PLR2004 - where "g" goes over to an exponent
        return _positional(mantissa, int(exponent))
    return f"{mantissa}e{int(exponent):+03d}"


def _narrowed(text: str) -> float:
    try:
        return float(struct.unpack("f", struct.pack("f", float(text)))[0])
    except OverflowError:
        return math.inf


def _positional(mantissa: str, exponent: int) -> str:
    places = max(0, len(mantissa.lstrip("-").replace(".", "")) - 1 - exponent)
    return f"{float(f'{mantissa}e{exponent}'):.{places}f}"


# Files of several documents


def merged(content: bytes, limits: Limits = Limits()) -> dict[str, Any]:
    """values.yaml: the documents between lines `---`, the later over the earlier. Raises DocumentInvalid.

    Source: helm.sh/helm/v4 v4.3.1, pkg/chart/v2/loader/load.go, LoadValues.
    """
    values: dict[str, Any] = {}
    for first_line, part in _parts(content):
        try:
            document = load(part, limits)
        except DocumentInvalid as error:
            line = error.line and error.line + first_line
            raise DocumentInvalid(error.message, line, is_limit=error.is_limit) from None
        if document is None:
            continue
        if not isinstance(document, dict):
            raise DocumentInvalid("not a mapping of values", first_line + 1)
        values = _over(values, document)
    return values


def _parts(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Each document with the number of lines before it."""
    first, lines = 0, content.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.startswith(b"---"):
            yield first, b"".join(lines[first:number])
            first = number + 1
    yield first, b"".join(lines[first:])


def _over(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in values.items():
        below = result.get(key)
        result[key] = _over(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return result


def heads(content: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    """Of each document its line and its top fields that are plain texts; nothing is built. Raises DocumentInvalid."""
    parser = yaml.CSafeLoader(content)
    try:
        yield from _heads(parser)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentInvalid(error.problem or "not valid YAML", mark.line + 1 if mark else 0) from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise DocumentInvalid(" ".join(str(error).split())) from None
    finally:
        parser.dispose()


def _heads(parser: yaml.CSafeLoader) -> Iterator[tuple[int, dict[str, str]]]:
    depth, line = 0, 0
    texts: list[str] = []
    while not isinstance(event := parser.get_event(), yaml.StreamEndEvent):
        if isinstance(event, yaml.DocumentStartEvent):
            texts = []
        elif isinstance(event, yaml.DocumentEndEvent):
            yield line, dict(zip(texts[::2], texts[1::2], strict=False))
        elif isinstance(event, yaml.CollectionStartEvent):
            line = _line(event) if depth == 0 else line
            if depth == 1:
                texts.append("")
            depth += 1
            if depth > HEADS_DEPTH:
                raise DocumentInvalid(f"nested deeper than {HEADS_DEPTH:,} levels", _line(event), is_limit=True)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif depth == 1:
            texts.append(event.value if isinstance(event, yaml.ScalarEvent) else "")
