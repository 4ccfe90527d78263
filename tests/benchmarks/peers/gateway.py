"""The gateway with everything switched on: nothing is left out that an operator would have in production."""

from __future__ import annotations

from tests.benchmarks import tokens
from tests.benchmarks.peers.peer import Command, Peer, Setting
from tests.benchmarks.provision import ROOT, Missing, edge_python

# A stream of a gigabyte has to pass; everything else keeps the default limits and timeouts.
_BODY_LIMIT = "2GiB"


def _prepare(setting: Setting) -> Command:
    # -P: what is installed, not what lies in the present folder.
    return [edge_python(), "-P", "-m", "gateway", *arguments(setting)]


def _prepare_interpreted(setting: Setting) -> Command:
    return ["env", f"PYTHONPATH={ROOT}", edge_python(), "-m", "gateway", *arguments(setting)]


def arguments(setting: Setting) -> Command:
    """The gateway's own arguments; writes its configuration."""
    if setting.denylist_store is None:
        raise Missing("the gateway is measured with its denylist, which needs redis-server")
    return ["serve", "--config", setting.write("gateway.yaml", config_text(setting))]


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


_CHECKS = (
    "strict header and claims, signature, iss, aud, exp, nbf, iat, a scope, and revocation against a Redis denylist; "
    "`sub`, `email` and `roles` forwarded, token removed; request id, forwarded headers, traceparent, limits, "
    "timeouts, metrics, and a JSON access log to a file"
)

PEER = Peer(
    "gateway",
    "gateway",
    f"{_CHECKS}; the request path compiled, as in the image",
    _prepare,
    uses_denylist=True,
)
INTERPRETED = Peer("gateway-interpreted", "gateway, not compiled", "the same", _prepare_interpreted, uses_denylist=True)
