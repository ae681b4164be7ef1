"""The bearer tokens of the API and what each may do."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["viewer", "operator"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """`operator` may do everything, `viewer` read; with neither, everybody may do everything, on loopback alone."""

    operator: str | None = field(default=None, repr=False)
    viewer: str | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        """Whether anybody is asked for a token."""
        return self.operator is not None

    def role(self, given: str) -> Role | None:
        """What the owner of a token may do; None for a token that is none of ours. In constant time."""
        offered = given.encode("utf-8", "surrogateescape")
        if self.operator is not None and hmac.compare_digest(offered, self.operator.encode()):
            return "operator"
        if self.viewer is not None and hmac.compare_digest(offered, self.viewer.encode()):
            return "viewer"
        return None

    def role_of_header(self, authorization: str) -> Role | None:
        """The role of an `Authorization` header's value."""
        scheme, _, given = authorization.partition(" ")
        return self.role(given.strip()) if scheme.lower() == "bearer" else None
