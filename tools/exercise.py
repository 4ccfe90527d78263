"""Exercises the request path, so that a compiler that watches learns which branches are taken and which never.

    python tools/exercise.py FOLDER     FOLDER is where `gateway` is imported from; needs what the gateway needs

Requests go through a whole gateway between transports that are none, so nothing listens, waits or depends on a network:
tokens that are new and tokens that are remembered, the usual refusals, bodies both ways, whole and in chunks. What is
exercised is the mixture that a gateway sees; how fast it is, is the benchmark's question.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CONFIG = """\
denylist: {store: "redis://127.0.0.1:6379/0"}
telemetry: {access_log: {destination: /dev/null}}
issuers:
  main: {issuer: "https://issuer.example", jwks_file: keys.json, audience: [api], algorithms: [ES256], token_type: any}
identity: {headers: {x-user-id: sub, x-user-email: email, x-user-roles: {claim: roles, format: comma}}}
upstreams: {orders: {endpoints: ["http://127.0.0.1:9001"]}}
routes:
  - {name: api, path: "/api/**", upstream: orders, auth: {scopes: [orders:read]}}
  - {name: one, path: "/users/{id}", upstream: orders}
  - {name: public, path: "/public/**", upstream: orders, auth: none}
"""
TOKENS, CONNECTIONS, ROUNDS = 400, 16, 40

FIELDS = b"Server: origin\r\nDate: Sun, 29 Nov 2026 00:00:00 GMT\r\nContent-Type: application/json\r\n"
WHOLE = [
    b'HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\nETag: "%d"\r\n\r\n%b' % (FIELDS, size, size, b"x" * size)
    for size in (2, 110, 900, 7000)
]
CHUNKED = b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" % FIELDS
PIECES = [b"HTTP/1.1 200 OK\r\n%bContent-Length: 120000\r\n\r\n" % FIELDS, b"x" * 60_000, b"x" * 60_000]


class Ends(asyncio.Transport):
    """A transport to nobody; remembers what was written last."""

    def __init__(self) -> None:
        self._sockets = socket.socketpair()  # for who looks whether there is something to read: there is not
        names = {"peername": ("127.0.0.1", 50_000), "sockname": ("127.0.0.1", 8080)}
        super().__init__({**names, "socket": self._sockets[0]})
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Remember it."""
        self.written = bytes(data)

    def is_closing(self) -> bool:
        """Never."""
        return False

    def get_write_buffer_size(self) -> int:
        """All of it is taken at once."""
        return 0

    def can_write_eof(self) -> bool:
        """Not here."""
        return False

    def abort(self) -> None:
        """Nothing to close."""

    close = pause_reading = resume_reading = abort


def write_files(folder: Path) -> list[bytes]:
    """The configuration and its key set; the tokens that it accepts."""
    import jwt
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    jwk = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "k1", "alg": "ES256"}
    (folder / "keys.json").write_text(json.dumps({"keys": [jwk]}))
    (folder / "gateway.yaml").write_text(CONFIG)
    now = int(time.time())
    claims = {"iss": "https://issuer.example", "aud": "api", "iat": now, "exp": now + 3600, "scope": "orders:read"}
    tokens = []
    for number in range(TOKENS):
        own = {"sub": f"user-{number}", "jti": f"t{number}", "sid": f"s{number}", "email": f"user{number}@mail.example"}
        own |= {"client_id": "shop", "roles": ["buyer", "reader"]}
        tokens.append(jwt.encode(claims | own, key, algorithm="ES256", headers={"kid": "k1"}).encode())
    return tokens


def requests(tokens: list[bytes], turn: int) -> list[tuple[bytes, list[bytes]]]:
    """What clients send in one round, and what the upstream answers to each."""
    sent = []
    for number, token in enumerate(tokens):
        head = b"GET /api/orders/%d?expand=items HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAccept: */*\r\n" % number
        head += b"User-Agent: shop/4.2.0\r\nAuthorization: Bearer %b\r\n\r\n" % token
        sent.append((head, [WHOLE[number % len(WHOLE)]]))
    form = b"Host: h\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n" % tokens[turn % TOKENS]
    post = b'POST /api/orders HTTP/1.1\r\n%bContent-Length: 12\r\n\r\n{"n": 12345}' % form
    browser = b"Connection: keep-alive\r\nAccept-Encoding: gzip\r\nCookie: theme=dark\r\nReferer: http://h/\r\n\r\n"
    usual = [
        (post, [WHOLE[0]]),
        (b"GET /users/%d HTTP/1.1\r\n%b\r\n" % (turn, form), [CHUNKED]),
        (b"GET /public/a.js HTTP/1.1\r\nHost: h\r\n" + browser, PIECES),
        (b"GET /api/orders HTTP/1.1\r\nHost: h\r\n\r\n", []),
        (b"GET /api/orders HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer a.b.c\r\n\r\n", []),
        (b"GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n", []),
    ]
    return sent + usual * 4


async def exercise(folder: Path) -> None:
    """Send everything, over and over."""
    from gateway.app import create_app
    from gateway.config.load import load
    from gateway.server.listener import Listener
    from gateway.server.protocol import HardenedProtocol
    from gateway.telemetry.runtime import Runtime

    tokens = write_files(folder)
    config = load(folder / "gateway.yaml")
    app = create_app(config, folder / "gateway.yaml", Runtime(folder))
    await app.current.warm(None)
    loop = asyncio.get_running_loop()
    replica = app._replica
    assert replica is not None
    for number in range(1000):
        replica.put(f"token:main:denied-{number}", "1", time.time() + 900)
    listener = Listener("edge", config.server.limits, app.record)
    settings = SimpleNamespace(listener=listener, loaded_app=app)
    clients = [(HardenedProtocol(settings, None, {}, loop), Ends()) for _ in range(CONNECTIONS)]  # type: ignore[arg-type]
    for protocol, transport in clients:
        protocol.connection_made(transport)
    held: list[tuple[Any, Ends]] = []
    connected = asyncio.Event()

    async def connect(factory: Any, *_: object, **__: object) -> tuple[Ends, Any]:
        protocol, transport = factory(), Ends()
        protocol.connection_made(transport)
        held.append((protocol, transport))
        connected.set()
        return transport, protocol

    loop.create_connection = connect  # type: ignore[method-assign, assignment]
    clients[0][0].data_received(b"GET /public/ HTTP/1.1\r\nHost: h\r\n\r\n")
    await connected.wait()
    await asyncio.sleep(0)  # the request is on its way now
    held[0][0].data_received(WHOLE[0])
    await asyncio.sleep(0)
    ended = loop.create_future()

    signatures = app.current.verifier.signatures

    def turn(number: int) -> None:
        # From a callback of the loop, as transports call: within a task every step of a request would be put off.
        try:
            replica.touch(time.monotonic())
            for at, (request, answers) in enumerate(requests(tokens, number)):
                protocol, client = clients[at % CONNECTIONS]
                client.written = b""
                protocol.data_received(request)
                signatures.settle()
                for answer in answers:
                    held[0][0].data_received(answer)
                held[0][0].pool.outbox.empty()
                listener.outbox.empty()
                if not client.written:
                    raise RuntimeError(f"no answer to {request[:40]!r}")
        except Exception as exc:
            ended.set_exception(exc)
        else:
            loop.call_soon(turn, number + 1) if number < ROUNDS else ended.set_result(None)

    loop.call_soon(turn, 0)
    async with asyncio.timeout(60):
        await ended


def main() -> None:
    """The command line."""
    sys.path.insert(0, sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(exercise(Path(folder)))


if __name__ == "__main__":
    main()
