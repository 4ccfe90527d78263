"""Revocation: who is denied, known to every gateway within milliseconds, and asked at no cost per request.

`grammar` has the words: kinds, keys, what a value means. `replica` is the denylist in memory, which every request is
checked against; `group` is how it is packed. `store` opens the place where the entries live, shared by all gateways and
written by any backend (its `contract`): `sqlite_store` (with `database`) for one machine, or `redis_store`. That one
asks `gateway.redis` for the masters and keeps `followers`, one for each: over one link, by `reading` what changed and
`loading` everything when it has to, with an eye on the `self_report` of the server and on its `history`. `snapshot` is
the replica on disk, `lookups` and `strict` ask the store itself, `intake` is the way in for other people's revocations,
and `status` is what all of it tells about itself.

Promises: a check touches memory only; a change in the store is in force within milliseconds; the replica knows how
stale it is; what is still valid is never un-revoked by an outage. Imports `redis`, `config` models and `telemetry`.
"""
