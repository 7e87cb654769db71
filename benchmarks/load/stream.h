/* A TCP connection of the load generator, plain or under TLS: reads and writes that never wait. */

#ifndef STREAM_H
#define STREAM_H

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/epoll.h>

#include "wire.h"

typedef struct {
    int fd;
    SSL *ssl;
    uint32_t wanted; /* the epoll events that are asked for */
} Stream;

/* Not a count of octets: nothing to read now, or no room to write. */
enum { WOULD_WAIT = -1, BROKEN = -2 };

extern SSL_CTX *tls; /* NULL: plain */

static inline void prepare_tls(void)
{
    tls = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_verify(tls, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* Who ends TCP without close_notify is no concern of a benchmark. */
    SSL_CTX_set_options(tls, SSL_OP_IGNORE_UNEXPECTED_EOF);
}

static inline bool stream_open(Stream *stream, uint16_t port)
{
    struct sockaddr_in address = loopback(port);
    stream->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (stream->fd < 0)
        return false;
    hasten(stream->fd);
    if (connect(stream->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        return false;
    if (tls) {
        stream->ssl = SSL_new(tls);
        SSL_set_fd(stream->ssl, stream->fd);
        SSL_set_connect_state(stream->ssl);
    }
    return true;
}

static inline void stream_close(Stream *stream)
{
    SSL_free(stream->ssl);
    close(stream->fd);
    *stream = (Stream){.fd = -1};
}

static inline long stream_result(Stream *stream, long result)
{
    if (!stream->ssl)
        return result >= 0 ? result : errno == EAGAIN ? WOULD_WAIT : BROKEN;
    if (result > 0)
        return result;
    switch (SSL_get_error(stream->ssl, (int)result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return WOULD_WAIT;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        return BROKEN;
    }
}

/* The octets read; 0 at the end of the stream. */
static inline long stream_read(Stream *stream, uint8_t *to, size_t size)
{
    ERR_clear_error();
    return stream_result(stream, stream->ssl ? SSL_read(stream->ssl, to, (int)size)
                                             : recv(stream->fd, to, size, 0));
}

/* The octets taken. After WOULD_WAIT the same octets have to be offered first again (TLS). */
static inline long stream_write(Stream *stream, const uint8_t *data, size_t size)
{
    ERR_clear_error();
    return stream_result(stream, stream->ssl ? SSL_write(stream->ssl, data, (int)size)
                                             : send(stream->fd, data, size, MSG_NOSIGNAL));
}

/* Whether a blocked write waits for room, and not for the peer's part of the TLS handshake. */
static inline bool stream_waits_to_write(const Stream *stream)
{
    return !stream->ssl || SSL_want_write(stream->ssl);
}

#endif
