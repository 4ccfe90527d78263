"""What people write themselves: a Starlette route, `jwt.decode`, and an httpx2 client with a pool."""

from __future__ import annotations

import os

from tests.benchmarks.peers.peer import Command, Peer, Setting
from tests.benchmarks.provision import edge_python

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def _prepare(setting: Setting) -> Command:
    environment = {
        "NAIVE_JWKS": str(setting.keys.jwks),
        "NAIVE_ALGORITHM": setting.keys.algorithm,
        "NAIVE_UPSTREAM": f"http://127.0.0.1:{setting.upstream_port}",
    }
    return [
        *("env", *(f"{name}={value}" for name, value in environment.items())),
        *(edge_python(), "-P", "-m", "uvicorn", "tests.benchmarks.peers.naive_app:create_app", "--factory"),
        *("--host", "127.0.0.1", "--port", str(setting.port), "--app-dir", _ROOT),
        *(
            "--loop",
            "uvloop",
            "--http",
            "httptools",
            "--no-access-log",
            "--timeout-keep-alive",
            "300",
            "--log-level",
            "error",
        ),
    ]


PEER = Peer(
    "naive",
    "Starlette + httpx2 + PyJWT",
    "signature, iss, aud, exp, nbf and iat by `jwt.decode`; `sub` forwarded as x-user-id, token removed; "
    "no revocation, no access log",
    _prepare,
)
