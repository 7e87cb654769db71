/* The load generator: a WebSocket client that compares every octet of every reply.
 *
 *     load MODE --port N [--path /echo] [--connections N] [--depth N] [--size N] [--text] [--deflate] [--tls]
 *               [--warmup S] [--seconds S] [--pid N]
 *
 * echo       keeps DEPTH messages in flight on each connection
 * churn      each connection: connect, upgrade, one echo, Close 1000, wait for the end of TCP, again
 * broadcast  the first connection sends a message, every one has to receive it, again
 * idle       opens the connections, one echo each, prints a line, holds them until its input ends
 *
 * After a warm-up it measures for some seconds; with --pid also the processor time that this process (the
 * server) used in them. Then all replies are awaited, and every connection is closed with the closing
 * handshake.
 * The result is one line of JSON. Whatever is not as it should be ends the run: exit status 1, "faults": 1.
 */

#include <getopt.h>
#include <signal.h>
#include <stdarg.h>

#include "connection.h"
#include "latency.h"

typedef struct {
    const char *name;
    void (*begin)(void); /* all connections are open; NULL: nothing waits for that */
    void (*opened)(Connection *);
    void (*message)(Connection *);
    void (*ended)(Connection *);
} Mode;

static struct {
    const Mode *mode;
    uint32_t connections;
    double warmup, seconds;
    bool has_server;
    clockid_t server; /* its processor time */
} options = {.connections = 1, .warmup = 0.2, .seconds = 0.7};

enum Phase { OPENING_ALL, SETTLING, WARMING_UP, MEASURING, FINISHING };

typedef struct {
    uint64_t count, time, server, self;
} Reading;

static struct {
    Connection *connections;
    enum Phase phase;
    uint64_t phase_ends;
    uint32_t started, opening, open;
    uint64_t count;    /* of what the mode counts */
    uint32_t arrivals; /* of the broadcast under way */
    Reading begin, end;
    Latencies latencies;
} run;

/* asyncio's listen backlog is 100, and a SYN that is dropped comes again after a second. */
enum { OPENING_AT_ONCE = 64 };

static const uint64_t SECOND = 1000000000u;
/* For what should take no time. */
static const uint64_t PATIENCE = 20 * SECOND;
/* With less than this a window is prolonged: on a crowded machine somebody was kept from running. */
enum { ENOUGH = 20 };
/* A handler may begin a little later than its connection is open, and would miss a broadcast. */
static const uint64_t SETTLE = SECOND / 4;

void fault(const Connection *connection, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    fputs("load: ", stderr);
    if (connection)
        fprintf(stderr, "connection %u: ", connection->id);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    printf("{\"mode\": \"%s\", \"faults\": 1}\n", options.mode->name);
    exit(1);
}

/* ---- the window ---- */

static uint64_t spent(clockid_t clock)
{
    struct timespec time;
    if (clock_gettime(clock, &time))
        fault(NULL, "the server is gone");
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static Reading reading(void)
{
    return (Reading){run.count, now(), options.has_server ? spent(options.server) : 0,
                     spent(CLOCK_PROCESS_CPUTIME_ID)};
}

static void took(uint64_t since)
{
    if (run.phase == MEASURING)
        record(&run.latencies, shared.now - since);
}

static bool sending(void)
{
    return run.phase == WARMING_UP || run.phase == MEASURING;
}

static void enter(enum Phase phase, uint64_t lasts)
{
    run.phase = phase;
    run.phase_ends = now() + lasts;
}

static void close_if_settled(Connection *connection)
{
    if (connection->state == OPEN && !owed(connection))
        queue_close(connection);
}

static void begin(void)
{
    enter(WARMING_UP, (uint64_t)(options.warmup * 1e9));
    if (options.mode->begin)
        options.mode->begin();
}

static void finish(void)
{
    enter(FINISHING, PATIENCE);
    if (!options.mode->begin) /* each closes by itself */
        return;
    for (uint32_t i = 0; i < options.connections; i++) {
        close_if_settled(&run.connections[i]);
        flush_connection(&run.connections[i]);
    }
}

/* What time alone brings about. */
static void tick(void)
{
    if (now() < run.phase_ends)
        return;
    switch (run.phase) {
    case OPENING_ALL:
        fault(NULL, "only %u of %u connections opened", run.open, options.connections);
    case SETTLING:
        begin();
        break;
    case WARMING_UP:
        run.begin = reading();
        enter(MEASURING, (uint64_t)(options.seconds * 1e9));
        break;
    case MEASURING:
        if (run.count < run.begin.count + ENOUGH && now() < run.begin.time + PATIENCE) {
            enter(MEASURING, SECOND / 10);
            break;
        }
        run.end = reading();
        finish();
        break;
    case FINISHING:
        fault(NULL, "%u connections do not end", run.open + run.opening);
    }
}

/* ---- modes ---- */

static void open_more(void)
{
    for (; run.started < options.connections && run.opening < OPENING_AT_ONCE; run.opening++)
        open_connection(&run.connections[run.started++]);
}

static void opened(Connection *connection)
{
    run.opening--;
    run.open++;
    if (options.mode->opened)
        options.mode->opened(connection);
    open_more();
    if (options.mode->begin && run.open == options.connections)
        enter(SETTLING, SETTLE);
}

static void ended(Connection *connection)
{
    run.open--;
    if (options.mode->ended)
        options.mode->ended(connection);
}

static void echo_begin(void)
{
    for (uint32_t i = 0; i < options.connections; i++) {
        for (uint32_t n = 0; n < shared.depth; n++)
            queue_message(&run.connections[i]);
        flush_connection(&run.connections[i]);
    }
}

static void echo_message(Connection *connection)
{
    run.count++;
    took(connection->since[(connection->received - 1) % shared.depth]);
    if (sending())
        queue_message(connection);
    else
        close_if_settled(connection);
}

static void churn_ended(Connection *connection)
{
    run.count++;
    took(connection->closing_since);
    if (run.phase != FINISHING) {
        run.opening++;
        open_connection(connection);
    }
}

static void broadcast(void)
{
    queue_message(shared.broadcaster);
    flush_connection(shared.broadcaster);
}

static void broadcast_message(Connection *connection)
{
    run.count++;
    if (++run.arrivals == options.connections) {
        run.arrivals = 0;
        took(shared.broadcaster->since[(shared.broadcaster->queued - 1) % shared.depth]);
        if (sending())
            broadcast();
    }
    if (!sending()) {
        close_if_settled(connection);
        flush_connection(connection);
    }
}

static void idle_message(Connection *connection)
{
    (void)connection;
    run.count++;
    if (run.count < options.connections)
        return;
    printf("{\"mode\": \"idle\", \"connections\": %u, \"faults\": 0}\n", options.connections);
    fflush(stdout);
    enter(SETTLING, 600 * SECOND);
}

static const Mode modes[] = {
    {"echo", echo_begin, NULL, echo_message, NULL},
    {"churn", NULL, queue_message, queue_close, churn_ended},
    {"broadcast", broadcast, NULL, broadcast_message, NULL},
    {"idle", NULL, queue_message, idle_message, NULL},
};

/* ---- the program ---- */

static _Noreturn void misused(const char *what)
{
    fprintf(stderr, "load: %s; see the head of load.c\n", what);
    exit(2);
}

static void read_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"port", 1, 0, 'p'},    {"path", 1, 0, 'P'},   {"connections", 1, 0, 'c'}, {"depth", 1, 0, 'd'},
        {"size", 1, 0, 's'},    {"text", 0, 0, 't'},   {"deflate", 0, 0, 'z'},     {"tls", 0, 0, 'T'},
        {"warmup", 1, 0, 'w'},  {"seconds", 1, 0, 'S'}, {"pid", 1, 0, 'i'},        {0}};
    size_t size = 1024;
    bool text = false;
    shared.path = "/echo";
    shared.depth = 1;
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (name) {
        case 'p': shared.port = (uint16_t)atoi(optarg); break;
        case 'P': shared.path = optarg; break;
        case 'c': options.connections = (uint32_t)atoi(optarg); break;
        case 'd': shared.depth = (uint32_t)atoi(optarg); break;
        case 's': size = (size_t)atol(optarg); break;
        case 't': text = true; break;
        case 'z': shared.deflate = true; break;
        case 'T': prepare_tls(); break;
        case 'w': options.warmup = atof(optarg); break;
        case 'S': options.seconds = atof(optarg); break;
        case 'i':
            if (clock_getcpuclockid((pid_t)atoi(optarg), &options.server))
                misused("--pid is no process");
            options.has_server = true;
            break;
        default: misused("unknown option");
        }
    }
    for (size_t i = 0; optind < argc && i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(argv[optind], modes[i].name))
            options.mode = &modes[i];
    if (!options.mode || !shared.port || !options.connections || !shared.depth)
        misused("MODE and --port are needed");
    if (size < (shared.deflate ? 512 : STAMP))
        misused("--size is too small");
    if (shared.deflate)
        make_documents(size);
    else
        make_pattern(size, text);
}

static void prepare(void)
{
    signal(SIGPIPE, SIG_IGN);
    alarm(900); /* whatever happens, it ends */
    shared.epoll = epoll_create1(EPOLL_CLOEXEC);
    shared.opened = opened;
    shared.message = options.mode->message;
    shared.ended = ended;
    run.connections = allocate(options.connections * sizeof *run.connections);
    for (uint32_t i = 0; i < options.connections; i++) {
        run.connections[i].id = i;
        run.connections[i].since = allocate(shared.depth * sizeof(uint64_t));
    }
    if (options.mode->begin == broadcast)
        shared.broadcaster = run.connections;
    enter(OPENING_ALL, PATIENCE);
    if (!options.mode->begin && options.mode->ended)
        begin();
}

static void report(void)
{
    uint64_t done = run.end.count - run.begin.count;
    if (done < ENOUGH)
        fault(NULL, "only %lu came back in the window", done);
    printf("{\"mode\": \"%s\", \"count\": %lu, \"seconds\": %.6f, \"server_cpu\": %.9f, \"load_cpu\": %.6f, "
           "\"p50_us\": %.2f, \"p99_us\": %.2f, \"faults\": 0}\n",
           options.mode->name, done, (double)(run.end.time - run.begin.time) / 1e9,
           (double)(run.end.server - run.begin.server) / 1e9, (double)(run.end.self - run.begin.self) / 1e9,
           percentile(&run.latencies, 50), percentile(&run.latencies, 99));
}

/* Whether the input has ended: the program that measures idle connections ends them so. */
static void watch_input(void)
{
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(shared.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    prepare();
    bool idle = options.mode->message == idle_message;
    if (idle)
        watch_input();
    open_more();
    while (run.phase != FINISHING || run.open + run.opening) {
        struct epoll_event events[256];
        uint64_t time = now();
        uint64_t wait = run.phase_ends > time ? (run.phase_ends - time) / 1000000 + 1 : 0;
        int ready = epoll_wait(shared.epoll, events, 256, (int)(wait < 100 ? wait : 100));
        for (int i = 0; i < ready; i++) {
            if (!events[i].data.ptr)
                return 0;
            shared.now = now();
            serve_connection(events[i].data.ptr);
        }
        tick();
    }
    report();
    return 0;
}
