"""From a trigger to its result: lanes, dispatcher, one decision, the answer's grammar and prices, guard and halt state.

Imports every other room; only the worker imports it.
"""
