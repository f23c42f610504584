"""The HTTP API as a door: whose token a request carries, what they may see, and the record of what they read.

A token acts as its person. The store is asked anew by every request, so that a revoked token or grant counts at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import NoReturn

from metrics_pipeline.access.library import known_catalogue
from metrics_pipeline.access.reader import GuardedValues
from metrics_pipeline.access.viewer import Viewer, closed_viewer, everybody
from metrics_pipeline.api.library import Definitions, Library
from metrics_pipeline.api.limits import Buckets
from metrics_pipeline.api.problems import Problem, no_metric, too_many
from metrics_pipeline.api.tokens import find_token
from metrics_pipeline.library.catalogue import Catalogue, Metric
from metrics_pipeline.settings import Settings
from metrics_pipeline.store import Store, audit
from metrics_pipeline.store import access as rows
from metrics_pipeline.store.audit import Caller, Event
from metrics_pipeline.store.tokens import TokenRow

WRONG_PER_MINUTE = 10
"""Requests without a token that holds, from one address; more are refused without a look at the store's log."""


@dataclass(frozen=True)
class ApiDoor:
    """One request of one token."""

    settings: Settings
    store: Store
    token: TokenRow
    address: str
    viewer: Viewer
    definitions: Definitions

    @cached_property
    def catalogue(self) -> Catalogue:
        """The part of the library they may know of."""
        return known_catalogue(self.definitions.catalogue, self.viewer.reading)

    @property
    def rights(self) -> str:
        """What their sight follows from, as text: grants are never changed, only given and revoked."""
        held = "open" if self.viewer.is_open else sorted(one.grant for one in self.viewer.reading.rights)
        return f"{self.viewer.person} {held} {self.definitions.fingerprint}"

    def metric(self, name: str) -> Metric:
        """A metric they may know of; for others there is one answer, and a row in the log while a policy is on."""
        if not self.viewer.reading.knows(name) or name not in self.definitions.catalogue.metrics:
            if name.isascii() and name.isidentifier():
                self.deny(name)
            raise no_metric(name)
        return self.catalogue.metrics[name]

    def viewer_for(self, metric: str) -> Viewer:
        """The viewer with what the policy needs to know for values of one metric: itself and its inputs."""
        if self.viewer.is_open:
            return self.viewer
        facts = self.definitions.facts
        named = [metric, *facts[metric].inputs]
        return replace(self.viewer, metrics={name: facts[name] for name in named if name in facts})

    def values(self, metric: str, version: str | None = None) -> GuardedValues:
        """Published values of a metric, the current version or one by its id. Raises `NotPublished`, `VersionGone`."""
        directory, viewer = self.settings.published_dir, self.viewer_for(metric)
        if version is None:
            return GuardedValues.for_viewer(directory, viewer)
        return GuardedValues.version_for_viewer(directory, version, viewer)

    def knows_all(self, metrics: Sequence[str]) -> bool:
        """Whether they may know of all of them."""
        return all(map(self.viewer.reading.knows, metrics))

    def read(self, metric: str, where: str, *, rows: int) -> None:
        """Record a read of a sensitive metric; of others nothing is kept."""
        if rows and self.definitions.facts[metric].is_sensitive:
            self._record(Event("metric.read", metric, where, "done", {"rows": rows, "token": self.token.id}))

    def deny(self, subject: str, where: str = "") -> None:
        """Record that something was asked for and not given; in the open nothing is denied."""
        if not self.viewer.is_open:
            self._record(Event("denied.read", subject[:100], where, "denied", {"token": self.token.id}))

    def _record(self, event: Event) -> None:
        with self.store.writing("audit") as connection:
            caller = Caller(self.token.person, "api", self.address)
            audit.record_all(connection, caller, [event], now=self.viewer.now)


@dataclass(frozen=True)
class Gate:
    """Who lets requests in: one for a running server."""

    settings: Settings
    store: Store
    library: Library
    allowed: Buckets
    wrong: Buckets
    now: Callable[[], datetime]

    def enter(self, token: str | None, address: str) -> ApiDoor:
        """The door for a request with this token. Raises `Problem`: no token that holds, or too many requests."""
        now = self.now()
        definitions = self.library.definitions()
        with self.store.reading() as connection:
            found = None if token is None else find_token(connection, token)
            if found is not None and found.holds(now):
                viewer = everybody(found.person, {}, now=now)
                if rows.enabled(connection) is not None:
                    members = self.library.members(now)
                    viewer = closed_viewer(connection, found.person, definitions.facts, members, now=now)
        if found is None or not found.holds(now):
            self._refuse(found, address, now)
        if wait := self.allowed.take(found.id):
            raise too_many(wait)
        return ApiDoor(self.settings, self.store, found, address, viewer, definitions)

    def _refuse(self, found: TokenRow | None, address: str, now: datetime) -> NoReturn:
        if wait := self.wrong.take(address):
            raise too_many(wait)
        if found is not None:  # a token of ours that is over: whose it is, is known
            event = Event("denied.token", found.person, "", "denied", {"token": found.id})
            with self.store.writing("audit") as connection:
                audit.record_all(connection, Caller(found.person, "api", address), [event], now=now)
        raise Problem(
            "not-authenticated",
            "send `Authorization: Bearer metrics_…` with a token that holds; `metrics api token create` makes one",
            "请携带有效令牌:`Authorization: Bearer metrics_…`;可用 `metrics api token create` 创建",
            {"WWW-Authenticate": 'Bearer realm="metrics"'},
        )
