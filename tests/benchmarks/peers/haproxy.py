"""HAProxy with `jwt_verify`: one thread, connections to the upstream shared between clients, no log.

The algorithm is a constant, so no token can choose it and the header need not be read. `exp`, `iss` and `aud` are
compared in the configuration, because HAProxy itself checks the signature alone; they are compared first, as they are
cheaper. The upstream's pool keeps every connection it opened.
"""

from __future__ import annotations

from tests.benchmarks import tokens
from tests.benchmarks.peers.peer import IDLE_CONNECTIONS, Command, Peer, Setting

# HAProxy wants two descriptors for each; idle ones need but one, so a lower hard limit is no reason to stop.
_MAX_CONNECTIONS = IDLE_CONNECTIONS + 64


def _prepare(setting: Setting) -> Command:
    config = setting.write("haproxy.cfg", _config(setting))
    return [setting.programs.path("haproxy"), "-db", "-f", config]


def _config(setting: Setting) -> str:
    server = f"127.0.0.1:{setting.upstream_port} pool-max-conn -1 pool-purge-delay 300s"
    signed = f'jwt_verify("{setting.keys.algorithm}","{setting.keys.public_pem}")'
    return f"""\
global
    nbthread 1
    no strict-limits
    maxconn {_MAX_CONNECTIONS}

defaults
    mode http
    no log
    timeout connect 2s
    timeout client 300s
    timeout server 300s
    timeout http-request 10s
    timeout http-keep-alive 300s
    http-reuse always

frontend edge
    bind 127.0.0.1:{setting.port}
    http-request set-var(txn.bearer) http_auth_bearer
    http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
    http-request set-var(txn.now) date()
    http-request deny deny_status 401 unless {{ var(txn.exp),sub(txn.now) -m int gt 0 }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.iss') -m str {tokens.ISSUER} }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.aud') -m str {tokens.AUDIENCE} }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),{signed} 1 }}
    http-request set-header x-user-id %[var(txn.bearer),jwt_payload_query('$.sub')]
    http-request del-header authorization
    # Without this an event waits for a segment to fill; elsewhere fuller segments are the better choice.
    use_backend streams if {{ path_beg /api/events/ }}
    default_backend upstream

backend upstream
    server only {server}

backend streams
    option http-no-delay
    server only {server}
"""


PEER = Peer(
    "haproxy",
    "HAProxy jwt_verify",
    "signature, iss, aud (one string), exp; `sub` forwarded as x-user-id, token removed; no revocation, no access log",
    _prepare,
)
