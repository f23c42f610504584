"""Operational state: what was decided and said, with its history.

`tables` is the schema, `migrations/` how it came about, `database` opens it (SQLite below the installation's home, or
any PostgreSQL by URL). `records` are the rows other packages hold; `alerts` and `outbox` are the repositories: small,
typed, set-based, always on a connection whose transaction the caller owns.
"""

from metrics_pipeline.store.database import Store, StoreError, open_store

__all__ = ["Store", "StoreError", "open_store"]
