"""The market service: candles in; indicators and higher intervals out."""
