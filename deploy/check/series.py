"""The known series with their labels: those of `services/core/metrics.py`, of recording rules, of engines and of GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml
from prometheus_client import Counter, Gauge, Histogram, Info, Summary
from prometheus_client.metrics import MetricWrapperBase

from deploy.check.promql import names_in
from deploy.check.result import REPOSITORY
from services.core import metrics

FOLDER: Final = REPOSITORY / "deploy" / "prometheus"
SCRAPED: Final = frozenset({"job", "instance"})
"""Labels that a scrape adds to every series."""

_ENGINE: Final = frozenset(
    {
        "sglang:num_running_reqs",
        "sglang:num_queue_reqs",
        "sglang:num_used_tokens",
        "sglang:token_usage",
        "sglang:max_total_num_tokens",
        "sglang:cache_hit_rate",
        "sglang:spec_accept_length",
        "sglang:gen_throughput",
        "sglang:num_requests_total",
        "sglang:num_aborted_requests_total",
        "sglang:prompt_tokens_total",
        "sglang:cached_tokens_total",
        "sglang:generation_tokens_total",
    }
)
"""What both SGLang 0.5.x with --enable-metrics (its "Production Metrics" page) and the simulator export; a test holds the latter."""

_GPU: Final = frozenset(
    {
        "DCGM_FI_DEV_XID_ERRORS",
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        "DCGM_FI_DEV_ROW_REMAP_FAILURE",
    }
)
"""Of dcgm-exporter's default-counters.csv; the double-bit errors are commented out there, and counted where that is undone."""

_SUFFIXES: Final[Mapping[type[MetricWrapperBase], tuple[str, ...]]] = {
    Counter: ("_total",),
    Gauge: ("",),
    Histogram: ("_bucket", "_sum", "_count"),
    Info: ("_info",),
    Summary: ("_sum", "_count"),
}


def known() -> dict[str, frozenset[str]]:
    """Return the labels of every series that rules and dashboards may name."""
    found = dict(_ours())
    found |= dict.fromkeys(_ENGINE, SCRAPED | {"model_name"})
    found |= dict.fromkeys(_GPU, SCRAPED | {"gpu", "Hostname"})
    found |= {"up": SCRAPED, "ALERTS": SCRAPED | {"alertname", "alertstate", "severity"}}
    for family in metrics.REGISTRY.collect():
        if family.name.startswith(("process_", "python_")):
            found |= {sample.name: SCRAPED | set(sample.labels) for sample in family.samples}
    found |= {rule["record"]: frozenset(names_in(rule["expr"]).grouped) for rule in rules() if "record" in rule}
    return found


def rules() -> list[dict[str, Any]]:
    """Return every rule of deploy/prometheus/rules."""
    files = sorted((FOLDER / "rules").glob("*.yml"))
    return [rule for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def unknown_names(expression: str, series: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """Yield a sentence for each metric or label in `expression` that is not in `series`."""
    found = names_in(expression)
    for metric, labels in found.metrics.items():
        if metric not in series:
            yield f"{metric} is not a known metric"
        elif unknown := labels - series[metric]:
            yield f"{metric} has no label {', '.join(sorted(unknown))}; its labels are {', '.join(sorted(series[metric]))}"
    everywhere = frozenset[str]().union(*(series.get(metric, frozenset()) for metric in found.metrics))
    if unknown := found.grouped - everywhere:
        yield f"none of its metrics has a label {', '.join(sorted(unknown))}"


def _ours() -> Iterator[tuple[str, frozenset[str]]]:
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            labels = SCRAPED | set(metric._labelnames)  # noqa: SLF001 - the library has no public API for them
            # A histogram with negative buckets has no sum: its sum can fall, which Prometheus would read as a restart.
            fallible = isinstance(metric, Histogram) and metric._upper_bounds[0] < 0  # noqa: SLF001
            for suffix in (one for one in _SUFFIXES[type(metric)] if not (fallible and one == "_sum")):
                yield f"{metric._name}{suffix}", labels | ({"le"} if suffix == "_bucket" else set())  # noqa: SLF001
