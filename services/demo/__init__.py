"""The demo: real bars through the whole path, with load, burst and outage, and the report of it."""
