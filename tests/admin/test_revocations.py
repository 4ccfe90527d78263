"""The denylist by hand over HTTP: who may, what is there, what changes, and what is on record."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from gateway.admin import create_admin
from gateway.admin.revocations import DenylistApi
from gateway.denylist.intake import Intake
from gateway.telemetry.health import Readiness
from gateway.telemetry.metrics import Scrape
from gateway.telemetry.runtime import Runtime
from tests.denylist.scripted_store import ScriptedStore

NOW = 1_800_000_000.0
SECRET = "the operators' password"
WORD = {"who": "ada@ops", "why": "ticket 17"}


class Desk:
    """An operator's client, the store behind it, and its numbers."""

    def __init__(self, folder: Path) -> None:
        self.store = ScriptedStore()
        self.intake = Intake(self.store, lambda: NOW)
        api = DenylistApi(self.store, self.intake, SECRET.encode(), lambda: frozenset({"main"}), lambda: NOW)
        readiness = Readiness(dict)
        admin = create_admin(readiness, Scrape(Runtime(folder), list), api.routes())
        self.client = TestClient(admin, headers={"authorization": f"Bearer {SECRET}"})

    def add(self, **body: Any) -> Any:
        """A request to deny."""
        return self.client.post("/denylist", json={"kind": "token", "issuer": "main", "id": "t", **WORD, **body})

    def remove(self, path: str, **body: Any) -> Any:
        """A request to deny no more."""
        return self.client.request("DELETE", path, json={**WORD, **body})


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Nothing denied yet."""
    return Desk(tmp_path)


def test_an_entry_is_added_found_listed_and_removed(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Each change has one audit line that says who and why."""
    with caplog.at_level(logging.INFO, "gateway.audit"):
        added = desk.add(id="a/b c", ttl="15m")
        assert added.status_code == 201
        document = {"key": "token:main:a/b c", "kind": "token", "issuer": "main", "id": "a/b c"}
        assert added.json() == document | {"value": "1800000000.000", "ttl_s": 900}
        assert desk.client.get("/denylist/token/main/a/b%20c").json() == document | {"value": "1800000000.000"}
        listed = desk.client.get("/denylist").json()
        assert listed == {"entries": [document | {"value": "1800000000.000", "ttl_s": 900}], "complete": True}
        assert desk.remove("/denylist/token/main/a/b%20c").status_code == 204
        assert desk.remove("/denylist/token/main/a/b%20c").status_code == 404
        assert desk.client.get("/denylist/token/main/a/b%20c").status_code == 404
    said = '"source": "admin_api", "who": "ada@ops", "why": "ticket 17"'
    assert [record.getMessage() for record in caplog.records] == [
        f'revoked {{"key": "token:main:a/b c", {said}, "ttl_s": 900.0}}',
        f'removed {{"key": "token:main:a/b c", {said}}}',
    ]
    [sample] = desk.intake.samples()
    assert (sample.labels, sample.value) == ({"source": "admin_api", "outcome": "accepted"}, 1)


def test_an_issuer_has_no_further_id(desk: Desk) -> None:
    """Its entry denies everything up to now; a day, unless told otherwise."""
    assert desk.add(kind="issuer", id="").json()["ttl_s"] == 86_400
    assert desk.client.get("/denylist/issuer/main").json()["value"] == "1800000000.000"
    assert desk.client.get("/denylist/issuer/main/x").status_code == 400
    assert desk.remove("/denylist/issuer/main").status_code == 204
    assert desk.store.values == {}


def test_a_list_is_narrowed_and_bounded(desk: Desk) -> None:
    """By kind and issuer; a list that was cut says so."""
    desk.store.values = {"token:main:a": b"1", "token:other:b": b"1", "session:main:c": b"1", "odd": b"1"}

    def keys(query: str) -> list[str]:
        return [entry["key"] for entry in desk.client.get(f"/denylist?{query}").json()["entries"]]

    assert keys("") == ["token:main:a", "token:other:b", "session:main:c"]
    assert keys("kind=token") == ["token:main:a", "token:other:b"]
    assert keys("kind=token&issuer=other") == ["token:other:b"]
    assert desk.client.get("/denylist?limit=2").json()["complete"] is False
    assert desk.client.get("/denylist?limit=3").json()["complete"] is True
    for limit in ("0", "-1", "x", "10001", "9" * 5000, "²"):
        assert desk.client.get("/denylist", params={"limit": limit}).status_code == 400


@pytest.mark.parametrize("credential", ["", "Bearer", "Bearer wrong", f"Basic {SECRET}", SECRET, f"Bearer {SECRET}x"])
def test_only_with_the_password(desk: Desk, credential: str) -> None:
    """401 for everything, before anything is looked at."""
    desk.client.headers["authorization"] = credential
    answers = [
        desk.client.get("/denylist"),
        desk.client.get("/denylist/token/main/t"),
        desk.add(),
        desk.remove("/denylist/token/main/t"),
    ]
    assert [answer.status_code for answer in answers] == [401] * 4
    assert all(answer.headers["www-authenticate"] == "Bearer" for answer in answers)
    assert desk.store.trips == []
    assert desk.client.get("/health/live").status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "user"},
        {"kind": 5},
        {"issuer": "other"},
        {"issuer": ""},
        {"id": ""},
        {"id": "x" * 5000},
        {"ttl": "soon"},
        {"ttl": "0s"},
        {"ttl": 900},
        {"who": ""},
        {"why": " "},
        {"why": None},
        {"unknown": 1},
    ],
)
def test_what_cannot_be_an_entry_is_refused_with_the_reason(desk: Desk, changes: dict[str, Any]) -> None:
    """Nothing is stored."""
    answer = desk.add(**changes)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert desk.store.values == {}


def test_bodies_are_bounded_json(desk: Desk) -> None:
    """And say that they are JSON, so that a web page cannot send them."""
    post = desk.client.post
    assert post("/denylist", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert post("/denylist", content=b"{}").status_code == 415
    json_type = {"content-type": "application/json; charset=utf-8"}
    assert post("/denylist", content=b"[]", headers=json_type).status_code == 400
    assert post("/denylist", content=b"{", headers=json_type).status_code == 400
    assert post("/denylist", content=b"[" * 16_000, headers=json_type).status_code == 400
    assert post("/denylist", content=b" " * 17_000, headers=json_type).status_code == 413
    assert desk.remove("/denylist/token/main/t", who="").status_code == 400


def test_a_store_that_is_away_is_no_empty_store(desk: Desk) -> None:
    """503, and nothing is on record."""
    desk.store.broken = True
    for answer in (
        desk.client.get("/denylist"),
        desk.client.get("/denylist/token/main/t"),
        desk.add(),
        desk.remove("/denylist/token/main/t"),
    ):
        assert (answer.status_code, answer.json()) == (503, {"error": "the store is not available"})
        assert answer.headers["retry-after"]
    assert [sample.labels["outcome"] for sample in desk.intake.samples()] == ["failed"]


def test_nothing_is_cached_on_the_way(desk: Desk) -> None:
    """Entries name users."""
    for answer in (desk.client.get("/denylist"), desk.add(), desk.remove("/denylist/token/main/t"), desk.add(kind="")):
        assert answer.headers["cache-control"] == "no-store"
