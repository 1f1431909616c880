"""The console: a live web page over the topics, and its API. It reads; the only topic that it writes is `control`."""
