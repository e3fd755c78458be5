"""Runs the migrations on the connection that ``adapters_store.migration`` hands over."""

from alembic import context

from adapters_store.schema import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
