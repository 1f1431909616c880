"""The tests' cluster: a control plane with nodes, and what a test does with it (apply a folder, run a shell's command, wait)."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from deploy.check.k8s.rendered import Rendered, Workload
from tests.cluster.definitions import definitions
from tests.cluster.nodes import Nodes
from tests.cluster.servers import ControlPlane

NAMESPACE: Final = "aquiline"
_WITHIN_S: Final = 180.0
_POLL_S: Final = 0.2
_NOT_FOUND: Final = 404
_GROUPS: Final = {
    "deployment": "apis/apps/v1",
    "statefulset": "apis/apps/v1",
    "job": "apis/batch/v1",
    "poddisruptionbudget": "apis/policy/v1",
    "scaledobject": "apis/keda.sh/v1alpha1",
}
"""The API group of each kind that is not of the core group."""


class RefusedError(Exception):
    """A command ended with an error, or the API server answered it with a warning; the message is what it wrote."""


class Cluster:
    """A control plane that serves, with the custom resources defined, and no nodes yet."""

    def __init__(self, plane: ControlPlane) -> None:
        """Work on a control plane that is running."""
        self._plane = plane
        self.nodes = Nodes(plane.api)

    def __enter__(self) -> Self:
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(definitions())})
        self.shell("kubectl apply --server-side -f -", given=listed)
        self.shell("kubectl wait --for=condition=Established --timeout=60s crd --all")
        self.shell("kubectl wait --for=create --timeout=120s serviceaccount/default -n default")  # the controllers work
        self.nodes.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.nodes.__exit__()

    def clear(self) -> None:
        """Delete what a test has applied, and the nodes."""
        self.shell(f"kubectl delete namespace {NAMESPACE} --ignore-not-found --timeout=120s")
        self.nodes.clear()

    def shell(self, command: str, *, folder: Path | None = None, given: str | None = None, warnings: bool = True) -> str:
        """Run a command as an operator's shell does and return what it printed; raise RefusedError, for warnings too unless allowed."""
        done = subprocess.run(
            ["/bin/sh", "-euc", command],
            cwd=folder,
            env=self._plane.environment(),
            input=given or "",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 or ("Warning:" in done.stderr and not warnings):
            raise RefusedError(f"`{command}` ended with {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout

    def apply(self, folder: Path | str) -> str:
        """Apply an overlay server-side, with unknown and duplicate fields refused; raise RefusedError, also for a warning."""
        return self.shell(f"kubectl apply --server-side --validate=strict -k {folder}", warnings=False)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Return an object of the namespace; raise KeyError when there is none."""
        found = self.find(kind, name)
        if found is None:
            raise KeyError(f"{kind} {name}")
        return found

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return an object of the namespace, or None."""
        try:
            found: dict[str, Any] = json.loads(self._plane.api.ask("GET", f"{_path(kind)}/{name}"))
        except urllib.error.HTTPError as error:
            if error.code != _NOT_FOUND:
                raise
            return None
        return found

    def items(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """Return the namespace's objects of a kind that a label selector selects."""
        asked = f"{_path(kind)}?labelSelector={quote(selector)}"
        found: list[dict[str, Any]] = json.loads(self._plane.api.ask("GET", asked))["items"]
        return found

    def workloads(self) -> list[dict[str, Any]]:
        """Return the Deployments and StatefulSets."""
        return [*self.items("deployment"), *self.items("statefulset")]

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something holds; raise AssertionError with the pods' state when it does not."""
        end = time.monotonic() + _WITHIN_S
        while not holds():
            assert time.monotonic() < end, f"waited {_WITHIN_S:.0f} s for {what}; {self._state()}"
            time.sleep(_POLL_S)

    def until_running(self, overlay: Rendered, *, jobs: bool = True) -> None:
        """Wait until every pod of an overlay has been scheduled and started, and every job has succeeded.

        Kubernetes deletes a finished job after a while, so a test that comes later leaves jobs out.
        """
        for workload in (one for one in overlay.workloads if jobs or one.kind != "Job"):
            self.until(partial(self._runs, workload), f"{workload.kind} {workload.name} to run")

    def _runs(self, workload: Workload) -> bool:
        held = self.get(workload.kind.lower(), workload.name)
        if workload.kind == "Job":
            return bool(held["status"].get("succeeded") == 1)
        status: Mapping[str, int] = held["status"]
        wanted = workload.replicas or 1
        current = status.get("observedGeneration") == held["metadata"]["generation"]
        return current and status.get("readyReplicas") == wanted and status.get("updatedReplicas") == wanted

    def _state(self) -> str:
        pods = self.shell(f"kubectl -n {NAMESPACE} get pods -o wide")
        events = self.shell(f"kubectl -n {NAMESPACE} get events --field-selector type=Warning")
        return f"the pods:\n{pods}\nthe warnings:\n{events}"


def _path(kind: str) -> str:
    """Return where the API server has the namespace's objects of a kind."""
    return f"/{_GROUPS.get(kind, 'api/v1')}/namespaces/{NAMESPACE}/{kind}s"
