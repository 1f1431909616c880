"""Candles to market features, and to higher intervals."""
