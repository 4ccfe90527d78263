"""Generations: built in full or not at all, and what one lends to the next."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.config.schema import Config
from gateway.denylist.intake import Intake
from gateway.generation import Generation, Surroundings, UnusableConfig, build
from gateway.inlets.mount import Mount
from gateway.upstream.peer import Peers
from tests.certificates import make_certificate
from tests.denylist.scripted_store import ScriptedStore

AROUND = Surroundings(None, Peers(()), lambda _: None)


def config(**changes: Any) -> Config:
    """One issuer, two upstreams, two routes; sections are replaced by name."""
    sections: dict[str, Any] = {
        "issuers": {
            "main": {"issuer": "https://i.example", "secret": "s" * 32, "audience": ["api"], "algorithms": ["HS256"]}
        },
        "identity": {"headers": {"x-user-id": "sub"}},
        "upstreams": {"a": {"endpoints": ["http://127.0.0.1:9001"]}, "b": {"endpoints": ["http://127.0.0.1:9002"]}},
        "routes": [
            {"name": "one", "path": "/one/**", "upstream": "a"},
            {"name": "two", "path": "/two", "upstream": "b"},
        ],
        **changes,
    }
    return Config.model_validate(sections)


def after(previous: Generation, **changes: Any) -> Generation:
    """The generation of a changed configuration."""
    return build(config(**changes), AROUND, previous)


def test_what_did_not_change_is_the_same_object() -> None:
    """Keys stay warm, connections open, tokens and rendered headers remembered."""
    first = build(config(), AROUND, None)
    second = after(first, routes=[{"name": "three", "path": "/3", "upstream": "a"}])
    assert second.keys["main"] is first.keys["main"]
    assert second.upstreams["a"] is first.upstreams["a"]
    assert second.verifier is first.verifier
    assert second.identity is first.identity
    assert second.pipeline is not first.pipeline


def test_a_changed_section_is_built_anew_and_its_neighbours_are_kept() -> None:
    """One upstream's timeouts have nothing to do with another's connections."""
    first = build(config(), AROUND, None)
    changed = {"a": {"endpoints": ["http://127.0.0.1:9003"]}, "b": {"endpoints": ["http://127.0.0.1:9002"]}}
    second = after(first, upstreams=changed)
    assert second.upstreams["a"] is not first.upstreams["a"]
    assert second.upstreams["b"] is first.upstreams["b"]


def test_changed_rules_forget_what_was_verified_under_the_old_ones() -> None:
    """A token that was good for yesterday's audience has to prove itself again."""
    first = build(config(), AROUND, None)
    issuer = {"issuer": "https://i.example", "secret": "s" * 32, "audience": ["other"], "algorithms": ["HS256"]}
    second = after(first, issuers={"main": issuer})
    assert second.verifier is not first.verifier
    assert second.verifier.cache is not first.verifier.cache


def test_a_file_that_cannot_be_read_is_an_unusable_configuration(tmp_path: Path) -> None:
    """Nothing is built halfway: the error names the section and nothing else has happened."""
    upstreams = {
        "a": {"endpoints": ["https://127.0.0.1:9001"], "tls": {"ca": str(tmp_path / "absent.pem")}},
        "b": {"endpoints": ["http://127.0.0.1:9002"]},
    }
    with pytest.raises(UnusableConfig, match=r"upstreams\.a"):
        build(config(upstreams=upstreams), AROUND, None)


def test_a_renewed_certificate_is_a_change_although_the_file_says_the_same(tmp_path: Path) -> None:
    """SIGHUP after a renewal must not go on with the old authority."""
    authority, _ = make_certificate(tmp_path)
    upstreams = {
        "a": {"endpoints": ["https://127.0.0.1:9001"], "tls": {"ca": str(authority)}},
        "b": {"endpoints": ["http://127.0.0.1:9002"]},
    }
    first = build(config(upstreams=upstreams), AROUND, None)
    assert after(first, upstreams=upstreams).upstreams["a"] is first.upstreams["a"]
    authority.write_text(authority.read_text() + "\n")
    assert after(first, upstreams=upstreams).upstreams["a"] is not first.upstreams["a"]


@pytest.mark.asyncio
async def test_a_generation_is_drained_when_its_last_request_has_ended() -> None:
    """However many requests it still has, and at once if it has none."""
    generation = build(config(), AROUND, None)
    await asyncio.wait_for(generation.drained(), 1)
    generation.in_flight = 2
    waiting = asyncio.create_task(generation.drained())
    await asyncio.sleep(0)
    generation.leave()
    await asyncio.sleep(0)
    assert not waiting.done()
    generation.leave()
    await asyncio.wait_for(waiting, 1)


@pytest.mark.asyncio
async def test_a_generation_waits_for_exchanges_that_outlive_their_client() -> None:
    """Their upstream must not be closed under them."""
    generation = build(config(), AROUND, None)
    go_on = asyncio.Event()

    async def exchange() -> None:
        await go_on.wait()

    generation.outliving.add(asyncio.create_task(exchange()))
    waiting = asyncio.create_task(generation.drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    go_on.set()
    await asyncio.wait_for(waiting, 1)


def test_idempotency_without_a_store_needs_a_restart() -> None:
    """A changed file that names the first store cannot be used as it is; a route without it has no such step."""
    routes = [{"name": "one", "path": "/one", "upstream": "a", "idempotency": "optional"}]
    upstreams = {"a": {"endpoints": ["http://127.0.0.1:9001"]}}
    with pytest.raises(UnusableConfig, match="restart"):
        build(config(routes=routes, upstreams=upstreams), AROUND, None)
    plain = build(config(), AROUND, None)
    assert plain.pipeline.routes.match("GET", b"a", b"/two").idempotency is None


def test_inlets_cost_nothing_where_no_issuer_has_any() -> None:
    """Requests enter at the pipeline itself; with inlets, at what stands in front of it."""
    around = Surroundings(None, Peers(()), lambda _: None, intake=Intake(ScriptedStore()))
    issuer = {"issuer": "https://i.example", "secret": "s" * 32, "audience": ["api"], "algorithms": ["HS256"]}
    plain = build(config(issuers={"main": issuer}), around, None)
    assert plain.entry is plain.pipeline
    accepts = {"revocation": {"backchannel_logout": {"audience": ["app"]}}}
    denylist = {"store": "redis://127.0.0.1:1/0"}
    built = build(config(issuers={"main": {**issuer, **accepts}}, denylist=denylist), around, plain)
    assert isinstance(built.entry, Mount)


def test_status_lists_are_kept_while_their_issuer_is() -> None:
    """A swap that changes something else fetches no list again."""
    issuer = {"issuer": "https://i.example", "secret": "s" * 32, "audience": ["api"], "algorithms": ["HS256"]}
    asks = {**issuer, "revocation": {"status_list": True}}
    first = build(config(issuers={"main": asks, "other": {**issuer, "issuer": "https://o.example"}}), AROUND, None)
    assert list(first.statuses) == ["main"]
    assert first.statuses["main"] in first.resources()
    same = build(config(issuers={"main": asks}), AROUND, first)
    assert same.statuses == first.statuses
    changed = build(config(issuers={"main": {**asks, "leeway": "1s"}}), AROUND, same)
    assert changed.statuses["main"] is not same.statuses["main"]
    assert build(config(issuers={"main": issuer}), AROUND, changed).statuses == {}


def test_a_transmitters_keys_are_kept_while_their_issuer_is() -> None:
    """They run beside the issuer's own, and only where the transmitter has some."""
    issuer: dict[str, Any] = {"issuer": "https://i.example", "audience": ["api"], "algorithms": ["ES256"]}
    signals = {"revocation": {"shared_signals": {"audience": ["a"], "discovery": True}}}
    denylist = {"store": "redis://127.0.0.1:1/0"}
    issuers = {"main": {**issuer, **signals}, "other": {**issuer, "issuer": "https://o.example"}}
    first = build(config(issuers=issuers, denylist=denylist), AROUND, None)
    assert list(first.transmitters) == ["main"]
    assert first.transmitters["main"] in first.resources()
    assert first.transmitters["main"] is not first.keys["main"]
    same = build(config(issuers={"main": issuers["main"]}, denylist=denylist), AROUND, first)
    assert same.transmitters["main"] is first.transmitters["main"]
    changed = build(config(issuers={"main": {**issuers["main"], "leeway": "1s"}}, denylist=denylist), AROUND, same)
    assert changed.transmitters["main"] is not same.transmitters["main"]
    assert build(config(issuers={"main": issuer}), AROUND, changed).transmitters == {}


def test_what_holds_a_token_for_one_route_is_removed_on_every_route() -> None:
    """A browser sends the cookie everywhere; another route's upstream must not get the token by that."""
    issuer = {"issuer": "https://i.example", "secret": "s" * 32, "audience": ["api"], "algorithms": ["HS256"]}
    routes = [
        {"name": "one", "path": "/1", "upstream": "a", "credentials": {"cookie": "session", "query": "t"}},
        {"name": "two", "path": "/2", "upstream": "b"},
        {"name": "open", "path": "/3", "upstream": "b", "auth": "none"},
    ]
    built = build(config(routes=routes, issuers={"main": {**issuer, "credentials": {"cookie": "app"}}}), AROUND, None)
    peer = Peers(()).resolve("192.0.2.1", "http", b"h", 80, [])
    for path in (b"/1", b"/2", b"/3"):
        route = built.pipeline.routes.match("GET", b"h", path)
        assert route.dropped_queries == {b"t"}
        passed, _ours = route.headers.build([(b"cookie", b"session=x; a=1; app=y")], b"", peer, b"0" * 32)
        assert passed == [(b"cookie", b"a=1")]


def test_a_route_decides_about_staleness_before_the_denylist_does() -> None:
    """The route's word counts, else the denylist's, and without a denylist nothing is stale."""
    routes = [
        {"name": "one", "path": "/1", "upstream": "a", "denylist": {"when_stale": "allow"}},
        {"name": "two", "path": "/2", "upstream": "a"},
    ]
    strict = build(config(routes=routes, denylist={"store": "redis://127.0.0.1:1/0"}), AROUND, None)
    assert [strict.pipeline.routes.match("GET", b"h", path).refuses_stale for path in (b"/1", b"/2")] == [False, True]
    without = build(config(routes=routes), AROUND, None)
    assert not without.pipeline.routes.match("GET", b"h", b"/2").refuses_stale
