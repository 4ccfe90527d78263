"""`Idempotency-Key`: a write that is sent twice is done once, and answered twice.

    route ──▶ key, fingerprint ──▶ ledger.begin ─┬─ new       ──▶ forward, in a task of its own ──▶ answer kept
                                                 ├─ answered  ──▶ the kept answer
                                                 ├─ in flight ──▶ wait a little, then 409
                                                 └─ another request under the same key ──▶ 422

`route` is what the pipeline calls, `key` reads the header and makes the names, `recorder` takes the upstream's answer
and decides what of it is kept, `answer` is its form at rest. The `ledger` of each worker holds the claims in flight and
what a store has yet to be told; the `store` (its `contract`) is shared by all workers and gateways: `redis_store`, or
`sqlite_store` on one machine.

Promises: a client that goes away loses no answer; a gateway that dies locks no key for longer than the lease; when the
store does not answer, nothing is forwarded. A record is bound to issuer, subject and route, and its name is a hash.
"""
