/* What the compiled core needs of the interpreter and the compiler, in one place:
 * a mutex, atomic flags, the clock, and a few calls that changed between versions. */

#ifndef NEOTASKER_PLATFORM_H
#define NEOTASKER_PLATFORM_H

#include <Python.h>
#include <pythread.h>
#include <stdint.h>
#include <string.h>
#if defined(__linux__)
#  include <sys/mman.h>
#endif

/* Atomic bytes and words of 32 bits: `nt_load` acquires, `nt_store` releases. */
#if defined(_MSC_VER)
#  include <intrin.h>
static inline unsigned char nt_load(unsigned char *p) {
    return (unsigned char)_InterlockedOr8((char volatile *)p, 0);
}
static inline void nt_store(unsigned char *p, unsigned char v) {
    (void)_InterlockedExchange8((char volatile *)p, (char)v);
}
static inline unsigned int nt_load32(unsigned int *p) {
    return (unsigned int)_InterlockedOr((long volatile *)p, 0);
}
static inline void nt_store32(unsigned int *p, unsigned int v) {
    (void)_InterlockedExchange((long volatile *)p, (long)v);
}
static inline unsigned char nt_swap(unsigned char *p, unsigned char v) {
    return (unsigned char)_InterlockedExchange8((char volatile *)p, (char)v);
}
#else
static inline unsigned char nt_load(unsigned char *p) {
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
static inline void nt_store(unsigned char *p, unsigned char v) {
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}
static inline unsigned int nt_load32(unsigned int *p) {
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
static inline void nt_store32(unsigned int *p, unsigned int v) {
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}
static inline unsigned char nt_swap(unsigned char *p, unsigned char v) {
    return __atomic_exchange_n(p, v, __ATOMIC_ACQ_REL);
}
#endif

/* Wait for as long as a line of the cache needs from one processor to another. */
#if defined(__x86_64__) || defined(__i386__)
#  define nt_pause() __builtin_ia32_pause()
#elif defined(__aarch64__)
#  define nt_pause() __asm__ volatile ("isb")
#else
#  define nt_pause() ((void)0)
#endif

#if defined(Py_GIL_DISABLED)
#  define NT_FREE_THREADED 1
#else
#  define NT_FREE_THREADED 0
#endif

/* Count the users of what they share; `nt_count_down` returns how many are left. Where there
 * is a GIL, it is held. */
#if !NT_FREE_THREADED
static inline void nt_count_up(unsigned int *users) { ++*users; }
static inline unsigned int nt_count_down(unsigned int *users) { return --*users; }
#elif defined(_MSC_VER)
static inline void nt_count_up(unsigned int *users) {
    (void)_InterlockedIncrement((long volatile *)users);
}
static inline unsigned int nt_count_down(unsigned int *users) {
    return (unsigned int)_InterlockedDecrement((long volatile *)users);
}
#else
static inline void nt_count_up(unsigned int *users) {
    (void)__atomic_add_fetch(users, 1, __ATOMIC_RELAXED);
}
static inline unsigned int nt_count_down(unsigned int *users) {
    return __atomic_sub_fetch(users, 1, __ATOMIC_ACQ_REL);
}
#endif

/* A mutex of one byte that starts out unlocked when zeroed. It is never held while
 * user code runs, objects are created or the interpreter is let go, so a thread that
 * finds it taken waits for a few dozen instructions of another. Before 3.13, which
 * brought PyMutex, that is a spin that lets the other thread have the interpreter. */
#if PY_VERSION_HEX >= 0x030D0000
typedef PyMutex nt_mutex;
static inline void nt_lock(nt_mutex *m) {
#  if NT_FREE_THREADED
    /* PyMutex asks the system to run another thread as soon as it finds it taken, which
     * takes ten times as long as until it is free. */
    int patience = 100;
    do {
        uint8_t bits = _Py_atomic_load_uint8_relaxed(&m->_bits);
        if (bits == 0 && _Py_atomic_compare_exchange_uint8(&m->_bits, &bits, 1)) {
            return;
        }
        if (!(bits & 1)) { /* others sleep, and it may be taken before them */
            break;
        }
        nt_pause();
    } while (--patience);
#  endif
    PyMutex_Lock(m);
}
static inline void nt_unlock(nt_mutex *m) { PyMutex_Unlock(m); }
#else
typedef struct { unsigned char taken; } nt_mutex;
static inline void nt_lock(nt_mutex *m) {
    while (nt_swap(&m->taken, 1)) {
        Py_BEGIN_ALLOW_THREADS
        Py_END_ALLOW_THREADS
    }
}
static inline void nt_unlock(nt_mutex *m) { nt_store(&m->taken, 0); }
#endif

/* Have the processor fetch what will be looked at soon; any address will do. The empty
 * statement keeps compilers from dropping whatever does nothing else. */
#if defined(_MSC_VER)
#  define nt_prefetch(address) ((void)(address))
#  define nt_prefetch_write(address) ((void)(address))
#else
#  define nt_prefetch(address) do { \
    __builtin_prefetch(address); \
    __asm__ volatile (""); \
} while (0)
#  if defined(__x86_64__) /* compilers leave it out, for processors before 2014 */
#    define nt_prefetch_write(address) \
        __asm__ volatile ("prefetchw %0" : : "m" (*(const char *)(address)))
#  else
#    define nt_prefetch_write(address) do { \
        __builtin_prefetch(address, 1); \
        __asm__ volatile (""); \
    } while (0)
#  endif
#endif

/* The same for the object that a method is of. */
static inline void nt_prefetch_owner(PyObject *callback) {
    if (PyMethod_Check(callback)) {
        char *owner = (char *)PyMethod_GET_SELF(callback);
        nt_prefetch(owner - 16);
        nt_prefetch(owner + 48);
        nt_prefetch(owner + 112);
    }
}

/* Return an array of `size` bytes that begins with the first `used` ones of `old`, or
 * NULL; `*block` is to be freed with PyMem_RawFree. What is at `offset` begins a line of
 * the cache. Where Linux has pages of 2 MiB to give, a large array gets them: the
 * processor cannot keep in mind where a hundred thousand small ones are. */
#define NT_LINE ((size_t)64)
#define NT_LARGE ((size_t)2 << 20)
static inline void *nt_array(
    size_t size, size_t offset, const void *old, size_t used, void **block
) {
    size_t line = size < NT_LARGE ? NT_LINE : NT_LARGE;
    char *begin = (char *)PyMem_RawMalloc(size + offset + line);
    char *array;
    if (begin == NULL) {
        return NULL;
    }
    array = (char *)(((uintptr_t)begin + offset + line - 1) & ~(uintptr_t)(line - 1));
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (line == NT_LARGE) { /* an advice: where it is not taken, nothing else changes */
        (void)madvise(array, size & ~(NT_LARGE - 1), MADV_HUGEPAGE);
    }
#endif
    array -= offset;
    if (used != 0) {
        memcpy(array, old, used);
    }
    *block = begin;
    return array;
}

/* Nanoseconds of the monotonic clock that time.monotonic() reads. */
static inline long long nt_now(void) {
#if PY_VERSION_HEX >= 0x030D0000
    PyTime_t t;
    (void)PyTime_MonotonicRaw(&t);
    return (long long)t;
#else
    return (long long)_PyTime_GetMonotonicClock();
#endif
}

/* The place in a pool that this thread has, or NULL: set while it serves. */
#if defined(_MSC_VER)
static __declspec(thread) void *nt_place = NULL;
#else
static __thread void *nt_place = NULL;
#endif
static inline void *nt_get_place(void) { return nt_place; }
static inline void nt_set_place(void *place) { nt_place = place; }

/* How deep this thread is in callbacks of futures, and the list of those that it has put off,
 * or NULL; and how deep in tasks that it runs where they are submitted. */
typedef struct {
    int depth;
    int runs;
    PyObject *put_off;
} nt_callbacks;
#if defined(_MSC_VER)
static __declspec(thread) nt_callbacks nt_own_callbacks = {0, 0, NULL};
#else
static __thread nt_callbacks nt_own_callbacks = {0, 0, NULL};
#endif
static inline nt_callbacks *nt_get_callbacks(void) { return &nt_own_callbacks; }

/* Raise RecursionError and return -1 if the stack has no room for one more call. */
static inline int nt_need_room(void) {
    if (Py_EnterRecursiveCall(" before a future is told of its end") != 0) {
        return -1;
    }
    Py_LeaveRecursiveCall();
    return 0;
}
/* The same as a question. */
static inline int nt_has_room(void) {
    if (nt_need_room() == 0) {
        return 1;
    }
    PyErr_Clear();
    return 0;
}

/* Made beforehand, for when there is no memory even for the exception that says so. */
static PyObject *nt_memory_error = NULL;
static inline int nt_make_memory_error(void) {
    if (nt_memory_error == NULL) {
        nt_memory_error = PyObject_CallNoArgs(PyExc_MemoryError);
    }
    return nt_memory_error == NULL ? -1 : 0;
}

/* Take the current exception out of the thread, as one object with its traceback, after a
 * call has failed. It never returns NULL: a call may fail for lack of memory and have none
 * for the exception either. */
static inline PyObject *nt_take_exception(void) {
    PyObject *value;
    int tries;
    for (tries = 0; tries < 2; tries++) {
#if PY_VERSION_HEX >= 0x030C0000
        value = PyErr_GetRaisedException();
#else
        PyObject *type, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        if (type != NULL) {
            PyErr_NormalizeException(&type, &value, &traceback);
        }
        if (value != NULL && traceback != NULL) {
            (void)PyException_SetTraceback(value, traceback);
        }
        Py_XDECREF(traceback);
        Py_XDECREF(type);
#endif
        if (value != NULL) {
            return value;
        }
        (void)PyErr_NoMemory(); /* of which the interpreter keeps some, too */
    }
    PyErr_Clear();
    Py_INCREF(nt_memory_error);
    return nt_memory_error;
}

/* Take a reference that a thread will let go which is not the one that made the object.
 *
 * Without the GIL an object counts the references of the thread that made it apart from
 * those of all others. One that was taken here and is let go elsewhere makes the interpreter
 * stop and settle the two counts, under a lock, for each task. So it is counted with those
 * of the others from the beginning. `nt_hand_over` does so with one that was taken. */
static inline void nt_lend(PyObject *op) {
#if NT_FREE_THREADED
    if (!_Py_IsImmortal(op)) {
        _Py_atomic_add_ssize(&op->ob_ref_shared, (Py_ssize_t)1 << _Py_REF_SHARED_SHIFT);
    }
#else
    Py_INCREF(op);
#endif
}
static inline void nt_hand_over(PyObject *op) {
#if NT_FREE_THREADED
    nt_lend(op);
    Py_DECREF(op);
#else
    (void)op;
#endif
}

/* Hide an object from the garbage collector, where that makes less to do for it. */
static inline void nt_hide(PyObject *op) {
#if NT_FREE_THREADED
    (void)op;
#else
    PyObject_GC_UnTrack(op);
#endif
}

/* Return a copy of the current context, or NULL without an exception if it has nothing in
 * it: what runs in a new one then cannot tell the difference. */
static inline PyObject *nt_copy_context(void) {
    PyObject *context = PyThreadState_Get()->context;
    if (context == NULL || PyObject_Size(context) == 0) {
        return NULL;
    }
    return PyContext_CopyCurrent();
}

/* Whether a context that a call has left can serve another: nothing is in it, and nobody
 * else holds it. Without the GIL a look at the count of references does not tell. */
static inline int nt_is_untouched(PyObject *context) {
#if NT_FREE_THREADED
    (void)context;
    return 0;
#else
    return Py_REFCNT(context) == 1 && PyObject_Size(context) == 0;
#endif
}

/* Whether the attributes of a function say that a call makes a coroutine. Without the GIL they
   may be replaced meanwhile, so who has any is looked at at leisure. */
static inline int nt_may_be_marked(PyObject *attributes) {
#if NT_FREE_THREADED
    return attributes != NULL;
#else
    static PyObject *marks[2];
    int i;
    if (attributes == NULL || PyDict_GET_SIZE(attributes) == 0) {
        return 0;
    }
    if (marks[1] == NULL) {
        marks[0] = PyUnicode_InternFromString("_is_coroutine_marker");
        marks[1] = PyUnicode_InternFromString("_is_coroutine");
    }
    for (i = 0; i < 2; i++) {
        if (marks[i] == NULL || PyDict_Contains(attributes, marks[i])) {
            PyErr_Clear();
            return 1;
        }
    }
    return 0;
#endif
}

/* Whether it can be seen at a glance that a call runs the code, and that nobody has marked it
   as one that makes a coroutine; a generator function does not run it, but may be called. */
static inline int nt_is_plain(PyObject *fn, int runs) {
    int flags = CO_COROUTINE | CO_ITERABLE_COROUTINE | CO_ASYNC_GENERATOR;
    if (PyMethod_Check(fn)) {
        fn = PyMethod_GET_FUNCTION(fn);
    }
    if (PyFunction_Check(fn)) {
        PyFunctionObject *function = (PyFunctionObject *)fn;
        if (runs) {
            flags |= CO_GENERATOR;
        }
        return !nt_may_be_marked(function->func_dict)
            && (((PyCodeObject *)function->func_code)->co_flags & flags) == 0;
    }
    return PyCFunction_CheckExact(fn) || PyType_CheckExact(fn);
}

/* Whether a result may be something that waits to be run: a coroutine, or a generator. */
static inline int nt_may_wait(PyObject *result) {
    return Py_TYPE(result)->tp_as_async != NULL || PyGen_CheckExact(result);
}

/* Call with nothing but keywords, whose names and values are tuples of one length. */
static inline PyObject *nt_call_named(PyObject *fn, PyObject *names, PyObject *values) {
    if (PyTuple_GET_SIZE(names) == 0) {
        return PyObject_CallNoArgs(fn);
    }
    return PyObject_Vectorcall(fn, ((PyTupleObject *)values)->ob_item, 0, names);
}

/* Make an object of a type without running its __init__. */
static inline PyObject *nt_new(PyObject *type, PyObject *no_args) {
    return ((PyTypeObject *)type)->tp_new((PyTypeObject *)type, no_args, NULL);
}

#endif
