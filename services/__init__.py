"""The services of Aquiline."""
