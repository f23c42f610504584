"""Advice: what to do about an alert, from a playbook, with the evidence for it, and what was done in similar cases.

`playbook` is the file people write, `load` reads and lints it. `evidence` turns an alert and its diagnosis into pieces of
evidence, `recommend` matches entries with them and ranks: by the evidence and by what helped before (`memory`, `outcome`).
`attach` keeps the advice of an episode in the store, `text` words it, and `phrase` may ask a language model to word it
better; `figures` checks that the model said nothing that it was not told.
"""
