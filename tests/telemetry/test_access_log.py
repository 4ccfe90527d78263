"""One line per request: what it says, what it cannot be made to say, and that it never makes anybody wait."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.schema import AccessLog as AccessLogConfig
from gateway.telemetry import access_log
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.exchange import Exchange, is_clean

NOW = 1_700_000_000.1239


def _exchange(**facts: Any) -> Exchange:
    known: dict[str, Any] = {
        "started": 1.0,
        "method": "GET",
        "host": "api.example",
        "path": "/api/orders",
        "client": "192.0.2.7",
        "request_id": "r1",
        "status": 200,
        "duration_s": 0.0021,
    }
    return Exchange(**(known | facts))


def _log(destination: str = "off", **settings: Any) -> AccessLog:
    return AccessLog(AccessLogConfig(destination=destination, **settings), b"k" * 32, clock=lambda: NOW)


def _line(exchange: Exchange, **settings: Any) -> dict[str, Any]:
    line = _log(**settings).render(exchange, NOW)
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    document: dict[str, Any] = json.loads(line)
    return document


def test_a_complete_line() -> None:
    """Every fact of a proxied request, with times in milliseconds."""
    line = _line(
        _exchange(
            route="api",
            issuer="main",
            subject="user-17",
            upstream="orders",
            endpoint="127.0.0.1:9001",
            connect_s=0.0005,
            head_s=0.0015,
            bytes_in=3,
            bytes_out=5,
            retried=True,
        )
    )
    assert line.pop("subject") not in ("", "user-17")
    assert line == {
        "time": "2023-11-14T22:13:20.123Z",
        "request_id": "r1",
        "client": "192.0.2.7",
        "method": "GET",
        "host": "api.example",
        "path": "/api/orders",
        "route": "api",
        "status": 200,
        "duration_ms": 2.1,
        "bytes_in": 3,
        "bytes_out": 5,
        "upstream": "orders",
        "endpoint": "127.0.0.1:9001",
        "head_ms": 1.5,
        "connect_ms": 0.5,
        "retried": True,
        "issuer": "main",
    }


def test_a_refused_request() -> None:
    """The code that the client saw and the cause that it did not; nothing of what never happened."""
    line = _line(_exchange(status=401, code="token_invalid", cause="bad signature"))
    assert (line["code"], line["cause"]) == ("token_invalid", "bad signature")
    assert not {"upstream", "endpoint", "issuer", "subject", "head_ms", "connect_ms", "retried"} & line.keys()


@given(st.text(), st.text(), st.text(), st.text())
def test_no_client_can_write_a_second_line(host: str, path: str, request_id: str, subject: str) -> None:
    """Whatever a request holds, its line is one JSON document on one line of ASCII."""
    log = _log(subject="plain")
    line = log.render(
        _exchange(host=host, path=path, request_id=request_id, issuer="main", subject=subject, client=host), NOW
    )
    assert line.isascii()
    assert line.count("\n") == 1
    assert json.loads(line)["path"].startswith(path[:1000])


def test_long_texts_are_cut() -> None:
    """A path of 30 KB does not become a line of 30 KB."""
    assert len(_log().render(_exchange(path="/" + "a" * 30_000), NOW)) < 2_000


@pytest.mark.parametrize(("setting", "shown"), [("plain", "user-17"), ("none", None)])
def test_the_subject_appears_as_configured(setting: str, shown: str | None) -> None:
    """As it is, or not at all."""
    assert _line(_exchange(issuer="main", subject="user-17"), subject=setting).get("subject") == shown


def test_a_digest_is_the_same_for_all_workers_of_one_run_only() -> None:
    """Equal keys give equal digests; another start of the gateway, another key, other digests."""
    exchange = _exchange(issuer="main", subject="user-17")
    config = AccessLogConfig(destination="off")
    first, second, other = (
        json.loads(AccessLog(config, key).render(exchange, NOW))["subject"] for key in (b"k", b"k", b"other")
    )
    assert first == second != other
    assert len(first) == 16


async def _until_written(path: Path, lines: int) -> list[str]:
    async with asyncio.timeout(10):
        while not path.exists() or path.read_text().count("\n") < lines:
            await asyncio.sleep(0.01)
    return path.read_text().splitlines()


async def _stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.asyncio
async def test_lines_are_written_in_order_and_the_last_ones_too(tmp_path: Path) -> None:
    """What was recorded before the end is in the file after it."""
    path = tmp_path / "access.log"
    log = _log(str(path))
    task = asyncio.create_task(log.run())
    await asyncio.sleep(0)
    for number in range(1000):
        log.record(_exchange(path=f"/{number}"))
    await _stop(task)
    assert [json.loads(line)["path"] for line in path.read_text().splitlines()] == [f"/{n}" for n in range(1000)]


@pytest.mark.asyncio
async def test_a_file_that_was_moved_away_is_opened_again(tmp_path: Path) -> None:
    """Log rotation needs no signal: what follows a rename is in a new file."""
    path = tmp_path / "access.log"
    log = _log(str(path))
    task = asyncio.create_task(log.run())
    log.record(_exchange(path="/old"))
    await _until_written(path, 1)
    path.rename(tmp_path / "access.log.1")
    log.record(_exchange(path="/new"))
    assert '"/new"' in (await _until_written(path, 1))[0]
    await _stop(task)


@pytest.mark.asyncio
async def test_a_pipe_that_nobody_reads_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop goes on, lines are dropped and counted, and the end comes all the same."""
    monkeypatch.setattr(access_log, "PENDING_LINES", 100)
    monkeypatch.setattr(access_log, "CLOSE_S", 0.2)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        log = _log(str(path))
        task = asyncio.create_task(log.run())
        slowest = 0.0
        for _ in range(400):
            before = time.monotonic()
            for _ in range(25):
                log.record(_exchange())
            slowest = max(slowest, time.monotonic() - before)
            await asyncio.sleep(0)
            if log.dropped:
                break
            await asyncio.sleep(0.005)
        assert log.dropped > 0
        assert slowest < 1.0, "recording waited for the pipe"
        await asyncio.wait_for(_stop(task), 10)
    finally:
        os.close(reader)


@pytest.mark.asyncio
async def test_a_disk_that_fails_is_counted(tmp_path: Path) -> None:
    """Lines that cannot be written are lost, counted, and do not end the log: it goes on when the disk does."""
    folder = tmp_path / "missing"
    log = _log(str(folder / "access.log"))
    task = asyncio.create_task(log.run())
    log.record(_exchange(path="/lost"))
    async with asyncio.timeout(10):
        while {sample.name: sample.value for sample in log.samples()}["gateway_access_log_dropped_total"] < 1:
            await asyncio.sleep(0.01)
    folder.mkdir()
    log.record(_exchange(path="/kept"))
    assert '"/kept"' in (await _until_written(folder / "access.log", 1))[0]
    await _stop(task)


@pytest.mark.asyncio
async def test_off_means_off() -> None:
    """Nothing is rendered, nothing is kept, nothing runs."""
    log = _log("off")
    await log.run()
    log.record(_exchange())
    assert log.recorded == 0


def test_a_websocket_says_how_it_was_closed() -> None:
    """Its close code stands beside the status; a request has none."""
    line = _line(_exchange(status=101, close_code=1008, code="token_revoked"))
    assert (line["status"], line["close_code"], line["code"]) == (101, 1008, "token_revoked")
    assert "close_code" not in _line(_exchange())


def _plainly(e: Exchange) -> str:
    """The line as one would write it without haste."""

    def ms(seconds: float) -> str:
        microseconds = int(seconds * 1e6 + 0.5)
        return f"{microseconds // 1000}.{microseconds % 1000:03d}"

    def cut(text: str) -> str:
        return text if len(text) <= 1024 else text[:1024] + "…"

    members = [
        ("time", json.dumps("2023-11-14T22:13:20.123Z")),
        ("request_id", json.dumps(e.request_id[:1024])),
        *((name, json.dumps(getattr(e, name))) for name in ("client", "method")),
        *((name, json.dumps(cut(getattr(e, name)))) for name in ("host", "path")),
        ("route", json.dumps(e.route)),
        ("status", str(e.status)),
        ("duration_ms", ms(e.duration_s)),
        ("bytes_in", str(e.bytes_in)),
        ("bytes_out", str(e.bytes_out)),
    ]
    if e.upstream:
        members += [("upstream", json.dumps(e.upstream)), ("endpoint", json.dumps(e.endpoint))]
        members += [("head_ms", ms(e.head_s))] * (e.head_s >= 0) + [("connect_ms", ms(e.connect_s))] * (
            e.connect_s >= 0
        )
        members += [("retried", "true")] * e.retried
    if e.issuer:
        members += [("issuer", json.dumps(e.issuer))]
        members += [("subject", json.dumps(e.subject[:1024]))] * bool(e.subject)
    members += [("close_code", str(e.close_code))] * bool(e.close_code)
    members += [("code", json.dumps(e.code))] * bool(e.code)
    members += [("cause", json.dumps(e.cause[:1024]))] * bool(e.cause)
    return "{" + ",".join(f'"{name}":{value}' for name, value in members) + "}\n"


_TEXT = st.text() | st.sampled_from(["a" * 1024, "é" * 1025, "\x7f", '"', "\\", "\ud800", "\U0001f511"])
_SECONDS = st.sampled_from([-1.0, 0.0, 0.0000004, 0.0009996, 0.9999999, 1.0, 86_400.5]) | st.floats(0, 1e5)
_COUNT = st.sampled_from([0, 1, 999, 1000]) | st.integers(0, 2**63)


@given(
    st.fixed_dictionaries(
        dict.fromkeys(("host", "path", "client", "request_id", "route", "upstream", "endpoint"), _TEXT)
        | dict.fromkeys(("issuer", "subject", "code", "cause"), _TEXT)
        | dict.fromkeys(("duration_s", "head_s", "connect_s"), _SECONDS)
        | dict.fromkeys(("bytes_in", "bytes_out"), _COUNT)
        | {"status": st.integers(0, 1100), "close_code": st.integers(0, 5000), "retried": st.booleans()}
    )
)
def test_the_quick_way_writes_what_the_plain_way_writes(facts: dict[str, Any]) -> None:
    """Byte for byte, whatever the facts; where request id and path are clean, with that knowledge and without it."""
    exchange = _exchange(**facts)
    log = _log(subject="plain")
    assert log.render(exchange, NOW) == _plainly(exchange)
    exchange.is_clean = is_clean((exchange.path + exchange.request_id).encode("utf-8", "backslashreplace"))
    assert log.render(exchange, NOW) == _plainly(exchange)


@given(st.text(max_size=20) | st.text('az "\\\x1f\x7f/~%', max_size=20))
def test_a_clean_text_is_what_json_shows_as_it_is(text: str) -> None:
    """Neither more nor less."""
    assert is_clean(text.encode()) == (json.dumps(text) == f'"{text}"')


def test_a_line_says_the_second_it_was_written_in() -> None:
    """The part that is remembered follows the clock, forwards and backwards."""
    log = _log()
    for moment, shown in (
        (1.0, "00:00:01.000"),
        (1.9999, "00:00:01.999"),
        (2.0, "00:00:02.000"),
        (0.5, "00:00:00.500"),
    ):
        assert json.loads(log.render(_exchange(), moment))["time"] == f"1970-01-01T{shown}Z"
