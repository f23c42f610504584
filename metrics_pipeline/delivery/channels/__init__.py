"""How a message leaves the house: one module per channel, each with the shape of `channel.Channel`."""

from metrics_pipeline.delivery.channels.channel import (
    Channel,
    Failure,
    PermanentFailure,
    RateLimited,
    TemporaryFailure,
)
from metrics_pipeline.delivery.channels.settings import channels_from, read_channels, receivers_from

__all__ = [
    "Channel",
    "Failure",
    "PermanentFailure",
    "RateLimited",
    "TemporaryFailure",
    "channels_from",
    "read_channels",
    "receivers_from",
]
