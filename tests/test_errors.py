"""The tree of errors: complete, drawn as it is, and every leaf distinct."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from gateway import errors
from gateway.errors import ClientError, GatewayError, GatewayFault, UpstreamFault


def leaves(kind: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    """Every class of the tree that nothing derives from."""
    below = kind.__subclasses__()
    if not below:
        yield kind
    for child in below:
        yield from leaves(child)


LEAVES = sorted((leaf for leaf in leaves() if leaf.__module__ == errors.__name__), key=lambda leaf: leaf.__name__)


def make(leaf: type[GatewayError]) -> GatewayError:
    """An error of this kind, with whatever its constructor needs."""
    if leaf is errors.MethodNotAllowed:
        return errors.MethodNotAllowed(("GET", "HEAD"))
    if leaf is errors.InsufficientScope:
        return errors.InsufficientScope("orders:read orders:write")
    return leaf()


def test_the_docstring_draws_every_leaf_with_its_status_and_code() -> None:
    """Whoever reads the top of the file has seen all of it."""
    drawn = set(re.findall(r"[├└]─ (\w+) ", errors.__doc__ or "")) | set(
        re.findall(r"[├└]─ (\w+)$", errors.__doc__ or "", re.MULTILINE)
    )
    assert {leaf.__name__ for leaf in LEAVES} <= drawn
    for leaf in LEAVES:
        line = next(line for line in (errors.__doc__ or "").splitlines() if f"─ {leaf.__name__} " in line)
        assert leaf.code in line.split()


def test_codes_are_stable_words_and_each_belongs_to_one_leaf() -> None:
    """A client may compare codes; two failures never share one."""
    codes = [leaf.code for leaf in LEAVES]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_the_status_says_whose_fault_it_was(leaf: type[GatewayError]) -> None:
    """4xx is the client's, 5xx is ours or the upstream's; each leaf has exactly one branch."""
    assert issubclass(leaf, ClientError) == (400 <= leaf.status < 500)
    assert sum(issubclass(leaf, branch) for branch in (ClientError, GatewayFault, UpstreamFault)) == 1


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_every_503_says_when_to_come_back(leaf: type[GatewayError]) -> None:
    """RFC 9110 §15.6.4: so that clients wait instead of hammering."""
    assert (leaf.status != 503) or (leaf.retry_after_s or 0) > 0


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_the_cause_is_not_part_of_the_text(leaf: type[GatewayError]) -> None:
    """What is for the log only cannot slip out through `str(error)`."""
    error = make(leaf)
    error.cause = "10.0.0.7 said no"
    assert "10.0.0.7" not in str(error)
    assert error.title.endswith(".")
