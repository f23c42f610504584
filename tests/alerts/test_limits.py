"""Token buckets."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.alerts.limits import Purse, bucket_keys
from metrics_pipeline.routing.decide import Recipient
from metrics_pipeline.routing.model import Bucket, Limits
from tests.alerts.desk import START

HOUR = Bucket(count=3, per="1h")
LIMITS = Limits.model_validate(
    {
        "per_channel": {"count": 2, "per": "1m"},
        "channels": {"sms": {"count": 1, "per": "1h"}},
        "per_person": {"count": 5, "per": "1h"},
        "red": {"count": 9, "per": "1h"},
    }
)


def take(purse: Purse, **changes):
    purse.now += timedelta(**changes)
    return purse.take({"room": HOUR})


def test_a_bucket_gives_what_it_holds_and_then_says_how_long_to_wait():
    purse = Purse({}, START)
    assert [take(purse) for _ in range(3)] == [None, None, None]
    wait = take(purse)
    assert wait is not None
    assert abs(wait - timedelta(minutes=20)) < timedelta(seconds=1)
    assert take(purse, minutes=20) is None
    assert take(purse) is not None
    assert [take(purse, days=3), take(purse), take(purse)] == [None, None, None]
    assert take(purse) is not None, "what is saved up is no more than the bucket holds"


def test_a_bucket_is_what_it_was_when_it_is_read_again():
    purse = Purse({}, START)
    take(purse)
    again = Purse(purse.changed, START)
    assert [again.take({"room": HOUR}) is None for _ in range(3)] == [True, True, False]


def test_two_buckets_are_taken_of_together_or_not_at_all():
    purse = Purse({}, START)
    small = Bucket(count=1, per="1h")
    assert purse.take({"a": small}) is None
    assert purse.take({"a": small, "b": HOUR}) is not None
    assert "b" not in purse.changed


def test_red_has_a_lane_of_its_own():
    sms = Recipient("sms", "138", ("li",))
    assert set(bucket_keys(LIMITS, sms, red=False)) == {"channel/sms", "person/li"}
    assert bucket_keys(LIMITS, sms, red=False)["channel/sms"].count == 1
    assert set(bucket_keys(LIMITS, sms, red=True)) == {"red/sms:138"}
    assert bucket_keys(Limits(), sms, red=True) == {}
    assert bucket_keys(LIMITS, Recipient("ops"), red=False)["channel/ops"].count == 2


@given(st.lists(st.integers(0, 3600), min_size=1, max_size=60))
def test_never_more_than_the_bucket_and_what_came_back(gaps):
    purse, taken = Purse({}, START), 0
    for gap in gaps:
        taken += take(purse, seconds=gap) is None
    passed = sum(gaps) / 3600
    assert taken <= HOUR.count * (1 + passed) + 1e-6
