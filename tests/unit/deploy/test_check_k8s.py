"""The checks of k8s/ report each kind of mistake with its object."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from deploy import prometheus_rule
from deploy.check import k8s
from deploy.check.k8s import configuration, network, pods, references, schemas
from deploy.check.k8s.network import End, Flow, passes
from deploy.check.k8s.rendered import Manifest, Rendered, RenderError, render
from deploy.check.result import REPOSITORY

Path_ = tuple[str | int, ...]
POD: Path_ = ("spec", "template", "spec")
MAIN: Path_ = (*POD, "containers", 0)


@cache
def overlay(name: str) -> Rendered:
    return render(f"k8s/overlays/{name}")


def changed(name: str, target: str, path: Path_, value: object) -> Rendered:
    """Return the overlay with one value set, or with None taken away, in the object `KIND/NAME`; the path's last step may be new."""
    objects: list[Any] = copy.deepcopy(list(overlay(name).objects))
    (at,) = [one for one in objects if f"{one['kind']}/{one['metadata']['name']}" == target or target == one["kind"] == "ConfigMap"]
    for step in path[:-1]:
        at = at[step]
    if value is None:
        del at[path[-1]]
    elif path[-1] == "+":
        at.append(value)
    else:
        at[path[-1]] = value
    return Rendered(name, objects)


@pytest.mark.parametrize(
    ("target", "path", "value", "said"),
    [
        ("Deployment/market", ("spec", "replica"), 3, "replica"),
        ("Deployment/market", ("apiVersion",), "apps/v1beta1", "no Deployment in Kubernetes"),
        ("ScaledObject/market", ("spec", "maxReplicas"), 3, "maxReplicas"),
        ("ScaledObject/market", ("spec", "triggers", 0, "type"), None, "'type' is a required property"),
        ("PodMonitor/services", ("spec", "podMetricsEndpoints", 0, "intervall"), "1s", "intervall"),
        ("TriggerAuthentication/kafka", ("spec", "secretTargetRef", 0, "keys"), "x", "keys"),
    ],
)
def test_a_field_that_no_schema_knows_is_reported(target: str, path: Path_, value: object, said: str) -> None:
    of_kind = changed("scale", target, path, value).of_kind(target.partition("/")[0])
    found = list(schemas.problems(Rendered("scale", list(of_kind))))
    assert [sentence for sentence in found if said in sentence], found


@pytest.mark.parametrize(
    ("target", "path", "value", "said"),
    [
        # The restricted Pod Security Standard
        ("StatefulSet/engine", (*POD, "hostIPC"), True, "hostIPC is set"),
        ("StatefulSet/engine", (*POD, "volumes", "+"), {"name": "x", "hostPath": {"path": "/"}}, "hostPath"),
        ("Deployment/vision", (*POD, "securityContext", "runAsNonRoot"), None, "runAsNonRoot is not true"),
        ("Deployment/vision", (*POD, "securityContext", "runAsUser"), 0, "runAsUser is 0"),
        ("Deployment/vision", (*POD, "securityContext", "seccompProfile"), None, "must be RuntimeDefault"),
        ("Deployment/vision", (*MAIN, "securityContext", "seccompProfile"), {"type": "Unconfined"}, "must be RuntimeDefault"),
        ("Deployment/vision", (*MAIN, "securityContext", "allowPrivilegeEscalation"), True, "allowPrivilegeEscalation"),
        ("Deployment/vision", (*MAIN, "securityContext", "capabilities"), {"drop": ["NET_RAW"]}, "drop ALL"),
        ("Deployment/vision", (*MAIN, "securityContext", "privileged"), True, "privileged"),
        ("Deployment/vision", (*MAIN, "ports", 0, "hostPort"), 9400, "hostPort"),
        # And a little more
        ("Deployment/redis", (*MAIN, "securityContext", "readOnlyRootFilesystem"), False, "readOnlyRootFilesystem"),
        ("Deployment/redis", (*POD, "automountServiceAccountToken"), True, "automountServiceAccountToken"),
        ("Deployment/redis", (*POD, "enableServiceLinks"), None, "enableServiceLinks"),
        ("Deployment/redis", (*MAIN, "image"), "redis:latest", "not pinned"),
        ("Deployment/redis", (*MAIN, "image"), "redis", "not pinned"),
        ("Deployment/redis", (*MAIN, "resources", "limits"), None, "resources.limits.memory is missing"),
        ("Deployment/market", (*MAIN, "livenessProbe"), None, "livenessProbe is missing"),
        ("Deployment/market", (*MAIN, "readinessProbe", "httpGet", "port"), "web", "uses port 'web'"),
        ("Deployment/market", (*POD, "topologySpreadConstraints"), None, "topologySpreadConstraints"),
        ("Deployment/market", (*POD, "terminationGracePeriodSeconds"), None, "terminationGracePeriodSeconds is missing"),
        ("Deployment/market", (*POD, "volumes", 1, "emptyDir"), {}, "sizeLimit"),
        ("Deployment/market", (*MAIN, "env", "+"), {"name": "AQUILINE_BUS__PASSWORD", "value": "hunter2"}, "secrets are read from files"),
        ("Deployment/market", (*MAIN, "command"), ["python", "-m", "services.nothing"], "module services.nothing does not exist"),
        ("Job/topics", (*MAIN, "args"), ["--partition", "12"], "--partition"),
        ("Job/topics", ("spec", "ttlSecondsAfterFinished"), None, "ttlSecondsAfterFinished"),
        ("PodDisruptionBudget/fusion", ("spec", "selector", "matchLabels"), {"app.kubernetes.io/name": "market"}, "expected one"),
        # Names that name nothing
        ("Deployment/market", (*POD, "volumes", 0, "configMap", "name"), "old", "'old', which does not exist"),
        ("Deployment/market", (*POD, "volumes", 2, "secret", "secretName"), "kafka", "table of secrets"),
        ("Deployment/market", (*POD, "volumes", 2, "secret", "optional"), True, "is optional"),
        ("Deployment/market", (*MAIN, "volumeMounts", 0, "name"), "settings", "mounts a volume 'settings'"),
        ("Deployment/market", (*POD, "serviceAccountName"), "default", "serviceAccountName 'default'"),
        ("StatefulSet/fusion", (*POD, "volumes", "+"), {"name": "x", "emptyDir": {"sizeLimit": "1Mi"}}, "nothing mounts"),
        ("StatefulSet/fusion", (*POD, "volumes", 3, "persistentVolumeClaim", "claimName"), "m", "claim 'm'"),
        ("StatefulSet/fusion", ("spec", "serviceName"), "workers", "not a headless service"),
        ("Service/engine", ("spec", "ports", 0, "targetPort"), "grpc", "'grpc' is not a port of"),
        ("Service/redis", ("spec", "selector"), {"app": "redis"}, "selects nothing"),
        ("PodMonitor/engine", ("spec", "podMetricsEndpoints", 0, "port"), "metrics", "'metrics' is not a port of"),
        ("TriggerAuthentication/kafka", ("spec", "secretTargetRef", 1, "key"), "password", "table of secrets"),
        # Settings, and what has to agree with them
        ("ConfigMap", ("data", "aquiline.toml"), "[fusion]\npermit = 3", "fusion.permit: no such setting"),
        ("StatefulSet/fusion", (*POD, "terminationGracePeriodSeconds"), 20, "must be at least 25"),
        ("StatefulSet/fusion", (*MAIN, "env", 2, "valueFrom", "fieldRef", "fieldPath"), "metadata.uid", "metadata.name"),
        ("StatefulSet/fusion", ("spec", "replicas"), 24, "24 pods and the topics 12 partitions"),
        ("StatefulSet/fusion", ("spec", "replicas"), 6, "makes up to 18 calls at once"),
        ("StatefulSet/fusion", (*MAIN, "env", 0, "value"), "/etc/other.toml", "which no mounted ConfigMap holds"),
        ("StatefulSet/fusion", (*MAIN, "env", 1, "value"), "/secrets", "not a mounted volume"),
        ("StatefulSet/fusion", (*MAIN, "env", "+"), {"name": "AQUILINE_FUSION__PERMIT", "value": "3"}, "no such setting"),
        ("Deployment/market", (*MAIN, "env", "+"), {"name": "AQUILINE_BUS__INSTANCE_ID", "value": "m"}, "dead group member"),
        ("StatefulSet/engine", ("spec", "replicas"), 3, "the engines are"),
        ("StatefulSet/engine", (*MAIN, "env", 1, "value"), "redis://other:6379/0", "the engine would not be warmed"),
        ("Job/topics", (*MAIN, "args"), ["--partitions", "12", "--replication", "1", "--input-days", "365"], "needs 3 copies"),
        ("Job/topics", (*MAIN, "args"), ["--partitions", "12", "--replication", "3", "--input-days", "90"], "at least 365"),
        ("Deployment/vision", ("spec", "replicas"), 2, "every apply would restore"),
        ("ScaledObject/vision", ("spec", "maxReplicaCount"), 13, "has 12 partitions"),
        ("ScaledObject/vision", ("spec", "triggers", 0, "metadata", "consumerGroup"), "vision", "the settings say 'aquiline-vision'"),
        ("ScaledObject/vision", ("spec", "triggers", 0, "metadata", "tls"), "disable", "the settings say 'enable'"),
        ("ScaledObject/vision", ("spec", "triggers", 0, "metadata", "topic"), "shadow.candles", "the settings say 'candles'"),
        ("Deployment/console", (*POD, "volumes", 1, "projected", "sources", 0, "secret", "items"), [], "no secret is mounted there"),
        ("Deployment/console", (*MAIN, "env", 1, "value"), "/run/secrets", "the page could halt nothing"),
        # Connections
        ("NetworkPolicy/names", ("spec", "egress"), [], "block market to DNS:53/UDP"),
        ("NetworkPolicy/kafka-clients", ("spec", "egress", 0, "ports", 0, "port"), 9092, "block fusion to kafka-0.kafka.internal:9093/TCP"),
        ("NetworkPolicy/redis", ("spec", "ingress"), [], "block fusion to redis:6379/TCP"),
        ("NetworkPolicy/engine", ("spec", "podSelector", "matchLabels"), {"app": "x"}, "block fusion to engine:30000/TCP"),
        ("NetworkPolicy/scraping", ("spec", "ingress", 0, "from", 0, "namespaceSelector"), None, "block Prometheus to fusion:9400/TCP"),
        ("NetworkPolicy/default-deny", ("spec", "policyTypes"), ["Ingress"], "denies everything by default"),
        ("NetworkPolicy/names", ("spec", "egress", 0), {}, "allow redis to the internet:443/TCP"),
        ("NetworkPolicy/engine", ("spec", "ingress", 0, "from"), None, "allow a pod of another namespace to engine:30000/TCP"),
        ("NetworkPolicy/engine-clients", ("spec", "podSelector"), {"matchLabels": {"app": "x"}}, "selects nothing"),
    ],
)  # fmt: skip
def test_each_mistake_is_reported_with_its_object(target: str, path: Path_, value: object, said: str) -> None:
    careless = changed("scale", target, path, value)
    found = [sentence for module in (pods, references, configuration, network) for sentence in module.problems(careless)]
    assert [sentence for sentence in found if said in sentence], found


@pytest.mark.parametrize(
    ("target", "path", "value", "said"),
    [
        ("ConfigMap", ("data", "aquiline.toml"), 'run_mode = "live"\n[http]\nhost = "0.0.0.0"', "runs in shadow"),
        ("ConfigMap", ("data", "aquiline.toml"), 'run_mode = "shadow"', "write 0.0.0.0"),
        ("StatefulSet/fusion-shadow", (*POD, "terminationGracePeriodSeconds"), 10, "must be at least 25"),
        ("StatefulSet/fusion-shadow", (*POD, "volumes", 0, "configMap", "name"), "config", "expected one"),
    ],
)
def test_a_candidate_that_is_not_one_is_reported(target: str, path: Path_, value: object, said: str) -> None:
    found = list(configuration.shadow_problems(changed("../shadow", target, path, value)))
    assert [sentence for sentence in found if said in sentence], found


def _policy(name: str, selector: object, **directions: object) -> Manifest:
    types = [{"ingress": "Ingress", "egress": "Egress"}[key] for key in directions]
    return {"metadata": {"name": name, "namespace": "here"}, "spec": {"podSelector": selector, "policyTypes": types, **directions}}


def test_a_connection_passes_when_both_its_ends_let_it() -> None:
    one, two = End("one", {"app": "one"}, "here"), End("two", {"app": "two"}, "here")
    deny = _policy("deny", {}, ingress=[], egress=[])
    out = _policy(
        "out", {"matchLabels": {"app": "one"}}, egress=[{"to": [{"podSelector": {"matchLabels": {"app": "two"}}}], "ports": [{"port": 80}]}]
    )
    into = _policy("into", {"matchLabels": {"app": "two"}}, ingress=[{"from": [{"podSelector": {}}], "ports": [{"port": 80}]}])
    flow = Flow(one, two, 80)
    assert tuple(passes(some, flow) for some in ([], [deny], [deny, out], [deny, into], [deny, out, into])) == (
        True,
        False,
        False,
        False,
        True,
    )
    assert not passes([deny, out, into], Flow(one, two, 81))
    assert not passes([deny, out, into], Flow(two, one, 80))
    assert not passes([deny, into], Flow(End("one", {"app": "one"}, "elsewhere"), two, 80))


def test_addresses_are_in_a_block_and_not_in_what_it_leaves_out() -> None:
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}
    policy = _policy("out", {}, egress=[{"to": [block], "ports": [{"port": 9093}]}])
    one = End("one", {"app": "one"}, "here")
    reached = {address: passes([policy], Flow(one, End("", address=address), 9093)) for address in ("10.0.0.1", "10.1.0.1", "1.1.1.1")}
    assert reached == {"10.0.0.1": True, "10.1.0.1": False, "1.1.1.1": False}


def test_a_folder_that_kustomize_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [nothing.yaml]\n")
    with pytest.raises(RenderError, match=r"nothing\.yaml"):
        render(str(tmp_path))


def test_the_prometheus_rule_is_what_the_rules_make(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prometheus_rule.problems() == []
    monkeypatch.setattr(prometheus_rule, "FILE", REPOSITORY / "k8s/components/monitoring/pods.yaml")
    assert "make generate" in prometheus_rule.problems()[0]


def test_the_schemas_of_custom_resources_let_nothing_through_that_they_do_not_name() -> None:
    for file in (Path(k8s.__file__).parent / "crds").glob("*.json"):
        assert json.loads(file.read_text())["additionalProperties"] is False
