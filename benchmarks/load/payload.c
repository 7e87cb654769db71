#include "payload.h"

enum { PLACES = 1024, DOCUMENTS = 64 };

uint8_t payload_opcode;

static struct {
    size_t size;
    uint8_t *plain, *masked;
    Pieces document[DOCUMENTS]; /* head: the frame to send; body: the document */
} payload;

static uint64_t seed = 0x9e3779b97f4a7c15u;

/* xorshift64 (Marsaglia): the same in every run. */
static uint32_t any(uint32_t bound)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % bound;
}

void make_pattern(size_t size, bool text)
{
    size_t total = size + 4 * PLACES;
    payload.size = size;
    payload_opcode = text ? TEXT : BINARY;
    payload.plain = allocate(total);
    payload.masked = allocate(total);
    for (size_t i = 0; i < total; i++)
        payload.plain[i] = (uint8_t)(text ? ' ' + any(95) : any(256));
    mask(payload.masked, payload.plain, total, KEY);
}

/* A document as an application would send it: repeated names, short numbers, some words. */
static size_t write_document(char *to, size_t size)
{
    static const char *words[] = {"amber", "basalt", "cobalt", "delta", "ember", "fjord", "garnet", "harbor"};
    size_t at = (size_t)sprintf(to, "{\"event\":\"order.updated\",\"id\":%u,\"customer\":\"%s\",\"items\":[",
                                any(1u << 30), words[any(8)]);
    char item[160];
    for (;;) {
        int length = sprintf(item, "{\"sku\":\"%s-%s-%04u\",\"quantity\":%u,\"price\":%u.%02u,\"stock\":%s},",
                             words[any(8)], words[any(8)], any(10000), 1 + any(9), any(500), any(100),
                             any(4) ? "true" : "false");
        if (at + (size_t)length + 32 > size)
            break;
        memcpy(to + at, item, (size_t)length);
        at += (size_t)length;
    }
    at += (size_t)sprintf(to + at, "null],\"note\":\"");
    while (at + 2 < size)
        to[at++] = (char)('a' + any(26));
    memcpy(to + at, "\"}", 2);
    return at + 2;
}

void make_documents(size_t size)
{
    payload_opcode = TEXT;
    for (int i = 0; i < DOCUMENTS; i++) {
        uint8_t *document = allocate(size + 256);
        size_t length = write_document((char *)document, size);
        z_stream z = {0};
        deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -WINDOW_BITS, 8, Z_DEFAULT_STRATEGY);
        size_t bound = deflateBound(&z, length) + 16;
        uint8_t *compressed = allocate(bound);
        uint8_t *frame = allocate(HEADER_MAX + bound);
        z.next_in = document;
        z.avail_in = (uInt)length;
        z.next_out = compressed;
        z.avail_out = (uInt)bound;
        deflate(&z, Z_SYNC_FLUSH);
        size_t made = bound - z.avail_out - 4; /* RFC 7692 section 7.2.1: without the last 00 00 ff ff */
        deflateEnd(&z);
        size_t header = write_header(frame, FIN | RSV1 | TEXT, made, KEY);
        mask(frame + header, compressed, made, KEY);
        free(compressed);
        payload.document[i] = (Pieces){frame, document, header + made, length};
    }
}

static void write_stamp(uint8_t to[STAMP], uint32_t id, uint32_t number)
{
    uint64_t both = (uint64_t)id << 32 | number;
    for (int i = 0; i < STAMP; i++)
        to[i] = (uint8_t)"0123456789abcdef"[both >> (60 - 4 * i) & 15];
}

static size_t place(uint32_t id, uint32_t number)
{
    return 4 * (((id + 1) * 2654435761u + number * 2246822519u) >> 22);
}

Pieces outgoing(uint32_t id, uint32_t number, uint8_t room[HEADER_MAX + STAMP])
{
    const Pieces *document = &payload.document[(id + number) % DOCUMENTS];
    if (document->head)
        return (Pieces){document->head, NULL, document->head_size, 0};
    uint8_t stamp[STAMP];
    write_stamp(stamp, id, number);
    size_t header = write_header(room, FIN | payload_opcode, payload.size, KEY);
    mask(room + header, stamp, STAMP, KEY);
    return (Pieces){room, payload.masked + place(id, number), header + STAMP, payload.size - STAMP};
}

Pieces expected(uint32_t id, uint32_t number, uint8_t room[STAMP])
{
    const Pieces *document = &payload.document[(id + number) % DOCUMENTS];
    if (document->head)
        return (Pieces){NULL, document->body, 0, document->body_size};
    write_stamp(room, id, number);
    return (Pieces){room, payload.plain + place(id, number), STAMP, payload.size - STAMP};
}
