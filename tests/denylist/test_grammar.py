"""The words of the denylist: keys that can be written and read back, and what a value means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.denylist.grammar import EVERYTHING, KINDS, cutoff, is_denied, key_for, keys_naming, make_entry, parse_key

ISSUERS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)


@given(kind=st.sampled_from([kind for kind in KINDS if kind != "issuer"]), issuer=ISSUERS, ident=st.text(min_size=1))
def test_every_key_is_read_as_it_was_written(kind: str, issuer: str, ident: str) -> None:
    """Whatever an id holds, colons included."""
    assert parse_key(key_for(kind, issuer, ident)) == (kind, issuer, ident)


@pytest.mark.parametrize(
    ("kind", "issuer", "ident", "reason"),
    [
        ("tokens", "main", "x", "not a kind"),
        ("token", "ma:in", "x", "not the name of an issuer"),
        ("token", "", "x", "not the name of an issuer"),
        ("token", "main", "", "needs an id"),
        ("issuer", "main", "x", "no further id"),
        ("token", "main", "x" * 5000, "at most"),
    ],
)
def test_what_cannot_be_a_key_is_refused_with_a_reason(kind: str, issuer: str, ident: str, reason: str) -> None:
    """The reason is fit to be shown."""
    with pytest.raises(ValueError, match=reason):
        key_for(kind, issuer, ident)


def test_an_entry_made_now_carries_the_moment() -> None:
    """To the millisecond; and a life that is longer than zero."""
    entry = make_entry("subject", "main", "ada", now=1_800_000_000.1234, ttl_s=60)
    assert (entry.key, entry.value, entry.ttl_s) == ("subject:main:ada", "1800000000.123", 60)
    assert make_entry("issuer", "main", now=1.0).key == "issuer:main"
    with pytest.raises(ValueError, match="longer than zero"):
        make_entry("token", "main", "t", now=1.0, ttl_s=0)


def test_a_look_up_asks_for_every_key_that_could_deny() -> None:
    """Absent and empty claims name nothing; the issuer is always asked for."""
    keys = list(keys_naming("main", token_id="t", session_id="", subject="s", kid="k"))
    assert keys == [
        ("token", "token:main:t"),
        ("subject", "subject:main:s"),
        ("key", "key:main:k"),
        ("issuer", "issuer:main"),
    ]


def test_a_value_read_from_the_store_decides_as_the_replica_would() -> None:
    """Presence alone for most kinds; `iat` for the kinds by time."""
    assert is_denied("token", b"", 9e9)
    assert is_denied("subject", b"1000", 1000.0)
    assert not is_denied("subject", b"1000", 1001.0)
    assert is_denied("subject", b"1000", None)
    assert is_denied("subject", b"\xff", 9e9)
    assert cutoff("all") == EVERYTHING
