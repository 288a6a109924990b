"""The word to stop, from a signal handler to the loop that it interrupts.

``threading.Event`` will not do: a handler runs between two instructions of the main thread, which may be those with
which that waits for the event and holds its lock. ``set()`` would then wait for that lock for ever.
"""

from __future__ import annotations

import queue


class Stop:
    """What of an event is needed here. ``SimpleQueue.put`` is made to be called in handlers."""

    def __init__(self) -> None:
        self._asked = False
        self._words: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        self._asked = True
        self._words.put(None)

    def is_set(self) -> bool:
        return self._asked

    def wait(self, seconds: float) -> bool:
        """Until it is set, by one thread; at most so long. Whether it is."""
        if not self._asked:
            try:
                self._words.get(timeout=seconds)
            except queue.Empty:
                pass
        return self._asked
