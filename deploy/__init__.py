"""How Aquiline is run: images, local brokers, dashboards, engine presets."""
