"""The registry beside a model of it that fits in the head: thousands of random steps, and both always say the same.

The seed is printed; `CHARTHOUSE_SEED=<number>` repeats a run.
"""

import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

from charthouse.core import Caller, Registry
from charthouse.errors import RegistryError
from charthouse.manifest import OCI_INDEX, OCI_MANIFEST
from charthouse.names import Digest, Reference, RepositoryName, Tag
from durability import sizes
from support.requests import CONFIG_TYPE, descriptor, image, index

COMPARE_EVERY = 300
POOL = 30  # manifests that steps choose from

# Few of everything, so that steps meet: names that are each other's prefixes, contents of both planes.
NAMES = [RepositoryName(name) for name in ("a", "a-b", "a/b", "a/b/c", "a.b")]
TAGS = [Tag(tag) for tag in ("1.0", "1.0-a", "1.0.1", "Z", "_x", "a")]
CONTENTS = [b"", b"one", b"two" * 10, b"large" * 1000, b"larger" * 2000]
TYPES = ["application/x", "application/x+json", None]
ALGORITHMS = ["sha256", "sha256", "sha512"]


@dataclass(frozen=True)
class Body:
    """A manifest and what of it counts."""

    content: bytes
    media_type: str
    blobs: tuple[Digest, ...]
    children: tuple[Digest, ...]
    subject: Digest | None
    listed_type: str


@dataclass
class Repository:
    blobs: set[Digest] = field(default_factory=set)
    manifests: dict[Digest, Body] = field(default_factory=dict)
    tags: dict[Tag, Digest] = field(default_factory=dict)


class Model:
    """What the specification says, over dictionaries. An error is its code."""

    def __init__(self) -> None:
        self.repositories: dict[RepositoryName, Repository] = {}

    def _change(self, name: RepositoryName) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def push_blob(self, name: RepositoryName, digest: Digest) -> str:
        self._change(name).blobs.add(digest)
        return ""

    def mount(self, name: RepositoryName, digest: Digest, source: RepositoryName | None) -> bool:
        sources = list(self.repositories) if source is None else [source]
        found = any(digest in self.repositories[one].blobs for one in sources if one in self.repositories)
        if found:
            self._change(name).blobs.add(digest)
        return found

    def push_manifest(self, name: RepositoryName, reference: Reference, body: Body, tags: list[Tag]) -> str:
        repository = self.repositories.get(name, Repository())
        if not (set(body.blobs) <= repository.blobs and set(body.children) <= set(repository.manifests)):
            return "MANIFEST_BLOB_UNKNOWN"
        repository = self._change(name)
        digest = reference if isinstance(reference, Digest) else Digest.of(body.content)
        repository.manifests[digest] = body
        for tag in tags + ([reference] if isinstance(reference, Tag) else []):
            repository.tags[tag] = digest
        return ""

    def find(self, name: RepositoryName, reference: Reference) -> Body | str:
        repository = self.repositories.get(name)
        if repository is None:
            return "NAME_UNKNOWN"
        digest = repository.tags.get(reference) if isinstance(reference, Tag) else reference
        return repository.manifests.get(digest, "MANIFEST_UNKNOWN")

    def delete_manifest(self, name: RepositoryName, reference: Reference) -> str:
        found = self.find(name, reference)
        if isinstance(found, str):
            return found
        repository = self.repositories[name]
        if isinstance(reference, Tag):
            del repository.tags[reference]
        else:
            del repository.manifests[reference]
            repository.tags = {tag: digest for tag, digest in repository.tags.items() if digest != reference}
        return ""

    def delete_blob(self, name: RepositoryName, digest: Digest) -> str:
        repository = self.repositories.get(name)
        if repository is None:
            return "NAME_UNKNOWN"
        if any(digest in body.blobs for body in repository.manifests.values()):
            return "UNSUPPORTED"
        if digest not in repository.blobs:
            return "BLOB_UNKNOWN"
        repository.blobs.remove(digest)
        return ""

    def referrers(self, name: RepositoryName, subject: Digest, type_: str | None) -> list[tuple[str, str, str]]:
        manifests = self.repositories.get(name, Repository()).manifests
        return sorted(
            (digest, body.media_type, body.listed_type)
            for digest, body in manifests.items()
            if body.subject == subject and type_ in (None, body.listed_type)
        )


class Walk:
    """Random steps on both. Each step says what it did, so that a failure shows the way there."""

    def __init__(self, registry: Registry, dice: random.Random) -> None:
        self.registry, self.dice, self.model = registry, dice, Model()
        self.bodies: list[Body] = []  # made so far: to be pushed again, elsewhere, as a child or as a subject
        self.done: Counter[str] = Counter()

    async def step(self) -> str:
        steps = {self.push_blob: 5, self.push_new: 5, self.push_old: 4, self.mount: 3, self.get: 4, self.get_blob: 3}
        steps |= {self.delete_manifest: 3, self.delete_blob: 3, self.referrers: 2}
        (chosen,) = self.dice.choices(list(steps), list(steps.values()))
        name = self.dice.choice(NAMES)
        what, expected, found = await chosen(name)
        self.done[f"{chosen.__name__} {expected if isinstance(expected, str) else bool(expected)}".strip()] += 1
        said = f"{chosen.__name__} {name} {what}: {expected!r:.200}"
        assert found == expected, f"{said}, but the registry says {found!r:.200}"
        return said

    # What each step returns: what it was about, what the model says, what the registry says.

    async def push_blob(self, name):
        content, digest = self.content()
        found = await outcome(self.registry.push_blob(name, Caller(), digest, stream(content)))
        return digest, self.model.push_blob(name, digest), found

    async def push_new(self, name):
        body = self.new_body()
        self.bodies = [*self.bodies, body][-POOL:]
        return await self.push(name, body)

    async def push_old(self, name):
        return await self.push(name, self.dice.choice(self.bodies)) if self.bodies else await self.push_new(name)

    async def push(self, name, body):
        digest = Digest.of(body.content, self.dice.choice(ALGORITHMS))
        reference = self.dice.choice([digest, *TAGS])
        tags = self.dice.sample(TAGS, self.dice.choice([0, 0, 1, 2])) if reference == digest else []
        expected = self.model.push_manifest(name, reference, body, tags)
        pushing = self.registry.push_manifest(name, reference, body.content, body.media_type, Caller(), tags)
        return (reference, tags), expected, await outcome(pushing)

    async def mount(self, name):
        source, (_, digest) = self.dice.choice([None, *NAMES]), self.content()
        expected = self.model.mount(name, digest, source)
        return (digest, source), expected, await self.registry.mount_blob(name, digest, source, Caller())

    async def get(self, name):
        reference = self.reference(name)
        expected = self.model.find(name, reference)
        found = await outcome(self.registry.pulls.get_manifest(name, reference))
        if isinstance(expected, Body):
            expected = (expected.content, expected.media_type)
            found = found if isinstance(found, str) else (found.content, found.media_type)
        return reference, expected, found

    async def get_blob(self, name):
        content, digest = self.content()
        repository = self.model.repositories.get(name)
        expected = "NAME_UNKNOWN" if not repository else content if digest in repository.blobs else "BLOB_UNKNOWN"
        found = await outcome(self.registry.pulls.get_blob(name, digest))
        if not isinstance(found, str):
            found = b"".join([piece async for piece in found.read(0, found.size)])
        return digest, expected, found

    async def delete_manifest(self, name):
        reference = self.reference(name)
        expected = self.model.delete_manifest(name, reference)
        return reference, expected, await outcome(self.registry.delete_manifest(name, reference))

    async def delete_blob(self, name):
        _, digest = self.content()
        expected = self.model.delete_blob(name, digest)
        return digest, expected, await outcome(self.registry.delete_blob(name, digest))

    async def referrers(self, name):
        subject = self.dice.choice([body.subject for body in self.bodies if body.subject] or [self.some_digest()])
        type_ = self.dice.choice([None, None, "application/x", CONFIG_TYPE])
        pages = self.paged(lambda last, limit: self.registry.list_referrers(name, subject, type_, last, limit))
        found = [(one.digest, one.media_type, one.artifact_type) for one in await pages]
        return (subject, type_), self.model.referrers(name, subject, type_), found

    # What they choose from.

    def content(self):
        content = self.dice.choice(CONTENTS)
        return content, Digest.of(content, self.dice.choice(ALGORITHMS))

    def some_digest(self) -> Digest:
        contents = [body.content for body in self.bodies] or [b"nothing"]
        return Digest.of(self.dice.choice(contents), self.dice.choice(ALGORITHMS))

    def reference(self, name) -> Reference:
        """More often than not one that is there."""
        repository = self.model.repositories.get(name, Repository())
        there = [*repository.tags, *repository.manifests]
        return self.dice.choice(there if there and self.dice.random() < 0.7 else [*TAGS, self.some_digest()])

    def new_body(self) -> Body:
        subject = self.some_digest() if self.dice.random() < 0.4 else None
        type_ = self.dice.choice(TYPES)
        fields = {"annotations": {"n": str(self.dice.random())}}
        fields |= {"subject": descriptor(b"", digest=subject)} if subject else {}
        fields |= {"artifactType": type_} if type_ else {}
        if self.bodies and self.dice.random() < 0.3:
            children = self.dice.sample(self.bodies, min(len(self.bodies), self.dice.randint(0, 2)))
            content = index(*(child.content for child in children), **fields)
            digests = tuple(Digest.of(child.content) for child in children)
            return Body(content, OCI_INDEX, (), digests, subject, type_ or "")
        blobs = self.dice.choices(CONTENTS, k=self.dice.randint(1, 3))
        digests = tuple(map(Digest.of, blobs))
        return Body(image(*blobs, **fields), OCI_MANIFEST, digests, (), subject, type_ or CONFIG_TYPE)

    # All listings.

    async def compare(self) -> None:
        repositories = self.model.repositories
        catalog = [name for name in sorted(repositories) if repositories[name].manifests]
        assert await self.paged(partial(self.registry.list_repositories, caller=Caller())) == catalog
        for name in NAMES:
            if name not in repositories:
                assert await outcome(self.registry.list_tags(name, "", 1)) == "NAME_UNKNOWN"
                continue
            tags = await self.paged(lambda last, limit, name=name: self.registry.list_tags(name, last, limit))
            assert tags == sorted(repositories[name].tags)
            await self.compare_content(name, repositories[name])

    async def compare_content(self, name: RepositoryName, repository: Repository) -> None:
        for digest, body in repository.manifests.items():
            assert (await self.registry.pulls.get_manifest(name, digest)).content == body.content
        for tag, digest in repository.tags.items():
            assert (await self.registry.pulls.get_manifest(name, tag)).digest == digest
        for content, algorithm in itertools.product(CONTENTS, set(ALGORITHMS)):
            digest = Digest.of(content, algorithm)
            found = await outcome(self.registry.pulls.get_blob(name, digest))
            assert (found == "BLOB_UNKNOWN") == (digest not in repository.blobs)

    async def paged(self, query) -> list:
        """The whole list by pages of a random length."""
        whole, last, limit, more = [], "", self.dice.choice([1, 2, 3, 1000]), True
        while more:
            page, more = await query(last, limit)
            assert len(page) == limit or not more
            whole += page
            last = getattr(whole[-1], "digest", whole[-1]) if whole else ""
        return whole


async def stream(content: bytes) -> AsyncIterator[bytes]:
    if content:
        yield content


async def outcome(operation):
    """What it returned, "" for nothing to tell, or the code of its error."""
    try:
        found = await operation
    except RegistryError as error:
        return error.code
    return "" if found is None or type(found).__name__ == "Pushed" else found


async def test_the_registry_does_what_its_model_does(registry, did):
    seed, steps = sizes.seed(), sizes.size().steps
    walk, way = Walk(registry, random.Random(seed)), []
    did(f"model: {steps:,} steps, CHARTHOUSE_SEED={seed}")
    for number in range(steps):
        way.append(await step_or_tell(walk, way, seed))
        if number % COMPARE_EVERY == 0:
            await walk.compare()
    await walk.compare()
    print(", ".join(f"{what}: {count}" for what, count in sorted(walk.done.items())))
    assert set(walk.done) >= {f"{step} {code}" for step, code in EVERY_OUTCOME}, "the steps do not meet often enough"


async def step_or_tell(walk: Walk, way: list[str], seed: int) -> str:
    try:
        return await walk.step()
    except AssertionError as error:
        raise AssertionError("\n".join([f"CHARTHOUSE_SEED={seed}", "the way there:", *way[-15:], str(error)])) from None


EVERY_OUTCOME = [
    ("push_new", "MANIFEST_BLOB_UNKNOWN"),
    ("push_old", "MANIFEST_BLOB_UNKNOWN"),
    ("mount", "True"),
    ("mount", "False"),
    ("get", "True"),
    ("get", "MANIFEST_UNKNOWN"),
    ("get_blob", "BLOB_UNKNOWN"),
    ("delete_manifest", "MANIFEST_UNKNOWN"),
    ("delete_blob", "UNSUPPORTED"),
    ("delete_blob", "BLOB_UNKNOWN"),
    ("referrers", "True"),
    ("referrers", "False"),
]
