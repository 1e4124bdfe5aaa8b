"""What can be set, by flag, by `CHARTHOUSE_*` variable or in a TOML file, in that order of precedence.

A field's description is its line in `--help` and in docs/configuration.md; a test demands both. Plain Python, because
every call of the command line imports this.
"""

import dataclasses
import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from charthouse.auth import issuers
from charthouse.auth.issuers import Issuer
from charthouse.errors import RegistryError
from charthouse.names import Namespace

PREFIX = "CHARTHOUSE_"
CONFIG, PASSWORD_FILE = PREFIX + "CONFIG", PREFIX + "ADMIN_PASSWORD_FILE"  # variables that are no settings
DATABASE_NAME = "charthouse.db"
FROM_FLAGS, FROM_ENVIRONMENT = "on the command line", "from the environment"

# What Kubernetes puts into every container of a namespace that has a Service called charthouse or charthouse-<any>.
_FROM_KUBERNETES = re.compile(r"CHARTHOUSE_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_SIZE = re.compile(rf"(\d{{1,19}}) ?({'|'.join(_UNITS)})?", re.ASCII)
LARGEST = 2**63 - 1
_PUBLIC_URL = re.compile(r"https?://(?:[a-zA-Z0-9._-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?/?")
_HOST_NAME = re.compile(
    r"(?!.{254})_?[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*"
)
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class SettingsError(Exception):
    """One line that names the setting, its value and where it came from."""


Parse = Callable[[Any], Any]  # the value, from a flag, a variable or TOML; raises ValueError with what to give


def whole(smallest: int, largest: int) -> Parse:
    def parse(value: object) -> int:
        try:
            number = int(str(value))
        except ValueError:
            number = smallest - 1
        if not smallest <= number <= largest:
            raise ValueError(f"give a whole number from {smallest} to {largest}")
        return number

    return parse


def size(smallest: int) -> Parse:
    def parse(value: object) -> int:
        match = _SIZE.fullmatch(str(value))
        number = int(match[1]) * 1024 ** _UNITS.index(match[2] or "B") if match else -1
        if not smallest <= number <= LARGEST:
            raise ValueError(f"give bytes from {smallest} on, such as 1073741824 or 1GiB (also KiB, MiB, TiB)")
        return number

    return parse


def one_of(*choices: str) -> Parse:
    def parse(value: object) -> str:
        if value not in choices:
            raise ValueError(f"give {' or '.join(choices)}")
        return str(value)

    return parse


def switch(value: object) -> bool:
    word = str(value).lower()
    if word not in _TRUE + _FALSE:
        raise ValueError("give true or false")
    return word in _TRUE


def words(value: object) -> tuple[str, ...]:
    found = value.split(",") if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(word, str) for word in found):
        raise ValueError("give words separated by commas")
    return tuple(part.strip() for word in found for part in word.split(",") if part.strip())


def addresses(value: object) -> tuple[str, ...]:
    found = words(value)
    if not found:
        raise ValueError("name at least one address, such as 127.0.0.1 or 0.0.0.0")
    for address in found:
        if address != "localhost":
            try:
                ipaddress.ip_address(address)
            except ValueError:
                raise ValueError(f"{address!r} is no address: use 127.0.0.1, ::1, 0.0.0.0, :: or localhost") from None
    return found


def host_names(value: object) -> tuple[str, ...]:
    found = words(value)
    for name in found:
        if not _is_host_name(name):
            raise ValueError(f"{name!r} is no host name: give names and addresses such as registry.test or 172.18.0.1")
    return found


def _is_host_name(name: str) -> bool:
    """An address, or labels of letters, digits and hyphens (RFC 1123, 2.1); of letters of other scripts by IDNA."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        try:
            return bool(_HOST_NAME.fullmatch(name.encode("idna").decode()))
        except UnicodeError:
            return False
    return True


def tls_mode(value: object) -> str:
    """true and false too, as for a switch."""
    word = str(value).lower()
    found = "self-signed" if word in _TRUE else "off" if word in _FALSE else word
    if found not in ("off", "self-signed"):
        raise ValueError("give off or self-signed")
    return found


def file(value: object) -> Path | None:
    return Path(str(value)) if value else None


def networks(value: object) -> tuple[IPv4Network | IPv6Network, ...]:
    found = words(value)
    try:
        return tuple(ipaddress.ip_network(word) for word in found)
    except ValueError as error:
        raise ValueError(f"{error}: give addresses or networks such as 127.0.0.1 or 10.0.0.0/8") from None


def public_url(value: object) -> str:
    """Without a slash at its end."""
    if value and not _PUBLIC_URL.fullmatch(str(value)):
        raise ValueError("give a URL without a path, such as https://charts.example.com")
    return str(value).rstrip("/")


def database_url(value: object) -> str:
    url = str(value)
    if url and not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("give a URL that begins with postgresql://, or nothing for SQLite in the data folder")
    return url


def namespace_value(name: str, value: object) -> Any:
    """What a setting may be in a namespace, parsed. Raises ValueError."""
    if name not in NAMESPACE_SETTINGS:
        raise ValueError(f"a namespace has no setting {name!r}; it has {', '.join(NAMESPACE_SETTINGS)}")
    try:
        return FIELDS[name].metadata["parse"](value)
    except ValueError as error:
        raise ValueError(f"{name} is {value!r}: {error}") from None


def limit_value(name: str, value: object) -> int:
    """What a limit of a user may be, parsed; 0 for None, which is no limit. Raises ValueError."""
    if name not in LIMIT_SETTINGS:
        raise ValueError(f"a user has no limit {name!r}; there are {', '.join(LIMIT_SETTINGS)}")
    return 0 if value is None else int(namespace_value(name, value))


def setting(default: Any, parse: Parse, description: str) -> Any:
    return dataclasses.field(default=default, metadata={"parse": parse, "description": description})


@dataclass(frozen=True, slots=True)
class Settings:
    """What the registry was started with."""

    host: tuple[str, ...] = setting(
        ("127.0.0.1", "::1"), addresses, "Addresses to listen on, separated by commas or given several times."
    )
    port: int = setting(5000, whole(0, 65535), "Port to listen on; 0 picks a free one.")
    host_name: tuple[str, ...] = setting(
        (),
        host_names,
        "Further names that the registry answers to; given on other addresses than loopback, others are refused.",
    )
    public_url: str = setting(
        "",
        public_url,
        "URL that clients reach the registry by, when a proxy stands in front: https://charts.example.com.",
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = setting(
        (), networks, "Addresses and networks of proxies whose X-Forwarded-Proto, -Host and -For are believed."
    )
    data: Path = setting(  # noqa: RUF009 - a Path is as immutable as the others
        Path("charthouse-data"), Path, "Folder of the blobs and, with SQLite, of the metadata."
    )
    tls: Literal["off", "self-signed"] = setting(
        "off",
        tls_mode,
        "self-signed speaks TLS with a certificate of its own, and plain HTTP too on loopback.",
    )
    token_keys: Path | None = setting(  # noqa: RUF009 - likewise
        None, file, "File of the keys that sign access tokens, shared by replicas; token-keys.json in data."
    )
    htpasswd: Path | None = setting(  # noqa: RUF009 - likewise
        None, file, "File with more users, name:hash of bcrypt or argon2 a line; read again when it changes."
    )
    tls_cert: Path | None = setting(  # noqa: RUF009 - likewise
        None, file, "Certificate for TLS, with its chain, in PEM; read again when it changes."
    )
    tls_key: Path | None = setting(  # noqa: RUF009 - likewise
        None, file, "The certificate's private key, in PEM, without a password."
    )
    database: str = setting(
        "", database_url, "URL of a PostgreSQL database (postgresql://user:password@host/name) in place of SQLite."
    )
    policy: str = setting(
        "oci", one_of("charts", "oci"), "What may be pushed: charts and what belongs to them, or oci: anything."
    )
    versions: str = setting(
        "mutable",
        one_of("mutable", "immutable", "releases-immutable"),
        "Whether a chart version that is here may be replaced; releases-immutable lets pre-releases move.",
    )
    names: Literal["strict", "warn"] = setting(
        "strict",
        one_of("strict", "warn"),
        "Whether repository, tag and folder must be called as the chart is.",
    )
    legacy: Literal["accept", "reject"] = setting(
        "accept", one_of("accept", "reject"), "What becomes of charts with the media type of Helm before 3.7."
    )
    images: Literal["mutable", "immutable"] = setting(
        "mutable", one_of("mutable", "immutable"), "Whether the tags of what is no chart may be moved."
    )
    signatures: Literal["optional", "verified"] = setting(
        "optional",
        one_of("optional", "verified"),
        "Whether charts must be signed with a key of their namespace's keyring.",
    )
    require_namespaces: bool = setting(
        default=False, parse=switch, description="Let a push make no namespace: `charthouse namespace add` does."
    )
    archive_members: int = setting(
        10_000, whole(1, 1_000_000), "Files and folders that a chart's archive may have at most."
    )
    ephemeral: bool = setting(default=False, parse=switch, description="A registry for tests: its data goes with it.")
    auth: Literal["none", "basic", "bearer"] = setting(
        "none",
        one_of("none", "basic", "bearer"),
        "For tests: whether clients have to sign in; basic gives no tokens, bearer does and takes Basic as well.",
    )
    tester_password: str = setting(
        "", str, "For tests: the password of tester, who may do everything; without, one is made."
    )
    anonymous_pull: bool = setting(
        default=False, parse=switch, description="For tests: pulls need no user, whatever auth says."
    )
    mtls: bool = setting(
        default=False, parse=switch, description="For tests: TLS, for clients that show a certificate."
    )
    san: tuple[str, ...] = setting((), host_names, "For tests: further names of the registry, in its certificate too.")
    personality: str = setting("", str, "For tests: another registry to behave as, such as ecr.")
    rules: Literal["on", "off"] = setting("on", one_of("on", "off"), "For tests: off stores broken charts too.")
    seed: Path | None = setting(  # noqa: RUF009 - as a Path above
        None, file, "For tests: a folder whose charts it begins with."
    )
    control_token: str = setting("", str, "For tests: what opens /_test/; without, one is made.")
    ready_file: Path | None = setting(  # noqa: RUF009 - likewise
        None, file, "For tests: written when it is ready, JSON with its addresses and what opens them."
    )
    sparse_manifests: bool = setting(
        default=False, parse=switch, description="Accept manifests whose blobs or children are not here."
    )
    workers: int = setting(1, whole(1, 64), "Processes that answer requests.")
    open_to_everyone: bool = setting(
        default=False, parse=switch, description="Serve other addresses than loopback without users: anyone may push."
    )
    inline_blobs: int = setting(
        4096, whole(0, 1024 * 1024), "Blobs of at most this many bytes are kept in the database."
    )
    upload_expiry: int = setting(
        24 * 3600, whole(60, 30 * 24 * 3600), "Seconds after which an unfinished upload is forgotten."
    )
    gc_grace: int = setting(
        24 * 3600,
        whole(0, 365 * 24 * 3600),
        "Seconds that garbage collection leaves a blob after its last manifest went, or after an answer about it.",
    )
    gc_every: int = setting(
        3600,
        whole(0, 365 * 24 * 3600),
        "Seconds between two passes of garbage collection; 0 leaves it to `charthouse gc`.",
    )
    untagged_expiry: int = setting(
        0, whole(0, 10 * 365 * 24 * 3600), "Seconds after which a manifest without a tag goes; 0 keeps it for ever."
    )
    audit_days: int = setting(180, whole(1, 36500), "Days that the audit keeps what was done and what was refused.")
    pull_cache: int = setting(
        64 * 1024 * 1024,
        whole(0, 2**40),
        "Bytes of manifests and small blobs that each worker keeps in memory.",
    )
    disk_reserve: int = setting(
        8 * 1024 * 1024,
        whole(0, 2**40),
        "Bytes of the file that is given up on a full disk, so that deleting goes on; with SQLite.",
    )
    blob_limit: int = setting(10 * 1024**3, size(1024), "Bytes that a blob may have at most.")
    quota_bytes: int = setting(
        0, size(0), "Bytes that all repositories together may hold; a namespace's are those below it. 0 is no limit."
    )
    quota_manifests: int = setting(
        0, whole(0, LARGEST), "Manifests that all repositories together may hold, likewise; 0 is no limit."
    )
    uploads_at_once: int = setting(
        0, whole(0, 1000), "Blobs that may be coming in at the same moment, likewise; 0 is no limit."
    )

    # What the TOML file says of namespaces and of other issuers, and where each setting came from that was given.
    namespaces: Mapping[Namespace, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    issuers: Sequence[Issuer] = ()
    origins: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def key_file(self) -> Path:
        """Of the keys that sign access tokens."""
        return self.token_keys or self.data / "token-keys.json"

    @property
    def is_closed(self) -> bool:
        """Whether the registry asks who one is before it has a user."""
        return self.htpasswd is not None or bool(self.issuers)

    @property
    def on_loopback(self) -> bool:
        """Whether nothing but this machine can reach the registry."""
        return all(map(is_loopback, self.host))

    @property
    def own_names(self) -> tuple[str, ...]:
        """The names that were given to this registry, beside those of every machine."""
        name = urlsplit(self.public_url).hostname
        return (*self.host_name, name) if name else self.host_name


def is_loopback(address: str) -> bool:
    return address == "localhost" or ipaddress.ip_address(address).is_loopback


FIELDS = {field.name: field for field in dataclasses.fields(Settings) if field.metadata}

# What only a registry for tests has.
OF_TESTS = (
    "auth",
    "tester_password",
    "anonymous_pull",
    "mtls",
    "san",
    "personality",
    "rules",
    "seed",
    "control_token",
    "ready_file",
)
_SECRET = ("database", "control_token", "tester_password")

# What each namespace may set for itself.
LIMIT_SETTINGS = ("blob_limit", "quota_bytes", "quota_manifests", "uploads_at_once")
NAMESPACE_SETTINGS = (
    *("policy", "versions", "names", "legacy", "images", "signatures", "untagged_expiry"),
    *LIMIT_SETTINGS,
)


def load(
    flags: Mapping[str, Any],
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags_are: str = FROM_FLAGS,
) -> Settings:
    """Settings from flags (None is not given), then `CHARTHOUSE_*`, then the TOML file. Raises SettingsError, which
    says of flags that they are `flags_are`."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    file = _from_file(config)
    namespaces = _namespaces(file.pop("namespaces", {}), f"in {config}")
    others = _issuers(file.pop("issuers", []), f"in {config}")
    for origin, found in (
        (f"in {config}", file),
        (FROM_ENVIRONMENT, _from_environment(os.environ if environ is None else environ)),
        (flags_are, {name: value for name, value in flags.items() if value is not None}),
    ):
        for name, value in found.items():
            values[name] = _parse(name, value, origin)
            origins[name] = origin
    settings = Settings(**values, namespaces=namespaces, issuers=others, origins=origins)
    if not settings.ephemeral:
        _refuse_what_tests_have(settings)
    return settings


def _refuse_what_tests_have(settings: Settings) -> None:
    for name in OF_TESTS:
        value, origin = getattr(settings, name), settings.origins.get(name, "")
        if value != FIELDS[name].default:
            raise SettingsError(f"{_spelled(name, origin)} {origin} is {_shown(name, value)}: only with ephemeral")


def _parse(name: str, value: object, origin: str) -> object:
    if name not in FIELDS:
        raise SettingsError(f"unknown setting {_spelled(name, origin)} {origin}; there are {', '.join(FIELDS)}")
    try:
        return FIELDS[name].metadata["parse"](value)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{_spelled(name, origin)} {origin} is {_shown(name, value)}: {error}") from None


def _shown(name: str, value: object) -> str:
    """As it may be printed: some hold a password."""
    if name in _SECRET:
        return "…"
    return repr(str(value) if isinstance(value, Path) else value)


def _namespaces(tables: object, origin: str) -> Mapping[Namespace, Mapping[str, Any]]:
    """`[namespaces.team-a]`: a table for each, with some of NAMESPACE_SETTINGS."""
    if not isinstance(tables, dict):
        raise SettingsError(f'namespaces {origin} is {tables!r}: give tables, such as [namespaces."team-a"]')
    return {_namespace(name, origin): _namespace_table(name, table, origin) for name, table in tables.items()}


def _namespace(name: str, origin: str) -> Namespace:
    try:
        return Namespace.parse(name)
    except RegistryError as error:
        raise SettingsError(f'[namespaces."{name}"] {origin}: {error.message}') from None


def _namespace_table(name: str, table: object, origin: str) -> Mapping[str, Any]:
    if not isinstance(table, dict):
        raise SettingsError(f'namespaces."{name}" {origin} is {table!r}: give a table with settings')
    try:
        return {key: namespace_value(key, value) for key, value in table.items()}
    except ValueError as error:
        raise SettingsError(f'[namespaces."{name}"] {origin}: {error}') from None


def _issuers(tables: object, origin: str) -> Sequence[Issuer]:
    """`[[issuers]]`, a table for each."""
    try:
        return issuers.parse(tables)
    except ValueError as error:
        raise SettingsError(f"[[issuers]] {origin}: {error}") from None


def _spelled(name: str, origin: str) -> str:
    """The name as it is written at the place it came from."""
    if origin == FROM_ENVIRONMENT:
        return PREFIX + name.upper()
    return "--" + name.replace("_", "-") if origin == FROM_FLAGS else name


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    return {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and name not in (CONFIG, PASSWORD_FILE) and not _is_from_kubernetes(name, value)
    }


def _is_from_kubernetes(name: str, value: str) -> bool:
    return bool(_FROM_KUBERNETES.fullmatch(name) or (name.endswith("PORT") and _SERVICE_URL.match(value)))


def _from_file(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"the configuration file {config} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"{config} is not valid TOML: {error}") from None
