"""Status lists: the draft's own vectors, what a reference may look like, and lists that lie about their size."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import TokenInvalid
from gateway.tokens.status_list import (
    MAX_LIST_OCTETS,
    StatusList,
    StatusReference,
    lifetime_s,
    read_status_list,
    reference_of,
)
from tests.tokens.mint import base64url

URI = "https://issuer.example/statuslists/1"


def list_claims(octets: bytes, bits: int = 1, **changes: Any) -> dict[str, Any]:
    """Claims of a Status List Token."""
    lst = base64url(zlib.compress(octets, 9)).decode()
    return {"sub": URI, "iat": 1, "status_list": {"bits": bits, "lst": lst}, **changes}


# --- the published vectors (draft §4.2 and §4.3) ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "lst", "statuses"),
    [
        (1, "eNrbuRgAAhcBXQ", [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]),
        (2, "eNo76fITAAPfAgc", [1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3]),
    ],
)
def test_the_lists_of_the_draft(bits: int, lst: str, statuses: list[int]) -> None:
    """Each place holds what the draft says."""
    found = read_status_list({"sub": URI, "status_list": {"bits": bits, "lst": lst}}, URI)
    assert [found.at(index) for index in range(len(statuses))] == statuses
    with pytest.raises(IndexError):
        found.at(len(statuses))


@given(st.sampled_from([1, 2, 4, 8]), st.lists(st.integers(0, 255), min_size=8, max_size=64))
def test_any_list_written_as_the_draft_says_is_read_back(bits: int, wanted: list[int]) -> None:
    """Statuses are packed from the least significant bit on."""
    statuses = [status & (1 << bits) - 1 for status in wanted]
    octets = bytearray((len(statuses) * bits + 7) // 8)
    for index, status in enumerate(statuses):
        octets[index * bits // 8] |= status << index * bits % 8
    found = read_status_list(list_claims(bytes(octets), bits), URI)
    assert [found.at(index) for index in range(len(statuses))] == statuses


# --- lists that are none ---------------------------------------------------------------------------------------------

_STREAM = zlib.compress(b"\x01" * 16)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({}, "sub"),
        (list_claims(b"\0", sub=URI + "/"), "sub"),
        ({"sub": URI}, "no status_list"),
        ({"sub": URI, "status_list": []}, "no status_list"),
        (list_claims(b"\0", 3), "bits"),
        (list_claims(b"\0", True), "bits"),
        ({"sub": URI, "status_list": {"bits": 1}}, "lst"),
        ({"sub": URI, "status_list": {"bits": 1, "lst": "☃"}}, "base64url"),
        ({"sub": URI, "status_list": {"bits": 1, "lst": "eNrbuRgAAhcBXQ=="}}, "alphabet"),
        ({"sub": URI, "status_list": {"bits": 1, "lst": "AAAA"}}, "zlib"),
        ({"sub": URI, "status_list": {"bits": 1, "lst": base64url(_STREAM[:-1]).decode()}}, "cut short"),
        ({"sub": URI, "status_list": {"bits": 1, "lst": base64url(_STREAM + b"x").decode()}}, "cut short"),
        # a bomb: 8 KiB that become more than the limit
        (list_claims(bytes(MAX_LIST_OCTETS + 1)), "larger than 8 MiB"),
        (list_claims(bytes(4 * MAX_LIST_OCTETS)), "larger than 8 MiB"),
    ],
)
def test_a_list_that_is_none_says_why(claims: dict[str, Any], reason: str) -> None:
    """Nothing is repaired, and nothing larger than the limit is unpacked."""
    with pytest.raises(ValueError, match=reason):
        read_status_list(claims, URI)


def test_the_largest_list_is_read() -> None:
    """64 million tokens."""
    found = read_status_list(list_claims(bytes(MAX_LIST_OCTETS - 1) + b"\x80"), URI)
    assert found.at(8 * MAX_LIST_OCTETS - 1) == 1
    assert repr(found) == "StatusList(bits=1)"


@pytest.mark.parametrize(
    ("claims", "seconds"),
    [
        ({}, None),
        ({"ttl": 60}, 60.0),
        ({"ttl": 0.5}, 0.5),
        ({"exp": 1500}, 500.0),
        ({"exp": 900}, 0.0),
        ({"ttl": 60, "exp": 1030}, 30.0),
        ({"ttl": 60, "exp": 2000}, 60.0),
    ],
)
def test_how_long_a_list_may_be_used(claims: dict[str, Any], seconds: float | None) -> None:
    """`ttl`, but not beyond `exp`."""
    assert lifetime_s(claims, 1000.0) == seconds


@pytest.mark.parametrize("ttl", [0, -1, "60", True, []])
def test_a_ttl_that_is_none(ttl: Any) -> None:
    """A positive number (draft §5.1)."""
    with pytest.raises(ValueError, match="ttl"):
        lifetime_s({"ttl": ttl}, 0.0)


# --- references ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        ({}, None),
        ({"status": None}, None),
        ({"status": {"identifier_list": {"id": "1"}}}, None),
        ({"status": {"status_list": {"idx": 0, "uri": URI}}}, StatusReference(URI, 0)),
        ({"status": {"status_list": {"idx": 7, "uri": URI, "more": 1}, "other": {}}}, StatusReference(URI, 7)),
    ],
)
def test_what_a_token_refers_to(claims: dict[str, Any], found: StatusReference | None) -> None:
    """A list and a place in it, or nothing that is asked for here."""
    assert reference_of(claims) == found


@pytest.mark.parametrize(
    "status",
    [
        "valid",
        [],
        {"status_list": "x"},
        {"status_list": {}},
        {"status_list": {"idx": -1, "uri": URI}},
        {"status_list": {"idx": "0", "uri": URI}},
        {"status_list": {"idx": 0.0, "uri": URI}},
        {"status_list": {"idx": True, "uri": URI}},
        {"status_list": {"idx": 2**50, "uri": URI}},
        {"status_list": {"idx": 0}},
        {"status_list": {"idx": 0, "uri": ""}},
        {"status_list": {"idx": 0, "uri": 5}},
        {"status_list": {"idx": 0, "uri": "https://a/\r\nx"}},
        {"status_list": {"idx": 0, "uri": "https://a/" + "x" * 3000}},
    ],
)
def test_a_malformed_reference_is_a_malformed_token(status: Any) -> None:
    """When unsure, refuse."""
    with pytest.raises(TokenInvalid):
        reference_of({"status": status})


def test_each_place_is_its_own() -> None:
    """Setting one bit changes one token."""
    for index in range(16):
        octets = bytearray(2)
        octets[index >> 3] = 1 << (index & 7)
        assert [StatusList(1, bytes(octets)).at(place) for place in range(16)] == [int(p == index) for p in range(16)]
