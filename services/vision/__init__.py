"""The vision service: candles in, chart images through a torch model, vision features out."""
