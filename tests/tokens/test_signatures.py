"""Signatures are checked when the turn ends, in a row, each for itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.errors import TokenInvalid
from gateway.keys.jwks import VerificationKey
from gateway.tokens.claims import UnverifiedHeader, UnverifiedToken
from gateway.tokens.signatures import IN_A_ROW, Signatures
from tests.tokens.mint import NOW, KeysAtHand, claims, header, key_set, rules, signed, verifier

pytestmark = pytest.mark.asyncio


def keys(asked: list[bytes], *signatures: bytes) -> list[VerificationKey]:
    """Keys that know one signature each, and note what they were asked; some signatures break them."""

    def knowing(own: bytes) -> VerificationKey:
        def check(_: bytes, signature: bytes) -> bool:
            asked.append(signature)
            if signature == b"broken":
                raise ArithmeticError(signature)
            return signature == own

        return VerificationKey(None, frozenset({"ES256"}), "", own.decode(), {"ES256": check})

    return [knowing(signature) for signature in signatures]


def token(signature: bytes) -> UnverifiedToken:
    """A token of that signature."""
    return UnverifiedToken(b"", UnverifiedHeader("ES256", None, None), b"", b"", signature)


async def test_checked_when_the_turn_ends() -> None:
    """Not before all that came in the turn wait; then one after the other, in order."""
    signatures, asked = Signatures(), list[bytes]()
    candidates = keys(asked, b"a", b"b")
    waiting = [asyncio.ensure_future(signatures.find_key(token(text), candidates)) for text in (b"b", b"a", b"c")]
    await asyncio.sleep(0)  # all of them have begun
    assert asked == []
    found = await asyncio.gather(*waiting)
    assert asked == [b"b", b"b", b"a", b"c", b"c"]
    assert found == [candidates[1], candidates[0], None]


async def test_one_that_breaks_is_its_own_affair() -> None:
    """An error of a key reaches who asked for that signature, and nobody else."""
    signatures = Signatures()
    candidates = keys([], b"good")
    found: list[Any] = await asyncio.gather(
        *(signatures.find_key(token(text), candidates) for text in (b"good", b"broken", b"good")),
        return_exceptions=True,
    )
    assert found[0] is found[2] is candidates[0]
    assert isinstance(found[1], ArithmeticError)


async def test_nothing_is_computed_for_who_has_gone() -> None:
    """A request of a flood that is cancelled while it waits costs no signature."""
    signatures, asked = Signatures(), list[bytes]()
    candidates = keys(asked, b"stays")
    stay = [asyncio.ensure_future(signatures.find_key(token(b"stays"), candidates)) for _ in range(IN_A_ROW)]
    goes = asyncio.ensure_future(signatures.find_key(token(b"goes"), candidates))
    await asyncio.sleep(0)
    goes.cancel()
    await asyncio.wait([*stay, goes])
    assert goes.cancelled()
    assert all(each.result() is candidates[0] for each in stay)
    await asyncio.sleep(0)
    assert asked == [b"stays"] * IN_A_ROW


async def test_a_flood_leaves_the_loop_its_turns() -> None:
    """At most so many in a row: what else is due comes in between."""
    signatures, asked = Signatures(), list[bytes]()
    candidates = keys(asked, b"a")
    waiting = [asyncio.ensure_future(signatures.find_key(token(b"a"), candidates)) for _ in range(2 * IN_A_ROW + 1)]
    seen: list[int] = []
    while not all(each.done() for each in waiting):
        await asyncio.sleep(0)
        seen.append(len(asked))
    steps = sorted(set(seen) - {0})
    assert steps == [IN_A_ROW, 2 * IN_A_ROW, 2 * IN_A_ROW + 1]


async def test_genuine_and_forged_in_one_turn() -> None:
    """The verifier tells them apart, whatever they came with."""
    gate = verifier(rules(KeysAtHand(key_set("p256"))))
    genuine = [signed(header(), claims(jti=f"token-{number}")) for number in range(3)]
    forged = genuine[0].rpartition(b".")[0] + b"." + genuine[1].rpartition(b".")[2]
    found = await asyncio.gather(*(gate.verify(raw, NOW) for raw in (*genuine, forged)), return_exceptions=True)
    assert [each.token_id for each in found if not isinstance(each, BaseException)] == ["token-0", "token-1", "token-2"]
    assert isinstance(found[3], TokenInvalid)
    assert gate.recall(forged, NOW) is None
