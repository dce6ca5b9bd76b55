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


MOST_AT_ONCE = 1000  # fires of one timer in one tick that make up for what was missed


class Heap:
    """Timers by the time at which each is to fire at the latest.

    The lock protects the heap and the fields of its timers. It is reentrant, as a signal
    handler or finalizer may set and cancel timers anywhere: so what was looked at is looked
    at again when it was taken. One that raises leaves nothing half done: see `_put_back`
    and `_withdraw`.
    """

    def __init__(self):
        self._lock = threading.RLock()
        self._heap = []
        self._serial = count()
        self._dead = 0
        self._ticks = 0

    def _push(self, timer, limit):
        entry = [limit, next(self._serial), timer]
        timer._entry = entry
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
                    self._sweep()
            timer._callback = timer._args = None
            return True

    def _sweep(self):
        """Take out the entries of timers that were cancelled. The lock is held."""
        self._heap = [e for e in self._heap if e[2] is not None]
        heapq.heapify(self._heap)
        self._dead = 0

    def _first_due(self, now):
        """Return the entry of the first timer if it is due, else None. The lock is held."""
        heap = self._heap
        while heap:
            entry = heap[0]
            timer = entry[2]
            if timer is None:
                if heapq.heappop(heap) is entry:
                    self._dead -= 1
                else:  # a handler has set an earlier one meanwhile
                    self._sweep()
                continue
            if timer._when > now or (
                timer._caught_up >= MOST_AT_ONCE and timer._tick == self._ticks
            ):
                return None
            return entry
        return None

    def _take(self, entry, timer, now):
        """Take a due timer out, or put it to its next time. The lock is held.

        Returns:
            False if a handler has changed something meanwhile.
        """
        heap = self._heap
        popped = heapq.heappop(heap)
        if popped is not entry:
            heapq.heappush(heap, popped)
            return False
        timer._entry = None
        timer._runs += 1
        if timer._interval is not None:
            self._rearm(timer, now)
        else:
            timer._ticker = None
            timer._callback = timer._args = None
        return True

    def _rearm(self, timer, now):
        """Put a periodic timer back, by its policy. The lock is held."""
        if timer._ticker is None:
            return
        interval = timer._interval
        due = timer._when
        late = int((now - due) / interval) if now > due else 0
        if timer._policy == BURST:
            timer._when = due + interval
            if timer._when <= now and self._has_caught_up(timer):
                self._push(timer, max(timer._when + timer._slack, now))  # behind the others
                return
        elif timer._policy == DELAY and late:
            timer._missed += late
            timer._when = now + interval
        else:
            timer._missed += late
            timer._when = due + (late + 1) * interval
        self._push(timer, timer._when + timer._slack)

    def _has_caught_up(self, timer):
        """Count a fire to be made up for; return whether that is enough for this tick."""
        if timer._tick != self._ticks:
            timer._tick = self._ticks
            timer._caught_up = 0
        timer._caught_up += 1
        return timer._caught_up >= MOST_AT_ONCE

    def _put_back(self, entry, timer, call, state):
        """Have a timer due again that was taken and not called, as a handler has raised."""
        with self._lock:
            if timer._ticker is None and (timer._interval is not None or not timer._runs):
                return  # it was cancelled
            timer._entry = entry
            timer._ticker = self
            timer._callback, timer._args = call
            timer._when, timer._runs, timer._missed = state
            self._heap = [e for e in self._heap if e[2] is not timer and e is not entry]
            entry[2] = timer
            self._heap.append(entry)
            self._sweep()

    def _withdraw(self, timer):
        """Take out a timer whose setting a handler has interrupted by raising."""
        with self._lock:
            timer._ticker = timer._callback = timer._args = timer._entry = None
            self._heap = [e for e in self._heap if e[2] is not timer]
            self._sweep()

    def _next_due(self):
        """Return when the first timer is to fire, or None. The lock is held."""
        heap = self._heap
        while heap:
            entry = heap[0]
            if entry[2] is not None:
                return entry[0]
            if heapq.heappop(heap) is entry:
                self._dead -= 1
            else:  # a handler has set an earlier one meanwhile
                self._sweep()
        return None
