"""The state that records fold into: books of bars by symbol, their epochs, and the triggers that records make.

Pure: no I/O, no asyncio, no text. May import `schemas` and `services.core`.
"""
