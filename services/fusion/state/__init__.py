"""What the log says of each symbol: books of bars, their epochs, the fold of a record, and the triggers it makes.

Pure: no I/O, no clock, no text. Imports schemas and services.core alone.
"""
