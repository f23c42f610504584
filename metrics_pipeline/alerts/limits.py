"""Token buckets: how much may be sent. Pure; what is not taken comes back with time, up to the size of the bucket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from metrics_pipeline.routing.decide import Recipient
from metrics_pipeline.routing.model import Bucket, Limits
from metrics_pipeline.store.dispatch import BucketRow


def bucket_keys(limits: Limits, recipient: Recipient, *, red: bool) -> dict[str, Bucket]:
    """The buckets that a message to a recipient takes a token of. Red has a lane of its own and no other limit."""
    if red:
        return {} if limits.red is None else {f"red/{recipient.key}": limits.red}
    found: dict[str, Bucket] = {}
    if (channel := limits.channels.get(recipient.channel, limits.per_channel)) is not None:
        found[f"channel/{recipient.channel}"] = channel
    if limits.per_person is not None:
        found |= {f"person/{person}": limits.per_person for person in recipient.people}
    return found


@dataclass
class Purse:
    """The buckets of one round, and those that were changed."""

    rows: Mapping[str, BucketRow]
    now: datetime
    changed: dict[str, BucketRow] = field(default_factory=dict)

    def take(self, wanted: Mapping[str, Bucket]) -> timedelta | None:
        """Take one token of each bucket, or none at all: then how long to wait. None: taken."""
        filled = {key: self._filled(key, bucket) for key, bucket in wanted.items()}
        waits = [(1 - tokens) / wanted[key].count * wanted[key].per for key, tokens in filled.items() if tokens < 1]
        if waits:
            return max(waits)
        for key, tokens in filled.items():
            self.changed[key] = BucketRow(key, tokens - 1, self.now)
        return None

    def _filled(self, key: str, bucket: Bucket) -> float:
        row = self.changed.get(key) or self.rows.get(key)
        if row is None:
            return float(bucket.count)
        since = max(self.now - row.filled_at, timedelta())
        share = since / bucket.per if bucket.per else 1.0
        return min(float(bucket.count), row.tokens + share * bucket.count + 1e-9)


def all_bucket_keys(limits: Limits, recipients: Iterable[Recipient]) -> set[str]:
    """Every bucket that messages to these recipients may take of."""
    return {key for one in recipients for red in (False, True) for key in bucket_keys(limits, one, red=red)}
