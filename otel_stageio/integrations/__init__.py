"""Engines that run stages elsewhere. Each is imported by its user alone, and needs that engine installed."""
