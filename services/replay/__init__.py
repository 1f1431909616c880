"""Rebuilds the prompts of past decisions from log and audit, to verify them, show them or ask an engine again."""
