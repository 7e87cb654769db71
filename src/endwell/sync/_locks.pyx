"""The compiled form of ``locks.py``."""

from cpython.exc cimport PyErr_CheckSignals

from endwell.aio._syscalls cimport monotonic

cdef extern from "pythread.h" nogil:
    ctypedef enum PyLockStatus:
        PY_LOCK_ACQUIRED
        PY_LOCK_INTR
    void* PyThread_allocate_lock()
    void PyThread_free_lock(void* lock)
    int PyThread_acquire_lock(void* lock, int wait)
    void PyThread_release_lock(void* lock)
    PyLockStatus PyThread_acquire_lock_timed(void* lock, long long microseconds, int interruptible)

cdef extern from "sched.h" nogil:
    int sched_yield()


cdef class Lock:
    def __cinit__(self):
        self._lock = PyThread_allocate_lock()
        if self._lock is NULL:
            raise MemoryError

    def __dealloc__(self):
        if self._lock is not NULL:
            # As CPython does: a lock must be unlocked when it is freed.
            PyThread_acquire_lock(self._lock, 0)
            PyThread_release_lock(self._lock)
            PyThread_free_lock(self._lock)

    cpdef bint acquire(self, bint blocking=True, double timeout=-1) except -1:
        cdef void* lock = self._lock
        cdef PyLockStatus status
        cdef bint forever = blocking and timeout < 0
        cdef double deadline = 0
        cdef long long wait = -1
        if PyThread_acquire_lock(lock, 0):
            return True
        if not blocking:
            return False
        if not forever:
            deadline = monotonic() + timeout
        while True:
            if not forever:
                wait = <long long>(max(0.0, deadline - monotonic()) * 1e6)
            with nogil:
                status = PyThread_acquire_lock_timed(lock, wait, 1)
            if status != PY_LOCK_INTR:
                return status == PY_LOCK_ACQUIRED
            PyErr_CheckSignals()

    cpdef release(self):
        PyThread_release_lock(self._lock)

    cpdef bint locked(self):
        if PyThread_acquire_lock(self._lock, 0):
            PyThread_release_lock(self._lock)
            return False
        return True


cpdef Lock allocate():
    return Lock()


cpdef hand_over(list locks):
    cdef Lock lock
    cdef void* raw[64]
    cdef int count = 0, i
    for lock in locks[64:]:
        PyThread_release_lock(lock._lock)
    for lock in locks[:64]:
        raw[count] = lock._lock
        count += 1
    with nogil:
        for i in range(count):
            PyThread_release_lock(raw[i])
        sched_yield()
