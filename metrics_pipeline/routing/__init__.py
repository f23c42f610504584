"""Whom an alert goes to: labels → route → receiver → people and channels. Pure; the clock is an argument.

`load_routing` reads `alert_rules/_routes.yml` (Alertmanager's words, docs/routing.md) and `_people.yml`;
`Routing.decide(labels, at)` answers, and `Routing.explain` also says why. What is sent when is decided in `alerts`.
"""
