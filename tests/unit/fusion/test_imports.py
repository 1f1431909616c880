"""What a worker's process imports: all that it needs, and nothing that only other commands do. Each second is one without signals."""

from __future__ import annotations

import subprocess
import sys

UNUSED = (
    "fakeredis",
    "fastavro",
    "faust",
    "jinja2",
    "matplotlib",
    "openai",
    "pandas",
    "PIL",
    "pyarrow",
    "scipy",
    "services.cli",
    "services.inference.llamacpp_client",
    "services.inference.local",
    "services.inference.openai_client",
    "services.inference.simulator",
    "services.inference.vllm_client",
    "starlette",
    "talib",
    "torch",
    "typer",
)
"""Of a worker in front of SGLang, on topics in JSON, whose symbols trade at all hours."""

PROGRAM = """
import sys
from services.core.clock import SystemClock
from services.core.lifecycle import run_service
from services.core.settings import Settings
from services.fusion.service import build, connect_engine, load_tokenizer
from services.core.bus.connect import connect
settings = Settings()
connect(settings.bus, SystemClock(), settings.topics)
connect_engine(settings.engine, SystemClock())
load_tokenizer(settings.engine)
print("unused:", sorted(set(sys.modules) & set({unused!r})))
"""


def test_a_worker_imports_nothing_that_it_does_not_use() -> None:
    program = PROGRAM.format(unused=UNUSED)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.splitlines()[-1] == "unused: []"
