/* The wire as load.c and fast_server.c both need it: frames of RFC 6455, sockets, the clock. */

#ifndef WIRE_H
#define WIRE_H

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum Opcode { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

enum { FIN = 0x80, RSV1 = 0x40, MASKED = 0x80, HEADER_MAX = 14, CONTROL_MAX = 125 };

typedef struct {
    uint8_t opcode;
    bool fin, rsv1, masked;
    uint8_t key[4];
    uint64_t length;
} Frame;

/* The size of the header at `data`; 0 if more than these `size` octets are needed to tell. */
static inline size_t parse_header(const uint8_t *data, size_t size, Frame *frame)
{
    if (size < 2)
        return 0;
    uint8_t length = data[1] & 0x7f;
    size_t extended = length == 127 ? 8 : length == 126 ? 2 : 0;
    frame->masked = (data[1] & MASKED) != 0;
    size_t total = 2 + extended + (frame->masked ? 4 : 0);
    if (size < total)
        return 0;
    frame->fin = (data[0] & FIN) != 0;
    frame->rsv1 = (data[0] & RSV1) != 0;
    frame->opcode = data[0] & 0x0f;
    frame->length = extended ? 0 : length;
    for (size_t i = 0; i < extended; i++)
        frame->length = frame->length << 8 | data[2 + i];
    if (frame->masked)
        memcpy(frame->key, data + 2 + extended, 4);
    return total;
}

/* Writes a header; `key` is NULL for a frame of a server. Returns its size. */
static inline size_t write_header(uint8_t *to, uint8_t first, uint64_t length, const uint8_t *key)
{
    size_t extended = length > 0xffff ? 8 : length > 125 ? 2 : 0;
    to[0] = first;
    to[1] = (uint8_t)((extended == 8 ? 127 : extended == 2 ? 126 : length) | (key ? MASKED : 0));
    for (size_t i = 0; i < extended; i++)
        to[2 + i] = (uint8_t)(length >> 8 * (extended - 1 - i));
    if (key)
        memcpy(to + 2 + extended, key, 4);
    return 2 + extended + (key ? 4 : 0);
}

/* RFC 6455 section 5.3, for a piece that begins at a multiple of 4 in its payload. */
static inline void mask(uint8_t *to, const uint8_t *from, size_t size, const uint8_t key[4])
{
    uint64_t word, key8;
    memcpy(&key8, key, 4);
    memcpy((uint8_t *)&key8 + 4, key, 4);
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, from + i, 8);
        word ^= key8;
        memcpy(to + i, &word, 8);
    }
    for (; i < size; i++)
        to[i] = from[i] ^ key[i & 3];
}

static inline uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static inline void *allocate(size_t size)
{
    void *memory = calloc(1, size);
    if (!memory) {
        fputs("out of memory\n", stderr);
        exit(2);
    }
    return memory;
}

/* Asks for no waiting in calls and none in the kernel (Nagle). */
static inline void hasten(int fd)
{
    int yes = 1;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

static inline struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

#endif
