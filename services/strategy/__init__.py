"""A strategy: a folder that says what the model is shown and told, when it is asked, and within which limits.

`strategy.toml` and `instructions.md` become one value, `Strategy`, which settings, prompts and audit share. Imports only `schemas`.
"""
