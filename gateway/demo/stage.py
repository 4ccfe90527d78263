"""Starts backend, issuer and gateway, prints what to paste, and takes everything down again.

The gateway is the real one: a process of its own that runs `gateway serve` on the YAML file printed below. Backend and
issuer run in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2

from gateway.config.load import load
from gateway.config.schema import Config
from gateway.demo.echo import SideServer, echo
from gateway.demo.issuer import DemoIssuer
from gateway.revoke import revoke

_HOST = "127.0.0.1"
_START_S = 20.0  # a process on a busy machine
_TRIES = 3  # somebody may take a port between the look and the bind

_YAML = """\
server:
  listen: {gateway}
admin:
  listen: {admin}
denylist:
  store: sqlite://denylist.db            # embedded: no Redis needed on one machine
telemetry:
  access_log: {{destination: access.log}}
issuers:
  demo:
    issuer: http://{issuer}
    jwks_uri: http://{issuer}/jwks.json
    audience: [demo]
    algorithms: [ES256]
identity:
  headers:
    x-user-id: sub
    x-user-email: email
    x-user-roles: roles
upstreams:
  backend:
    endpoints: [http://{backend}]
routes:
  - name: api
    path: /api/**
    upstream: backend
  - name: public
    path: /public/**
    upstream: backend
    auth: none
"""


class _CannotStart(Exception):
    """The gateway did not become ready; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs; addresses are `HOST:PORT`."""

    gateway: str
    backend: str
    issuer: str
    folder: Path
    token: str


def run_demo(*, port: int, once: bool) -> int:
    """Runs until Ctrl-C, or with `once` until the three requests are answered; the exit status."""
    try:
        return asyncio.run(_demo(port, once))
    except _CannotStart as exc:
        print(f"gateway demo: {exc}", file=sys.stderr)
        return 1


async def _demo(port: int, once: bool) -> int:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    async with _stage(port) as stage:
        print(_welcome(stage), flush=True)
        if once:
            return await _rehearse(stage)
        print("Ctrl-C ends it; nothing is kept.", flush=True)
        await ended.wait()
    return 0


@contextlib.asynccontextmanager
async def _stage(port: int) -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="gateway-demo-") as name, _listener(9001) as back, _listener(9002) as iss:
        folder = Path(name)
        file = folder / "gateway.yaml"
        configs: list[Config] = []

        async def log_out(token_id: str) -> None:
            await revoke(configs[-1], "token", "demo", token_id, now=time.time(), ttl_s=3600.0)

        issuer = DemoIssuer(f"http://{_address(iss)}", "demo", log_out)
        async with _serving(echo, back), _serving(issuer.app, iss):
            for attempt in range(_TRIES):
                # Any free port for admin: at the usual one another gateway's readiness could be taken for ours.
                gateway, admin = f"{_HOST}:{_free(port)}", f"{_HOST}:{_free(0)}"
                text = _YAML.format(gateway=gateway, admin=admin, backend=_address(back), issuer=_address(iss))
                file.write_text(text, encoding="utf-8")
                configs.append(load(file))
                process = await _start(file)
                try:
                    await _until_ready(process, admin, folder)
                except _CannotStart:
                    await _stop(process)
                    if attempt == _TRIES - 1:
                        raise
                    continue
                try:
                    yield Stage(gateway, _address(back), _address(iss), folder, issuer.token("alice"))
                finally:
                    await _stop(process)
                return


@contextlib.contextmanager
def _listener(preferred: int) -> Iterator[socket.socket]:
    """A socket at the preferred port of loopback, or at a free one."""
    try:
        sock = socket.create_server((_HOST, preferred))
    except OSError:
        sock = socket.create_server((_HOST, 0))
    with sock:
        yield sock


def _free(preferred: int) -> int:
    """A port that is free now: the gateway binds it itself."""
    with _listener(preferred) as sock:
        port: int = sock.getsockname()[1]
        return port


def _address(sock: socket.socket) -> str:
    return f"{_HOST}:{sock.getsockname()[1]}"


@contextlib.asynccontextmanager
async def _serving(app: object, sock: socket.socket) -> AsyncIterator[None]:
    server = SideServer(app)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


async def _start(file: Path) -> asyncio.subprocess.Process:
    with (file.parent / "gateway.log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "gateway", "serve", "--config", str(file)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


async def _until_ready(process: asyncio.subprocess.Process, admin: str, folder: Path) -> None:
    deadline = time.monotonic() + _START_S
    async with httpx2.AsyncClient(trust_env=False, timeout=1.0) as client:
        while process.returncode is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx2.HTTPError):
                if (await client.get(f"http://{admin}/health/ready")).status_code == 200:
                    return
            await asyncio.sleep(0.05)
    said = (folder / "gateway.log").read_text(encoding="utf-8", errors="replace")
    raise _CannotStart(f"the gateway did not start\n{said}".rstrip())


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    try:
        async with asyncio.timeout(5.0):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _welcome(stage: Stage) -> str:
    url = f"http://{stage.gateway}/api/hello"
    return f"""\
A gateway, a backend that answers with the request it saw, and an issuer with a throwaway key:

  gateway  http://{stage.gateway}   {stage.folder}/gateway.yaml
  backend  http://{stage.backend}
  issuer   http://{stage.issuer}

1. Nobody in particular: 401

curl -i {url}

2. Alice: 200, and the backend sees who she is. What the client says about itself is removed.

TOKEN={stage.token}
curl -i {url} -H "Authorization: Bearer $TOKEN" -H "X-User-Id: root"

3. Alice logs out; her token has an hour left, and is refused: 401

curl -X POST http://{stage.issuer}/logout -H "Authorization: Bearer $TOKEN"
curl -i {url} -H "Authorization: Bearer $TOKEN"
"""


async def _rehearse(stage: Stage) -> int:
    """The three requests as the curls make them; 0 if each is answered as promised."""
    url, bearer = f"http://{stage.gateway}/api/hello", {"authorization": f"Bearer {stage.token}"}
    async with httpx2.AsyncClient(trust_env=False, timeout=10.0) as client:
        answers = [await client.get(url)]
        answers.append(await client.get(url, headers={**bearer, "x-user-id": "root"}))
        await client.post(f"http://{stage.issuer}/logout", headers=bearer)
        # The gateway learns of it within milliseconds; a person is slower than that, this program is not.
        deadline = time.monotonic() + 5.0
        answers.append(await client.get(url, headers=bearer))
        while answers[-1].status_code == 200 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
            answers[-1] = await client.get(url, headers=bearer)
    for number, answer in enumerate(answers, start=1):
        print(f"--- {number}: {answer.status_code}\n{answer.text}", flush=True)
    return 0 if [answer.status_code for answer in answers] == [401, 200, 401] else 1
