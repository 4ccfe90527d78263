"""Hash slots as Redis counts them, and the histories that cover them."""

import pytest

from gateway.denylist.history import Coverage, History
from gateway.redis.slots import slot_of
from tests.denylist.deployments import ClusterDeployment


@pytest.mark.parametrize("key", ["123456789", "foo", "{user}a", "a{user}b", "a{}b", "a{b", "a}b{c}", "ü→", "{{x}}"])
def test_a_slot_is_the_one_that_redis_computes(cluster_deployment: ClusterDeployment, key: str) -> None:
    """Hash tags included; compared with `CLUSTER KEYSLOT` of a real server."""
    assert slot_of(key) == int(cluster_deployment.nodes[0].cli("CLUSTER", "KEYSLOT", key))


def test_the_published_example() -> None:
    """Redis Cluster specification, appendix: CRC16 of "123456789" is 0x31C3."""
    assert slot_of("123456789") == 0x31C3 % 16384


def test_coverage_survives_as_json() -> None:
    """Runs of slots with one history; the others are not covered."""
    coverage = Coverage()
    coverage.settle(range(5, 10), History("a", "1", "7"))
    coverage.settle(range(10, 12), History("b", "2"))
    coverage.settle([16383], History("a", "1", "7"))
    runs = coverage.to_json()
    assert runs == [[5, 9, "a", "1", "7"], [10, 11, "b", "2", ""], [16383, 16383, "a", "1", "7"]]
    again = Coverage()
    again.restore(runs)
    assert again.to_json() == runs
