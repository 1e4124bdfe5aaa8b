"""A registry's resident memory: idle, after many requests, and the most while large blobs flow."""

from dataclasses import dataclass

from charthouse.bench import large
from charthouse.bench.client import Refused
from charthouse.bench.plan import Plan, Sizes
from charthouse.bench.session import Registry, Session
from charthouse.bench.work import Pulls

REQUESTS_LIMIT = 120  # seconds
PULL = 3  # requests


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes; `requests` and `flow` (MiB) are what was done in between. `refusal` is why there is no more, or ""."""

    idle: int
    requests: int = 0
    after: int = 0
    flow: int = 0
    flowing: int = 0
    refusal: str = ""


def measure(session: Session, registry: Registry, sizes: Sizes, plan: Plan) -> Memory | None:
    """None when the registry's processes cannot be seen."""
    idle = registry.processes.memory
    if idle is None:
        return None
    session.say(f"memory of {registry.name}")
    try:
        pulls = Pulls(plan.ten_versions(registry), count=max(sizes.requests // PULL, 1))
        [sample] = session.load(registry, [(pulls, sizes.connections)], REQUESTS_LIMIT)
        after = registry.processes.memory or 0
        flowing, flow = 0, 0
        while flow < sizes.flow:
            for transfer in (large.start_push, large.start_pull):
                flowing = max(flowing, session.watch_memory(registry, transfer(session, registry, sizes.large)))
                flow += sizes.large
    except Refused as refusal:
        return Memory(idle, refusal=str(refusal))
    return Memory(idle, sample.count * PULL, after, flow, flowing)
