"""Rehearsal: which messages people would have received in the past, with these rules and these routes.

Nights and hours are judged on published history and told on a virtual clock, by the parts that do it in earnest: alert
states, routes, groups, reminders, escalation, incidents, limits, outbox. Everything happens in a store of its own, and what
would be sent is left in a folder.
"""

from metrics_pipeline.rehearsal.clock import Schedule
from metrics_pipeline.rehearsal.record import Message, Rehearsal, Told
from metrics_pipeline.rehearsal.stage import rehearse

__all__ = ["Message", "Rehearsal", "Schedule", "Told", "rehearse"]
