"""How entries are packed: that a million of them keep apart, and that memory is used again."""

import pytest

from gateway.denylist.group import Known, Moments, Presence, pack

NOW = 1_800_000_000.0


def test_every_entry_keeps_its_own_moment_and_end() -> None:
    """However many there are, added, replaced, removed and added again."""
    group = Moments("subject", "main")
    for number in range(10_000):
        group.put(f"u{number}", f"{NOW + number:.3f}", pack(NOW + 2 * number, 7))
    for number in range(0, 10_000, 2):
        assert group.remove(f"u{number}")
        assert not group.remove(f"u{number}")
    for number in range(10_000, 15_000):
        group.put(f"u{number}", f"{NOW + number:.3f}", pack(NOW + 2 * number, 7))
    group.put("u1", f"{NOW:.3f}", pack(None, 8))
    assert group.size == 10_000
    expected = {
        f"u{number}": Known(f"subject:main:u{number}", f"{NOW + number:.3f}", NOW + 2 * number)
        for number in (*range(3, 10_000, 2), *range(10_000, 15_000))
    } | {"u1": Known("subject:main:u1", f"{NOW:.3f}", None)}
    assert {ident: group.known(ident) for slice_ in group.idents() for ident in slice_} == expected
    assert group.known("u0") is None
    assert group.packed("u0") is None


def test_rows_of_removed_entries_are_used_again() -> None:
    """Coming and going does not grow the arrays."""
    group = Moments("subject", "main")
    for _ in range(50):
        for number in range(100):
            group.put(f"u{number}", "1", pack(NOW, 0))
        for number in range(100):
            group.remove(f"u{number}")
    assert group.size == 0
    for number in range(100):
        group.put(f"u{number}", "1", pack(NOW, 0))
    assert max(row for shard in group.shards for row in shard.values()) < 100


def test_presence_keeps_no_value() -> None:
    """What denies by being there is written back as 1."""
    group = Presence("token", "main")
    group.put("t", "1700000000.125 by somebody", pack(NOW + 0.1, 3))
    assert group.known("t") == Known("token:main:t", "1", NOW + 1)
    assert group.packed("t") == pack(NOW + 1, 3)


@pytest.mark.parametrize("kind", [Presence, Moments])
def test_nothing_is_looked_through_that_cannot_have_ended(kind: type[Presence]) -> None:
    """Only when an end is due, and afterwards not before the next one."""
    group = kind("subject", "main")
    for number in range(10_000):
        group.put(f"u{number}", f"{NOW:.3f}", pack(NOW + 100 + number % 2, 0))

    def ended(at: float) -> list[list[str]]:
        return list(group.ended(pack(at + 1, 0)))

    assert ended(NOW + 99) == []
    first = ended(NOW + 100)
    assert sorted(ident for idents in first for ident in idents) == sorted(f"u{n}" for n in range(0, 10_000, 2))
    assert ended(NOW + 100) == []
    assert sum(map(len, ended(NOW + 101))) == 10_000
    group.put("u1", f"{NOW:.3f}", pack(NOW + 50, 0))
    assert ended(NOW + 50) == [["u1"]]
