"""Candles from files and samples onto a bus: reading, replay at a pace, and the five shipped stocks."""
