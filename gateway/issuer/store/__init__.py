"""Where the issuer keeps accounts, sessions and keys: SQLite beside the gateway, or PostgreSQL for several machines.

`tables` says what is kept, `database` opens it and hands out transactions, `migrations` (alembic) bring an older store
up to date at start. Every change of state is one transaction, committed before the answer leaves; so a crash loses
nothing that a client was told. No password, refresh token, code or one-time token is kept in a form that could be used.
"""

from gateway.issuer.store.database import Database, StoreUnavailable

__all__ = ["Database", "StoreUnavailable"]
