"""Starts stock SGLang for Aquiline: presets, checks before the start, the command, warming, and the process while it runs."""
