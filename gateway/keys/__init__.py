"""Issuers' keys: from a document or a secret to something that verifies a signature.

`source` knows where the keys of an issuer come from and keeps them fresh, `remote` and `file` fetch the key set,
`discovery` finds its address, `jwks` turns it into usable keys, and `notation` reads base64url and JSON the strict way.

Promises: an algorithm is bound to the issuer and to the key's type before any signature is looked at; one unusable key
never fails a set; a failed refresh never loses good keys; nothing here blocks the event loop. Imports `errors`,
`config.schema` and `telemetry` only.
"""
