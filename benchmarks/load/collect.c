/* Lets a program that runs under callgrind choose what is counted. */
#include <valgrind/callgrind.h>

/* Start or stop counting in the calling thread. Counting starts switched off (--collect-atstart=no). */
void toggle(void) { CALLGRIND_TOGGLE_COLLECT; }

/* Write what was counted since the last dump under this name. */
void dump(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
