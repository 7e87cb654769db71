"""The compiled form of ``records.py``."""

cdef extern from "Python.h":
    ctypedef int (*descrsetfunc)(object, object, object) except -1
    ctypedef struct PyTypeObject:
        descrsetfunc tp_descr_set
    PyTypeObject* Py_TYPE(object)


def members_of(cls):
    return tuple(vars(cls)[each] for each in cls.__slots__)


cpdef fill(record, tuple members, tuple values):
    cdef Py_ssize_t each
    cdef descrsetfunc put
    if len(members) != len(values):
        raise ValueError("there are as many values as fields")
    for each in range(len(members)):
        put = Py_TYPE(members[each]).tp_descr_set
        if put is NULL:
            raise TypeError("not a descriptor of a slot")
        put(members[each], record, values[each])
