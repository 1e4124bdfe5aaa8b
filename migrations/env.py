"""Runs on the connection and in the transaction of `charthouse.migrate`, or of the test that compares tables."""

from alembic import context

from charthouse.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the transaction is the caller's
    render_as_batch=True,
)
context.run_migrations()
