"""An edge gateway: checks a JWT on every request, asks a denylist, and forwards an identity that nobody can forge.

The map, in the order in which a request meets it:

    server      uvicorn's settings and its hardened HTTP protocol: what may reach the app at all
    app         composition root: config → ASGI app, lifespan, the one task group
    pipeline    one request, in order; the file to read first
    generation  everything built from one dynamic config: build, carry over, swap, drain
    routing     which route; raw paths, most specific wins
    tokens      is this token genuine, in time, and meant for us?
    keys        the issuers' keys, fetched ahead and kept through outages
    denylist    has it been revoked? answered from memory
    inlets      what issuers and clients revoke by the standards, on the clients' address
    policy      may this token use this route?
    identity    the headers that tell the upstream who is calling
    upstream    which endpoint, and the bytes to and from it
    telemetry   one record per request: log line, metrics, health
    problem     errors as responses; `errors` draws them as a tree
    config      the YAML file
    admin       health, metrics and the admin API, on an address of their own
    cli         serve · check · routes · explain · revoke · demo
"""

from importlib.util import find_spec

__version__ = "0.1.0"


def build() -> str:
    """Whether the request path is "compiled", as in the image, or "interpreted"."""
    found = find_spec("gateway.strand")
    return "interpreted" if found is None or (found.origin or "").endswith(".py") else "compiled"
