"""What the library costs, side by side in one run with what one would use instead: ``python -m bench``."""
