"""What the model is shown: wording, layout, token ids, their caches, and pre-warming the engine with them.

May import `services.fusion.state`, `services.core`, `schemas` and the engine protocol.
"""
