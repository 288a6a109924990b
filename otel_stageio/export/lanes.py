"""Tracks for slices: what overlaps on one track stands inside each other; Perfetto shows nothing else as it is."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import NamedTuple


class Slice(NamedTuple):
    """``parent`` is the place of another slice in the list, or None."""

    start: int
    end: int
    parent: int | None = None


class _Lane:
    __slots__ = ("open",)

    def __init__(self) -> None:
        #: (end, which slice), each inside the one before.
        self.open: list[tuple[int, int]] = []

    def top(self, start: int) -> tuple[int, int] | None:
        while self.open and self.open[-1][0] <= start:
            self.open.pop()
        return self.open[-1] if self.open else None


def lanes(slices: Iterable[Slice]) -> list[int]:
    """A track for each slice, from 0 on: its parent's where it fits in there, else the first that is free."""
    every = list(slices)
    order = sorted(range(len(every)), key=lambda at: (every[at].start, -every[at].end, at))
    found = [-1] * len(every)
    tracks: list[_Lane] = []
    free: list[int] = []
    busy: list[tuple[int, int]] = []
    for at in order:
        start, end, parent = every[at]
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = found[parent] if parent is not None else -1
        top = tracks[lane].top(start) if lane >= 0 else None
        if top is None or top[1] != parent or end > top[0]:
            lane = heapq.heappop(free) if free else len(tracks)
            if lane == len(tracks):
                tracks.append(_Lane())
            tracks[lane].open.clear()
            heapq.heappush(busy, (end, lane))
        tracks[lane].open.append((end, at))
        found[at] = lane
    return found
