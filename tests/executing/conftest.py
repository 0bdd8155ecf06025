"""One Ray cluster for all tests here: it takes some seconds to start."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package")
def cluster() -> Iterator[str]:
    """The address of a cluster of 4 CPUs on this machine, to which this process is connected."""
    from delta_attnmask.executing.actors import Cluster, connect

    ray, _ = connect(Cluster(n_actors=4))
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
