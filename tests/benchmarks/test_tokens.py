"""The load's tokens are what they are said to be, in the eyes of a library that did not make them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from tests.benchmarks import tokens
from tests.benchmarks.tokens import Algorithm


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "store_directory", lambda: tmp_path)
    monkeypatch.setattr(tokens, "_key_of_this_process", {})


@pytest.mark.parametrize("algorithm", tokens.ALGORITHMS)
def test_tokens(algorithm: Algorithm) -> None:
    """Each of a file's tokens is distinct and verifies under the published key; a second call makes none."""
    path = tokens.token_file(algorithm, "some", 5)
    lines = path.read_text().split()
    keys = KeySet.import_key_set(json.loads(tokens.key_files(algorithm).jwks.read_text()))
    subjects = [jwt.decode(line, keys, algorithms=[algorithm]).claims["sub"] for line in lines]
    assert subjects == [f"user-{number}" for number in range(5)]
    assert tokens.token_file(algorithm, "some", 5).read_text().split() == lines
    assert tokens.first_token(path) == lines[0]


@pytest.mark.parametrize("algorithm", tokens.ALGORITHMS)
def test_hostile_tokens(algorithm: Algorithm) -> None:
    """Only the forged one fails by its signature; the others are wrong in what they claim."""
    keys = KeySet.import_key_set(json.loads(tokens.key_files(algorithm).jwks.read_text()))
    hostile = tokens.hostile_tokens(algorithm)
    with pytest.raises(JoseError):
        jwt.decode(hostile.forged, keys, algorithms=[algorithm])
    claims = {
        name: jwt.decode(token, keys, algorithms=[algorithm]).claims
        for name, token in hostile.named().items()
        if name != "forged signature"
    }
    assert claims["expired"]["exp"] < claims["wrong audience"]["exp"]
    assert claims["wrong audience"]["aud"] != tokens.AUDIENCE
    assert claims["wrong issuer"]["iss"] != tokens.ISSUER
