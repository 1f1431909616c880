"""The objects that kustomize renders from a folder, and the workloads among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from deploy.check.tools import problems, run

Manifest = Mapping[str, Any]
_WORKLOADS: Final = ("Deployment", "StatefulSet", "Job")


class RenderError(Exception):
    """Kustomize refused a folder; the message is its output."""


@dataclass(frozen=True, slots=True)
class Workload:
    """An object that creates pods."""

    manifest: Manifest

    @property
    def kind(self) -> str:
        """Return `Deployment`, `StatefulSet` or `Job`."""
        return str(self.manifest["kind"])

    @property
    def name(self) -> str:
        """Return its name, which is also its service's."""
        return str(self.manifest["metadata"]["name"])

    @property
    def pod(self) -> Mapping[str, Any]:
        """Return the specification of its pods."""
        spec: Mapping[str, Any] = self.manifest["spec"]["template"]["spec"]
        return spec

    @property
    def labels(self) -> Mapping[str, str]:
        """Return the labels of its pods."""
        labels: Mapping[str, str] = self.manifest["spec"]["template"]["metadata"]["labels"]
        return labels

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        """Return every container of its pods, init containers included."""
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    @property
    def replicas(self) -> int | None:
        """Return the number of pods, None when a scaler decides it."""
        replicas: int | None = self.manifest["spec"].get("replicas")
        return replicas

    @property
    def command(self) -> list[str]:
        """Return the first container's command with its arguments."""
        first = self.pod["containers"][0]
        return [*first.get("command", []), *first.get("args", [])]

    @property
    def variables(self) -> dict[str, str]:
        """Return the variables of the first container that have a literal value."""
        return {one["name"]: one["value"] for one in self.pod["containers"][0].get("env", []) if "value" in one}


@dataclass(frozen=True, slots=True)
class Rendered:
    """The objects of a folder of `k8s/`."""

    name: str
    objects: Sequence[Manifest]

    def of_kind(self, *kinds: str) -> Iterator[Manifest]:
        """Yield the objects of these kinds."""
        return (one for one in self.objects if one["kind"] in kinds)

    @property
    def workloads(self) -> list[Workload]:
        """Return the objects that create pods."""
        return [Workload(one) for one in self.of_kind(*_WORKLOADS)]

    def workload(self, name: str) -> Workload:
        """Return the workload of that name; raise KeyError when it does not exist."""
        return {one.name: one for one in self.workloads}[name]


def render(folder: str) -> Rendered:
    """Build `folder`, a path below the repository; raise RenderError, or MissingToolError without `kubectl`."""
    done = run("kubectl", ["kustomize", folder], install="make setup")
    if wrong := problems(done):
        raise RenderError(f"kubectl kustomize {folder}: {'; '.join(wrong)}")
    return Rendered(folder, [one for one in yaml.safe_load_all(done.stdout) if one])


def title_of(manifest: Manifest) -> str:
    """Return kind and name of an object."""
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a label selector matches `labels`; an empty selector matches everything."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions", []))


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", [])
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case other:
            raise RenderError(f"selector operator {other!r} is unknown; expected In, NotIn, Exists or DoesNotExist")
