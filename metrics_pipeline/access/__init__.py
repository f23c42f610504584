"""Who may see and do what: one policy for every door.

`model` is what a grant says, `policy` what follows from grants, once as a decision about one slice and once as SQL over
published values; `bands` are the ranges shown instead of values. `services` are what works without a person, `viewer` is one person as of one transaction of the
store, `reader` the published values as that person may see them, `masking` the same for what is not in published values.
"""
