"""Starts backend and gateway, prints what to paste, and takes everything down again.

The gateway is the real one: a process of its own that runs `gateway serve` on the YAML file printed below, with
its built-in issuer. The backend runs in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2

from gateway.demo.echo import SideServer, echo
from gateway.demo.mailbox import mailbox

_HOST = "127.0.0.1"
_ACCOUNT = {"username": "alice", "email": "alice@example.com", "password": "correct horse battery"}
_LOGIN = {"username": "alice", "password": "correct horse battery"}
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
issuer:                                  # the built-in one; the gateway trusts it by itself
  url: http://{gateway}/auth
  store: sqlite://issuer.db
  registration: open
  claims: [username, email, roles]
  webhook: {{url: "http://{mailbox}/"}}
identity:
  headers:
    x-user-id: sub
    x-user-name: username
    x-user-email: email
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
    folder: Path


def run_demo(*, port: int, once: bool) -> int:
    """Runs until Ctrl-C, or with `once` until the story is told; the exit status."""
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
    with tempfile.TemporaryDirectory(prefix="gateway-demo-") as name, _listener(9001) as back, _listener(0) as mail:
        folder = Path(name)
        file = folder / "gateway.yaml"
        async with _serving(echo, back), _serving(mailbox, mail):
            for attempt in range(_TRIES):
                # Any free port for admin: at the usual one another gateway's readiness could be taken for ours.
                gateway, admin = f"{_HOST}:{_free(port)}", f"{_HOST}:{_free(0)}"
                text = _YAML.format(gateway=gateway, admin=admin, backend=_address(back), mailbox=_address(mail))
                file.write_text(text, encoding="utf-8")
                process = await _start(file)
                try:
                    await _until_ready(process, admin, folder)
                except _CannotStart:
                    await _stop(process)
                    if attempt == _TRIES - 1:
                        raise
                    continue
                try:
                    yield Stage(gateway, _address(back), folder)
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
    url, auth = f"http://{stage.gateway}/api/hello", f"http://{stage.gateway}/auth"
    json_type = "-H 'Content-Type: application/json'"
    taken_out = r"""echo "$ALICE" | sed 's/.*"%s": "\([^"]*\)".*/\1/'"""
    take_token = f"TOKEN=$({taken_out % 'access_token'})"
    return f"""\
A gateway that issues its own tokens, and a backend that answers with the request it saw:

  gateway  http://{stage.gateway}   {stage.folder}/gateway.yaml
  backend  http://{stage.backend}

1. Nobody in particular: 401

curl -i {url}

2. Alice registers: 201

curl -i {auth}/register {json_type} -d '{json.dumps(_ACCOUNT)}'

3. She logs in, and is let through: 200. The backend sees who she is; what the client says about itself is removed.

ALICE=$(curl -s {auth}/login {json_type} -d '{json.dumps(_LOGIN)}')
{take_token}
curl -i {url} -H "Authorization: Bearer $TOKEN" -H "X-User-Id: root"

4. Ten minutes later her app refreshes: 200 again

REFRESH=$({taken_out % "refresh_token"})
ALICE=$(curl -s {auth}/refresh {json_type} -d "{{\\"refresh_token\\": \\"$REFRESH\\"}}")
{take_token}
curl -i {url} -H "Authorization: Bearer $TOKEN"

5. She logs out: 204. Her token has ten minutes left, and is refused: 401

curl -i -X POST {auth}/logout -H "Authorization: Bearer $TOKEN"
curl -i {url} -H "Authorization: Bearer $TOKEN"
"""


async def _rehearse(stage: Stage) -> int:
    """The story as the curls tell it; 0 if each request is answered as promised."""
    url, auth = f"http://{stage.gateway}/api/hello", f"http://{stage.gateway}/auth"
    async with httpx2.AsyncClient(trust_env=False, timeout=10.0) as client:
        answers = [await client.get(url), await client.post(f"{auth}/register", json=_ACCOUNT)]
        tokens = (await client.post(f"{auth}/login", json=_LOGIN)).json()
        answers.append(await client.get(url, headers={**_bearer(tokens), "x-user-id": "root"}))
        tokens = (await client.post(f"{auth}/refresh", json={"refresh_token": tokens["refresh_token"]})).json()
        answers.append(await client.get(url, headers=_bearer(tokens)))
        answers.append(await client.post(f"{auth}/logout", headers=_bearer(tokens)))
        # The denylist has it within milliseconds; a person is slower than that, this program is not.
        deadline = time.monotonic() + 5.0
        answers.append(await client.get(url, headers=_bearer(tokens)))
        while answers[-1].status_code == 200 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
            answers[-1] = await client.get(url, headers=_bearer(tokens))
    for number, answer in enumerate(answers, start=1):
        print(f"--- {number}: {answer.status_code}\n{answer.text}", flush=True)
    return 0 if [answer.status_code for answer in answers] == [401, 201, 200, 200, 204, 401] else 1


def _bearer(tokens: dict[str, str]) -> dict[str, str]:
    return {"authorization": f"Bearer {tokens['access_token']}"}
