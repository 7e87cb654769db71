"""The compiled form of ``sending.py``: the type slot ``am_send`` (since Python 3.10)."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

from endwell.aio.awaiting cimport Done, Receive

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    ctypedef PySendResult (*sendfunc)(PyObject*, PyObject*, PyObject**) noexcept
    ctypedef struct PyAsyncMethods:
        sendfunc am_send
    ctypedef struct PyTypeObject:
        PyAsyncMethods* tp_as_async
    void PyType_Modified(PyTypeObject* cls)
    PyObject* Py_None

# A call whose NULL result is passed on to the caller; Cython itself would raise here.
ctypedef PyObject* (*Step)(PyObject* self) noexcept


cdef object _step(Receive self):
    return self.step()


cdef PySendResult _receive(PyObject* self, PyObject* value, PyObject** result) noexcept:
    result[0] = (<Step> <void*> _step)(self)
    if result[0] == NULL:
        return PYGEN_ERROR
    return PYGEN_NEXT if result[0] == <PyObject*> (<Receive> self)._slot else PYGEN_RETURN


cdef PySendResult _done(PyObject* self, PyObject* value, PyObject** result) noexcept:
    result[0] = Py_None
    Py_INCREF(None)
    return PYGEN_RETURN


cpdef install_am_send():
    (<PyTypeObject*> Receive).tp_as_async.am_send = _receive
    (<PyTypeObject*> Done).tp_as_async.am_send = _done
    PyType_Modified(<PyTypeObject*> Receive)
    PyType_Modified(<PyTypeObject*> Done)
