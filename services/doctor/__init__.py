"""The checks of `aquiline doctor`: broker, topics, Redis, engine, prompt and settings, each finding with how to fix it."""
