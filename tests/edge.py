"""A whole gateway for a test: the process itself, an upstream that remembers every byte, an issuer that signs.

    upstream = await RecordingUpstream.start()
    issuer = await TestIssuer.start()
    async with GatewayProcess(tmp_path, yaml) as gateway:
        answer = await gateway.raw(b"GET /api HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")

The gateway is always `python -m gateway serve` on real sockets. Tokens are signed by joserfc, which the gateway does
not use.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

START_DEADLINE_S = 45.0  # a second on a quiet machine; less than a test may take
ANSWER_DEADLINE_S = 10.0


# --- the upstream ----------------------------------------------------------------------------------------------------


@dataclass
class SeenRequest:
    """One request as it arrived at the upstream, to the byte."""

    head: bytes  # request line and fields, without the final empty line
    body: bytes = b""  # as framed: chunked bodies are decoded
    trailers: bytes = b""
    is_complete: bool = False  # the whole message has come

    @property
    def line(self) -> bytes:
        """The request line."""
        return self.head.split(b"\r\n", 1)[0]

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Fields in order, names in lower case, duplicates kept."""
        pairs = (line.partition(b":") for line in self.head.split(b"\r\n")[1:])
        return [(name.lower(), value.strip()) for name, _, value in pairs]

    def all(self, name: bytes) -> list[bytes]:
        """Every value of one field."""
        return [value for key, value in self.headers if key == name]


Script = Callable[[SeenRequest, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def answer_ok(seen: SeenRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The default script: 200 with a short body, keep-alive."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n")
    writer.write(b"" if seen.line.startswith(b"HEAD") else b"ok")


class RecordingUpstream:
    """An HTTP/1.1 server on loopback that parses as little as possible and remembers what came."""

    def __init__(self, script: Script = answer_ok) -> None:
        self.script = script
        self.seen: list[SeenRequest] = []
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def start(cls, script: Script = answer_ok) -> Self:
        """A listening upstream on a port of its own."""
        upstream = cls(script)
        await upstream.listen()
        return upstream

    @property
    def url(self) -> str:
        """Its origin."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """Connections that the other side has not closed."""
        return len(self._tasks)

    async def listen(self) -> None:
        """Listen, again on the same port after `close`."""
        self._server = await asyncio.start_server(self._converse, "127.0.0.1", self.port, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse new connections and cut the open ones."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                seen = SeenRequest(head[:-4])
                self.seen.append(seen)
                await self.read_body(seen, reader)
                seen.is_complete = True
                await self.script(seen, reader, writer)
                await writer.drain()
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def read_body(self, seen: SeenRequest, reader: asyncio.StreamReader) -> None:
        """Read what the head announced; a script may replace this to read slowly or not at all."""
        if b"chunked" in b",".join(seen.all(b"transfer-encoding")).lower():
            while size := int(await reader.readuntil(b"\r\n"), 16):
                seen.body += await reader.readexactly(size)
                await reader.readexactly(2)
            while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                seen.trailers += line
        elif length := seen.all(b"content-length"):
            seen.body = await reader.readexactly(int(length[0]))


# --- the issuer ------------------------------------------------------------------------------------------------------


def make_key(alg: str, kid: str) -> Any:
    """A fresh private key (joserfc) for one algorithm."""
    parameters: Any = {"kid": kid, "use": "sig", "alg": alg}  # joserfc's own type of it is not public
    if alg.startswith(("RS", "PS")):
        return RSAKey.generate_key(2048, parameters, private=True)
    if alg.startswith("ES"):
        return ECKey.generate_key({"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[alg], parameters, private=True)
    return OKPKey.generate_key("Ed25519", parameters, private=True)


@dataclass
class TestIssuer:
    """An issuer whose key set is served on loopback and can be made to fail."""

    __test__ = False  # not a test class

    alg: str = "ES256"
    kid: str = "k1"
    audience: str = "api"
    keys: dict[str, Any] = field(default_factory=dict)
    port: int = 0
    fetches: int = 0
    respond: Callable[[], Awaitable[bytes]] | None = None  # raw response bytes instead of the key set

    @classmethod
    async def start(cls, alg: str = "ES256") -> Self:
        """A listening issuer with one key."""
        issuer = cls(alg)
        issuer.keys[issuer.kid] = make_key(alg, issuer.kid)
        await issuer.listen()
        return issuer

    @property
    def url(self) -> str:
        """Its `iss`."""
        return f"http://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        """Serve, again on the same port after `close`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse connections."""
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.fetches += 1
            writer.write(await self.respond() if self.respond else self.key_set_response())
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # cancelled at the end of a test, while `respond` takes its time
        finally:
            writer.close()

    def key_set_response(self) -> bytes:
        """The whole HTTP response with the public keys."""
        document = KeySet(list(self.keys.values())).as_dict(private=False)
        body = json.dumps(document).encode()
        return (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (
                len(body),
                body,
            )
        )

    def rotate(self, kid: str) -> None:
        """Sign with a new key; the old one stays published."""
        self.keys[kid] = make_key(self.alg, kid)
        self.kid = kid

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Good claims; `name=None` leaves one out."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.url,
            "aud": self.audience,
            "sub": "user-1",
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + 600,
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, *, typ: str = "at+jwt", **changes: Any) -> str:
        """A token signed with the current key."""
        header = {"alg": self.alg, "kid": self.kid, "typ": typ}
        return jwt.encode(header, self.claims(**changes), self.keys[self.kid], algorithms=[self.alg])

    def yaml(self, indent: int = 4) -> str:
        """The issuer's section for a configuration, under the name `main`."""
        lines = (
            "main:",
            f"  issuer: {self.url}",
            f"  jwks_uri: {self.url}/jwks.json",
            f"  audience: [{self.audience}]",
            f"  algorithms: [{self.alg}]",
            "  cooldown: 100ms",
        )
        return "".join(" " * (indent - 2) + line + "\n" for line in lines)


# --- the gateway -----------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """One response, parsed leniently."""

    raw: bytes

    @property
    def status(self) -> int:
        """0 when the connection was closed without an answer."""
        return int(self.raw.split(b" ", 2)[1]) if self.raw else 0

    @property
    def head(self) -> bytes:
        """Status line and fields."""
        return self.raw.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        """As on the wire: chunked bodies keep their framing."""
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def code(self) -> str:
        """The problem's stable code; "" for anything else."""
        try:
            return str(json.loads(self.body)["code"])
        except (ValueError, KeyError, TypeError):
            return ""

    def all(self, name: bytes) -> list[bytes]:
        """Every value of one field."""
        pairs = (line.partition(b":") for line in self.head.split(b"\r\n")[1:])
        return [value.strip() for key, _, value in pairs if key.lower() == name]


class GatewayProcess:
    """`python -m gateway serve` on a configuration in which `{port}` and `{admin}` are filled in."""

    def __init__(
        self, folder: Path, config: str, port: int, admin_port: int, env: dict[str, str] | None = None
    ) -> None:
        self.port, self.admin_port = port, admin_port
        self.config_path = folder / f"gateway-{port}.yaml"
        self.env = env or {}
        self.log_path = folder / f"gateway-{port}.log"
        self.write(config)
        self._process: asyncio.subprocess.Process | None = None

    def write(self, config: str) -> None:
        """Replace the configuration in one step."""
        text = config.replace("{port}", str(self.port)).replace("{admin}", str(self.admin_port))
        part = self.config_path.with_suffix(".part")
        part.write_text(text)
        part.replace(self.config_path)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """The process that was started: with several workers, their parent."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything it has printed."""
        return self.log_path.read_text(errors="replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """The JSON lines of the access log."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith('{"')]

    async def start(self) -> None:
        """Start and wait until it is ready."""
        await self.spawn()
        await self.wait_ready()

    async def spawn(self) -> None:
        """Start and wait for nothing: for a gateway that will not get ready."""
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway", "serve", "--config", str(self.config_path)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.env},
            )

    async def wait_ready(self, path: str = "/health/ready") -> None:
        """Until the admin address answers 200 there; RuntimeError with the log when it ends or takes too long."""
        assert self._process is not None
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline and self._process.returncode is None:
            try:
                if (await self.admin(path)).status == 200:
                    return
            except OSError:
                pass
            await asyncio.sleep(0.05)  # another process: nothing to wait on
        raise RuntimeError(f"the gateway did not get ready:\n{self.log}")

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself or by a signal sent before."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), START_DEADLINE_S)

    def worker_pids(self) -> list[int]:
        """The processes that serve: the children, or the process itself where there are none."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        # Python's own resource tracker is a child too.
        workers = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return workers or [self.pid]

    async def stop(self, signum: int = signal.SIGTERM) -> int:
        """End it and give its exit code."""
        if self._process is None or self._process.returncode is not None:
            return self._process.returncode if self._process and self._process.returncode is not None else 0
        self._process.send_signal(signum)
        try:
            return await asyncio.wait_for(self._process.wait(), 20)
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()

    def signal(self, signum: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, signum)

    async def raw(self, request: bytes, *, port: int | None = None, deadline_s: float = ANSWER_DEADLINE_S) -> Answer:
        """Send bytes on a connection of their own and read the one answer (by its framing, or until close)."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port, limit=2**24)
        try:
            async with asyncio.timeout(deadline_s):
                writer.write(request)
                return Answer(await read_answer(reader, is_head=request.startswith(b"HEAD ")))
        finally:
            writer.close()

    async def get(
        self, target: str, token: str | None = None, *fields: str, method: str = "GET", body: bytes = b""
    ) -> Answer:
        """One ordinary request; `fields` are raw `Name: value` lines."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *fields]
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def admin(self, target: str) -> Answer:
        """One request to the admin address."""
        return await self.raw(
            f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode(), port=self.admin_port
        )

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of one metric's samples that carry the given labels; 0 when there are none."""
        total = 0.0
        text = (await self.admin("/metrics")).raw.decode()
        for line in text.splitlines():
            if line.startswith((name + "{", name + " ")) and all(
                f'{key}="{value}"' in line for key, value in labels.items()
            ):
                total += float(line.rpartition(" ")[2])
        return total


async def read_answer(reader: asyncio.StreamReader, *, is_head: bool = False) -> bytes:
    """One response by its framing: Content-Length, chunked, or until close; b"" when closed without one."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as exc:
        return exc.partial
    except ConnectionError:
        return b""
    status = int(head.split(b" ", 2)[1])
    if is_head or status < 200 or status in (204, 304):
        return head
    lower = head.lower()
    if b"\r\ntransfer-encoding: chunked" in lower:
        return head + await reader.readuntil(b"0\r\n\r\n")
    if (at := lower.find(b"\r\ncontent-length:")) >= 0:
        length = int(lower[at + 17 : lower.index(b"\r\n", at + 17)])
        return head + await reader.readexactly(length)
    return head + await reader.read()


def config_text(
    issuer: str,
    upstream: str,
    *,
    extra: str = "",
    routes: str = "",
    workers: int = 1,
    server: str = "",
    upstream_options: str = "",
    upstreams: str = "",
) -> str:
    """A whole configuration around an issuer's section (`TestIssuer.yaml()`) and one upstream called `app`.

    Each further argument is YAML, indented as its place wants it: `extra` whole sections, `server` and
    `upstream_options` keys beside those here, `routes` and `upstreams` entries beside those here.
    """
    return f"""\
server:
  listen: 127.0.0.1:{{port}}
  workers: {workers}
{server}admin:
  listen: 127.0.0.1:{{admin}}
{extra}issuers:
{issuer}identity:
  headers:
    x-user-id: sub
    x-user-email: email
    x-user-roles: {{claim: roles, format: comma}}
upstreams:
  app:
    endpoints: [{upstream}]
{upstream_options}{upstreams}routes:
  - name: api
    path: /api/**
    upstream: app
  - name: public
    path: /public/**
    upstream: app
    auth: none
{routes}"""
