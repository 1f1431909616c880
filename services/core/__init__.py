"""What every service shares: bus, settings, logs, metrics, health, lifecycle, clock. No business in it."""
