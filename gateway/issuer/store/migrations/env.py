"""Run by alembic: applies the versions over the connection that `gateway.issuer.store.database` hands in."""

from alembic import context

from gateway.issuer.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="issuer_version",
    transactional_ddl=True,
)
context.run_migrations()
