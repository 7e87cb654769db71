cpdef add(cells, Py_ssize_t index, double value)
