cpdef hasten()
