"""Checks a strategy before it decides anything: the exact prompt that it makes, what is wrong with it, and what a prompt costs."""
