"""Alembic's entry: runs the revisions on the connection, and in the transaction, that `open_store` hands over."""

from alembic import context

from metrics_pipeline.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    transaction_per_migration=False,
)
context.run_migrations()
