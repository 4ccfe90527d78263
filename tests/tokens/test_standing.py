"""What a token's worth rests on: a key that leaves its set, a list that changes, and whom that concerns."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from gateway.keys.jwks import KeySet
from gateway.tokens.claims import Token, UnverifiedHeader, read_token
from gateway.tokens.standing import Dependents, Standing
from gateway.tokens.status_cache import StatusLists
from gateway.tokens.status_list import StatusList
from gateway.tokens.verifier import Signer, signer_of
from tests.tokens.mint import ISSUER, NOW, KeysAtHand, claims, header, key_set, rules, signed, verifier

URI = f"{ISSUER}/status/1"


class Lists(StatusLists):
    """Lists that are here without a fetch; notes what was kept fresh."""

    def __init__(self, **found: StatusList) -> None:
        self.found: dict[str, StatusList | None] = {URI: StatusList(1, b"\x02"), **found}
        self.kept: list[str] = []

    def known(self, uri: str) -> StatusList | None:
        """What is here."""
        return self.found.get(uri)

    def keep(self, uri: str) -> StatusList | None:
        """What is here, and was asked for."""
        self.kept.append(uri)
        return self.found.get(uri)


async def verified(keys: Any, kid: str = "p256", **changes: Any) -> Token:
    """A token that was verified with one of the keys."""
    alg = {"p256": "ES256", "rsa": "RS256"}[kid]
    return await verifier(rules(keys)).verify(signed(header(alg=alg, kid=kid), claims(**changes), kid), NOW)


def status(index: int, uri: str = URI) -> dict[str, Any]:
    """The claim."""
    return {"status_list": {"idx": index, "uri": uri}}


def unsigned(index: int | None = None) -> Token:
    """A token that no verifier has made."""
    changes = {} if index is None else {"status": status(index)}
    return read_token("main", UnverifiedHeader("ES256", "p256", "at+jwt"), claims(**changes))


@pytest.mark.asyncio
async def test_a_token_rests_on_the_very_key_that_signed_it() -> None:
    """Another key under the same id is another key; what was verified elsewhere rests on none."""
    keys = KeysAtHand(key_set("p256", "rsa"))
    token = await verified(keys)
    standing = Standing.of(token, MappingProxyType({}))
    assert not standing.is_lost()
    signer = signer_of(token)
    assert signer is not None
    keys.key_set = key_set("rsa")
    assert signer.is_withdrawn
    assert standing.is_lost()
    impostor = key_set("p256").keys[0]
    [other] = KeySet([type(impostor)("p256", impostor.algorithms, "other", "other key", impostor.checks)]).keys
    keys.key_set = KeySet([other])
    assert standing.is_lost()
    keys.key_set = None  # not told is not lost
    assert not standing.is_lost()
    assert Standing.of(unsigned(), MappingProxyType({})) == Standing(None, None, None)


@pytest.mark.parametrize(
    ("index", "found", "is_lost"),
    [
        (0, StatusList(1, b"\x02"), False),
        (1, StatusList(1, b"\x02"), True),
        (8, StatusList(1, b"\x02"), True),  # beyond the end: a request would be refused as well
        (1, None, False),  # no usable list
    ],
)
def test_a_status_that_is_not_valid_is_lost(index: int, found: StatusList | None, is_lost: bool) -> None:
    """By the list that is here; nothing is fetched to find out."""
    lists = Lists()
    lists.found[URI] = found
    standing = Standing.of(unsigned(index), {"main": lists})
    assert standing.is_lost() is is_lost
    assert lists.kept == []


def test_only_an_issuer_with_lists_is_asked_about_status() -> None:
    """And only for tokens that refer to one."""
    lists = Lists()
    assert Standing.of(unsigned(1), {"other": lists}).lists is None
    assert Standing.of(unsigned(), {"main": lists}).lists is None


def test_a_key_that_leaves_its_set_shakes_those_it_signed() -> None:
    """Nobody else's, and nobody while all keys are there."""
    keys, others = KeysAtHand(key_set("p256", "rsa")), KeysAtHand(key_set("p256"))
    [first, second] = [Signer(keys, key.identity) for key in key_set("p256", "rsa").keys]
    dependents: Dependents[str] = Dependents()
    standings = {
        "alice": Standing(first, None, None),
        "bob": Standing(second, None, None),
        "carol": Standing(Signer(others, first.identity), None, None),
    }
    for name, standing in standings.items():
        dependents.add(name, standing)
    assert list(dependents.shaken()) == []
    keys.key_set = key_set("rsa")
    assert list(dependents.shaken()) == ["alice"]
    dependents.remove("alice", standings["alice"])
    assert list(dependents.shaken()) == []


def test_another_list_shakes_those_whose_bit_is_set_in_it() -> None:
    """Places are looked at once per list, and the list is kept fresh all along."""
    lists = Lists()
    dependents: Dependents[str] = Dependents()
    standings = {name: Standing.of(unsigned(index), {"main": lists}) for index, name in enumerate(["a", "b", "c"])}
    for name, standing in standings.items():
        dependents.add(name, standing)
    assert list(dependents.shaken()) == ["b"]
    assert list(dependents.shaken()) == []
    lists.found[URI] = StatusList(1, b"\x05")
    assert list(dependents.shaken()) == ["a", "c"]
    lists.found[URI] = None
    assert list(dependents.shaken()) == []
    assert lists.kept == [URI] * 4
    for name, standing in standings.items():
        dependents.remove(name, standing)
    assert list(dependents.shaken()) == []
    assert len(lists.kept) == 4  # nobody rests on it any more
