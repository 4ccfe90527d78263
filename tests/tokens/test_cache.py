"""The cache of verified tokens: bounded, and fair to what is used."""

from __future__ import annotations

import asyncio

from gateway.tokens.cache import Remembered, TokenCache
from gateway.tokens.claims import Token
from tests.tokens.mint import NOW, KeysAtHand, claims, header, key_set, rules, signed, verifier


def entry() -> Remembered:
    """Something to remember."""
    keys = KeysAtHand(key_set("p256"))
    token: Token = asyncio.run(verifier(rules(keys)).verify(signed(header(), claims()), NOW))
    return Remembered(token, keys, "identity", 0.0, NOW)


def test_the_oldest_goes_first() -> None:
    """A full cache makes room by dropping what was put in first."""
    cache, kept = TokenCache(capacity=3), entry()
    for raw in (b"a", b"b", b"c", b"d"):
        cache.put(raw, kept)
    assert [raw for raw in (b"a", b"b", b"c", b"d") if cache.get(raw)] == [b"b", b"c", b"d"]
    assert (cache.hits, cache.misses) == (3, 1)


def test_what_was_used_has_a_second_chance() -> None:
    """An entry that was used since it was last considered stays, and the next unused one goes."""
    cache = TokenCache(capacity=3)
    for raw in (b"a", b"b", b"c"):
        cache.put(raw, entry())
    cache.get(b"a")
    cache.put(b"d", entry())
    cache.put(b"e", entry())
    assert [raw for raw in (b"a", b"b", b"c", b"d", b"e") if cache.get(raw)] == [b"a", b"d", b"e"]


def test_a_cache_all_in_use_still_makes_room() -> None:
    """When every entry was used, insertion still ends at once and the bound still holds."""
    cache, newest = TokenCache(capacity=50), entry()
    for number in range(50):
        cache.put(b"%d" % number, entry())
        cache.get(b"%d" % number)
    cache.put(b"new", newest)
    assert len(cache) == 50
    assert cache.get(b"new") is newest


def test_bytes_are_bounded() -> None:
    """Long tokens fill the cache by their length; one longer than the bound is not remembered at all."""
    cache, kept = TokenCache(max_bytes=1_000), entry()
    for number in range(10):
        cache.put(b"%0300d" % number, kept)
    assert len(cache) == 3
    cache.put(b"x" * 1_001, kept)
    assert cache.get(b"x" * 1_001) is None
    assert len(cache) == 3


def test_forgetting_and_putting_again_keep_the_count_right() -> None:
    """Bytes are given back when an entry is forgotten or replaced."""
    cache, kept = TokenCache(max_bytes=100), entry()
    for _ in range(10):
        cache.put(b"x" * 60, kept)
    cache.forget(b"x" * 60)
    cache.forget(b"never there")
    cache.put(b"a" * 50, kept)
    cache.put(b"b" * 50, kept)
    assert len(cache) == 2


def test_numbers() -> None:
    """Hits, misses and size are told to a scrape."""
    cache = TokenCache()
    cache.put(b"a", entry())
    cache.get(b"a")
    cache.get(b"b")
    cache.get(b"c")
    assert {sample.name: sample.value for sample in cache.samples()} == {
        "gateway_token_cache_hits_total": 1,
        "gateway_token_cache_misses_total": 2,
        "gateway_token_cache_entries": 1,
    }
