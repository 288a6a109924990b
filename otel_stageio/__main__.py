"""``python -m otel_stageio`` is ``otel-stageio``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
