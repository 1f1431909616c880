"""What the worker reports: a trigger's result, its trace and spans, and the loop that refreshes the worker's gauges.

Imports prompt and state; a result carries the prompt it rested on.
"""
