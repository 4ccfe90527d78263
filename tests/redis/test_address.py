"""The store's address: every form is read, nothing of it is guessed, and credentials stay hidden."""

import pytest

from gateway.redis.address import Credentials, Endpoint, RedisAddress, parse_redis

LOCAL = Endpoint("127.0.0.1", 6379)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://127.0.0.1:6379/0", RedisAddress("single", (LOCAL,))),
        ("redis://redis.example/3", RedisAddress("single", (Endpoint("redis.example", 6379),), db=3)),
        (
            "rediss://:p%40ss@h:1",
            RedisAddress("single", (Endpoint("h", 1),), tls=True, credentials=Credentials("", "p@ss")),
        ),
        (
            "redis://u:p:q@[::1]:7/1",
            RedisAddress("single", (Endpoint("::1", 7),), db=1, credentials=Credentials("u", "p:q")),
        ),
        ("unix:///run/redis.sock?db=2", RedisAddress("single", (Endpoint(path="/run/redis.sock"),), db=2)),
        ("unix://u:p@/r.sock", RedisAddress("single", (Endpoint(path="/r.sock"),), credentials=Credentials("u", "p"))),
        (
            "redis+sentinel://u:p@a,b:5/main/4?sentinel_password=s",
            RedisAddress(
                "sentinel",
                (Endpoint("a", 26379), Endpoint("b", 5)),
                db=4,
                service="main",
                credentials=Credentials("u", "p"),
                sentinel_credentials=Credentials("", "s"),
            ),
        ),
        ("rediss+cluster://a:1,b:2", RedisAddress("cluster", (Endpoint("a", 1), Endpoint("b", 2)), True)),
    ],
)
def test_every_form_is_read(url: str, address: RedisAddress) -> None:
    """Percent-encoding in credentials, several hosts, IPv6, databases."""
    assert parse_redis(url) == address


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://secret@h", "unknown scheme"),
        ("redis+ring://secret@h", "unknown scheme"),
        ("redis://secret@h:x", "port"),
        ("redis://secret@h:70000", "port"),
        ("redis://secret@a,b/0", "several hosts"),
        ("redis://secret@h/main", "database"),
        ("redis://secret@h/0/1", "one number"),
        ("unix://secret@relative.sock", "unix:///path"),
        ("redis+sentinel://secret@h", "name"),
        ("redis+cluster://secret@h/3", "no database but 0"),
        ("redis://secret@[::1", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused_without_being_repeated(url: str, reason: str) -> None:
    """The reason may be shown and logged, so it never holds the address."""
    with pytest.raises(ValueError, match=reason) as refused:
        parse_redis(url)
    assert "secret" not in str(refused.value)


def test_an_address_shows_no_credentials() -> None:
    """Neither as text nor as `repr`."""
    address = parse_redis("redis+sentinel://u:hunter2@a,b:5/main?sentinel_password=hunter3")
    assert "hunter" not in repr(address) + str(address)
    assert str(address) == "sentinel a:26379,b:5"
