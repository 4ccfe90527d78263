"""Revocation: who is denied, known to every gateway within milliseconds, and asked at no cost per request.

`grammar` has the words: kinds, keys, what a value means. `replica` is the denylist in memory, which every request is
checked against. `store` opens the place where the entries live, shared by all gateways and written by any backend (its
`contract`): `redis_store` (with `address`, `topology`, `link`, `slots`, and a `follower` per master), or `sqlite_store`
(with `database`) for one machine. `snapshot` is the replica on disk, `lookups` asks the store itself, `status` is what
all of it tells about itself, and `command` what the command line does with a store.

Promises: a check touches memory only; a change in the store is in force within milliseconds; the replica knows how
stale it is; what is still valid is never un-revoked by an outage. Imports `config.schema` and `telemetry` only.
"""
