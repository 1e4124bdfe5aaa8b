"""Which registry a request is for: the framework's application answers for all registries of a process, because to put
it together anew for each costs as much as a hundred requests."""

from typing import NamedTuple

from starlette.types import Scope

from charthouse.auth.guard import Guard
from charthouse.core import Registry
from charthouse.origin import Origins

ADDRESSEE = "charthouse.addressee"  # where it is in the scope


class Addressee(NamedTuple):
    registry: Registry
    origins: Origins
    guard: Guard


def addressee(scope: Scope) -> Addressee:
    found: Addressee = scope[ADDRESSEE]
    return found
