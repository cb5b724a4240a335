/* See load.h. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	STACK = 256 * 1024,      /* octets for each thread: its buffer is not on it */
	SHOWN = 5,               /* faults that are told on standard error */
};

atomic_long refused, broken, wrong, resumed;

static struct {
	SSL_CTX *context;
	const char *host;
	bool resume;
} tls;

double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

double processor_time(void)
{
	struct rusage used;
	getrusage(RUSAGE_SELF, &used);
	return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec)
		+ (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

bool fault(atomic_long *kind, const char *format, ...)
{
	static atomic_int shown;
	(*kind)++;
	if (shown++ < SHOWN) {
		va_list arguments;
		va_start(arguments, format);
		fprintf(stderr, "%s: ", PROGRAM);
		vfprintf(stderr, format, arguments);
		fputc('\n', stderr);
		va_end(arguments);
	}
	return false;
}

void prepare_tls(const char *host, bool resume)
{
	signal(SIGPIPE, SIG_IGN);  /* OpenSSL writes without MSG_NOSIGNAL */
	tls.host = host;
	tls.resume = resume;
	tls.context = SSL_CTX_new(TLS_client_method());
	if (!tls.context || !SSL_CTX_set_min_proto_version(tls.context, TLS1_3_VERSION))
		usage("OpenSSL cannot do TLS 1.3");
}

bool connect_to(struct client *client, const struct sockaddr_in *server,
				const struct sockaddr_in *source)
{
	client->begin = client->end = 0;
	client->at.tls = NULL;
	int new = client->at.socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (new < 0)
		return fault(&broken, "socket: %s", strerror(errno));
	int on = 1;
	struct timeval patience = {.tv_sec = PATIENCE};
	setsockopt(new, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(new, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (source) {
		setsockopt(new, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
		if (bind(new, (const struct sockaddr *)source, sizeof *source))
			return fault(&broken, "bind: %s", strerror(errno));
	}
	if (connect(new, (const struct sockaddr *)server, sizeof *server))
		return fault(&broken, "connect: %s", strerror(errno));
	return true;
}

/* What OpenSSL, or the kernel below it, says of the last thing that went wrong in this thread. */
static const char *tls_error(void)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());
	return reason ? reason : errno ? strerror(errno) : "closed by the server";
}

bool secure(struct client *client)
{
	if (client->begin < client->end)
		return fault(&wrong, "the server speaks before the handshake");
	errno = 0;
	ERR_clear_error();
	SSL *new = client->at.tls = SSL_new(tls.context);
	if (!new || !SSL_set_fd(new, client->at.socket) || !SSL_set_tlsext_host_name(new, tls.host)
		|| (client->ticket && !SSL_set_session(new, client->ticket)) || SSL_connect(new) != 1)
		return fault(&broken, "the handshake: %s", tls_error());
	resumed += SSL_session_reused(new);
	return true;
}

void disconnect(struct client *client, bool said)
{
	SSL *ended = client->at.tls;
	if (ended && said && SSL_shutdown(ended) == 0)
		SSL_shutdown(ended);
	SSL_SESSION_free(client->ticket);
	client->ticket = ended && said && tls.resume ? SSL_get1_session(ended) : NULL;
	SSL_free(ended);
	if (client->at.socket >= 0)
		close(client->at.socket);
	client->at = (struct connection){.socket = -1};
}

bool say(struct client *client, const char *octets, size_t length)
{
	errno = 0;
	if (client->at.tls) {
		ERR_clear_error();
		if (SSL_write(client->at.tls, octets, (int)length) != (int)length)
			return fault(&broken, "sending: %s", tls_error());
	} else if (send(client->at.socket, octets, length, MSG_NOSIGNAL) != (ssize_t)length)
		return fault(&broken, "sending: %s", strerror(errno));
	return true;
}

bool command(struct client *client, const char *format, va_list arguments)
{
	char text[COMMAND];
	int length = vsnprintf(text, sizeof text, format, arguments);
	if (length >= COMMAND)
		return fault(&wrong, "a command of more than %d octets", COMMAND);
	return say(client, text, (size_t)length);
}

/* As read(2). */
static ssize_t take(struct client *client, char *into, size_t room)
{
	ssize_t count;
	errno = 0;
	if (client->at.tls) {
		ERR_clear_error();
		return SSL_read(client->at.tls, into, (int)room);
	}
	do
		count = read(client->at.socket, into, room);
	while (count < 0 && errno == EINTR);
	return count;
}

/* More octets behind those that are unread; false if the connection or the buffer has ended. */
static bool receive(struct client *client)
{
	if (client->begin > 0) {
		memmove(client->buffer, client->buffer + client->begin, client->end - client->begin);
		client->end -= client->begin;
		client->begin = 0;
	}
	if (client->end == BUFFER)
		return fault(&wrong, "a line of more than %d octets", BUFFER);
	ssize_t count = take(client, client->buffer + client->end, BUFFER - client->end);
	if (count <= 0)
		return fault(&broken, "the connection broke: %s", tls_error());
	client->end += (size_t)count;
	client->buffer[client->end] = '\0';
	return true;
}

char *line(struct client *client, size_t *length)
{
	size_t searched = 0;
	char *end;
	while (!(end = memchr(client->buffer + client->begin + searched, '\n',
						  client->end - client->begin - searched))) {
		searched = client->end - client->begin;
		if (!receive(client))
			return NULL;
	}
	char *begin = client->buffer + client->begin;
	client->begin = (size_t)(end + 1 - client->buffer);
	if (end == begin || end[-1] != '\r') {
		fault(&wrong, "a line ends without CR");
		return NULL;
	}
	end[-1] = '\0';
	if (length)
		*length = (size_t)(end - 1 - begin);
	return begin;
}

struct client **new_clients(long count)
{
	struct client **clients = have((size_t)count, sizeof *clients);
	for (long number = 0; number < count; number++) {
		clients[number] = have(1, sizeof **clients);
		clients[number]->number = number;
		clients[number]->at.socket = -1;
	}
	return clients;
}

double all(struct client **clients, long count, void *(*part)(void *))
{
	pthread_t threads[MAX_CLIENTS];
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK);
	double began = now();
	for (long number = 0; number < count; number++)
		if (pthread_create(&threads[number], &attributes, part, clients[number])) {
			fprintf(stderr, "%s: no more threads\n", PROGRAM);
			exit(2);
		}
	for (long number = 0; number < count; number++)
		pthread_join(threads[number], NULL);
	return now() - began;
}

void numbered(char *into, size_t room, const char *template, long number)
{
	const char *place = strstr(template, "%d");
	if (place)
		snprintf(into, room, "%.*s%ld%s", (int)(place - template), template, number, place + 2);
	else
		snprintf(into, room, "%s", template);
}

void usage(const char *why)
{
	fprintf(stderr, "%s: %s; see the top of %s.c\n", PROGRAM, why, PROGRAM);
	exit(2);
}

long number_of(const char *text, long least, long most)
{
	char *end;
	errno = 0;
	long number = strtol(text, &end, 10);
	if (errno || end == text || *end || number < least || number > most)
		usage("a number is not one, or out of range");
	return number;
}

void *have(size_t count, size_t size)
{
	void *memory = calloc(count, size);
	if (!memory)
		usage("no memory");
	return memory;
}
