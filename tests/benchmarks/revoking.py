"""A backend that revokes without pause: ``python -m tests.benchmarks.revoking PORT PER_SECOND SECONDS``.

Writes one plain SET for each revocation, as many in a millisecond as are due, each with the moment it is written.
"""

from __future__ import annotations

import socket
import sys
import threading
import time

PREFIX = "gateway:deny:session:main:burst-"


def revoke(port: int, per_s: int, seconds: float) -> None:
    """Returns once Redis has answered all of them. Raises OSError if it goes away."""
    total, written = int(per_s * seconds), 0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        answers = threading.Thread(target=_read, args=(connection, total * len(b"+OK\r\n")))
        answers.start()
        started = time.monotonic()
        while written < total:
            time.sleep(0.001)
            due = min(total, int((time.monotonic() - started) * per_s))
            connection.sendall(b"".join(_command(number) for number in range(written, due)))
            written = due
        answers.join()


def _command(number: int) -> bytes:
    parts = (b"SET", f"{PREFIX}{number}".encode(), f"{time.time():.4f}".encode(), b"EX", b"900")
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def _read(connection: socket.socket, count: int) -> None:
    while count > 0 and (chunk := connection.recv(65536)):
        count -= len(chunk)


if __name__ == "__main__":
    revoke(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
