/* Latencies in buckets 1/256 of a power of two wide, so that a percentile is right to half a percent. */

#ifndef LATENCY_H
#define LATENCY_H

#include <stdint.h>

enum { FINE_BITS = 8, FINE = 1 << FINE_BITS, BUCKETS = 64 * FINE };

typedef struct {
    uint64_t bucket[BUCKETS];
    uint64_t total;
} Latencies;

static inline void record(Latencies *latencies, uint64_t ns)
{
    unsigned power = ns < FINE ? 0 : 63 - (unsigned)__builtin_clzll(ns) - FINE_BITS;
    unsigned index = power * FINE + (unsigned)(ns >> power);
    latencies->bucket[index]++;
    latencies->total++;
}

/* In microseconds; 0 if there is none. */
static inline double percentile(const Latencies *latencies, double percent)
{
    uint64_t rank = (uint64_t)((double)latencies->total * percent / 100), seen = 0;
    for (unsigned index = 0; index < BUCKETS; index++) {
        seen += latencies->bucket[index];
        if (seen > rank) {
            unsigned power = index < 2 * FINE ? 0 : index / FINE - 1;
            return (double)(((uint64_t)(index - power * FINE) << power) + ((1ull << power) >> 1)) / 1000;
        }
    }
    return 0;
}

#endif
