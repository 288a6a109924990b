"""What a stage uses, as its recorder tells of it: in each heartbeat, and at the end with what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .. import semconv as sc
from ..resources import out_of_memory
from ..resources.sampler import Sampler, interval
from ..resources.torch_peaks import framework_peaks
from ..runtime import never_raises

if TYPE_CHECKING:
    from ..resources.tree import Used


class Usage:
    """Of this process, until :meth:`program` says that the stage is another.

    Args:
        sampled: False if somebody else looks at this process, as a pipeline does at the programs that it starts.
    """

    def __init__(self, *, sampled: bool) -> None:
        self._sampler: Sampler | None = None
        #: What a program said when there was not enough memory for it.
        self.said_out_of_memory = ""
        if sampled:
            self.program(None)

    @never_raises()
    def program(self, root: int | None, environment: Mapping[str, str] | None = None) -> None:
        """From now on the stage is what that program and everything below it uses; None is this process."""
        seconds = interval()
        self._sampler = Sampler(root, environment, seconds) if seconds else None

    @never_raises()
    def program_ended(self, used: Used, peak: int | None) -> None:
        """The program that is the stage was waited for: what the kernel says of it."""
        if self._sampler is not None:
            self._sampler.ended(used, peak)

    @never_raises()
    def look(self) -> None:
        """If it is time."""
        if self._sampler is not None:
            self._sampler.look()

    @never_raises()
    def look_at_gpus(self) -> None:
        """If it is time. A driver may take its own."""
        if self._sampler is not None:
            self._sampler.look_at_gpus()

    @never_raises(dict)
    def so_far(self) -> dict[str, Any]:
        """As an event's attributes: the numbers that go out, and the rest, which is for the manifest."""
        measured = self._sampler.usage() if self._sampler is not None else {}
        peaks = framework_peaks()
        if peaks:
            measured["torch"] = peaks
        used = {attribute: measured.pop(key) for key, attribute in sc.USED.items() if key in measured}
        return {**used, sc.LOCAL_MEASURED: measured} if measured else used

    @never_raises(str)
    def points(self) -> str:
        """Encoded metrics since the last call; empty if there are none."""
        return self._sampler.points() if self._sampler is not None else ""

    @never_raises(dict)
    def in_all(self, seconds: float, media_seconds: float) -> dict[str, Any]:
        """At the end: the same after a last look, and how long it took for a second of media."""
        if self._sampler is not None:
            self._sampler.finish()
        used = self.so_far()
        if media_seconds:
            used[sc.REALTIME_FACTOR] = round(seconds / media_seconds, 4)
        return used

    @never_raises(str)
    def lack_of_memory(self, said: Iterable[str], used: Mapping[str, Any]) -> str:
        """The story in one sentence, if memory was what a stage lacked that did not end well."""
        return out_of_memory.story([self.said_out_of_memory, *said], used)


def media_seconds(*places: Mapping[str, Any]) -> float:
    """How long the media is that the stage works on, where it said so as ``media.duration`` or ``media_duration``."""
    for place in places:
        for name in (sc.MEDIA_DURATION, sc.MEDIA_DURATION.replace(".", "_")):
            seconds = place.get(name)
            if isinstance(seconds, (int, float)) and 0 < seconds < float("inf"):
                return float(seconds)
    return 0.0
