"""Getting outcomes to the broker once and in time: publisher, ledger, watermark, ownership of partitions and recovery.

Imports state, and no prices or text.
"""
