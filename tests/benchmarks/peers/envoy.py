"""Envoy with `jwt_authn` and a local key set, without and with its cache of verified tokens.

`concurrency 1`, no statistics sink, no access log, upstream connections without a limit that the work could reach. The
token is removed (`forward: false`) and one claim becomes a header. The cache holds twice the 2,000 tokens of the load;
Envoy's default of 100 entries would not help here.
"""

from __future__ import annotations

import json
from functools import partial

from tests.benchmarks import tokens
from tests.benchmarks.peers.peer import Command, Peer, Setting

_CACHE_ENTRIES = 2 * tokens.WARM_TOKENS
_TYPES = "type.googleapis.com/envoy.extensions.filters"
_CHECKS = "signature, iss, aud, exp and nbf; `sub` forwarded as x-user-id, token removed; no revocation, no access log"


def _prepare(cache: bool, setting: Setting) -> Command:
    # JSON is YAML's subset that Envoy reads by the file's ending.
    config = setting.write("envoy.json", json.dumps(_bootstrap(setting, cache)))
    return [
        setting.programs.path("envoy"),
        *("--config-path", config),
        *("--concurrency", "1"),
        *("--log-level", "error"),
        "--disable-hot-restart",
    ]


def _bootstrap(setting: Setting, cache: bool) -> dict[str, object]:
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "edge",
                    "address": _address(setting.port),
                    "filter_chains": [{"filters": [_connection_manager(setting, cache)]}],
                }
            ],
            "clusters": [_cluster(setting)],
        }
    }


def _connection_manager(setting: Setting, cache: bool) -> dict[str, object]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s", "idle_timeout": "0s"}}
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "edge",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": [
                {"name": "envoy.filters.http.jwt_authn", "typed_config": _jwt_authn(setting, cache)},
                {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_TYPES}.http.router.v3.Router"}},
            ],
        },
    }


def _jwt_authn(setting: Setting, cache: bool) -> dict[str, object]:
    provider: dict[str, object] = {
        "issuer": tokens.ISSUER,
        "audiences": [tokens.AUDIENCE],
        "forward": False,
        "local_jwks": {"inline_string": setting.keys.jwks.read_text()},
        "claim_to_headers": [{"header_name": "x-user-id", "claim_name": "sub"}],
    }
    if cache:
        provider["jwt_cache_config"] = {"jwt_cache_size": _CACHE_ENTRIES}
    return {
        "@type": f"{_TYPES}.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"main": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "main"}}],
    }


def _cluster(setting: Setting) -> dict[str, object]:
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), 100_000)
    endpoint = {"endpoint": {"address": _address(setting.upstream_port)}}
    return {
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "2s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


PEER = Peer("envoy", "Envoy jwt_authn", _CHECKS, partial(_prepare, False))
PEER_WITH_CACHE = Peer(
    "envoy-cache",
    "Envoy jwt_authn, token cache",
    f"{_CHECKS}; `jwt_cache_config` of {_CACHE_ENTRIES:,} tokens",
    partial(_prepare, True),
)
