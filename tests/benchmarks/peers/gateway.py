"""The gateway with everything switched on: nothing is left out that an operator would have in production."""

from __future__ import annotations

import sys

from tests.benchmarks import tokens
from tests.benchmarks.peers.peer import Command, Peer, Setting
from tests.benchmarks.provision import Missing

# A stream of a gigabyte has to pass; everything else keeps the default limits and timeouts.
_BODY_LIMIT = "2GiB"


def _prepare(setting: Setting) -> Command:
    if setting.denylist_store is None:
        raise Missing("the gateway is measured with its denylist, which needs redis-server")
    config = setting.write("gateway.yaml", config_text(setting))
    return [sys.executable, "-m", "gateway", "serve", "--config", config]


def config_text(setting: Setting) -> str:
    """The YAML of the measured gateway."""
    return f"""\
server:
  listen: 127.0.0.1:{setting.port}
  limits: {{body_bytes: {_BODY_LIMIT}}}
admin:
  listen: 127.0.0.1:{setting.admin_port}
denylist:
  store: {setting.denylist_store}
telemetry:
  access_log: {{destination: "{setting.directory}/access.log", subject: digest}}
issuers:
  main:
    issuer: {tokens.ISSUER}
    jwks_file: {setting.keys.jwks}
    audience: [{tokens.AUDIENCE}]
    algorithms: [{setting.keys.algorithm}]
    token_type: any
identity:
  headers:
    x-user-id: sub
    x-user-email: email
    x-user-roles: {{claim: roles, format: comma}}
upstreams:
  orders:
    endpoints: [http://127.0.0.1:{setting.upstream_port}]
    pool: {{size: 2000}}
routes:
  - name: api
    path: /api/**
    upstream: orders
    auth: {{scopes: [orders:read]}}
  - name: admin
    path: /admin/**
    upstream: orders
    auth: {{scopes: [admin]}}
  - name: public
    path: /public/**
    upstream: orders
    auth: none
"""


PEER = Peer(
    "gateway",
    "gateway",
    "strict header and claims, signature, iss, aud, exp, nbf, iat, a scope, and revocation against a Redis denylist; "
    "`sub`, `email` and `roles` forwarded, token removed; request id, forwarded headers, traceparent, limits, "
    "timeouts, metrics, and a JSON access log to a file",
    _prepare,
    uses_denylist=True,
)
