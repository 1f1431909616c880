"""A stand-in for SGLang: its HTTP API, a real radix tree and a timing model of a real GPU, with answers from fixed rules.

Nothing in it is a language model, and its answers say so.
"""
