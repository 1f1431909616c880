"""One settings tree for every service, from a TOML file, `AQUILINE_*` variables and secret files; unknown keys are refused.

Settings are resolved once, at the edge. Names end in their unit. `docs/configuration.md` is generated from the descriptions
here, in `fusion_settings.py` and in `services/strategy/values.py`.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import (
    SettingsError as PydanticSettingsError,
)

from schemas import Interval, RunMode
from services.core.fusion_settings import FusionSettings
from services.core.settings_sources import SettingsFile, StrategyFolder
from services.core.topic_settings import TopicSettings
from services.strategy.folder import StrategyError
from services.strategy.section import NotNegative, Positive, Section

ENGINE_GROUP: Final = "aquiline.engines"
"""The entry point group whose members make engines."""


@cache
def engine_kinds() -> tuple[str, ...]:
    """Return the names that `engine.kind` may have: those of the entry point group `aquiline.engines`."""
    return tuple(sorted({one.name for one in entry_points(group=ENGINE_GROUP)}))


def is_loopback(host: str) -> bool:
    """Return whether `host`, a name or an address, is reachable from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class SettingsError(Exception):
    """The settings cannot be used; the text names each key, its value and what was expected."""


class BusSettings(Section):
    """The broker."""

    url: str = Field(
        "kafka://127.0.0.1:9092",
        pattern=r"^(kafka://[^/@]+|memory://)$",
        description="`kafka://host:port[,host:port]`, or `memory://` for an in-process bus.",
    )
    security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext", description="Security protocol of the connection to Kafka."
    )
    ca_file: Path | None = Field(
        None,
        description="PEM file of the authority that signed the broker's certificate; the system's authorities when absent.",
    )
    cert_file: Path | None = Field(None, description="PEM file of the client's own certificate, for mutual TLS.")
    key_file: Path | None = Field(None, description="PEM file of the client's private key.")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="SASL mechanism, used with a `sasl_*` security."
    )
    username: str | None = Field(None, description="SASL user name.")
    password: SecretStr | None = Field(None, description="SASL password.")
    session_timeout_ms: Positive = Field(
        15_000,
        description="The broker removes a group member after this long without a heartbeat. Without `instance_id` a restart after a crash waits for it.",
    )
    rebalance_timeout_ms: Positive = Field(
        60_000, description="Time that a member has to drain when partitions move; must be longer than `fusion.drain_ms`."
    )
    request_timeout_ms: Positive = Field(10_000, description="Timeout of one request to the broker.")
    max_record_bytes: Positive = Field(262_144, description="Larger input records are dead-lettered (`too_large`) without being parsed.")
    instance_id: str | None = Field(
        None,
        description="Stable name of this group member (static membership), such as the pod's name: a worker that is started again gets its partitions back at once. No other member may have it.",
    )


class RedisSettings(Section):
    """The prefix cache. Losing it costs time, never correctness."""

    url: str = Field(
        "redis://127.0.0.1:6379/0",
        pattern=r"^(rediss?://[^@]+|memory://|none://)$",
        description="`redis://` or `rediss://` host:port/db, `memory://` for an in-process stand-in, `none://` for no Redis.",
    )
    ca_file: Path | None = Field(None, description="PEM file of the authority that signed Redis' certificate.")
    username: str | None = Field(None, description="ACL user name.")
    password: SecretStr | None = Field(None, description="ACL password.")
    namespace: str = Field("aquiline", pattern=r"^[a-z0-9-]{1,32}$", description="First part of every key.")
    budget_ms: Positive = Field(100, description="All Redis operations of one decision together wait at most this long.")
    ttl_s: Positive = Field(172_800, description="Lifetime of a cached page in seconds, shortened at random by up to a tenth.")
    breaker_failures: Positive = Field(3, description="Consecutive failures after which the breaker opens and Redis is not called.")
    breaker_open_ms: Positive = Field(5_000, description="How long the breaker stays open.")
    local_bytes: Positive = Field(268_435_456, description="Size of the in-process cache in front of Redis, in bytes.")


_LINE_ENGINES: Final = frozenset({"sglang", "vllm", "llamacpp", "rules"})
"""Kinds of engine that constrain an answer to a line by a regular expression."""


class EngineSettings(Section):
    """The language model's server."""

    kind: str = Field(
        "sglang",
        description="`sglang` (also the simulator), `vllm`, `llamacpp`, `openai` for any other compatible server, `rules` for no model at all, or the name that an installed package registers under the entry point group `aquiline.engines`.",
    )
    urls: Annotated[list[str], Field(min_length=1)] = Field(
        ["http://127.0.0.1:30000"],
        description="Addresses of the engines; symbols are spread over them. Do not put a router in front: the worker needs to see each engine.",
    )
    api_key: SecretStr | None = Field(None, description="Sent as a bearer token.")
    model: str | None = Field(None, description="The model's name, where the server requires one (`openai`).")
    connect_timeout_ms: Positive = Field(1_000, description="Timeout of connecting.")
    scores: bool = Field(
        False,
        description='Ask for log-probabilities with every call, as SGLang needs where any worker asks it in mode `flash`; always on with `fusion.mode = "flash"`.',
    )
    breaker_failures: Positive = Field(
        5, description="Consecutive failures after which the breaker of an address opens and it is not called."
    )
    breaker_open_ms: Positive = Field(1_000, description="How long the breaker stays open before one call tries the address again.")
    probe_idle_ms: Annotated[int, Field(gt=0, le=30_000)] = Field(
        10_000,
        description="An address without calls for this long is probed with a few tokens, so that a hung GPU is found before the next bar.",
    )
    probe_timeout_ms: Annotated[int, Field(gt=0, le=20_000)] = Field(
        10_000, description="Timeout of that probe; a decision that arrives meanwhile ends it."
    )
    max_waiting_uncached_tokens: Positive = Field(
        65_536,
        description="Pre-warming pauses while more uncached prompt tokens than this wait in the engine.",
    )
    tokenizer_file: Path | None = Field(None, description="The model's `tokenizer.json`; the simulator's own when absent.")
    chat_template: Literal["minicpm4", "chatml", "none"] = Field(
        "minicpm4", description="Chat template that wraps the prompt's head and tail; SmolLM2 and Qwen use `chatml`."
    )

    no_think: str | None = Field(
        None,
        description="Ends the prompt of every mode but `deep`, for models that stop thinking on a word such as ` /no_think` (`openai`).",
    )

    @field_validator("kind")
    @classmethod
    def _offered(cls, kind: str) -> str:
        offered = engine_kinds()
        if kind not in offered:
            raise ValueError(f"no installed package offers this engine; expected one of {', '.join(offered)}")
        return kind


class MarketSettings(Section):
    """The producer of market features."""

    group: str = Field("aquiline-market", pattern=r"^[A-Za-z0-9._-]{1,100}$", description="Consumer group.")
    aggregate: dict[Interval, list[Interval]] = Field({"1m": ["15m", "1h"]}, description="Higher intervals to build from each lower one.")
    features_file: Path | None = Field(
        None,
        description="Python file whose function `features(bars)` returns further features of each bar by name; in a settings file relative to that file. `docs/strategies.md` describes it.",
    )


class VisionSettings(Section):
    """The producer of vision features."""

    group: str = Field("aquiline-vision", pattern=r"^[A-Za-z0-9._-]{1,100}$", description="Consumer group.")
    intervals: list[Interval] = Field(["1m"], description="Intervals whose closed bars are drawn.")
    window_bars: Literal[5, 20, 60] = Field(20, description="Bars in an image.")
    stride: Positive = Field(1, description="Draw every n-th scheduled bar of the calendar.")
    batch: Positive = Field(64, description="Maximum images in one forward pass.")
    max_gap_bars: NotNegative = Field(4, description="A window with more missing slots than this is not drawn.")
    max_jump: Annotated[float, Field(gt=1)] = Field(
        1.8,
        description="A window in which a close is this many times the one before, or the inverse, without a split, is not drawn.",
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="Where the model runs: numpy on the CPU, torch on a GPU (the extra `vision`)."
    )
    weights_file: Path | None = Field(None, description="Weights in safetensors format; the shipped ones when absent.")


class PositionSettings(Section):
    """The report's net positions: one a symbol, opened and closed by the signals."""

    sizing: Literal["equal", "risk"] = Field(
        "equal",
        description="Size of a position: `equal` gives each symbol an equal part of `max_gross`, `risk` opens as much as loses "
        "`risk_per_position` at the stop.",
    )
    risk_per_position: Annotated[float, Field(gt=0, le=1)] = Field(
        0.01, description='Share of the equity that a position loses at its stop, costs aside, with `sizing = "risk"`.'
    )
    max_gross: Annotated[float, Field(gt=0, le=100)] = Field(
        1.0, description="Largest sum of all positions, long and short, as a share of the equity, when one is opened; above 1 borrows."
    )
    max_symbol: Annotated[float, Field(gt=0, le=100)] = Field(
        1.0, description='Largest position in one symbol as a share of the equity when it is opened; lower it with `sizing = "risk"`.'
    )


class ScoringSettings(Section):
    """The scorer."""

    group: str = Field(
        "aquiline-scoring",
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="Faust application id and consumer group; outside `live` it is prefixed with the run mode, as topics are.",
    )
    cost_bps: Annotated[float, Field(ge=0, lt=10_000)] = Field(
        2.0, description="Cost of each side of a trade, in basis points of its price; an instrument's `fee_bps` takes its place."
    )
    slippage_bps: Annotated[float, Field(ge=0, lt=10_000)] = Field(
        1.0,
        description="Slippage of each market fill, in basis points of its price; limit fills pay none. An instrument's `slippage_bps` "
        "takes its place.",
    )
    trade_through: bool = Field(
        True,
        description="Fill limits and targets only when the market trades a tick beyond them; a touch is enough when false.",
    )
    commit_interval_ms: Positive = Field(1_000, description="How often offsets are committed.")


class ConsoleSettings(Section):
    """The console: the web page that shows what the workers see and decide."""

    host: str = Field("127.0.0.1", description="Address to listen on; any other than loopback requires `console.token`.")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(9480, description="Port of the page and its API; 0 for any free one.")
    token: Annotated[SecretStr, Field(min_length=16)] | None = Field(
        None, description="Required to halt and resume, and to read from another machine; at least 16 characters."
    )
    allowed_hosts: list[str] = Field(
        [],
        description="Further host names that requests may name, such as that of a reverse proxy; loopback and `console.host` always may.",
    )
    lookback_minutes: NotNegative = Field(60, description="How far back the topics are read at the start; 0 for new records only.")
    max_memory_bytes: Annotated[int, Field(ge=1_048_576)] = Field(
        134_217_728, description="Records held in memory, in bytes; the oldest are evicted beyond it."
    )
    worker_urls: list[str] = Field(
        ["http://127.0.0.1:9400"], description="Health addresses of the workers, whose `/metrics` show lanes, engines and records read."
    )


class HttpSettings(Section):
    """Health and metrics."""

    host: str = Field("127.0.0.1", description="Address to listen on; loopback unless told otherwise.")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        9400, description="Port of `/livez`, `/readyz` and `/metrics`; 0 for any free one."
    )


class LogSettings(Section):
    """Logs."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is written.")
    format: Literal["auto", "json", "console"] = Field("auto", description="`auto` is JSON unless on a terminal.")


class TracesSettings(Section):
    """OpenTelemetry traces, from candle to signal."""

    enabled: bool = Field(False, description="Record spans; needs the extra `traces`. Incoming trace context is propagated either way.")
    endpoint: str = Field(
        "http://127.0.0.1:4318/v1/traces",
        pattern=r"^https?://[^@\s]+$",
        description="OTLP/HTTP endpoint that spans are sent to, path included.",
    )
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="Share of new traces that are recorded; incoming trace context keeps its own sampling decision."
    )


class Settings(BaseSettings):
    """All settings of all services."""

    model_config = SettingsConfigDict(env_prefix="AQUILINE_", env_nested_delimiter="__", extra="forbid", frozen=True)

    run_mode: RunMode = Field(
        RunMode.SHADOW,
        description="`live`, `shadow`, `replay` or `demo`: decides which topics are read and written; only `live` messages may be acted on.",
    )
    bus: BusSettings = Field(default_factory=BusSettings)
    topics: TopicSettings = Field(default_factory=TopicSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    fusion: FusionSettings = Field(default_factory=FusionSettings)
    market: MarketSettings = Field(default_factory=MarketSettings)
    vision: VisionSettings = Field(default_factory=VisionSettings)
    scoring: ScoringSettings = Field(default_factory=ScoringSettings)
    console: ConsoleSettings = Field(default_factory=ConsoleSettings)
    positions: PositionSettings = Field(default_factory=PositionSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    traces: TracesSettings = Field(default_factory=TracesSettings)

    @property
    def fusion_group(self) -> str:
        """Return the worker's consumer group.

        `shadow` reads the topics that `live` reads: in one group they would share the partitions out between them, and each half of
        the records would be decided on by one of the two alone.
        """
        return self._own(self.fusion.group)

    @property
    def scoring_group(self) -> str:
        """Return the scorer's consumer group, which is also Faust's application id."""
        return self._own(self.scoring.group)

    def _own(self, group: str) -> str:
        return group if self.run_mode is RunMode.LIVE else f"{self.run_mode.value}.{group}"

    @model_validator(mode="after")
    def _answer_form(self) -> Self:
        if self.engine.kind not in _LINE_ENGINES and "answer_form" not in self.fusion.model_fields_set:
            self.__dict__["fusion"] = self.fusion.model_copy(update={"answer_form": "json"})
        return self

    @model_validator(mode="after")
    def _flash_scores(self) -> Self:
        if self.fusion.mode == "flash" and not self.engine.scores:
            self.__dict__["engine"] = self.engine.model_copy(update={"scores": True})
        return self

    @model_validator(mode="after")
    def _drain_fits(self) -> Self:
        if self.bus.rebalance_timeout_ms <= self.fusion.drain_ms:
            raise ValueError(
                f"bus.rebalance_timeout_ms ({self.bus.rebalance_timeout_ms}) must be above fusion.drain_ms ({self.fusion.drain_ms}), or a draining worker is thrown out of its group"
            )
        return self


def load(file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings; of several sources the first that names a key wins.

    `overrides` (nested tables, from the command line); `AQUILINE_*` variables; secret files, one a setting, such as
    `aquiline_bus__password` in the folder that AQUILINE_SECRETS_DIR names; the TOML `file`, or the one that AQUILINE_CONFIG
    names; the folder of the strategy that `fusion.strategy` names. Raises SettingsError with a sentence per problem.
    """
    if file is None and (named := os.environ.get("AQUILINE_CONFIG")):
        file = Path(named)
    if file is not None and not file.is_file():
        raise SettingsError(f"settings file {str(file)!r} does not exist or is not a file")
    _refuse_unknown_variables()
    secrets = os.environ.get("AQUILINE_SECRETS_DIR")
    if secrets is not None and not Path(secrets).is_dir():
        raise SettingsError(f"AQUILINE_SECRETS_DIR names {secrets!r}, which is not a folder")

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del dotenv_settings
            nested = NestedSecretsSettingsSource(
                file_secret_settings,
                secrets_dir=secrets,
                secrets_prefix="aquiline_",
                secrets_nested_delimiter="__",
                secrets_dir_missing="ok",
            )
            toml = SettingsFile(settings_cls, toml_file=file)
            strategy = StrategyFolder(settings_cls, (overrides or {}).get("fusion", {}))
            return init_settings, env_settings, nested, toml, strategy

    try:
        return Loaded(**(overrides or {}))
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error
    except StrategyError as error:
        raise SettingsError(f"fusion.strategy: {error}") from error
    except (tomllib.TOMLDecodeError, PydanticSettingsError) as error:
        raise SettingsError(f"settings cannot be read ({file or 'variables'}): {error}") from error


def _refuse_unknown_variables() -> None:
    known = {f"AQUILINE_{name.upper()}" for name in Settings.model_fields} | {"AQUILINE_CONFIG", "AQUILINE_SECRETS_DIR"}
    for variable in sorted(os.environ):
        if variable.startswith("AQUILINE_") and variable not in known and variable.split("__")[0] not in known:
            near = difflib.get_close_matches(variable, known | {f"AQUILINE_{name.upper().replace('.', '__')}" for name in _names()}, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingsError(f"variable {variable} names no setting{hint}")


def _names() -> list[str]:
    """Return every setting as `section.name`."""
    names = []
    for section, field in Settings.model_fields.items():
        kind = field.annotation
        inner = kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else {}
        names += [f"{section}.{name}" for name in inner] or [section]
    return names


def _explain(error: ValidationError) -> str:
    problems = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(where, _names(), n=1)
            problems.append(f"{where}: no such setting{f'; did you mean {near[0]}?' if near else ''}")
        elif "password" in where or "api_key" in where or where == "console.token":
            problems.append(f"{where}: {item['msg']}")
        elif where and not isinstance(item["input"], dict):
            problems.append(f"{where} = {item['input']!r}: {item['msg'].removeprefix('Value error, ')}")
        else:  # of several settings together, which the sentence names
            problems.append(item["msg"].removeprefix("Value error, "))
    return "; ".join(problems)
