"""Checks `k8s/`: kustomize builds every overlay, which is validated against Kubernetes' schemas and against rules of this project.

`kubectl` is part of the test packages; no cluster is needed.
"""

from __future__ import annotations

from typing import Final

from deploy import prometheus_rule
from deploy.check.k8s import configuration, network, pods, references, schemas
from deploy.check.k8s.rendered import Rendered, render
from deploy.check.result import CheckResult

OVERLAYS: Final = ("local", "local-model", "gpu", "scale")


def check() -> CheckResult:
    """Build and check every overlay, and what is deployed beside one."""
    overlays = {name: render(f"k8s/overlays/{name}") for name in OVERLAYS}
    wrong = [f"{overlay.name}: {sentence}" for overlay in overlays.values() for sentence in problems(overlay)]
    models, shadow = render("k8s/models"), render("k8s/shadow")
    for beside, overlay in ((models, overlays["gpu"]), (shadow, overlays["scale"])):
        together = Rendered(f"{beside.name} with {overlay.name}", [*overlay.objects, *beside.objects])
        wrong += [f"{beside.name}: {sentence}" for sentence in (*schemas.problems(beside), *pods.problems(beside))]
        wrong += [f"{together.name}: {sentence}" for sentence in references.problems(together)]
        if beside is shadow:
            wrong += [f"{together.name}: {sentence}" for sentence in network.problems(together)]
    wrong += [f"{shadow.name}: {sentence}" for sentence in configuration.shadow_problems(shadow)]
    wrong += prometheus_rule.problems()
    objects = sum(len(one.objects) for one in (*overlays.values(), models, shadow))
    return CheckResult(f"k8s, {len(OVERLAYS)} overlays, {objects} objects, Kubernetes {', '.join(schemas.VERSIONS)}", wrong)


def problems(overlay: Rendered) -> list[str]:
    """Return a sentence for each problem of an overlay."""
    return [
        *schemas.problems(overlay),
        *pods.problems(overlay),
        *references.problems(overlay),
        *configuration.problems(overlay),
        *network.problems(overlay),
    ]
