"""``python -m bench [--quick] [--only NAME] [--growth] [--save] [--json FILE]``

Each line is one comparison. Both sides take turns in this very run; ``ratio`` is the median of their ratios turn by
turn, so that a busy machine slows both. A missed aim is shown, not an error: time is no test.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from .growth import Curve, growth
from .measure import FULL, QUICK, Result, Scale
from .page import save
from .table import grown, table

#: What a caller's environment says about telemetry must not change what is measured.
_OURS = ("OTEL_", "LOGFIRE_", "OUTPUT_DIR", "LOG_LEVEL", "DEBUG_MODE", "TRACEPARENT", "TRACESTATE")


def _benches() -> dict[str, Callable[[Path, Scale], Iterator[Result]]]:
    from .artifacts import artifacts
    from .delivery import delivery
    from .digests import digests
    from .jobs import jobs
    from .lines import lines
    from .ray_tasks import ray_tasks
    from .recovery import recovery
    from .report import report
    from .sampler import sampler
    from .spans import spans
    from .stages import stages
    from .startup import startup

    return {
        "lines": lines,
        "spans": spans,
        "stages": stages,
        "artifacts": artifacts,
        "startup": startup,
        "delivery": delivery,
        "sampler": sampler,
        "recovery": recovery,
        "report": report,
        "jobs": jobs,
        "digests": digests,
        "ray": ray_tasks,
    }


def main(arguments: list[str] | None = None) -> int:
    for name in [name for name in os.environ if name.startswith(_OURS)]:
        del os.environ[name]
    benches = _benches()
    parser = argparse.ArgumentParser(prog="python -m bench", description="What otel_stageio costs, side by side.")
    parser.add_argument("--quick", action="store_true", help="see that it runs; too short to mean anything")
    parser.add_argument("--only", choices=benches, action="append", metavar="NAME", help=", ".join(benches))
    parser.add_argument("--growth", action="store_true", help="how costs grow with numbers, and not the comparisons")
    parser.add_argument("--save", action="store_true", help="write the results into docs/PERFORMANCE.md")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    options = parser.parse_args(arguments)
    scale = QUICK if options.quick else FULL
    results: list[Result] = []
    curves: list[Curve] = []
    from .scratch import scratch

    with scratch() as where:
        if options.growth:
            (where / "growth").mkdir()
            for curve in growth(where / "growth", scale):
                print(f"{curve.name} …", file=sys.stderr)
                curves.append(curve)
        for name in [] if options.growth else options.only or benches:
            print(f"{name} …", file=sys.stderr)
            (where / name).mkdir()
            results.extend(benches[name](where / name, scale))
    print(grown(curves) if options.growth else table(results))
    about = {
        "python": platform.python_version(),
        "system": platform.system(),
        "processors": os.cpu_count(),
        "quick": options.quick,
    }
    measured = {
        "results": [result.as_json() for result in results],
        "curves": [asdict(curve) for curve in curves],
    }
    if options.save:
        save(about, measured)
    if options.json:
        options.json.write_text(json.dumps({**about, **measured}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
