"""The YAML contract as frozen models: every key, its type, its default and why that default.

    server · admin · denylist · idempotency · telemetry   the *static* half, with `issuer` (`gateway.config.issuance`)
    issuers · identity · upstreams · routes               the *dynamic* half; `revocation` is a part of `issuers`
    file                                                  all of them together: `Config`

The static half is read once; a change needs a restart. The dynamic half is swapped while running. A module is a section
of the file. Models only say what a value may be on its own; what needs two places of the file at once (references,
ties) is checked by `gateway.config.checks`. The JSON Schema for editors and the reference in the manual are generated
from these models, descriptions included.

What the rest of the house reads is named here.
"""

from gateway.config.schema.admin import Admin
from gateway.config.schema.denylist import Denylist
from gateway.config.schema.file import SECRET_KEYS, STATIC_SECTIONS, Config
from gateway.config.schema.idempotency import Idempotency, RouteIdempotency
from gateway.config.schema.identity import Identity
from gateway.config.schema.issuers import Credentials, Issuer
from gateway.config.schema.revocation import SECURITY_EVENTS, BackchannelLogout, RevocationClient, SharedSignals
from gateway.config.schema.routes import Ambiguity, Auth, ClaimRule, Route, RouteWebsocket
from gateway.config.schema.server import Limits, Server, ServerTls
from gateway.config.schema.telemetry import AccessLog
from gateway.config.schema.upstreams import Upstream, UpstreamTls

__all__ = [
    "SECRET_KEYS",
    "SECURITY_EVENTS",
    "STATIC_SECTIONS",
    "AccessLog",
    "Admin",
    "Ambiguity",
    "Auth",
    "BackchannelLogout",
    "ClaimRule",
    "Config",
    "Credentials",
    "Denylist",
    "Idempotency",
    "Identity",
    "Issuer",
    "Limits",
    "RevocationClient",
    "Route",
    "RouteIdempotency",
    "RouteWebsocket",
    "Server",
    "ServerTls",
    "SharedSignals",
    "Upstream",
    "UpstreamTls",
]
