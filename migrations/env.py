"""Run by Alembic to apply revisions over the connection that migrations.upgrade put into the configuration."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
