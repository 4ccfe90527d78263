"""Whole processes: workers, their supervisor, signals, and an end that nobody notices."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CONFIG = """
server:
  listen: 127.0.0.1:{port}
  workers: {workers}
  announce: {announce}
  drain: {drain}
admin:
  listen: 127.0.0.1:{admin}
telemetry:
  access_log: {{destination: "{log}"}}
upstreams:
  none: {{endpoints: ["http://127.0.0.1:1"]}}
routes:
  - {{name: all, path: /**, upstream: none, auth: none}}
"""
PATIENCE_S = 45.0  # a second or two on a quiet machine


class Site:
    """One running gateway process tree."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, admin: int) -> None:
        self.process, self.port, self.admin = process, port, admin
        self.connections: list[http.client.HTTPConnection] = []  # closed when the test ends

    def connect(self, admin: bool = False) -> http.client.HTTPConnection:
        """A new client connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin if admin else self.port, timeout=10)
        self.connections.append(connection)
        return connection

    def get(self, path: str, admin: bool = False) -> tuple[int, str]:
        """Status and body; (0, reason) when there was no answer."""
        connection = self.connect(admin)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException) as exc:
            return 0, repr(exc)
        finally:
            connection.close()

    def pids(self) -> set[int]:
        """The processes that answer now."""
        answers = [self.get("/pid") for _ in range(30)]
        return {int(body) for status, body in answers if status == 200}

    def metric(self, line: str) -> float:
        """The value of one line of the exposition, 0 if it is not there."""
        for text in self.get("/metrics", admin=True)[1].splitlines():
            name, _, value = text.rpartition(" ")
            if name == line:
                return float(value)
        return 0.0


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


Start = Callable[..., Site]


@pytest.fixture
def start(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Start]:
    """Starts a gateway around the small application; ends it, whatever the test did."""
    sites: list[Site] = []

    def run(workers: int = 1, announce: str = "0s", drain: str = "5s", log: str = "off", word: str = "") -> Site:
        port, admin = free_port(), free_port()
        path = tmp_path / f"gateway-{port}.yaml"
        path.write_text(CONFIG.format(port=port, admin=admin, workers=workers, announce=announce, drain=drain, log=log))
        with (tmp_path / "stderr").open("a") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.server.applications", str(path), word],
                stderr=stderr,
                text=True,
                start_new_session=True,
                cwd=Path(__file__).parent.parent.parent,
            )
        site = Site(process, port, admin)
        sites.append(site)
        if not word:
            until(lambda: process.poll() is not None or site.get("/")[0] == 200, "it did not start")
            assert process.poll() is None, (tmp_path / "stderr").read_text()
        return site

    yield run
    for site in sites:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(site.process.pid, signal.SIGKILL)  # a session of its own: the workers too
        site.process.wait()
        for connection in site.connections:
            connection.close()


def test_requests_in_flight_are_finished_before_the_end(start: Start) -> None:
    """SIGTERM in the middle of a response: it is completed, new connections are refused, the status is 0."""
    site = start()
    connection = site.connect()
    connection.request("GET", "/slow")
    response = connection.getresponse()
    site.process.terminate()
    until(lambda: site.get("/")[0] == 0, "the listener stayed open")
    assert response.read() == b"ok"
    assert site.process.wait(PATIENCE_S) == 0


def test_readiness_goes_first(start: Start) -> None:
    """During the announcement the gateway is unready and still serves; liveness holds to the end."""
    site = start(announce="700ms")
    assert site.get("/health/ready", admin=True)[0] == 200
    site.process.terminate()
    until(lambda: site.get("/health/ready", admin=True)[0] == 503, "it stayed ready")
    assert json.loads(site.get("/health/ready", admin=True)[1])["status"] == "draining"
    assert site.get("/")[0] == 200
    assert site.get("/health/live", admin=True)[0] == 200
    assert site.process.wait(PATIENCE_S) == 0


def test_streams_are_ended_when_the_time_to_drain_is_over(start: Start) -> None:
    """A response without an end is cut, and the client sees that it is incomplete."""
    site = start(drain="200ms")
    connection = site.connect()
    connection.request("GET", "/endless")
    response = connection.getresponse()
    site.process.terminate()
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    assert site.process.wait(PATIENCE_S) == 0


def test_idle_connections_do_not_delay_the_end(start: Start) -> None:
    """A kept connection without a request is closed at once."""
    site = start(drain="60s")
    connection = site.connect()
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"ok"
    site.process.terminate()
    assert site.process.wait(PATIENCE_S) == 0


def test_an_address_in_use_is_said(start: Start, tmp_path: Path) -> None:
    """A second gateway on the same address ends with status 1 and names the address."""
    site = start()
    path = next(tmp_path.glob("gateway-*.yaml"))
    second = subprocess.run(
        [sys.executable, "-m", "tests.server.applications", str(path)], capture_output=True, text=True, timeout=30
    )
    assert second.returncode == 1
    assert f"127.0.0.1:{site.port}" in second.stderr


def test_workers_share_one_view_of_metrics(start: Start) -> None:
    """Whichever worker is asked, the requests of all are counted."""
    site = start(workers=2)
    until(lambda: len(site.pids()) == 2, "only one worker serves")
    line = 'gateway_requests_total{code="",method="GET",route="small",status="200"}'
    sent = 25
    until(lambda: site.metric("gateway_workers") == 2, "the workers do not see each other")
    time.sleep(1.2)  # the workers share their numbers once a second
    before = site.metric(line)
    for _ in range(sent):
        assert site.get("/")[0] == 200
    everybody = {before + sent}
    until(lambda: {site.metric(line) for _ in range(8)} == everybody, "the workers' views differ")
    assert site.metric('gateway_connections_accepted_total{listener="edge"}') >= before + sent


def test_a_worker_that_dies_is_replaced_and_its_counts_are_kept(start: Start) -> None:
    """The others serve on, a new one comes, and no counter falls back."""
    site = start(workers=2)
    until(lambda: len(site.pids()) == 2, "only one worker serves")
    line = 'gateway_requests_total{code="",method="GET",route="small",status="200"}'
    time.sleep(1.2)  # the workers share their numbers once a second
    before, old = site.metric(line), site.pids()
    site.get("/die")
    until(lambda: len(site.pids()) == 2 and site.pids() != old, "no worker came in its place")
    assert site.metric(line) >= before


def test_a_reload_reaches_every_worker(start: Start, tmp_path: Path) -> None:
    """SIGHUP to the parent is passed on; nothing restarts."""
    site = start(workers=2)
    until(lambda: len(site.pids()) == 2, "only one worker serves")
    pids = site.pids()
    site.process.send_signal(signal.SIGHUP)
    until(lambda: (tmp_path / "stderr").read_text().count("reloaded") == 2, "a worker was not told")
    assert {f"reloaded {pid}" for pid in pids} <= set((tmp_path / "stderr").read_text().splitlines())
    assert site.pids() == pids


def test_all_workers_drain(start: Start) -> None:
    """SIGTERM to the parent lets every worker finish what it has begun."""
    site = start(workers=2)
    connections = [site.connect() for _ in range(8)]
    for connection in connections:
        connection.request("GET", "/slow")
    responses = [connection.getresponse() for connection in connections]
    site.process.terminate()
    assert [response.read() for response in responses] == [b"ok"] * 8
    assert site.process.wait(PATIENCE_S) == 0


def test_workers_do_not_outlive_their_parent(start: Start) -> None:
    """A parent that is killed takes its workers along: nobody would restart or stop them."""
    site = start(workers=2)
    site.process.kill()
    until(lambda: site.get("/")[0] == 0, "workers serve on without a parent")


def test_workers_that_cannot_start_end_the_gateway(start: Start, tmp_path: Path) -> None:
    """An application that cannot be made is not tried again and again."""
    site = start(workers=2, word="broken")
    assert site.process.wait(PATIENCE_S) == 1
    assert "a worker failed to start" in (tmp_path / "stderr").read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_every_request_has_its_line(start: Start, tmp_path: Path, workers: int) -> None:
    """All workers write to one file, one JSON document per line, the last ones when they stop; refusals included."""
    log = tmp_path / "access.log"
    site = start(workers=workers, log=str(log))
    for number in range(40):
        assert site.get(f"/n{number}")[0] == 200
    assert site.get("/bad#fragment")[0] == 400
    site.process.terminate()
    assert site.process.wait(PATIENCE_S) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["path"] for line in lines} >= {f"/n{number}" for number in range(40)}
    assert [line["code"] for line in lines if line["status"] == 400] == ["bad_request"]


def test_a_worker_that_hangs_is_replaced(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that stopped turning serves nobody: the worker is killed and another one started."""
    monkeypatch.setenv("TEST_HUNG_S", "4")  # a busy machine may hold up the healthy one for a second or two
    site = start(workers=2)
    until(lambda: len(site.pids()) == 2, "only one worker serves")
    old = site.pids()
    os.kill(min(old), signal.SIGSTOP)
    until(lambda: max(old) in site.pids() and len(site.pids()) == 2 and site.pids() != old, "nobody took its place")
