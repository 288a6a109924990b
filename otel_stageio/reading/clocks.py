"""What the clocks of a run's hosts have to do with its picture: starts are as each host says them."""

from __future__ import annotations

from .text import one_line, seconds_between
from .view import JobView

#: Seconds from which on it is said; what is less is nobody's concern, and no file system's times are exact to it.
_WORTH_SAYING = 1.0


def clocks_of(view: JobView) -> str:
    """A sentence where the clocks of the hosts of the newest run differ; else empty."""
    run = view.run
    if run is None:
        return ""
    mine = [stage for stage in view.stages if stage.run == run.number]
    ahead = {stage.host: stage.clock_ahead for stage in mine if stage.clock_ahead is not None}
    # Where nothing is noted the clock goes with that of the file system.
    others = run.host not in ahead or any(stage.clock_ahead is None for stage in mine)
    every = [*ahead.values(), *([0.0] if others else [])]
    known = bool(ahead) and max(every) - min(every) >= _WORTH_SAYING
    said = [f"the clock of {one_line(host)} is {_off(seconds)} the file system's" for host, seconds in ahead.items()]
    if not known:
        early = max((seconds_between(stage.started_at, run.started_at) or 0.0 for stage in mine), default=0.0)
        if early < _WORTH_SAYING:
            return ""
        said = [f"a stage began {early:.1f} s before its run, so the clock of {one_line(run.host)} is ahead of others"]
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}. Starts are as each host says them, durations are right."


def _off(seconds: float) -> str:
    return f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'}"
