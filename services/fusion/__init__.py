"""The worker: folds two feature topics, decides when to ask the model, asks it, and publishes what holds."""
