# cython: language_level=3, freethreading_compatible=True, binding=True, embedsignature=False
# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: unraisable_tracebacks=False, auto_pickle=False
"""The compiled core: one extension, put together from the parts in ``core/``.

Each part stands beside its twin in Python, which defines what it does and says so at
length: ``core/task.pxi`` and ``core/task.py``. The parts say how: which structures are C,
what protects them, and why that holds without the GIL. What holds for all of them:

- Every future, dispatcher, ticker, mailbox carries a mutex of one byte. No two are
  held at once, but for that of a pool thread's place, which is taken inside the
  dispatcher's. Between lock and unlock nothing is created, nothing is let go whose end
  could run user code, and the interpreter is not left; references that leave a structure
  under a lock are moved to a local and dropped after the unlock.
- A task is hidden from the garbage collector until it can be part of a cycle: while it
  waits or runs the dispatcher owns it, and a result that holds no references makes no
  cycle. So is its copy of the context, which nobody else holds; of an empty one there is
  no copy, the task runs in a new one. A long queue so costs the collector nothing. Without
  the GIL nothing is hidden: that collector looks at all the memory each time, and does so
  the less often the more it knows of.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals, PyErr_Clear, PyErr_SetInterrupt
from cpython.object cimport PyObject
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_REFCNT, Py_XDECREF
from libc.math cimport NAN, isnan
from libc.string cimport memset

import contextvars
import functools
import operator
import os
import threading
from asyncio import CancelledError as _TaskCancelled
from asyncio import Task, current_task
from concurrent.futures import CancelledError, InvalidStateError

from .base.for_asyncio import told_to as _told_to
from .base.green import need_threads
from .base.priority import UNLIMITED
from .base.report import Reporter
from .base.seconds import SHORTEST as _SHORTEST
from .base.seconds import real_seconds as _real_seconds
from .base.seconds import too_short as _too_short
from .base.targets import check_callback, check_task
from .errors import QueueFull, UnexpectedState

cdef extern from "_platform.h":
    ctypedef struct nt_mutex:
        pass
    void nt_lock(nt_mutex *m)
    void nt_unlock(nt_mutex *m)
    unsigned char nt_load(unsigned char *p) nogil
    void nt_store(unsigned char *p, unsigned char v) nogil
    unsigned char nt_swap(unsigned char *p, unsigned char v) nogil
    long long nt_now() nogil
    void nt_pause() nogil
    const bint FREE_THREADED "NT_FREE_THREADED"
    void nt_count_up(unsigned int *users) nogil
    unsigned int nt_count_down(unsigned int *users) nogil
    unsigned int nt_load32(unsigned int *p) nogil
    void nt_store32(unsigned int *p, unsigned int v) nogil
    void nt_prefetch(const void *address) nogil
    void nt_prefetch_owner(PyObject *callback) nogil
    void nt_prefetch_write(const void *address) nogil
    void *nt_array(
        size_t size, size_t offset, const void *old, size_t used, void **block) nogil
    void *nt_get_place() nogil
    void nt_set_place(void *place) nogil
    ctypedef struct nt_callbacks:
        int depth
        int runs
        PyObject *put_off
    nt_callbacks *nt_get_callbacks() nogil
    int nt_need_room() except -1
    bint nt_has_room()
    int nt_make_memory_error() except -1
    PyObject *nt_take_exception()
    void nt_hide(PyObject *op)
    void nt_lend(PyObject *op)
    void nt_hand_over(PyObject *op)
    bint nt_is_plain(object fn, bint runs)
    bint nt_may_wait(object result)
    object nt_new(object type, object no_args)
    object nt_call_named(object fn, tuple names, tuple values)
    PyObject *nt_copy_context() except? NULL
    bint nt_is_untouched(PyObject *context)

cdef extern from "pythread.h":
    ctypedef void *PyThread_type_lock
    ctypedef long long PY_TIMEOUT_T
    ctypedef enum PyLockStatus:
        PY_LOCK_FAILURE
        PY_LOCK_ACQUIRED
        PY_LOCK_INTR
    PY_TIMEOUT_T PY_TIMEOUT_MAX
    PyThread_type_lock PyThread_allocate_lock() nogil
    void PyThread_free_lock(PyThread_type_lock lock) nogil
    PyLockStatus PyThread_acquire_lock_timed(
        PyThread_type_lock lock, PY_TIMEOUT_T microseconds, int intr_flag) nogil
    void PyThread_release_lock(PyThread_type_lock lock) nogil
    unsigned long PyThread_get_thread_ident() nogil

cdef extern from "Python.h":
    ctypedef int (*nt_visitproc "visitproc")(PyObject *op, void *arg) noexcept
    ctypedef int (*nt_traverseproc "traverseproc")(
        PyObject *op, nt_visitproc visit, void *arg) noexcept
    ctypedef int (*nt_inquiry "inquiry")(PyObject *op) noexcept
    ctypedef struct nt_type "PyTypeObject":
        nt_traverseproc tp_traverse
        nt_inquiry tp_clear
    PyObject *PyContext_New()
    int PyContext_Enter(PyObject *context)
    int PyContext_Exit(PyObject *context)
    int enter_context "PyContext_Enter" (object context) except -1
    int exit_context "PyContext_Exit" (object context) except -1
    PyObject *raw_call "PyObject_Call" (PyObject *fn, PyObject *args, PyObject *kwargs)
    PyObject *borrow_item "PyList_GET_ITEM" (object of_list, Py_ssize_t index)
    int PyCallable_Check(object fn)
    int PyObject_IS_GC(object op)
    int PyObject_GC_IsTracked(object op)
    void PyObject_GC_Track(PyObject *op)
    object PyMethod_New(object fn, object owner)
    object PyContext_Copy(object context)
    object PyObject_Call(object fn, tuple args, dict kwargs)
    int PyObject_GenericSetAttr(object op, object name, object value) except -1
COMPILED = True

logger = Reporter("neotasker")
cdef object _standard_logger = Reporter("concurrent.futures")
cdef object _Task = Task
cdef object _current_task = current_task
cdef object _partial = functools.partial
cdef object _Condition = threading.Condition
cdef object _Context = contextvars.Context
# CPython 3.11 crashes in the first PyContext_New of a process when memory runs out halfway;
# the empty map that it makes there is kept for all others.
_Context()
cdef tuple _NO_ARGS = ()
cdef double SHORTEST = _SHORTEST

nt_make_memory_error()

# In the order of the floors: each part goes by those before it. Where two know each other,
# as futures and places do, the later one says so.
include "core/parking.pxi"
include "core/future.pxi"
include "core/task.pxi"
include "core/lanes.pxi"
include "core/places.pxi"
include "core/dispatcher.pxi"
include "core/timer.pxi"
include "core/heap.pxi"
include "core/ticker.pxi"
include "core/mailbox.pxi"
include "core/eager.pxi"
include "core/job.pxi"
include "core/serial.pxi"

__all__ = [
    "COMPILED",
    "Dispatcher",
    "EagerStart",
    "FutureCore",
    "JobCore",
    "Mailbox",
    "SerialCore",
    "Submitter",
    "Tally",
    "TaskCore",
    "TickerCore",
    "TimerCore",
]
