"""Ports that no other test, and no outgoing connection, is given meanwhile.

A server that can bind port 0 should. For the others (redis-server, a config file that must name its port beforehand)
"bind 0, read the number, close, use it" is a race: the kernel may give the number away in between. Ports below the
kernel's own range are never given away, and a locked file per port keeps parallel test runs apart.
"""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

# Outside /proc there is no range to read; IANA's is the usual one.
_IANA_EPHEMERAL_START = 49152
_FIRST = 12_000

# The operating system's randomness: pytest-randomly seeds the shared generator alike in every worker.
_random = random.SystemRandom()
# Open files hold the locks until this process ends.
_reservations: dict[int, int] = {}


def _ephemeral_start() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _IANA_EPHEMERAL_START


def _lock(port: int) -> int | None:
    folder = Path(tempfile.gettempdir()) / f"gateway-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # Inherited by no child, so that a server which outlives its test does not keep the lock.
    descriptor = os.open(folder / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _is_bindable(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def reserve_port() -> int:
    """A TCP port of 127.0.0.1, free now and reserved for this process until it ends or gives it back.

    Raises `RuntimeError` if none of 200 picks is free.
    """
    for _ in range(200):
        port = _random.randrange(_FIRST, _ephemeral_start())
        descriptor = _lock(port)
        if descriptor is None:
            continue
        if _is_bindable(port):
            _reservations[port] = descriptor
            return port
        os.close(descriptor)
    raise RuntimeError("no free TCP port on 127.0.0.1")


def release_port(port: int) -> None:
    """Gives a reserved port back; a port that is not reserved is left alone."""
    descriptor = _reservations.pop(port, None)
    if descriptor is not None:
        os.close(descriptor)
