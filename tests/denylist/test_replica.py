"""The denylist in memory: what is denied, until when, and what it tells about itself."""

import math
from typing import Any

import pytest

from gateway.denylist.group import Known
from gateway.denylist.replica import Replica

NOW = 1_800_000_000.0


def find(replica: Replica, now: float = NOW, issued_at: float | None = NOW - 10, **who: Any) -> str | None:
    """What denies a token, by keyword."""
    return replica.find(
        who.get("issuer", "main"),
        who.get("token_id"),
        who.get("session_id"),
        who.get("subject"),
        who.get("client_id"),
        who.get("kid"),
        issued_at,
        now,
    )


@pytest.mark.parametrize(
    ("key", "who", "kind"),
    [
        ("token:main:x", {"token_id": "x"}, "token"),
        ("session:main:x", {"session_id": "x"}, "session"),
        ("subject:main:x", {"subject": "x"}, "subject"),
        ("client:main:x", {"client_id": "x"}, "client"),
        ("key:main:x", {"kid": "x"}, "key"),
        ("issuer:main", {}, "issuer"),
    ],
)
def test_each_kind_denies_what_it_names_and_nothing_else(key: str, who: dict[str, Any], kind: str) -> None:
    """The same id under another kind, or of another issuer, passes."""
    replica = Replica()
    replica.put(key, f"{NOW:.0f}", NOW + 60)
    assert find(replica, **who) == kind
    assert find(replica, **{**who, "issuer": "other"}) is None
    others: set[str] = {"token_id", "session_id", "subject", "client_id", "kid"} - who.keys()
    if who:
        same_id: dict[str, Any] = dict.fromkeys(others, "x")
        other_id: dict[str, Any] = dict.fromkeys(who, "y")
        assert find(replica, **same_id) is None
        assert find(replica, **other_id) is None
    assert replica.remove(key)
    assert find(replica, **who) is None
    assert not replica.remove(key)


@pytest.mark.parametrize(
    ("value", "issued_at", "is_denied"),
    [
        ("1000", 999.0, True),
        ("1000", 1000.0, True),  # "at or before"
        ("1000", 1001.0, False),
        ("1000.250", 1000.25, True),
        ("1000.250", 1000.251, False),
        ("1000", None, True),  # no `iat`: refuse when unsure
        # What is no moment denies everything.
        ("yes", 9e9, True),
        ("", 9e9, True),
        ("-5", 9e9, True),
        ("1e3", 9e9, True),
        ("nan", 9e9, True),
        ("1_000", 9e9, True),
        ("\u0661\u0660", 9e9, True),
        (None, 9e9, True),
        # Milliseconds by mistake: far in the future, so later tokens are denied as well.
        ("1800000000000", 1_800_000_100.0, True),
    ],
)
def test_an_entry_by_time_denies_tokens_issued_up_to_its_value(
    value: str | None, issued_at: float | None, is_denied: bool
) -> None:
    """`iat` is compared with the value, in epoch seconds."""
    replica = Replica()
    replica.put("subject:main:ada", value, None)
    assert (find(replica, issued_at=issued_at, subject="ada") == "subject") is is_denied


def test_an_entry_ends_at_its_time_rounded_up_to_a_second_and_is_freed_later() -> None:
    """Checks look at the time themselves; sweeping only gives the memory back."""
    replica = Replica()
    replica.put("token:main:t", "1", NOW + 9.2)
    replica.put("subject:main:ada", "yes", NOW + 9.2)
    replica.put("token:main:forever", "1", None)
    names: tuple[dict[str, Any], ...] = ({"token_id": "t"}, {"subject": "ada"})
    for who in names:
        assert find(replica, NOW + 9.9, **who)
        assert find(replica, NOW + 10, **who) is None
    assert sum(replica.expire(NOW + 9.9)) == 0
    assert sum(replica.expire(NOW + 10)) == 2
    assert len(replica) == 1
    assert find(replica, NOW + 1e10, token_id="forever") == "token"


def test_an_entry_that_is_renewed_during_a_sweep_stays() -> None:
    """Between the look and the removal others have their turn."""
    replica = Replica()
    replica.put("token:main:t", "1", NOW + 9)
    sweep = replica.expire(NOW + 10)
    assert next(sweep) == 0
    replica.put("token:main:t", "1", NOW + 99)
    assert sum(sweep) == 0
    assert find(replica, NOW + 98, token_id="t") == "token"
    assert sum(replica.expire(NOW + 99)) == 1


@pytest.mark.parametrize(
    "key", ["", "token", "token:main", "token:main:", "token::x", "issuer:", "issuer:main:x", "x:y:z"]
)
def test_a_key_that_is_none_of_ours_is_counted_and_ignored(key: str) -> None:
    """Before and after its issuer is known."""
    replica = Replica()
    assert not replica.put(key, "1", None)
    replica.put("token:main:t", "1", None)
    assert not replica.put(key, "1", None)
    assert replica.status.counts["ignored_keys"] == 2
    assert len(replica) == 1
    assert not replica.remove(key)
    assert replica.known(key) is None


def test_after_a_load_its_mark_tells_what_it_did_not_see() -> None:
    """Entries that it saw, or that changed since, carry the mark; one may be told to keep an entry all the same."""
    replica = Replica()
    first = replica.next_mark()
    for key in ("token:main:a", "subject:main:b", "issuer:main"):
        replica.put(key, "5", NOW, first)
    second = replica.next_mark()
    replica.put("token:main:a", "5", NOW, second)
    unseen = [key for slice_ in replica.unmarked(second) for key in slice_]
    assert sorted(unseen) == ["issuer:main", "subject:main:b"]
    owned = [key for slice_ in replica.unmarked(second, lambda key: key.startswith("s")) for key in slice_]
    assert owned == ["subject:main:b"]
    replica.mark("subject:main:b", second)
    assert [key for slice_ in replica.unmarked(second) for key in slice_] == ["issuer:main"]
    assert replica.known("subject:main:b") == Known("subject:main:b", "5.000", NOW)


def test_an_entry_can_be_written_back_as_it_was() -> None:
    """A value that denied everything must not become a moment, and a moment stays one."""
    replica = Replica()
    cases = {
        "token:main:t": ("anything", "1"),
        "subject:main:a": ("1700000000.125", "1700000000.125"),
        "subject:main:b": ("anything", "all"),
        "issuer:main": (None, "all"),
    }
    for key, (value, _) in cases.items():
        replica.put(key, value, NOW + 5)
    known = {entry.key: entry for slice_ in replica.everything() for entry in slice_}
    assert known == {key: Known(key, value, NOW + 5) for key, (_, value) in cases.items()}
    again = Replica()
    for entry in known.values():
        again.put(*entry)
    assert find(again, issued_at=9e9, subject="b") == "subject"
    assert find(again, issued_at=1.7e9, subject="a") == "subject"


def test_the_replica_knows_how_stale_it_is() -> None:
    """Time is the caller's; a contact reported late does not make it younger or older."""
    replica = Replica(max_staleness_s=30, monotonic=lambda: 140.0)
    assert replica.is_stale(0)
    assert replica.staleness_s(0) == math.inf
    assert replica.health() == (False, "unread, 0 entries, never heard from the store")
    replica.touch(100)
    replica.touch(90)
    assert not replica.is_stale(130)
    assert replica.is_stale(130.1)
    assert replica.staleness_s(130) == 30
    replica.loaded = True
    replica.status.report("connection", "the store is out of contact")
    assert replica.health() == (False, "unread, 0 entries, last heard 40.0 s ago; the store is out of contact")


def test_the_numbers_are_told_by_kind() -> None:
    """Each kind has its gauge; nothing is labelled with an id."""
    replica = Replica()
    for number in range(3000):
        replica.put(f"token:main:{number}", "1", NOW)
        replica.put(f"token:other:{number}", "1", NOW)
    replica.put("issuer:main", "1", NOW)
    gauges = {s.labels["kind"]: s.value for s in replica.samples() if s.name == "gateway_denylist_entries"}
    assert gauges == {"token": 6000, "session": 0, "subject": 0, "client": 0, "key": 0, "issuer": 1}
    assert sum(replica.expire(NOW)) == 6001
    assert len(replica) == 0


def test_a_watcher_hears_of_the_entries_under_its_keys_only() -> None:
    """After the entry is in force, new or renewed, and however it came; deletions are not told."""
    replica = Replica()
    heard: list[tuple[str, str | None]] = []
    keys = {"subject:main:alice": None}
    replica.watch(keys, lambda key: heard.append((key, find(replica, subject="alice"))))
    replica.put("subject:main:bob", f"{NOW}", NOW + 60)
    replica.put("subject:main:alice", f"{NOW}", NOW + 60)
    replica.put("subject:main:alice", f"{NOW}", NOW + 90)
    replica.remove("subject:main:alice")
    keys.clear()
    replica.put("subject:main:alice", f"{NOW}", NOW + 60)
    assert heard == [("subject:main:alice", "subject")] * 2
