"""The demo: real bars through every service in one process, with load, a burst and an engine outage, and a report of the run."""
