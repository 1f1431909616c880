"""One control plane for all tests of this folder, built when the cache has none; each module starts with an empty cluster."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

from tests.cluster.binaries import Binaries, binaries
from tests.cluster.cluster import Cluster
from tests.cluster.servers import ControlPlane


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Return the running control plane. Nothing is skipped where it cannot run: these tests are asked for by name."""
    programs: Binaries = binaries(_say)
    started = time.perf_counter()
    with ControlPlane(tmp_path_factory.mktemp("cluster"), programs) as plane:
        _say(f"Kubernetes {programs.version} serves after {time.perf_counter() - started:.0f} s")
        yield plane


@pytest.fixture(scope="session")
def shared(control_plane: ControlPlane) -> Iterator[Cluster]:
    """Return the session's cluster."""
    with Cluster(control_plane) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """Return the cluster, empty."""
    shared.clear()
    yield shared
    shared.clear()


def _say(text: str) -> None:
    sys.stderr.write(f"cluster: {text}\n")
    sys.stderr.flush()
