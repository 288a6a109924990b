"""Examples that run: see `examples/subtitles`."""
