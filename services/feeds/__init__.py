"""Candles from files, exchanges and the shipped samples: reading them, and publishing them live or at a chosen pace."""
