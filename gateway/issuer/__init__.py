"""The built-in issuer: register, log in, refresh, log out; OAuth 2.0 and OpenID beside it.

    endpoints ──▶ log_ins, accounts, sessions, grants ──▶ store
                     │               └────────▶ denials ──▶ the denylist's store
                     └──▶ passwords, throttle   signing ──▶ access tokens, key set

- `users`, `names`, `accounts`, `registrations`: who somebody is, and how one becomes it.
- `log_ins`, `passwords`, `decoys`, `throttle`: who somebody says to be, and how hard it is to guess.
- `password_changes`, `one_time_tokens`, `webhook`: what is proved by reading the mail.
- `sessions`, `refresh_tokens`: one log-in on one device, and the chain of tokens that keeps it.
- `access_tokens`, `signing`: what the gateways check, and the keys they check it with.
- `denials`: what must be refused from now on, kept until the denylist has it.
- `grants`, `endpoints`: OAuth's words, and HTTP.

An ASGI app of its own. To the gateway it is an issuer like any other: it imports nothing that handles requests, gets
the denylist's store handed in, and gives its key set away as a document.
"""
