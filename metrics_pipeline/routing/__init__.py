"""Whom an alert goes to: labels → route → receiver → people and channels. Pure; the clock is an argument.

`load_routing` reads `alert_rules/_routes.yml` (Alertmanager's words, docs/routing.md) and `_people.yml`;
`Routing.decide(labels, at)` answers, and `Routing.explain` also says why. What is sent when is decided in `alerts`.
"""

from metrics_pipeline.routing.channels import ChannelCard, channel_cards
from metrics_pipeline.routing.decide import (
    Decision,
    Destination,
    Inhibitor,
    Mute,
    Recipient,
    Routing,
    Source,
    direct,
)
from metrics_pipeline.routing.labels import alert_labels, rule_labels, slice_labels
from metrics_pipeline.routing.load import load_routing, routing_of
from metrics_pipeline.routing.matchers import Matcher, MatcherError, match_all, parse_matchers
from metrics_pipeline.routing.people import Directory

__all__ = [
    "ChannelCard",
    "Decision",
    "Destination",
    "Directory",
    "Inhibitor",
    "Matcher",
    "MatcherError",
    "Mute",
    "Recipient",
    "Routing",
    "Source",
    "alert_labels",
    "channel_cards",
    "direct",
    "load_routing",
    "match_all",
    "parse_matchers",
    "routing_of",
    "rule_labels",
    "slice_labels",
]
