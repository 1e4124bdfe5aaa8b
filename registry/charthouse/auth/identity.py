"""Who a request shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from charthouse.auth.issuers import Rule
from charthouse.auth.scope import Access


@dataclass(frozen=True, slots=True)
class Identity:
    """A name, and what the token says that showed it. Without both, nobody.

    `login` is the id of the login that showed it, at the token service. `rules` are those of another issuer, which say
    what he may in place of what the name was granted, and `until` is when that issuer's token expires, in Unix seconds.
    """

    name: str = ""
    token: Access | None = None
    login: str = ""
    rules: Sequence[Rule] = ()
    until: float = math.inf

    @property
    def is_nobody(self) -> bool:
        return not self.name and self.token is None


NOBODY = Identity()
