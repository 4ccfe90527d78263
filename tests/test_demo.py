"""`gateway demo`: the first thing a newcomer runs must work, and leave nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def _demo(folder: Path, *argv: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "demo", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    )


def test_the_demo_tells_its_story(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """Refused, registered, let through with an identity the client did not choose, refreshed, logged out, refused."""
    port = free_port()
    with _demo(tmp_path, "--once", "--port", str(port)) as demo:
        out, err = demo.communicate(timeout=90)
    assert demo.returncode == 0, out + err
    assert f"curl -i http://127.0.0.1:{port}/api/hello" in out
    parts = re.split(r"^--- \d: ", out, flags=re.MULTILINE)[1:]
    assert [part[:3] for part in parts] == ["401", "201", "200", "200", "204", "401"]
    assert json.loads(parts[0][3:])["code"] == "token_missing"
    seen = dict(line.split(": ", 1) for line in json.loads(parts[2][3:])["headers"])
    assert (seen["x-user-name"], seen["x-user-email"]) == ("alice", "alice@example.com")
    assert re.fullmatch(r"[0-9a-f]{32}", seen["x-user-id"])
    assert "authorization" not in seen
    assert json.loads(parts[5][3:])["code"] == "token_revoked"
    assert list(tmp_path.glob("gateway-demo-*")) == []


def test_the_curls_work_as_pasted(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """The printed commands, run by a shell while the demo stands, are answered as the text beside them says."""
    with _demo(tmp_path, "--port", str(free_port())) as demo:
        assert demo.stdout is not None
        lines: list[str] = []
        for line in demo.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        pasted = [line for line in lines if re.match(r"curl |[A-Z]+=\$\(", line)]
        assert sum("curl " in line for line in pasted) == 8
        script = "".join(pasted).replace("curl ", "curl -sS --noproxy '*' ")
        # A person is slower than the milliseconds that a revocation takes.
        script = re.sub(r"(/logout .*\n)", r"\1sleep 0.5\n", script)
        answer = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30, check=True).stdout
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=30)
    assert re.findall(r"^HTTP/1.1 (\d+)", answer, flags=re.MULTILINE) == ["401", "201", "200", "200", "204", "401"]
    assert answer.count('"x-user-name: alice"') == 2
    assert "root" not in answer
    assert demo.returncode == 0
    assert list(tmp_path.glob("gateway-demo-*")) == []


def test_a_taken_port_is_replaced_by_a_free_one(tmp_path: Path) -> None:
    """Something else on port 8080 does not keep anybody from the demo."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with _demo(tmp_path, "--once", "--port", str(port)) as demo:
            out, err = demo.communicate(timeout=90)
    assert demo.returncode == 0, out + err
    assert f"http://127.0.0.1:{port}/" not in out
