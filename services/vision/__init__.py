"""The vision service: candles in, chart images through a network trained in torch, vision features out."""
