"""One valid example of every message, about the same minute of the same symbol, so that they can be read together.

The documentation shows them, and a test holds that each validates against what is generated from its model.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from schemas.audit import AuditRecord, Outcome
from schemas.base import Message, RunMode
from schemas.control import Control, HaltState
from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.instrument import Dividend, Instrument, InstrumentEvent, SymbolChange, TickStep
from schemas.market import Candle, MarketFeatures
from schemas.note import Blackout, Note
from schemas.outcome import ExitReason, SignalOutcome
from schemas.position import HeldPosition
from schemas.signal import Action, AsOf, Cancel, CancelReason, OffsetRef, Signal
from schemas.vision import Detector, Image, Pattern, Skill, VisionFeatures

_OPEN_MS: Final = 1_795_188_600_000  # 2026-11-20T15:30Z
_CLOSE_MS: Final = _OPEN_MS + 60_000
_SIGNAL_ID: Final = UUID("6f0b1f2e-4c07-5a55-9d0e-1b6b5c2f7a01")
_TRIGGER_ID: Final = UUID("0d9b6c1a-7f43-5c0e-8a51-52f1f7f4c9b2")
_PROMPT_HASH: Final = "9c1f0e5b7a3d2c486e90b1d4f7a8c3e25b6d0f194a7e8c3b2d5f60718293a4b5"
_EPOCH: Final = "3fa9c07d21be"
_AS_OF: Final = AsOf(
    market=OffsetRef(topic="market-features", partition=3, offset=184_467, ts_ms=_CLOSE_MS + 41, ts_event_ms=_CLOSE_MS),
    vision=OffsetRef(topic="vision-features", partition=3, offset=92_233, ts_ms=_CLOSE_MS + 118, ts_event_ms=_CLOSE_MS),
)

EXAMPLES: Final[dict[type[Message], Message]] = {
    type(message): message
    for message in (
        Candle(
            schema_version=1,
            run_mode=RunMode.LIVE,
            symbol="AAPL.XNAS",
            interval="1m",
            ts_open_ms=_OPEN_MS,
            ts_close_ms=_CLOSE_MS,
            open=271.42,
            high=271.6,
            low=271.38,
            close=271.55,
            volume=48_210.0,
            closed=True,
        ),
        MarketFeatures(
            schema_version=1,
            run_mode=RunMode.LIVE,
            symbol="AAPL.XNAS",
            interval="1m",
            ts_open_ms=_OPEN_MS,
            ts_close_ms=_CLOSE_MS,
            open=271.42,
            high=271.6,
            low=271.38,
            close=271.55,
            volume=48_210.0,
            closed=True,
            features={"atr_14": 0.2143, "rsi_14": 58.31, "return_1": 0.000479, "volume_z": 0.87},
        ),
        VisionFeatures(
            schema_version=1,
            run_mode=RunMode.LIVE,
            symbol="AAPL.XNAS",
            interval="1m",
            window_end_ms=_CLOSE_MS,
            window_bars=20,
            image=Image(spec="jkx-20/1", width=60, height=64, hash="5d41402abc4b2a76b9719d911017c592"),
            detector=Detector(name="chart-cnn", version="1", horizon_bars=5, skill=Skill(auc=0.562, auc_low=0.531, auc_high=0.594)),
            p_up=0.537,
            patterns=[Pattern(label="double_bottom", score=0.81, first_bar=4, last_bar=17)],
        ),
        Note(
            schema_version=1,
            run_mode=RunMode.LIVE,
            symbol="*",
            source="calendar",
            ts_ms=_CLOSE_MS - 3_600_000,
            text="FOMC statement at 14:00 New York time.",
            importance=5,
            note_id="fomc-2026-11",
            blackout=Blackout(from_ms=_CLOSE_MS + 12_420_000, until_ms=_CLOSE_MS + 13_320_000),
        ),
        HeldPosition(
            schema_version=1,
            run_mode=RunMode.LIVE,
            symbol="AAPL.XNAS",
            side="long",
            quantity=100.0,
            average_price=270.12,
            ts_ms=_CLOSE_MS - 1_860_000,
        ),
        Instrument(
            schema_version=1,
            run_mode=RunMode.LIVE,
            symbol="AAPL.XNAS",
            currency="USD",
            price_increment="0.0001",
            calendar="XNYS",
            price_adjustment="none",
            asset_class="equity",
            returns="total",
            tick_table=[TickStep(from_price="1", increment="0.01")],
            lot_size="1",
            fee_bps=0.5,
            fee_per_unit=0.005,
            slippage_bps=1.0,
        ),
        InstrumentEvent(
            schema_version=1,
            run_mode=RunMode.LIVE,
            symbol="AAPL.XNAS",
            event="split",
            ratio=2.0,
            effective_ms=1_109_601_000_000,  # 2005-02-28T14:30Z
        ),
        Dividend(
            schema_version=1,
            run_mode=RunMode.LIVE,
            symbol="AAPL.XNAS",
            event="dividend",
            amount=0.26,
            effective_ms=1_786_368_600_000,  # 2026-08-10T13:30Z
        ),
        SymbolChange(
            schema_version=1,
            run_mode=RunMode.LIVE,
            symbol="FB.XNAS",
            event="symbol_change",
            new_symbol="META.XNAS",
            effective_ms=1_654_781_400_000,  # 2022-06-09T13:30Z
        ),
        Control(
            schema_version=1,
            run_mode=RunMode.LIVE,
            scope="AAPL.XNAS",
            state=HaltState.HALTED,
            reason="earnings at 21:00Z",
            actor="desk-2",
            ts_ms=_CLOSE_MS + 30_000,
        ),
        Signal(
            schema_version=1,
            run_mode=RunMode.LIVE,
            symbol="AAPL.XNAS",
            interval="1m",
            mode="fast",
            signal_id=_SIGNAL_ID,
            trigger_id=_TRIGGER_ID,
            ts_decided_ms=_CLOSE_MS + 512,
            as_of=_AS_OF,
            valid_until_ms=_CLOSE_MS + 3_041,
            action=Action.BUY,
            conviction=0.6,
            horizon_bars=12,
            horizon_end_ms=_CLOSE_MS + 720_000,
            ref_price="271.55",
            entry_type="limit",
            entry="271.61",
            stop="271.12",
            target="272.20",
            currency="USD",
            vision="fresh",
            vision_age_ms=0,
            source="llm",
            degraded=False,
            engine="sglang",
            model="MiniCPM4.1-8B",
            prompt_version="1",
            prompt_hash=_PROMPT_HASH,
            epoch=_EPOCH,
            prompt_tokens=8_412,
            cached_tokens=8_148,
            latency_ms={"vision_wait": 77.0, "queue": 3.1, "prompt": 1.2, "decide": 389.4, "total": 471.0},
        ),
        Cancel(
            schema_version=1,
            run_mode=RunMode.LIVE,
            symbol="AAPL.XNAS",
            interval="1m",
            mode="fast",
            signal_id=_SIGNAL_ID,
            ts_decided_ms=_CLOSE_MS + 30_012,
            reason=CancelReason.HALTED,
            detail="earnings at 21:00Z",
        ),
        AuditRecord(
            schema_version=1,
            run_mode=RunMode.LIVE,
            trigger_id=_TRIGGER_ID,
            trigger_kind="closed_bar",
            trigger=_AS_OF.market,
            symbol="AAPL.XNAS",
            interval="1m",
            mode="fast",
            outcome=Outcome.PUBLISHED,
            ts_done_ms=_CLOSE_MS + 804,
            deadline_ms=_CLOSE_MS + 2_541,
            signal_id=_SIGNAL_ID,
            action=Action.BUY,
            as_of=_AS_OF,
            control_offset=17,
            config_version="8f14e45fceea167a",
            prompt_version="1",
            prompt_hash=_PROMPT_HASH,
            epoch=_EPOCH,
            prompt_tokens=8_412,
            cached_tokens=8_148,
            output_tokens=74,
            accept_length=2.5,
            vision="fresh",
            source="llm",
            engine="sglang",
            model="MiniCPM4.1-8B",
            latency_ms={"vision_wait": 77.0, "queue": 3.1, "prompt": 1.2, "decide": 389.4, "total": 471.0},
            answer='{"action":"buy","conviction":0.6,"horizon":12,"entry":3,"stop":-20,"target":30,"rationale":"Higher lows on rising volume."}',
            answer_chunks=[[84, 9], [231, 38], [389, 78], [540, 121]],
            checksum="0f53657fb9913241",
        ),
        SignalOutcome(
            schema_version=1,
            run_mode=RunMode.LIVE,
            signal_id=_SIGNAL_ID,
            symbol="AAPL.XNAS",
            interval="1m",
            mode="fast",
            action=Action.BUY,
            source="llm",
            vision="fresh",
            conviction=0.6,
            exit_reason=ExitReason.TARGET,
            ts_entry_ms=_CLOSE_MS + 60_000,
            ts_exit_ms=_CLOSE_MS + 480_000,
            entry="271.58",
            exit="272.20",
            return_net=0.001883,
            max_favourable=0.002283,
            max_adverse=-0.000589,
            bars_held=7,
        ),
    )
}

DEAD_LETTER: Final = DeadLetter(
    reason=DeadLetterReason.INVALID,
    detail="low 271.9 and high 271.6 do not enclose open 271.42 and close 271.55",
    topic="candles",
    partition=3,
    offset=184_468,
    attempts=1,
    ts_ms=_CLOSE_MS + 45,
)
