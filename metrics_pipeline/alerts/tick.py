"""What one batch of verdicts did to the alerts: the whole input of `dispatch`, which decides what people are told.

When `dispatch` gets it, all of it is written, in the transaction that is still open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from metrics_pipeline.store.records import Episode, Instance, TransitionRow


@dataclass(frozen=True)
class Tick:
    """One tick, after it. Keys of instances and episodes are those of the store."""

    now: datetime
    """Aware."""
    run_id: str
    rules: frozenset[str]
    """Rules that were judged (or retired) in this tick."""
    instances: Mapping[str, Instance]
    """Of these rules: every instance with an open episode, and every one that has a transition in this tick."""
    episodes: Mapping[str, Episode]
    """Of these rules: every open episode, and those closed in this tick."""
    opened: frozenset[str] = frozenset()
    """Episodes begun in this tick, those that were closed before and begin again included."""
    closed: frozenset[str] = frozenset()
    """Episodes ended in this tick."""
    due: frozenset[str] = frozenset()
    """Instances that were judged in the newest due period, in a run that is not silent: only of these a beginning or a
    worsening may be told. Ends are told whatever the run."""
    no_data: Mapping[str, int] = field(default_factory=dict)
    """Instances in the state no_data, with and without an open episode, by rule."""
    transitions: Sequence[TransitionRow] = ()
    """Every change of state, in order."""
