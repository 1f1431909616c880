"""Candles to chart images to vision features, through a torch model."""
