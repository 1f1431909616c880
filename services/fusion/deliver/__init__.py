"""From polled records to commits: owned partitions, their watermarks and recovery, the ledger of open triggers, and the publisher.

Imports observe, prompt and state; knows no prices and makes no decision.
"""
