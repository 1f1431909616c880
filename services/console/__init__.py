"""The live page over signals and outcomes."""
