"""Whether and what to decide: lanes, the decision, the answer, the guard, the signal made of it, and the halt state.

Imports prompt and state.
"""
