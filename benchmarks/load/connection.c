#include "connection.h"

struct shared shared;
SSL_CTX *tls;

static uint8_t read_buffer[256 * 1024], write_buffer[128 * 1024];

static const Connection *sender_to(const Connection *connection)
{
    return shared.broadcaster ? shared.broadcaster : connection;
}

uint32_t owed(const Connection *connection)
{
    return sender_to(connection)->queued - connection->received;
}

/* ---- sending ---- */

static void ask_for(Connection *connection, uint32_t events)
{
    Stream *stream = &connection->stream;
    if (events == stream->wanted)
        return;
    struct epoll_event event = {.events = events, .data.ptr = connection};
    epoll_ctl(shared.epoll, stream->wanted ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, stream->fd, &event);
    stream->wanted = events;
}

/* The octets of the queued messages, from where the last write stopped. */
static size_t produce(const Connection *connection, uint8_t *to, size_t room)
{
    size_t skip = connection->offset, made = 0;
    for (uint32_t number = connection->sent; number != connection->queued && made < room; number++) {
        uint8_t head[HEADER_MAX + STAMP];
        Pieces message = outgoing(connection->id, number, head);
        made += copy_pieces(&message, skip, to + made, room - made);
        skip = 0;
    }
    return made;
}

/* The stream took this many octets of what it was offered. */
static void taken(Connection *connection, size_t size)
{
    if (connection->sending_raw) {
        connection->raw_size -= size;
        memmove(connection->raw, connection->raw + size, connection->raw_size);
        return;
    }
    connection->offset += size;
    while (connection->sent != connection->queued) {
        uint8_t head[HEADER_MAX + STAMP];
        Pieces message = outgoing(connection->id, connection->sent, head);
        if (connection->offset < pieces_size(&message))
            return;
        connection->offset -= pieces_size(&message);
        connection->sent++;
    }
}

void flush_connection(Connection *connection)
{
    while (connection->raw_size || connection->sent != connection->queued) {
        if (!connection->blocked)
            connection->sending_raw = connection->raw_size && !connection->offset;
        const uint8_t *data = connection->sending_raw ? connection->raw : write_buffer;
        size_t size = connection->sending_raw ? connection->raw_size
                                              : produce(connection, write_buffer, sizeof write_buffer);
        long wrote = stream_write(&connection->stream, data, size);
        if (wrote == BROKEN)
            fault(connection, "cannot write: %s", strerror(errno));
        connection->blocked = wrote == WOULD_WAIT;
        if (connection->blocked)
            break;
        taken(connection, (size_t)wrote);
    }
    bool full = connection->blocked && stream_waits_to_write(&connection->stream);
    ask_for(connection, EPOLLIN | (full ? EPOLLOUT : 0));
}

static void queue_raw(Connection *connection, const void *data, size_t size)
{
    if (connection->raw_size + size > sizeof connection->raw)
        fault(connection, "control frames are not taken");
    memcpy(connection->raw + connection->raw_size, data, size);
    connection->raw_size += size;
}

static void queue_control(Connection *connection, uint8_t opcode, const uint8_t *data, size_t size)
{
    uint8_t frame[HEADER_MAX + CONTROL_MAX];
    size_t header = write_header(frame, FIN | opcode, size, KEY);
    mask(frame + header, data, size, KEY);
    queue_raw(connection, frame, header + size);
}

void queue_message(Connection *connection)
{
    connection->since[connection->queued++ % shared.depth] = shared.now;
}

void queue_close(Connection *connection)
{
    queue_control(connection, CLOSE, (const uint8_t *)"\x03\xe8", 2); /* 1000 */
    connection->state = CLOSING;
    connection->closing_since = shared.now;
}

/* ---- opening ---- */

void open_connection(Connection *connection)
{
    connection->answer_size = 0;
    if (!stream_open(&connection->stream, shared.port))
        fault(connection, "cannot connect: %s", strerror(errno));
    connection->state = CONNECTING;
    ask_for(connection, EPOLLOUT);
}

static void connected(Connection *connection)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(connection->stream.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error)
        fault(connection, "cannot connect: %s", strerror(error));
    connection->state = UPGRADING;
    const char *offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    char request[sizeof connection->raw];
    /* The key of RFC 6455 section 1.3, so that its answer is known. */
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\n"
                          "Host: 127.0.0.1:%u\r\n"
                          "Upgrade: websocket\r\n"
                          "Connection: Upgrade\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                          "Sec-WebSocket-Version: 13\r\n"
                          "%s\r\n",
                          shared.path, shared.port, shared.deflate ? offer : "");
    queue_raw(connection, request, (size_t)length);
    flush_connection(connection);
}

static void check_answer(Connection *connection)
{
    const char *answer = connection->answer;
    if (strncmp(answer, "HTTP/1.1 101 ", 13))
        fault(connection, "not upgraded: %.60s", answer);
    if (!strstr(answer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
        fault(connection, "wrong Sec-WebSocket-Accept");
    if (shared.deflate != (strstr(answer, "permessage-deflate") != NULL))
        fault(connection, "permessage-deflate is %s", shared.deflate ? "refused" : "not offered");
    static const char parameter[] = "client_max_window_bits=";
    const char *bits = strstr(answer, parameter);
    if (bits && atoi(bits + sizeof parameter - 1) < WINDOW_BITS)
        fault(connection, "too small a window is asked for: %.32s", bits);
    if (shared.deflate) {
        inflateEnd(&connection->inflate);
        inflateInit2(&connection->inflate, -15);
    }
}

/* Takes octets of the answer; returns how many. */
static size_t received_answer(Connection *connection, const uint8_t *data, size_t size)
{
    char *answer = connection->answer;
    for (size_t i = 0; i < size; i++) {
        size_t length = ++connection->answer_size;
        if (length == sizeof connection->answer)
            fault(connection, "too long an answer");
        answer[length - 1] = (char)data[i];
        answer[length] = 0;
        if (length < 4 || memcmp(answer + length - 4, "\r\n\r\n", 4))
            continue;
        check_answer(connection);
        connection->state = OPEN;
        shared.opened(connection);
        return i + 1;
    }
    return size;
}

/* ---- receiving ---- */

static void compare(Connection *connection, const Pieces *reply, const uint8_t *data, size_t size)
{
    if (!matches(reply, connection->at, data, size))
        fault(connection, "message %u differs in the %zu octets from %zu on", connection->received, size,
              connection->at);
    connection->at += size;
}

static void compare_inflated(Connection *connection, const Pieces *reply, const uint8_t *data, size_t size)
{
    static uint8_t plain[16 * 1024];
    z_stream *z = &connection->inflate;
    z->next_in = (uint8_t *)(uintptr_t)data;
    z->avail_in = (uInt)size;
    do {
        z->next_out = plain;
        z->avail_out = sizeof plain;
        int result = inflate(z, Z_SYNC_FLUSH);
        if (result == Z_BUF_ERROR) /* nothing more to do */
            return;
        if (result != Z_OK && result != Z_STREAM_END)
            fault(connection, "message %u cannot be inflated", connection->received);
        compare(connection, reply, plain, sizeof plain - z->avail_out);
        if (result == Z_STREAM_END) /* RFC 7692 section 7.2.3.4: a block with BFINAL */
            inflateReset(z);
    } while (z->avail_in || !z->avail_out);
}

static void received_data(Connection *connection, const uint8_t *data, size_t size)
{
    uint8_t room[STAMP];
    Pieces reply = expected(sender_to(connection)->id, connection->received, room);
    (shared.deflate ? compare_inflated : compare)(connection, &reply, data, size);
    connection->left -= size;
    if (connection->left || !connection->frame.fin)
        return;
    if (shared.deflate) /* RFC 7692 section 7.2.2 */
        compare_inflated(connection, &reply, (const uint8_t *)"\0\0\xff\xff", 4);
    if (connection->at != pieces_size(&reply))
        fault(connection, "message %u ends after %zu octets", connection->received, connection->at);
    connection->in_message = false;
    connection->received++;
    shared.message(connection);
}

static void received_control(Connection *connection, const uint8_t *data, size_t size)
{
    uint8_t *control = connection->control;
    memcpy(control + connection->control_size, data, size);
    connection->control_size += size;
    connection->left -= size;
    if (connection->left)
        return;
    size = connection->control_size;
    connection->control_size = 0;
    if (connection->frame.opcode == PING && connection->state == OPEN)
        queue_control(connection, PONG, control, size);
    if (connection->frame.opcode != CLOSE)
        return;
    int code = size < 2 ? 1005 : control[0] << 8 | control[1];
    if (connection->state != CLOSING || code != 1000)
        fault(connection, "closed with %d %.*s", code, size < 2 ? 0 : (int)size - 2, control + 2);
    connection->state = ENDING;
}

static void check_frame(Connection *connection)
{
    const Frame *frame = &connection->frame;
    if (frame->masked)
        fault(connection, "masked frame");
    if (frame->opcode >= CLOSE) {
        if (frame->length > CONTROL_MAX || !frame->fin || frame->opcode > PONG)
            fault(connection, "bad control frame");
        return;
    }
    bool first = !connection->in_message;
    if (!owed(connection))
        fault(connection, "more messages than were sent");
    if (frame->opcode != (first ? payload_opcode : CONTINUATION))
        fault(connection, "opcode %u out of turn", frame->opcode);
    if (frame->rsv1 != (first && shared.deflate))
        fault(connection, shared.deflate ? "a message is not compressed" : "RSV1 is set");
    if (first)
        connection->at = 0;
    connection->in_message = true;
}

static void received_payload(Connection *connection, const uint8_t *data, size_t size)
{
    (connection->frame.opcode >= CLOSE ? received_control : received_data)(connection, data, size);
}

/* Takes octets of a header; returns how many. */
static size_t received_header(Connection *connection, const uint8_t *data, size_t size)
{
    size_t before = connection->header_size;
    size_t more = HEADER_MAX - before < size ? HEADER_MAX - before : size;
    memcpy(connection->header + before, data, more);
    connection->header_size += more;
    size_t whole = parse_header(connection->header, connection->header_size, &connection->frame);
    if (!whole)
        return more;
    connection->header_size = 0;
    connection->left = connection->frame.length;
    check_frame(connection);
    if (!connection->left)
        received_payload(connection, data, 0);
    return whole - before;
}

static void received(Connection *connection, const uint8_t *data, size_t size)
{
    while (size) {
        size_t used = connection->left < size ? connection->left : size;
        if (connection->state == UPGRADING)
            used = received_answer(connection, data, size);
        else if (connection->state == ENDING)
            fault(connection, "octets after Close");
        else if (connection->left)
            received_payload(connection, data, used);
        else
            used = received_header(connection, data, size);
        data += used;
        size -= used;
    }
}

static void ended(Connection *connection)
{
    if (connection->state != ENDING)
        fault(connection, "TCP ended before Close");
    stream_close(&connection->stream);
    connection->state = CLOSED;
    shared.ended(connection);
}

void serve_connection(Connection *connection)
{
    if (connection->state == CONNECTING) {
        connected(connection);
        return;
    }
    long size;
    do {
        size = stream_read(&connection->stream, read_buffer, sizeof read_buffer);
        if (size == BROKEN)
            fault(connection, "cannot read: %s", strerror(errno));
        if (size == 0) {
            ended(connection);
            return;
        }
        if (size > 0)
            received(connection, read_buffer, (size_t)size);
    } while (size > 0 && connection->stream.ssl); /* the kernel does not report data that is in OpenSSL's buffer */
    flush_connection(connection);
}
