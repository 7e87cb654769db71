cpdef double after(double start, seconds)
