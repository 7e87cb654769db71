# No class has C types: the module is compiled because it runs for each publication.
cpdef Py_ssize_t size_of(message) except -1
