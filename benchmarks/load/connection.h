/* One connection of the load generator: its opening, messages both ways, its end. */

#ifndef CONNECTION_H
#define CONNECTION_H

#include "payload.h"
#include "stream.h"

enum State {
    CLOSED,     /* no socket */
    CONNECTING, /* TCP */
    UPGRADING,  /* the request is on its way */
    OPEN,
    CLOSING, /* our Close is on its way */
    ENDING   /* the server's Close is here; TCP has to end */
};

typedef struct {
    Stream stream;
    enum State state;
    uint32_t id;
    /* sending */
    uint32_t queued, sent; /* counts of messages */
    size_t offset;         /* within the message that is being sent */
    uint8_t raw[512];      /* what goes out between messages: the request, Pong, Close */
    size_t raw_size;
    bool blocked, sending_raw;
    uint64_t *since; /* when each message in flight was queued, in ns */
    uint64_t closing_since;
    /* receiving */
    char answer[2048];
    uint8_t header[HEADER_MAX], control[CONTROL_MAX];
    size_t answer_size, header_size, control_size;
    Frame frame;
    uint64_t left; /* of the frame's payload */
    bool in_message;
    size_t at; /* octets of the message that were right */
    uint32_t received;
    z_stream inflate;
} Connection;

/* What holds for all connections. */
extern struct shared {
    int epoll;
    uint16_t port;
    const char *path;
    bool deflate;
    uint32_t depth;
    Connection *broadcaster; /* whose messages all receive; NULL: each its own */
    uint64_t now;            /* ns */
    /* what the mode does about it */
    void (*opened)(Connection *);
    void (*message)(Connection *); /* the whole of a message is here, and right */
    void (*ended)(Connection *);   /* in order, in both protocols */
} shared;

/* Ends the program: the server did not do what it has to. */
_Noreturn void fault(const Connection *, const char *format, ...) __attribute__((format(printf, 2, 3)));

void open_connection(Connection *);
/* Does what an epoll event calls for. */
void serve_connection(Connection *);

/* These go out with the next flush, at the latest when the event is served. */
void queue_message(Connection *);
void queue_close(Connection *);
void flush_connection(Connection *);

/* The messages that have to arrive yet. */
uint32_t owed(const Connection *);

#endif
