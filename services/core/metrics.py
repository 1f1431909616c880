"""Every metric that Aquiline exports, with its labels and its unit: the one file to read, and the one to add to.

A label's values come from an enumeration, the settings or at most `fusion.max_symbols` symbols, never from a message as it came.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Info, PlatformCollector, ProcessCollector, disable_created_metrics

# A `_created` series beside every counter would nearly double what is scraped, and nothing reads it.
disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY: Final = CollectorRegistry()
"""What `/metrics` shows: ours, and the process' own (`process_*`, `python_info`)."""
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

# --- Every service ----------------------------------------------------------------------------------------------------------

# Which version runs, as a label of a series that is always 1.
BUILD_INFO: Final = Info("aquiline_build", "The version that runs.", registry=REGISTRY)
BUILD_INFO.info({"version": version("aquiline")})

# Records read, by topic (its name in run mode `live`) and by what became of each: `folded duplicate filtered dead_lettered`.
# The sum over outcomes is the number of records read.
RECORDS: Final = Counter(
    "aquiline_records_total", "Records read, by what became of them.", ["topic", "outcome"], registry=REGISTRY
)

# Records put aside, by reason (schemas.DeadLetterReason). A new reason, or a rate that grows, is a producer gone wrong.
DEAD_LETTERS: Final = Counter("aquiline_dead_letters_total", "Records put aside, by reason.", ["reason"], registry=REGISTRY)

# Top-level fields that this version of the contracts does not know: a newer producer is at work.
UNKNOWN_FIELDS: Final = Counter("aquiline_unknown_fields_total", "Fields of messages that are not known here.", registry=REGISTRY)
