"""What the model is shown: wording, layout, token ids, the cache of their prefixes, and sending them ahead.

Imports state, services.core and the engine protocol.
"""
