"""The GPU runs: stock SGLang with dummy weights of MiniCPM4.1-8B's shape, measured by scripts of one command each."""
