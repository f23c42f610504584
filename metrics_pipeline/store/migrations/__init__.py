"""How the schema of the store came about: Alembic revisions, run by `open_store`.

A new revision is one file in `versions/` and one more name in `KNOWN`; a test compares the result with `tables`.
"""

KNOWN = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011", "0012", "0013", "0014")
"""All revisions, oldest first."""
HEAD = KNOWN[-1]
