"""`aquiline market publish` onto a real Kafka."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas import Candle, Instrument, Topic
from services.cli.market import app
from services.core.bus.kafka import KafkaBus
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from tests.unit.market.build import MODE
from tests.unit.market.service_spec import Desk

pytestmark = pytest.mark.integration

TEXT = "date,open,high,low,close,volume\n2024-07-02,1,3,0.5,2,100\n2024-07-03,2,3,1,2,50\n"


def test_a_file_becomes_an_instrument_and_its_candles(
    kafka_bus_settings: BusSettings, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def prepare() -> None:
        bus = KafkaBus(kafka_bus_settings, SystemClock())
        await Desk(bus, unique).set_up()
        await bus.close()

    async def published() -> tuple[list[bytes], list[bytes]]:
        bus = KafkaBus(kafka_bus_settings, SystemClock())
        desk = Desk(bus, unique)
        instruments, candles = await desk.read(Topic.INSTRUMENTS), await desk.read(Topic.CANDLES)
        await bus.close()
        return [record.value or b"" for record in instruments], [record.value or b"" for record in candles]

    monkeypatch.setenv("AQUILINE_RUN_MODE", MODE.value)
    asyncio.run(prepare())
    file = tmp_path / "aapl.csv"
    file.write_text(TEXT)
    options = ["--symbol", "AAPL.XNAS", "--interval", "1d", "--calendar", "XNYS", "--price-increment", "0.01"]
    result = CliRunner().invoke(app, ["publish", str(file), *options, "--bus", kafka_bus_settings.url])
    assert result.exit_code == 0, result.output
    assert "2 candles published on demo.candles" in result.output
    instruments, candles = asyncio.run(published())
    assert Instrument.decode(instruments[-1]).symbol == "AAPL.XNAS"
    assert [Candle.decode(value).volume for value in candles] == [100, 50]
