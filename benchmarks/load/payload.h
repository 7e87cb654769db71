/* What is sent, and what has to come back for it.
 *
 * Message NUMBER of connection ID is a stamp of both, 16 hexadecimal digits, and then a piece of one long
 * pattern from a place that both choose. So neither another message's reply nor another message's body under
 * the right stamp compares equal. With --deflate it is one of 64 JSON documents.
 */

#ifndef PAYLOAD_H
#define PAYLOAD_H

#include <zlib.h>

#include "wire.h"

enum { STAMP = 16 };

/* Two pieces that follow each other. */
typedef struct {
    const uint8_t *head, *body;
    size_t head_size, body_size;
} Pieces;

/* Any key that is not zero will do: nothing here is between us and the server. */
static const uint8_t KEY[4] = {0x9d, 0x42, 0xe7, 0x1b};

/* The server may ask for a window of 8 to 15 bits (RFC 7692 section 7.1.2.2): a small one suits most. */
enum { WINDOW_BITS = 10 };

extern uint8_t payload_opcode;

/* Makes the pattern for messages of `size` octets; at least STAMP. */
void make_pattern(size_t size, bool text);
/* Makes the documents, of `size` octets each, instead. */
void make_documents(size_t size);

/* The frame of a message; `room` is for its head and has to live as long as the pieces. */
Pieces outgoing(uint32_t id, uint32_t number, uint8_t room[HEADER_MAX + STAMP]);
/* The payload that the reply must have. */
Pieces expected(uint32_t id, uint32_t number, uint8_t room[STAMP]);

static inline size_t pieces_size(const Pieces *pieces)
{
    return pieces->head_size + pieces->body_size;
}

/* Copies at most `room` octets from `offset` on; returns how many. */
static inline size_t copy_pieces(const Pieces *pieces, size_t offset, uint8_t *to, size_t room)
{
    size_t made = 0;
    if (offset < pieces->head_size) {
        made = pieces->head_size - offset < room ? pieces->head_size - offset : room;
        memcpy(to, pieces->head + offset, made);
        offset += made;
    }
    if (offset < pieces->head_size || !pieces->body_size)
        return made;
    size_t rest = pieces_size(pieces) - offset;
    rest = rest < room - made ? rest : room - made;
    memcpy(to + made, pieces->body + (offset - pieces->head_size), rest);
    return made + rest;
}

/* Whether `data` is what stands at `offset` of the pieces. */
static inline bool matches(const Pieces *pieces, size_t offset, const uint8_t *data, size_t size)
{
    if (offset + size > pieces_size(pieces))
        return false;
    if (offset < pieces->head_size) {
        size_t part = pieces->head_size - offset < size ? pieces->head_size - offset : size;
        if (memcmp(pieces->head + offset, data, part))
            return false;
        offset += part;
        data += part;
        size -= part;
    }
    return !size || !memcmp(pieces->body + (offset - pieces->head_size), data, size);
}

#endif
