"""Every parser gives a value or an error of our own, whatever it is fed, and in bounded time.

The table is all parsers of what comes from outside; the last test demands that a new one is put into it. What a value
is worth is proven beside each parser's own tests.
"""

import ast
import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings as example_settings, strategies as st

import charthouse
from charthouse import manifest, names, origin, uploads
from charthouse.auth import access, htpasswd, issuers, key_sets, methods, scope, token_request, tokens
from charthouse.errors import RegistryError
from charthouse.helm import archive, documents, metadata, provenance, schema, sources, versions
from charthouse.hosts import is_local
from charthouse.names import RepositoryName
from charthouse.oci.call import Call
from charthouse.oci.pull import byte_range
from charthouse.settings import FIELDS, SettingsError, load, namespace_value

EXAMPLES = 60
LONG = 32 * 1024  # bytes: what a header or a path may have
CPU_LIMIT = 5.0  # seconds of the processor, thousands of times of what it takes: quadratic is above
IDS = uploads.UploadIds(b"k" * uploads.KEY_SIZE, 60)


def call(name: str, value: str = "", query: str = "") -> Call:
    headers = [(name.encode(), value.encode("latin-1", "replace"))]
    return Call({"type": "http", "headers": headers, "query_string": query.encode("latin-1", "replace")})


def of_settings(text: str) -> None:
    """As each setting's own, and as a namespace's."""
    for name in FIELDS:
        with contextlib.suppress(SettingsError):
            load({name: text}, environ={})
        with contextlib.suppress(ValueError):
            namespace_value(name, text)


def of_issuers(text: str) -> None:
    """In place of each value of a table."""
    table: dict[str, Any] = {
        "name": "corp",
        "issuer": "a",
        "audience": "b",
        "jwks": "c",
        "repositories": "*",
        "actions": "pull",
    }
    for key in table:
        with contextlib.suppress(ValueError):
            issuers.parse([table | {key: text}])
    for claims in ({text: text}, {"sub": [text, text]}):
        with contextlib.suppress(ValueError):
            issuers.parse([{**table, "rules": [{"claims": claims, "user": text}]}])


def addressed(text: str) -> origin.Origin:
    headers = [(b"host", text.encode("latin-1", "replace")), (b"x-forwarded-proto", text.encode("latin-1", "replace"))]
    return origin.Origins("").of({"type": "http", "scheme": "http", "server": ("::1", 5000), "headers": headers})


# What each is fed, the function, and the errors that it may raise.
TEXT: dict[str, tuple[Callable[[str], object], type[Exception] | tuple[type[Exception], ...]]] = {
    "names.RepositoryName.parse": (names.RepositoryName.parse, RegistryError),
    "names.Namespace.parse": (names.Namespace.parse, RegistryError),
    "names.Digest.parse": (names.Digest.parse, RegistryError),
    "names.Tag.parse": (names.Tag.parse, RegistryError),
    "names.parse_reference": (names.parse_reference, RegistryError),
    "oci.pull.byte_range": (lambda text: byte_range(text, 1000), RegistryError),
    "oci.call.content_range": (lambda text: call("content-range", text).content_range, RegistryError),
    "oci.call.content_type": (lambda text: call("content-type", text).content_type, ()),
    "oci.call.page": (lambda text: call("x", query=f"n={text}&last={text}").page, RegistryError),
    "oci.call.parameters": (lambda text: call("x", query=text).parameters, ()),
    "uploads.check": (lambda text: IDS.check(text, RepositoryName("a"), "", 0.0), RegistryError),
    "uploads.begun": (uploads.begun, ()),
    "auth.methods.decoded": (methods.decoded, RegistryError),
    "auth.access.Pattern.parse": (access.Pattern.parse, RegistryError),
    "auth.access.parse_actions": (access.parse_actions, RegistryError),
    "auth.scope.parse": (lambda text: scope.parse([text]), RegistryError),
    "auth.tokens.verify": (lambda text: tokens.verify(text, lambda _: None, 0.0), tokens.TokenInvalid),
    "auth.tokens.claimed": (tokens.claimed, ()),
    "auth.issuers": (of_issuers, ValueError),
    "auth.issuers.matches": (lambda text: issuers.matches(text, text[: len(text) // 2] * 2), ()),
    "hosts.is_local": (lambda text: is_local(text, ["a.example"]), ()),
    "origin.Origins.of": (addressed, ()),
    "settings": (of_settings, SettingsError),
    "helm.versions.Version.parse": (versions.Version.parse, versions.VersionInvalid),
    "helm.versions.Version.parse_strict": (versions.Version.parse_strict, versions.VersionInvalid),
    "helm.sources.Ignore": (sources.Ignore, sources.IgnoreInvalid),
    "helm.metadata.sanitize": (metadata.sanitize, ()),
}
BYTES: dict[str, tuple[Callable[[bytes], object], type[Exception] | tuple[type[Exception], ...]]] = {
    "manifest.parse": (lambda body: manifest.parse(body, manifest.OCI_MANIFEST), RegistryError),
    "auth.htpasswd.parse": (lambda content: htpasswd.parse(content, Path("htpasswd")), ()),
    "auth.key_sets.parse": (key_sets.parse, key_sets.KeysUnavailable),
    "auth.token_request.parse_get": (lambda query: token_request.parse_get(query, None), RegistryError),
    "auth.token_request.parse_post": (token_request.parse_post, RegistryError),
    "helm.archive.read": (archive.read, archive.ArchiveInvalid),
    "helm.documents.load": (documents.load, documents.DocumentInvalid),
    "helm.documents.merged": (documents.merged, documents.DocumentInvalid),
    "helm.documents.heads": (lambda content: list(documents.heads(content)), documents.DocumentInvalid),
    "helm.metadata.parse": (metadata.parse, ()),
    "helm.metadata.from_config": (metadata.from_config, ()),
    "helm.provenance.parse": (provenance.parse, provenance.ProvenanceInvalid),
    "helm.schema.faults": (
        lambda content: list(schema.faults(content, {})),
        (schema.SchemaInvalid, schema.SchemaElsewhere),
    ),
}
VALUES: dict[str, tuple[Callable[[Any], object], type[Exception] | tuple[type[Exception], ...]]] = {
    "auth.issuers.parse": (issuers.parse, ValueError),
    "auth.scope.from_claim": (scope.from_claim, ()),
}

# Of data that this program wrote itself: a damaged one is a fault of its own.
OWN = {"helm.metadata.Metadata.from_json", "helm.inspection.Inspection.from_json", "certificates._Pair.parse"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["type", "name", "actions", "x"]), inner),
)
# Pieces that parsers look for, put together in any order, and any text.
words = st.sampled_from(
    [
        *[
            "sha256:",
            "a" * 64,
            "bytes=",
            "bytes ",
            "0",
            "9" * 20,
            "-",
            "/",
            ":",
            ",",
            ";",
            "*",
            "%00",
            "%ff",
            "+",
            "n=",
        ],
        *[
            "repository:",
            "Basic ",
            "Bearer ",
            "ey",
            ".",
            "..",
            "a",
            "A",
            "\0",
            "\n",
            "\r",
            "é",
            "\u0663",
            "[",
            "::1",
            "]",
        ],
        *[
            "~",
            "^",
            "||",
            "!",
            "#",
            "**",
            "\\",
            "=",
            "grant_type=password",
            "username=",
            "_",
            "\ud800",
            "localhost",
            "@",
        ],
    ]
)
texts = st.text() | st.lists(words, max_size=12).map("".join)
contents = st.binary() | texts.map(lambda text: text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("name", TEXT)
@given(text=texts)
@example_settings(max_examples=EXAMPLES)
def test_any_text_is_a_value_or_an_error_of_ours(name, text):
    parse, errors = TEXT[name]
    with contextlib.suppress(errors):
        parse(text)


@pytest.mark.parametrize("name", BYTES)
@given(content=contents)
@example_settings(max_examples=EXAMPLES)
def test_any_bytes_are_a_value_or_an_error_of_ours(name, content):
    parse, errors = BYTES[name]
    with contextlib.suppress(errors):
        parse(content)


@pytest.mark.parametrize("name", VALUES)
@given(value=json_values)
@example_settings(max_examples=EXAMPLES)
def test_any_value_is_a_value_or_an_error_of_ours(name, value):
    parse, errors = VALUES[name]
    with contextlib.suppress(errors):
        parse(value)


REPEATED = [
    "a",
    "0",
    "-",
    "/",
    ":",
    ",",
    " ",
    "\n",
    "\t",
    "(",
    "[",
    "{",
    "*",
    "=",
    "&",
    "a=&",
    "%",
    "a-",
    "a/",
    "_",
    ".",
]
REPEATED += [
    "0-",
    "a:",
    "repository:a:pull ",
    '"',
    "\\",
    "- ",
    "a: ",
    "&a ",
    "*a ",
    "\0",
    "\x1f\x8b",
    "ÿ",
    "~",
    "^",
    "||",
]


@contextlib.contextmanager
def processor_time(seconds: float) -> Iterator[None]:
    """Ends what takes more of it. It does not run while others do, as a clock would."""

    def end(*_: object) -> None:
        raise AssertionError(f"more than {seconds} seconds of the processor")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize("name", [*TEXT, *BYTES])
def test_the_longest_input_of_one_kind_takes_bounded_time(name):
    """Repetitions are what patterns go back over: quadratic or worse would be seen."""
    parse, errors = TEXT.get(name) or BYTES[name]
    for repeated in REPEATED:
        text = (repeated * LONG)[:LONG] + "!"
        with processor_time(CPU_LIMIT), contextlib.suppress(errors):
            parse(text if name in TEXT else text.encode("latin-1"))


def test_the_time_limit_ends_what_goes_back_for_ever():
    import re

    with pytest.raises(AssertionError, match="seconds of the processor"), processor_time(0.05):
        re.fullmatch(r"(a+)+b", "a" * 40)


def parsers() -> Iterator[str]:
    """Every function of the package that is called `parse…` or `from_…`, by its module and class."""
    package = Path(charthouse.__file__).parent
    for path in package.rglob("*.py"):
        module = path.relative_to(package).with_suffix("")
        if module.parts[0] not in ("commands", "bench", "testing"):
            yield from _defined(ast.parse(path.read_text()), ".".join(module.parts))


def _defined(tree: ast.AST, prefix: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _defined(node, f"{prefix}.{node.name}")
        elif isinstance(node, ast.FunctionDef) and node.name.startswith(("parse", "from_")):
            yield f"{prefix}.{node.name}"


def test_every_parser_is_in_the_table():
    found = set(parsers())
    assert found - OWN <= {*TEXT, *BYTES, *VALUES}
    assert found >= OWN
