"""The inputs that every worker reads as tables: each is one module with its topic, decoder, fold, as-of, text and rules.

May import `services.fusion.state`, `services.core` and `schemas`.
"""
