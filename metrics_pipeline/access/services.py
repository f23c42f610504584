"""Services: what works without a person, each by a grant of its own that an administrator can see and revoke.

A home has the two grants from the start (migration 0013). While no policy is on they are not asked for.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from metrics_pipeline.access.viewer import Denied, grant_of
from metrics_pipeline.store import access as rows

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

NIGHTLY: Final = "nightly"
DELIVERY: Final = "delivery"
NEEDS: Final = {NIGHTLY: "operate", DELIVERY: "deliver"}
"""Service → the one action it needs."""


def may_work(connection: Connection, service: str, *, now: datetime) -> bool:
    """Whether a service may do its work at `now` (aware): the policy is off, or a grant lets it."""
    if rows.enabled(connection) is None:
        return True
    held = map(grant_of, rows.grants(connection, subjects=[("service", service)]))
    return any(NEEDS[service] in grant.actions and grant.holds(now) for grant in held)


def require_work(connection: Connection, service: str, *, now: datetime) -> None:
    """Raise `Denied` when a service may not do its work; the message says how it may again."""
    if not may_work(connection, service, now=now):
        raise Denied(why_not(service))


def why_not(service: str) -> str:
    """What is told when a service may not do its work."""
    action = NEEDS[service]
    return (
        f"service.{service} may not {action}: its grant was revoked. `metrics access grant service:{service} --action "
        f"{action} --all --reason …` gives it again (服务 {service} 的授权已被撤销)"
    )
