cpdef fill(record, tuple members, tuple values)
