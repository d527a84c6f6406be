"""Run the migrations on the connection that `mlaas.store.engine.migrate` opened. Alembic executes this file."""

from alembic import context

from mlaas.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
