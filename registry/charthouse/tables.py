"""The tables. A change here comes with a migration in `migrations/versions/`; a test compares the two.

Text that is compared or sorted has byte order on both databases. Times are Unix milliseconds, sizes are bytes.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

SCHEMA_VERSION = "0012"  # the newest migration; a test demands it

Key = Text().with_variant(Text(collation="C"), "postgresql")
Id = BigInteger().with_variant(Integer(), "sqlite")  # only an INTEGER PRIMARY KEY is SQLite's row id

metadata = MetaData()

repositories = Table(
    "repositories",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Key, nullable=False, unique=True),
    # Raised in every transaction that changes what this repository answers; what a cache keeps is good while it holds.
    Column("generation", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # What it holds, as quotas count it: kept by triggers (`queries/triggers.py`), and changed by nothing else.
    Column("manifests", BigInteger, nullable=False, server_default=text("0")),
    Column("bytes", BigInteger, nullable=False, server_default=text("0")),  # of manifests, and of blobs that they name
    Column("unnamed_bytes", BigInteger, nullable=False, server_default=text("0")),  # of the other blobs
)

# Whoever adds to something with a quota changes its row first, and so waits for whoever did before: the sum that is
# compared with the quota has what both have added.
quota_turns = Table(
    "quota_turns",
    metadata,
    Column("name", Key, primary_key=True),  # a namespace, or `user ` and a name; empty for the whole registry
    Column("turn", BigInteger, nullable=False),
)

# Bytes are stored once, whatever number of repositories hold them: as a row here or under `key` in the blob store.
blobs = Table(
    "blobs",
    metadata,
    Column("digest", Key, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("key", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("content", LargeBinary),
)

# Which repository holds which blob. Nothing is served, counted or mounted without its row.
repository_blobs = Table(
    "repository_blobs",
    metadata,
    Column("repository_id", Id, ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", Key, ForeignKey("blobs.digest"), primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    # None while a manifest of the repository names it; else when its last manifest went, or when somebody was told
    # since that it is here: the grace that garbage collection leaves it begins then.
    Column("unnamed_since", BigInteger),
    Index("repository_blobs_by_digest", "digest", "repository_id"),
    Index(
        "repository_blobs_unnamed",
        "unnamed_since",
        sqlite_where=text("unnamed_since IS NOT NULL"),
        postgresql_where=text("unnamed_since IS NOT NULL"),
    ),
)

# Blobs whose bytes are not what was pushed. What is here answers as absent until it is pushed again.
damaged_blobs = Table(
    "damaged_blobs",
    metadata,
    Column("digest", Key, ForeignKey("blobs.digest", ondelete="CASCADE"), primary_key=True),
    Column("found_at", BigInteger, nullable=False),
    Column("how", Text, nullable=False),
)

manifests = Table(
    "manifests",
    metadata,
    Column("repository_id", Id, ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", Key, primary_key=True),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("artifact_type", Text, nullable=False),  # as in a list of referrers: its own, else its config's media type
    Column("subject", Key),
    Column("pushed_at", BigInteger, nullable=False),
    Column("pushed_by", Text, nullable=False),
    Column("annotations_size", BigInteger, nullable=False),
    Column(
        "annotations", Text, nullable=False
    ),  # JSON in ASCII, so that NUL and lone surrogates survive both databases
    Column(
        "content", LargeBinary, nullable=False
    ),  # the exact bytes, last: a listing does not read past the columns before
    # When its last tag went, or it was pushed again without one; None before that. Of what has a tag it says nothing.
    Column("untagged_since", BigInteger),
    # Its own bytes and those of the blobs that it names, as they were here when it came: what it counts for its pusher.
    Column("weight", BigInteger, nullable=False, server_default=text("0")),
    Index("manifests_by_subject", "repository_id", "subject", "digest"),
    Index("manifests_by_pusher", "pushed_by", "weight"),
)

# What a manifest names: its config and layers, or its children, in the order of the manifest.
manifest_references = Table(
    "manifest_references",
    metadata,
    Column("repository_id", Id, primary_key=True),
    Column("manifest", Key, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("kind", Text, nullable=False),  # config, layer or manifest
    Column("digest", Key, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["repository_id", "manifest"], ["manifests.repository_id", "manifests.digest"], ondelete="CASCADE"
    ),
    Index("manifest_references_by_digest", "repository_id", "digest"),
)

# Manifests whose own bytes, in `content`, are not what was pushed.
damaged_manifests = Table(
    "damaged_manifests",
    metadata,
    Column("repository_id", Id, primary_key=True),
    Column("manifest", Key, primary_key=True),
    Column("found_at", BigInteger, nullable=False),
    Column("how", Text, nullable=False),
    ForeignKeyConstraint(
        ["repository_id", "manifest"], ["manifests.repository_id", "manifests.digest"], ondelete="CASCADE"
    ),
)

tags = Table(
    "tags",
    metadata,
    Column("repository_id", Id, primary_key=True),
    Column("name", Key, primary_key=True),
    Column("digest", Key, nullable=False),
    Column("pushed_at", BigInteger, nullable=False),
    Column("pushed_by", Text, nullable=False),
    ForeignKeyConstraint(
        ["repository_id", "digest"], ["manifests.repository_id", "manifests.digest"], ondelete="CASCADE"
    ),
    Index("tags_by_digest", "repository_id", "digest"),
)

charts = Table(
    "charts",
    metadata,
    Column("repository_id", Id, primary_key=True),
    Column("manifest", Key, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("app_version", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("deprecated", Boolean, nullable=False),
    Column("config", Key, nullable=False),
    Column("layer", Key, nullable=False),
    Column("provenance", Key),
    Column(
        "contents", Text, nullable=False
    ),  # of the archive's files, whatever their times: tells a chart packaged again
    ForeignKeyConstraint(
        ["repository_id", "manifest"], ["manifests.repository_id", "manifests.digest"], ondelete="CASCADE"
    ),
    Index("charts_by_layer", "layer"),
)

# What a chart's provenance file was worth when it came; none where there was no keyring to ask.
chart_signatures = Table(
    "chart_signatures",
    metadata,
    Column("repository_id", Id, primary_key=True),
    Column("manifest", Key, primary_key=True),
    Column("state", Text, nullable=False),  # as helm/provenance.py says it
    Column("signer", Text, nullable=False),  # a fingerprint, or the ids of unknown keys
    Column("user_ids", Text, nullable=False),  # of the signer's certificate, a line each
    ForeignKeyConstraint(
        ["repository_id", "manifest"], ["manifests.repository_id", "manifests.digest"], ondelete="CASCADE"
    ),
)

namespaces = Table(
    "namespaces",
    metadata,
    Column("name", Key, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
)

# What a namespace sets for itself, as it is written; the TOML file goes before.
namespace_settings = Table(
    "namespace_settings",
    metadata,
    Column("namespace", Key, ForeignKey("namespaces.name", ondelete="CASCADE"), primary_key=True),
    Column("setting", Key, primary_key=True),
    Column("value", Text, nullable=False),
)

# The certificates that charts of a namespace may be signed with.
namespace_keys = Table(
    "namespace_keys",
    metadata,
    Column("namespace", Key, ForeignKey("namespaces.name", ondelete="CASCADE"), primary_key=True),
    Column("fingerprint", Key, primary_key=True),
    Column("user_ids", Text, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("added_at", BigInteger, nullable=False),
)

# What was read from a chart's archive, by that version of the reader; JSON in ASCII, as `extraction.py` writes it.
chart_facts = Table(
    "chart_facts",
    metadata,
    Column("layer", Key, ForeignKey("blobs.digest", ondelete="CASCADE"), primary_key=True),
    Column("extractor", Integer, nullable=False),
    Column("extracted_at", BigInteger, nullable=False),
    Column("facts", Text, nullable=False),
)

# What the rules had to say when the chart was pushed, and let it in all the same; JSON in ASCII.
chart_findings = Table(
    "chart_findings",
    metadata,
    Column("repository_id", Id, primary_key=True),
    Column("manifest", Key, primary_key=True),
    Column("findings", Text, nullable=False),
    ForeignKeyConstraint(
        ["repository_id", "manifest"], ["manifests.repository_id", "manifests.digest"], ondelete="CASCADE"
    ),
)

# The newest version of a repository's charts; no row where it has to be looked for.
newest_versions = Table(
    "newest_versions",
    metadata,
    Column("repository_id", Id, ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
    Column("manifest", Key, nullable=False),
    Column("version", Text, nullable=False),
    ForeignKeyConstraint(
        ["repository_id", "manifest"], ["manifests.repository_id", "manifests.digest"], ondelete="CASCADE"
    ),
)

# The last pass of garbage collection: one row, which the next pass takes, so that of several servers one collects.
collection_passes = Table(
    "collection_passes",
    metadata,
    Column("id", Id, primary_key=True),
    Column("begun_at", BigInteger, nullable=False),
    # The same moment by a clock that nobody sets, in milliseconds since that machine was started: told apart by `boot`.
    Column("steady", BigInteger, nullable=False),
    Column("boot", Text, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("name", Key, primary_key=True),
    Column("password", Text, nullable=False),  # its hash
    Column("administrator", Boolean, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

# What a user, or `token:` and an API token's name, may push at most, as it is written.
user_limits = Table(
    "user_limits",
    metadata,
    Column("subject", Key, primary_key=True),
    Column("setting", Key, primary_key=True),
    Column("value", Text, nullable=False),
)

group_members = Table(
    "group_members",
    metadata,
    Column("group_name", Key, primary_key=True),
    Column("user_name", Key, primary_key=True),
)

# What a user, `@` and a group's name, or `anonymous` may do with the repositories of a pattern.
grants = Table(
    "grants",
    metadata,
    Column("subject", Key, primary_key=True),
    Column("pattern", Key, primary_key=True),
    Column("actions", Text, nullable=False),
)

# Raised in every transaction that changes one of the three: what is remembered of them is good while it holds.
access_generation = Table(
    "access_generation",
    metadata,
    Column("id", Id, primary_key=True),
    Column("generation", BigInteger, nullable=False),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("name", Key, primary_key=True),
    Column("hash", Key, nullable=False, unique=True),  # SHA-256 of the secret
    Column("patterns", Text, nullable=False),  # separated by commas, as the actions are
    Column("actions", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("used_at", BigInteger),
)

# Logins that last: what a client keeps is a refresh token.
logins = Table(
    "logins",
    metadata,
    Column("hash", Key, primary_key=True),  # SHA-256 of the secret
    Column("subject", Key, nullable=False),
    Column("mark", Text, nullable=False),  # of the password it was given for
    Column("client", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Column("ended_at", BigInteger),  # kept for as long as an access token of it may live
    Index("logins_by_subject", "subject"),
)

# Who did what: `audit.py` says which words these are. Rows are never changed, and go when they are old.
audit = Table(
    "audit",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("who", Key, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Index("audit_by_time", "at"),
)

# One row. The data folder keeps the same id, so that neither is used with what belongs to another registry.
registry_id = Table(
    "registry_id",
    metadata,
    Column("one", BigInteger, primary_key=True, autoincrement=False),  # 1
    Column("id", Key, nullable=False),
)
