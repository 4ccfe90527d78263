"""The denylist's specification: what holds whichever store is configured.

Each test runs against Redis standalone, over a Unix socket and over TLS, behind a Sentinel and as a Cluster, both
without and with TLS, and against SQLite.
"""

import time
from pathlib import Path

import pytest

from gateway.denylist.grammar import make_entry
from tests.denylist.conftest import Follow, eventually
from tests.denylist.deployments import Site

pytestmark = pytest.mark.asyncio

ODD_IDS = ("a:b:c", "with space", "{tag}rest", "{}x", "*?[a]", "üñí→☃", "a/b+c==", "x" * 500)


async def test_what_was_there_before_the_gateway_is_denied_from_its_first_check(site: Site, follow: Follow) -> None:
    """A load precedes the first claim to be loaded."""
    for number in range(30):
        site.write(f"token:main:t{number}", ttl_s=60)
    gateway = await follow(site.config())
    assert len(gateway.replica) == 30
    assert all(gateway.denies(f"t{number}") for number in range(30))
    assert not gateway.denies("t30")
    assert gateway.replica.health()[0]


@pytest.mark.parametrize("kind", ["token", "session", "subject", "client", "key", "issuer"])
async def test_every_kind_reaches_the_gateway_and_leaves_again(site: Site, follow: Follow, kind: str) -> None:
    """One plain write by any program denies; deleting the key lets the same token pass again."""
    gateway = await follow(site.config())
    key = "issuer:main" if kind == "issuer" else f"{kind}:main:an-id"
    now = time.time()

    def denied() -> str | None:
        return gateway.replica.find("main", "an-id", "an-id", "an-id", "an-id", "an-id", now - 60, time.time())

    site.write(key, f"{now:.0f}", ttl_s=60)
    await eventually(lambda: denied() == kind)
    site.erase(key)
    await eventually(lambda: denied() is None)


async def test_a_user_signed_out_may_sign_in_again(site: Site, follow: Follow) -> None:
    """The value of a subject's entry is the moment up to which tokens are denied; a later value moves it."""
    gateway = await follow(site.config())

    def denied(issued_at: float | None) -> bool:
        return gateway.replica.find("main", None, None, "ada", None, None, issued_at, time.time()) == "subject"

    site.write("subject:main:ada", "1700000000", ttl_s=60)
    await eventually(lambda: denied(1_700_000_000))
    assert denied(None)
    assert not denied(1_700_000_001)
    site.write("subject:main:ada", "1700000500", ttl_s=60)
    await eventually(lambda: denied(1_700_000_500))
    assert not denied(1_700_000_501)


async def test_a_value_that_is_no_moment_denies_every_token_of_the_user(site: Site, follow: Follow) -> None:
    """When unsure, refuse."""
    gateway = await follow(site.config())
    site.write("subject:main:ada", "yes", ttl_s=60)
    await eventually(lambda: gateway.replica.find("main", None, None, "ada", None, None, 9e9, time.time()) == "subject")


async def test_an_entry_leaves_when_its_time_is_over(site: Site, follow: Follow) -> None:
    """Nobody deletes it, and nobody asks for it in the store."""
    gateway = await follow(site.config())
    site.write("token:main:short", ttl_s=0.4)
    await eventually(lambda: gateway.denies("short"))
    await eventually(lambda: not gateway.denies("short"), 5)


async def test_an_entry_without_end_stays(site: Site, follow: Follow) -> None:
    """No TTL means until somebody deletes it."""
    gateway = await follow(site.config())
    site.write("token:main:forever")
    await eventually(lambda: gateway.denies("forever"))
    assert gateway.denies("forever", time.time() + 1e9)


@pytest.mark.parametrize("ident", ODD_IDS)
async def test_any_id_can_be_denied(site: Site, follow: Follow, ident: str) -> None:
    """Colons, braces, patterns, spaces and letters of any script mean nothing to the store."""
    gateway = await follow(site.config())
    await gateway.store.add(make_entry("token", "main", ident, now=time.time(), ttl_s=60))
    await eventually(lambda: gateway.denies(ident))
    again = await follow(site.config())
    assert again.denies(ident)


async def test_the_commands_agree_with_one_another(site: Site, follow: Follow) -> None:
    """What is added can be listed and looked up, and is removed once."""
    gateway = await follow(site.config())
    now = time.time()
    first = make_entry("token", "main", "t1", now=now, ttl_s=60)
    second = make_entry("subject", "other", "ada", now=now)
    await gateway.store.add(first)
    await gateway.store.add(second)
    listed = {entry.key: entry async for entry in gateway.store.entries()}
    assert listed.keys() == {first.key, second.key}
    assert listed[first.key].value == f"{now:.3f}"
    assert 55 < (listed[first.key].ttl_s or 0) <= 60
    assert listed[second.key].ttl_s is None
    assert [entry.key async for entry in gateway.store.entries(kind="subject")] == [second.key]
    assert [entry.key async for entry in gateway.store.entries(issuer="main")] == [first.key]
    values = await gateway.store.lookup([second.key, "token:main:absent", first.key])
    assert values == [f"{now:.3f}".encode(), None, f"{now:.3f}".encode()]
    assert await gateway.store.remove(first.key)
    assert not await gateway.store.remove(first.key)
    assert await gateway.store.lookup([first.key]) == [None]


async def test_a_shorter_or_longer_life_replaces_the_former(site: Site, follow: Follow) -> None:
    """The last write counts."""
    gateway = await follow(site.config())
    site.write("token:main:t", ttl_s=60)
    await eventually(lambda: gateway.denies("t"))
    site.write("token:main:t", ttl_s=600)
    await eventually(lambda: gateway.denies("t", time.time() + 300))
    site.write("token:main:t", ttl_s=60)
    await eventually(lambda: not gateway.denies("t", time.time() + 300))


async def test_keys_of_others_are_left_alone(site: Site, follow: Follow) -> None:
    """Another prefix is not ours; what is under ours and is no entry is counted and ignored."""
    site.write("token:main:t", prefix="other:")
    site.write("tokens:main:t")
    site.write("token:main")
    site.write("token:main:mine")
    gateway = await follow(site.config())
    assert len(gateway.replica) == 1
    assert gateway.replica.status.counts["ignored_keys"] == 2


async def test_a_prefix_may_look_like_a_pattern(site: Site, follow: Follow) -> None:
    """It is compared byte for byte, in loads as in changes."""
    site.write("token:main:before", prefix="d[0-9]*:")
    site.write("token:main:foreign", prefix="d1:")
    gateway = await follow(site.config(prefix="d[0-9]*:"))
    site.write("token:main:after", prefix="d[0-9]*:")
    await eventually(lambda: gateway.denies("after"))
    assert gateway.denies("before")
    assert len(gateway.replica) == 2


async def test_two_gateways_hear_of_the_same_revocation(site: Site, follow: Follow) -> None:
    """And each measures how long it took from the moment that the writer wrote down."""
    first, second = await follow(site.config()), await follow(site.config())
    await first.store.add(make_entry("token", "main", "t", now=time.time(), ttl_s=60))
    await eventually(lambda: first.denies("t") and second.denies("t"))
    for gateway in (first, second):
        measured = {sample.name: sample.value for sample in gateway.replica.samples() if not sample.labels}
        assert measured["gateway_denylist_propagation_seconds_count"] == 1
        assert measured["gateway_denylist_apply_seconds_count"] >= 1


async def test_contact_is_kept_while_nothing_happens(site: Site, follow: Follow) -> None:
    """A quiet store is not a stale one."""
    gateway = await follow(site.config(max_staleness="400ms"))
    loaded_at = time.monotonic()
    await eventually(lambda: gateway.replica.staleness_s(loaded_at + 1.0) < 0.5)
    assert not gateway.replica.is_stale(time.monotonic())


async def test_everything_deleted_at_once_is_forgotten(site: Site, follow: Follow) -> None:
    """Deleting while the gateway looks on is meant."""
    for number in range(20):
        site.write(f"token:main:t{number}", ttl_s=60)
    gateway = await follow(site.config())
    site.empty()
    await eventually(lambda: len(gateway.replica) == 0)
    assert site.ttl_s("token:main:t1") is None


async def test_what_was_deleted_while_a_gateway_was_away_is_forgotten(
    site: Site, follow: Follow, tmp_path: Path
) -> None:
    """It remembers from its snapshot, finds the store to be the one it knew, and obeys."""
    snapshot = tmp_path / "snapshot"
    site.write("token:main:stays", ttl_s=60)
    site.write("token:main:goes", ttl_s=60)
    await (await follow(site.config(snapshot=snapshot))).stop()
    assert snapshot.exists()
    site.erase("token:main:goes")
    again = await follow(site.config(snapshot=snapshot))
    await eventually(lambda: not again.denies("goes"))
    assert again.denies("stays")
    assert again.replica.status.counts["written_back"] == 0
