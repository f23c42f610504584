"""Why a value is what it is: which members of which dimensions, which metric below, what else happened that day.

`model` is the finding (`Diagnosis`), the shape that messages, the playbook and the follow-up read. `search` finds the
members that explain a change, on arrays alone; `leaves` reads them with their expectations from published values;
`pyramid` walks down the formula; `diagnose` puts the finding together; `words` says it, `plot` draws it.
"""
