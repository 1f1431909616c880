"""Market, vision and fusion services together in one process: what the demo plays on and benchmarks measure."""
