"""How a message leaves the house: one module per channel, each with the shape of `channel.Channel`."""

from metrics_pipeline.delivery.channels.channel import Channel, PermanentFailure, TemporaryFailure
from metrics_pipeline.delivery.channels.settings import channels_from, receivers_from

__all__ = ["Channel", "PermanentFailure", "TemporaryFailure", "channels_from", "receivers_from"]
