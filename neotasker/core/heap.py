"""The heap of timers.

**Guarantees**: the first entry is that of the earliest limit; of two with one limit, that of
the timer which was set first. **Assumes**: what says "The lock is held" is called so.

The compiled twin, ``heap.pxi``, keeps timers of one interval in lines of their own, of which
the heap holds only the first; here a call of Python costs more than a heap of any size.
"""

from __future__ import annotations

import heapq
import threading
from itertools import count

from .timer import BURST, DELAY

__all__ = ["Heap"]


class Heap:
    """Timers by the time at which each is to fire at the latest.

    The lock protects the heap and the fields of its timers.
    """

    def __init__(self):
        self._lock = threading.RLock()
        self._heap = []
        self._serial = count()
        self._dead = 0

    def _push(self, timer):
        entry = timer._entry = [timer._when + timer.slack, next(self._serial), timer]
        heapq.heappush(self._heap, entry)

    def _cancel(self, timer):
        with self._lock:
            if timer._ticker is None:
                return False
            timer._ticker = None
            entry, timer._entry = timer._entry, None
            if entry is not None:
                entry[2] = None
                self._dead += 1
                if self._dead > 64 and self._dead > len(self._heap) // 2:
                    self._heap = [e for e in self._heap if e[2] is not None]
                    heapq.heapify(self._heap)
                    self._dead = 0
            timer._callback = timer._args = None
            return True

    def _pop_due(self, now):
        """Return a timer that is due and its call, or None. The lock is held."""
        heap = self._heap
        while heap:
            timer = heap[0][2]
            if timer is None:
                heapq.heappop(heap)
                self._dead -= 1
                continue
            if timer._when > now:
                return None
            heapq.heappop(heap)
            timer._entry = None
            timer.runs += 1
            call = timer._callback, timer._args
            if timer.interval is None:
                timer._ticker = None
                timer._callback = timer._args = None
            return timer, call
        return None

    def _rearm(self, timer, now):
        """Put a periodic timer back, by its policy. The lock is held."""
        if timer._ticker is None:
            return
        interval = timer.interval
        due = timer._when
        late = int((now - due) / interval) if now > due else 0
        if timer._policy == BURST:
            timer._when = due + interval
        elif timer._policy == DELAY and late:
            timer.missed += late
            timer._when = now + interval
        else:
            timer.missed += late
            timer._when = due + (late + 1) * interval
        self._push(timer)

    def _next_due(self):
        """Return when the first timer is to fire, or None. The lock is held."""
        heap = self._heap
        while heap and heap[0][2] is None:
            heapq.heappop(heap)
            self._dead -= 1
        return heap[0][0] if heap else None
