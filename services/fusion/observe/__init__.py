"""What is shown of the worker while it runs: spans and gauges.

Imports every other room; nothing but the worker imports it.
"""
