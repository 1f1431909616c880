"""Diagnosis: broker, topics, Redis, engine, prompt and settings, each finding with its mend."""
