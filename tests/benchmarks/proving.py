"""Start a proxy and have it prove that it does what it is measured for, before it is measured."""

from __future__ import annotations

import http.client
import time
from dataclasses import dataclass

from tests.benchmarks import tokens
from tests.benchmarks.peers.peer import Peer, Setting
from tests.benchmarks.provision import Programs
from tests.benchmarks.site import Process, Site, StartFailed, free_port, wait_until_listening
from tests.benchmarks.store import Store
from tests.benchmarks.tokens import Algorithm

_READY_WITHIN_S = 20.0
_REVOKED_WITHIN_S = 2.0


@dataclass(frozen=True)
class Running:
    """A proxy that listens and has proved itself."""

    peer: Peer
    process: Process
    port: int

    @property
    def pid(self) -> int:
        """The root of its process tree."""
        return self.process.pid


@dataclass(frozen=True)
class Backing:
    """What stands behind the proxies of one work: an upstream, perhaps Redis, and the algorithm of the tokens."""

    programs: Programs
    algorithm: Algorithm
    upstream_port: int
    store: Store | None = None
    database: int = 0
    proves_identity: bool = True


def start(site: Site, peer: Peer, backing: Backing, label: str = "") -> Running:
    """Start a peer on the proxy's core. Raises `StartFailed` when it does not come up or fails its proof."""
    name = f"{peer.name}{label}-{backing.algorithm}"
    directory = site.directory / name
    directory.mkdir()
    setting = Setting(
        programs=backing.programs,
        directory=directory,
        port=free_port(),
        admin_port=free_port(),
        upstream_port=backing.upstream_port,
        keys=tokens.key_files(backing.algorithm),
        denylist_store=f"redis://127.0.0.1:{backing.store.port}/{backing.database}" if backing.store else None,
    )
    process = site.start(name, peer.prepare(setting), site.cores.proxy)
    wait_until_listening(setting.port, process)
    good = tokens.first_token(tokens.token_file(backing.algorithm, "warm", tokens.WARM_TOKENS))
    _wait_until_ready(setting.port, good, process)
    if peer.verifies:
        _prove(setting.port, good, backing, process)
    if peer.uses_denylist and backing.store is not None:
        _prove_revocation(setting.port, backing, backing.store, process)
    return Running(peer, process, setting.port)


def _wait_until_ready(port: int, token: str, process: Process) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    status, body = 0, ""
    while time.monotonic() < deadline:
        try:
            status, body = _get(port, "/api/orders/42", token)
        except OSError as exc:
            body = repr(exc)
        if status == 200:
            return
        time.sleep(0.1)
    raise StartFailed(f"{process.name} answers a good token with {status} {body[:200]}: {process.last_words()}")


def _prove(port: int, good: str, backing: Backing, process: Process) -> None:
    """A good token passes with its identity and without itself; each hostile one is refused."""
    if backing.proves_identity:
        status, body = _get(port, "/api/echo", good, [("x-user-id", "forged")])
        if (status, body) != (200, "user-0|"):
            raise StartFailed(
                f"{process.name}: the upstream should see user-0 and no token, saw {status} {body[:200]!r}"
            )
    for fault, token in tokens.hostile_tokens(backing.algorithm).named().items():
        status, _ = _get(port, "/api/orders/42", token)
        if status not in (401, 403):
            raise StartFailed(f"{process.name} answers a token with {fault} with {status}")


def _prove_revocation(port: int, backing: Backing, store: Store, process: Process) -> None:
    """A good token is refused once Redis denies it, and passes again once it does not."""
    hostile = tokens.hostile_tokens(backing.algorithm)
    for change, expected in ((store.allow, 200), (store.deny, 401), (store.allow, 200)):
        change(backing.database, hostile.revoked_id)
        deadline = time.monotonic() + _REVOKED_WITHIN_S
        while (status := _get(port, "/api/orders/42", hostile.revoked)[0]) != expected:
            if time.monotonic() > deadline:
                raise StartFailed(f"{process.name}: after {change.__name__} a token is answered with {status}")
            time.sleep(0.01)


def _get(port: int, target: str, token: str, headers: list[tuple[str, str]] | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", target, headers={"authorization": f"Bearer {token}", **dict(headers or [])})
        answer = connection.getresponse()
        return answer.status, answer.read().decode("latin-1")
    except http.client.HTTPException as exc:
        raise OSError(f"not an HTTP answer: {exc!r}") from exc
    finally:
        connection.close()
