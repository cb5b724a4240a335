/* What pop3load and smtpload have in common: connections, in TLS or not, whose lines are read;
 * faults, which are counted and told; clients, which are threads; and options.
 *
 * Every client has a blocking socket and reads with large buffers: it costs a small part of what
 * any server does for it. In TLS that is 1.3 alone, and nobody looks at who vouches for the
 * certificate.
 */
#ifndef LOAD_H
#define LOAD_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum {
	BUFFER = 128 * 1024,     /* octets; larger than any line that a server may send */
	COMMAND = 512,           /* octets in a command with its CRLF */
	PATIENCE = 120,          /* seconds without an octet, after which a session is broken */
	MAX_CLIENTS = 4096,
};

/* How the including program calls itself. */
extern const char *const PROGRAM;

/* What did not go well, and handshakes that needed no certificate. */
extern atomic_long refused, broken, wrong, resumed;

struct connection {
	int socket;                     /* -1: none */
	SSL *tls;                       /* NULL: clear text */
};

struct client {
	long number;
	struct connection at;
	SSL_SESSION *ticket;            /* for the next handshake; NULL: none */
	size_t begin, end;              /* what of the buffer is unread */
	char buffer[BUFFER + 1];        /* a zero always follows the last octet */
};

double now(void);

/* Seconds of processor time that this process has used. */
double processor_time(void);

/* Count a fault, and show the first few; false, for the caller to return. */
__attribute__((format(printf, 2, 3)))
bool fault(atomic_long *kind, const char *format, ...);

/* From now on secure() can be called. Clients who resume come again with their last ticket. */
void prepare_tls(const char *host, bool resume);

/* A new connection, which nobody has spoken on; from a given address, unless that is NULL. */
bool connect_to(struct client *client, const struct sockaddr_in *server,
				const struct sockaddr_in *source);

/* The handshake. */
bool secure(struct client *client);

/* After all was said, if it was: then TLS is ended by both, and a ticket is worth keeping. */
void disconnect(struct client *client, bool said);

bool say(struct client *client, const char *octets, size_t length);

/* Say a command; one that is too long is a fault. */
__attribute__((format(printf, 2, 0)))
bool command(struct client *client, const char *format, va_list arguments);

/* The next line, without its end; NULL if there is none. It is good until the next call. */
char *line(struct client *client, size_t *length);

/* So many clients, numbered from 0, or the end of the program. */
struct client **new_clients(long count);

/* Have all clients do their part, and wait for them; seconds that it took. */
double all(struct client **clients, long count, void *(*part)(void *));

/* The template with a number in the place of its %d, if it has one. */
void numbered(char *into, size_t room, const char *template, long number);

/* The end of a program that was called wrongly. */
_Noreturn void usage(const char *why);

long number_of(const char *text, long least, long most);

/* Zeros, or the end of the program. */
void *have(size_t count, size_t size);

#endif
