"""Checks the settings that an overlay's pods read, and that manifests agree with them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch
from urllib.parse import urlsplit

from deploy.check.k8s.rendered import Rendered, Workload, title_of
from schemas import RunMode, Topic, topic_name
from services.core.settings import Settings, SettingsError, load
from services.core.topic_admin import topic_config
from services.inference.launcher import presets

LIVE: Final = "fusion"
SHADOW: Final = "fusion-shadow"

_FILE: Final = "aquiline.toml"
_FOLDER: Final = "/etc/aquiline"
_DAY_MS: Final = 86_400_000
_MARGIN_MS: Final = 5_000
"""Between the end of the drain with its last requests and the SIGKILL."""
_LIVE_COPIES: Final = 3
_TOKEN: Final = "aquiline_console__token"  # noqa: S105 - a file's name
_SASL: Final = {"PLAIN": "plaintext", "SCRAM-SHA-256": "scram_sha256", "SCRAM-SHA-512": "scram_sha512"}


def problems(overlay: Rendered) -> Iterator[str]:
    """Yield each problem of an overlay's settings, and each disagreement of a manifest with them."""
    settings = settings_of(overlay)
    if isinstance(settings, str):
        yield settings
        return
    yield from _worker(overlay, settings, LIVE)
    yield from _features(overlay, settings)
    yield from _console(overlay)
    yield from _engines(overlay, settings)
    yield from _topics(overlay, settings)
    for scaled in overlay.of_kind("ScaledObject"):
        yield from (f"{title_of(scaled)}: {sentence}" for sentence in _scaled(scaled["spec"], overlay, settings))


def shadow_problems(overlay: Rendered) -> Iterator[str]:
    """Yield each problem of a candidate that is deployed beside an overlay."""
    settings = settings_of(overlay, SHADOW)
    if isinstance(settings, str):
        yield settings
        return
    yield from _worker(overlay, settings, SHADOW)
    if settings.run_mode is not RunMode.SHADOW:
        yield f"run_mode is {settings.run_mode.value!r}, but a candidate beside live runs in shadow"


def settings_of(overlay: Rendered, worker: str = LIVE) -> Settings | str:
    """Return the settings in the ConfigMap that a worker reads, or a sentence with the problem."""
    volumes = overlay.workload(worker).pod.get("volumes", [])
    read = {volume["configMap"]["name"] for volume in volumes if "configMap" in volume}
    maps = [one for one in overlay.of_kind("ConfigMap") if one["metadata"]["name"] in read and _FILE in one["data"]]
    if len(maps) != 1:
        return f"StatefulSet {worker}: {len(maps)} of its ConfigMaps exist and hold {_FILE}; expected one"
    return _load(maps[0]["data"], {})


def _features(overlay: Rendered, settings: Settings) -> Iterator[str]:
    """Yield a sentence when the market service is told of features of the user's own that no ConfigMap holds."""
    file = settings.market.features_file
    held = {f"{_FOLDER}/{key}" for one in overlay.of_kind("ConfigMap") if _FILE in one["data"] for key in one["data"]}
    if file is not None and str(file) not in held:
        yield f"market.features_file names {str(file)!r}; the ConfigMap of the settings has {', '.join(sorted(held))}"


def _load(files: Mapping[str, str], variables: Mapping[str, str]) -> Settings | str:
    """Load settings as a pod does, from these files of its folder (a strategy may be among them) and with only these variables."""
    with tempfile.TemporaryDirectory() as folder:
        known = {name: value for name, value in variables.items() if name not in {"AQUILINE_CONFIG", "AQUILINE_SECRETS_DIR"}}
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        file = Path(folder) / _FILE if _FILE in files else None
        with patch.dict(os.environ, known, clear=True):
            try:
                return load(file)
            except SettingsError as error:
                return f"{_FILE}: {error}"


def _reads(workload: Workload, overlay: Rendered) -> Iterator[str]:
    variables = {name: value for name, value in workload.variables.items() if name.startswith("AQUILINE_")}
    if isinstance(wrong := _load({}, variables), str):
        yield f"variables: {wrong}"
    mounts = {one["mountPath"]: one["name"] for one in workload.pod["containers"][0].get("volumeMounts", [])}
    if file := variables.get("AQUILINE_CONFIG"):
        volumes = {one["name"]: one for one in workload.pod.get("volumes", [])}
        name = volumes.get(mounts.get(_FOLDER, ""), {}).get("configMap", {}).get("name")
        held = {key for one in overlay.of_kind("ConfigMap") if one["metadata"]["name"] == name for key in one["data"]}
        if file not in {f"{_FOLDER}/{key}" for key in held}:
            yield f"AQUILINE_CONFIG names {file!r}, which no mounted ConfigMap holds"
    if (folder := variables.get("AQUILINE_SECRETS_DIR")) and folder not in mounts:
        yield f"AQUILINE_SECRETS_DIR names {folder!r}, which is not a mounted volume"


def _worker(overlay: Rendered, settings: Settings, name: str) -> Iterator[str]:
    if settings.http.host.startswith("127."):
        yield f"http.host is {settings.http.host!r}: probes and Prometheus connect from outside the pod; write 0.0.0.0"
    worker = overlay.workload(name)
    held_ms = worker.pod.get("terminationGracePeriodSeconds", 30) * 1000
    needed_ms = settings.fusion.drain_ms + settings.bus.request_timeout_ms + _MARGIN_MS
    if held_ms < needed_ms:
        yield (
            f"StatefulSet {name}: terminationGracePeriodSeconds is {held_ms // 1000} and must be at least {-(-needed_ms // 1000)}: "
            f"fusion.drain_ms ({settings.fusion.drain_ms}), bus.request_timeout_ms ({settings.bus.request_timeout_ms}) for the last "
            f"commit, and {_MARGIN_MS} ms"
        )
    static = [
        one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        for one in worker.pod["containers"][0]["env"]
        if one["name"] == "AQUILINE_BUS__INSTANCE_ID"
    ]
    if worker.kind != "StatefulSet" or static != ["metadata.name"]:
        yield (
            f"{name}: AQUILINE_BUS__INSTANCE_ID must be the pod's name (metadata.name) in a StatefulSet, so that a replacement pod is "
            "the same group member"
        )
    for workload in overlay.workloads:
        yield from (f"{workload.kind} {workload.name}: {sentence}" for sentence in _reads(workload, overlay))
    for workload in overlay.workloads:
        variables = {one["name"] for one in workload.pod["containers"][0].get("env", [])}
        if workload.kind != "StatefulSet" and "AQUILINE_BUS__INSTANCE_ID" in variables:
            yield (
                f"{workload.kind} {workload.name}: AQUILINE_BUS__INSTANCE_ID with changing names leaves a dead group member behind at each "
                "roll-out"
            )


def _console(overlay: Rendered) -> Iterator[str]:
    console = overlay.workload("console")
    folder = console.variables.get("AQUILINE_SECRETS_DIR")
    mounts = {one["mountPath"]: one["name"] for one in console.pod["containers"][0].get("volumeMounts", [])}
    volumes = {one["name"]: one for one in console.pod.get("volumes", [])}
    sources = volumes.get(mounts.get(folder or "", ""), {}).get("projected", {}).get("sources", [])
    files = {item["path"] for source in sources for item in source.get("secret", {}).get("items", [])}
    if _TOKEN not in files:
        yield (
            f"Deployment console: AQUILINE_SECRETS_DIR is {folder!r} and no secret is mounted there as {_TOKEN}, so the page could halt "
            "nothing"
        )


def _engines(overlay: Rendered, settings: Settings) -> Iterator[str]:
    services = {one["metadata"]["name"]: one for one in overlay.of_kind("Service")}
    engine = overlay.workload("engine")
    own = {f"engine-{number}.engine" for number in range(engine.replicas or 0)} if engine.kind == "StatefulSet" else {"engine"}
    asked = {urlsplit(url).hostname or "" for url in settings.engine.urls}
    if asked != own:
        yield f"engine.urls names {sorted(asked)}; the engines are {sorted(own)}"
    ports = {urlsplit(url).port for url in settings.engine.urls}
    if ports != {port["port"] for port in services["engine"]["spec"]["ports"]}:
        yield f"engine.urls has the ports {sorted(map(str, ports))}, which the service 'engine' does not have"
    if "--preset" in engine.command:
        yield from _real_engines(overlay, settings, engine)


def _real_engines(overlay: Rendered, settings: Settings, engine: Workload) -> Iterator[str]:
    preset = presets.load(engine.command[engine.command.index("--preset") + 1])
    at_once = (overlay.workload("fusion").replicas or 1) * (settings.fusion.permits + settings.fusion.deep_permits)
    room = (engine.replicas or 1) * preset.engine.max_running_requests
    if at_once > room:
        yield f"fusion makes up to {at_once} calls at once (replicas times permits and deep permits); the engines decode {room}"
    variables = {name: value for name, value in engine.variables.items() if name.startswith("AQUILINE_")}
    own = _load({}, variables)
    if isinstance(own, Settings):
        for section, key in (("redis", "url"), ("redis", "username"), ("redis", "namespace"), ("engine", "chat_template")):
            said, wanted = (getattr(getattr(one, section), key) for one in (own, settings))
            if said != wanted:
                yield f"StatefulSet engine: {section}.{key} is {said!r}, the workers' is {wanted!r}: the engine would not be warmed"


def _topics(overlay: Rendered, settings: Settings) -> Iterator[str]:
    created = _options(overlay.workload("topics"))
    partitions = int(created.get("--partitions", "0"))
    if not partitions:
        yield "Job topics: --partitions is missing: the count cannot be changed later, so state it"
        return
    workers = overlay.workload("fusion").replicas or 1
    if workers > partitions:
        yield f"fusion has {workers} pods and the topics {partitions} partitions: some pods would be idle"
    if settings.run_mode is not RunMode.LIVE:
        return
    copies = int(created.get("--replication", "1"))
    if copies < _LIVE_COPIES:
        yield (f"Job topics: --replication is {copies}; live needs {_LIVE_COPIES} copies, with min.insync.replicas {_LIVE_COPIES - 1}")
    audited_ms = int(topic_config(Topic.SIGNAL_AUDIT, copies)["retention.ms"])
    if int(created.get("--input-days", "0")) * _DAY_MS < audited_ms:
        yield (
            f"Job topics: --input-days must be at least {audited_ms // _DAY_MS}, as long as the audit is kept, so that each audit record "
            "can be verified"
        )


def _options(workload: Workload) -> dict[str, str]:
    words = workload.command
    return {word: words[at + 1] for at, word in enumerate(words[:-1]) if word.startswith("--")}


def _scaled(spec: Mapping[str, Any], overlay: Rendered, settings: Settings) -> Iterator[str]:
    name = spec["scaleTargetRef"]["name"]
    target = overlay.workload(name)
    if target.replicas is not None:
        yield f"{target.kind} {name} sets replicas {target.replicas}, which every apply would restore"
    partitions = int(_options(overlay.workload("topics")).get("--partitions", "0"))
    if spec["maxReplicaCount"] > partitions:
        yield f"maxReplicaCount is {spec['maxReplicaCount']} and the topic has {partitions} partitions"
    group = {"market": settings.market.group, "vision": settings.vision.group}.get(name)
    secure = settings.bus.security
    wanted = {
        "bootstrapServers": settings.bus.url.removeprefix("kafka://"),
        "consumerGroup": group,
        "topic": topic_name(Topic.CANDLES, settings.run_mode),
        "sasl": _SASL[settings.bus.sasl_mechanism] if secure.startswith("sasl") else None,
        "tls": "enable" if secure.endswith("ssl") else None,
    }
    for trigger in spec["triggers"]:
        for key, value in wanted.items():
            if trigger["metadata"].get(key) != value:
                yield f"the trigger's {key} is {trigger['metadata'].get(key)!r}; the settings say {value!r}"
