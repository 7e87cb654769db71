/* The server that clients are measured against: an echo that costs next to nothing.
 *
 *     fast_server [FAULT]
 *
 * It prints its port and ends when its input does. With a FAULT it echoes its 100th message wrongly, by which
 * the load generator is tried: flip (one bit in the middle), stamp (in the first octet), lengthen, shorten,
 * stale (the message before), drop, twice; or close (answers Close with another code), reset (with none).
 */

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <signal.h>
#include <sys/epoll.h>

#include "wire.h"

typedef struct {
    uint8_t *data;
    size_t size, room;
} Buffer;

typedef struct {
    int fd;
    bool open, closing, full;
    Buffer in, out;
} Connection;

enum { FAULTY = 100, READ_SIZE = 256 * 1024 };

static const char *wrongly = "";
static uint64_t messages;
static Buffer previous;

static void append(Buffer *buffer, const void *data, size_t size)
{
    if (buffer->size + size > buffer->room) {
        buffer->room = 2 * (buffer->size + size);
        buffer->data = realloc(buffer->data, buffer->room);
        if (!buffer->data)
            exit(2);
    }
    if (data)
        memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
}

static void drop_first(Buffer *buffer, size_t size)
{
    buffer->size -= size;
    memmove(buffer->data, buffer->data + size, buffer->size);
}

static void answer(Connection *connection, uint8_t first, const uint8_t *data, size_t size)
{
    uint8_t header[HEADER_MAX];
    append(&connection->out, header, write_header(header, first, size, NULL));
    append(&connection->out, data, size);
}

/* The 100th message; `data` has room for one octet more. */
static void answer_wrongly(Connection *connection, uint8_t first, uint8_t *data, size_t size)
{
    if (!strcmp(wrongly, "flip"))
        data[size / 2] ^= 1;
    else if (!strcmp(wrongly, "stamp"))
        data[0] ^= 1;
    else if (!strcmp(wrongly, "lengthen"))
        size++;
    else if (!strcmp(wrongly, "shorten"))
        size--;
    else if (!strcmp(wrongly, "stale"))
        data = previous.data;
    else if (!strcmp(wrongly, "drop"))
        return;
    else if (!strcmp(wrongly, "twice"))
        answer(connection, first, data, size);
    answer(connection, first, data, size);
}

static void received(Connection *connection, uint8_t first, uint8_t *data, size_t size)
{
    uint8_t opcode = first & 0x0f;
    if (opcode == PONG || connection->closing)
        return;
    if (opcode == PING) {
        answer(connection, FIN | PONG, data, size);
    } else if (opcode == CLOSE) {
        connection->closing = true;
        if (size && !strcmp(wrongly, "close"))
            data[1] ^= 1;
        if (strcmp(wrongly, "reset"))
            answer(connection, first, data, size);
    } else if (*wrongly && ++messages == FAULTY) {
        answer_wrongly(connection, first, data, size);
    } else {
        answer(connection, first, data, size);
        if (*wrongly) {
            previous.size = 0;
            append(&previous, data, size);
        }
    }
}

/* Answers every whole frame of what was read. */
static void answer_frames(Connection *connection)
{
    Buffer *in = &connection->in;
    size_t at = 0;
    Frame frame;
    for (;;) {
        uint8_t *start = in->data + at;
        size_t header = parse_header(start, in->size - at, &frame);
        if (!header || in->size - at - header < frame.length)
            break;
        uint8_t first = *start;
        mask(start + header, start + header, frame.length, frame.key);
        at += header + frame.length;
        /* One octet more than the payload, for the fault that lengthens. */
        if (at == in->size) {
            append(in, "", 1);
            in->size--;
            start = in->data + at - header - frame.length;
        }
        received(connection, first, start + header, frame.length);
    }
    drop_first(in, at);
}

static void upgrade(Connection *connection)
{
    static const char name[] = "Sec-WebSocket-Key:", guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    append(&connection->in, "", 1);
    connection->in.size--;
    char *head = (char *)connection->in.data, *end = strstr(head, "\r\n\r\n"), *key = strcasestr(head, name);
    if (!end)
        return;
    char text[24 + sizeof guid] = "", answer[200];
    uint8_t digest[SHA_DIGEST_LENGTH], accept[32];
    if (key)
        sscanf(key + sizeof name - 1, " %24s", text);
    strcat(text, guid);
    SHA1((uint8_t *)text, strlen(text), digest);
    EVP_EncodeBlock(accept, digest, sizeof digest);
    int length = snprintf(answer, sizeof answer,
                          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
    append(&connection->out, answer, (size_t)length);
    drop_first(&connection->in, (size_t)(end + 4 - head));
    connection->open = true;
}

static void end(Connection *connection)
{
    close(connection->fd);
    free(connection->in.data);
    free(connection->out.data);
    free(connection);
}

static void serve(int epoll, Connection *connection, uint32_t events)
{
    Buffer *in = &connection->in, *out = &connection->out;
    if (events & ~(uint32_t)EPOLLOUT) {
        append(in, NULL, READ_SIZE);
        in->size -= READ_SIZE;
        ssize_t size = recv(connection->fd, in->data + in->size, READ_SIZE, 0);
        if (size == 0 || (size < 0 && errno != EAGAIN)) {
            end(connection);
            return;
        }
        in->size += size > 0 ? (size_t)size : 0;
        if (!connection->open)
            upgrade(connection);
        if (connection->open)
            answer_frames(connection);
    }
    ssize_t sent = out->size ? send(connection->fd, out->data, out->size, MSG_NOSIGNAL) : 0;
    if (sent > 0)
        drop_first(out, (size_t)sent);
    if (connection->closing && !out->size)
        shutdown(connection->fd, SHUT_WR);
    /* Who does not take its echoes is not read from. */
    if (connection->full != (out->size > 0)) {
        connection->full = out->size > 0;
        struct epoll_event event = {.events = connection->full ? EPOLLOUT : EPOLLIN, .data.ptr = connection};
        epoll_ctl(epoll, EPOLL_CTL_MOD, connection->fd, &event);
    }
}

static int listening(void)
{
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(fd, (struct sockaddr *)&address, size) || listen(fd, 1024))
        exit(2);
    getsockname(fd, (struct sockaddr *)&address, &size);
    printf("%u\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void watch(int epoll, int fd, void *what)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        wrongly = argv[1];
    int epoll = epoll_create1(0), listener = listening();
    watch(epoll, listener, &listener);
    watch(epoll, STDIN_FILENO, NULL);
    for (;;) {
        struct epoll_event events[64];
        int ready = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            void *what = events[i].data.ptr;
            if (!what)
                return 0;
            if (what != &listener) {
                serve(epoll, what, events[i].events);
                continue;
            }
            Connection *connection = allocate(sizeof *connection);
            connection->fd = accept(listener, NULL, NULL);
            if (connection->fd < 0) {
                free(connection);
                continue;
            }
            hasten(connection->fd);
            watch(epoll, connection->fd, connection);
        }
    }
}
