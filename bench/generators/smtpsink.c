/* smtpsink: a host that takes all mail, over STARTTLS: what smtp-sink cannot do.
 *
 *   smtpsink --port PORT --certificate FILE --key FILE
 *
 * On loopback, a thread for each connection, until it is ended. It offers STARTTLS and PIPELINING,
 * answers everything with success, and keeps nothing. In TLS that is 1.3 alone.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	BUFFER = 128 * 1024,     /* octets; larger than any line that a client may send */
	REPLIES = 16 * 1024,     /* octets that wait for the end of what has come */
	STACK = 64 * 1024,       /* octets for each thread: its buffers are not on it */
	BACKLOG = 1024,
};

static const char END[] = "\r\n.\r\n";

struct session {
	int socket;
	SSL *tls;                       /* NULL: clear text */
	size_t begin, end;              /* what of the buffer is unread */
	size_t said;                    /* octets of replies that wait */
	char buffer[BUFFER];
	char replies[REPLIES];
};

static SSL_CTX *context;

static void usage(const char *why)
{
	fprintf(stderr, "smtpsink: %s; see the top of smtpsink.c\n", why);
	exit(2);
}

/* Send the replies that wait. */
static bool flush(struct session *session)
{
	size_t length = session->said;
	session->said = 0;
	for (size_t sent = 0; sent < length;) {
		const char *octets = session->replies + sent;
		ssize_t now = session->tls ? SSL_write(session->tls, octets, (int)(length - sent))
			: send(session->socket, octets, length - sent, MSG_NOSIGNAL);
		if (now <= 0)
			return false;
		sent += (size_t)now;
	}
	return true;
}

static bool reply(struct session *session, const char *text)
{
	size_t length = strlen(text);
	if (session->said + length > REPLIES && !flush(session))
		return false;
	memcpy(session->replies + session->said, text, length);
	session->said += length;
	return true;
}

/* Have more in the buffer, once all that has come is answered; false: there is no more. */
static bool more(struct session *session)
{
	if (session->said && !flush(session))
		return false;
	memmove(session->buffer, session->buffer + session->begin, session->end - session->begin);
	session->end -= session->begin;
	session->begin = 0;
	char *into = session->buffer + session->end;
	size_t room = BUFFER - session->end;
	ssize_t now = !room ? 0 : session->tls ? SSL_read(session->tls, into, (int)room)
		: recv(session->socket, into, room, 0);
	if (now <= 0)
		return false;
	session->end += (size_t)now;
	return true;
}

/* The next line; NULL: there is none. It is good until the next call of more(). */
static const char *line(struct session *session)
{
	for (size_t seen = 0;;) {
		char *begin = session->buffer + session->begin;
		size_t length = session->end - session->begin;
		char *end = memchr(begin + seen, '\n', length - seen);
		if (end) {
			session->begin += (size_t)(end - begin) + 1;
			*end = '\0';
			return begin;
		}
		seen = length;
		if (!more(session))
			return NULL;
	}
}

/* A content to its end, whose first line may be the last; nothing of it is kept. */
static bool content(struct session *session)
{
	session->begin -= 2;  /* the line end of DATA, which was read: an end of content may need it */
	memcpy(session->buffer + session->begin, "\r\n", 2);
	for (;;) {
		char *begin = session->buffer + session->begin;
		size_t length = session->end - session->begin;
		char *end = memmem(begin, length, END, sizeof END - 1);
		if (end) {
			session->begin += (size_t)(end - begin) + sizeof END - 1;
			return true;
		}
		if (length > sizeof END)
			session->begin = session->end - (sizeof END - 2);
		if (!more(session))
			return false;
	}
}

static bool secure(struct session *session)
{
	if (session->begin < session->end || !flush(session))
		return false;
	session->tls = SSL_new(context);
	return session->tls && SSL_set_fd(session->tls, session->socket)
		&& SSL_accept(session->tls) == 1;
}

/* Answer a command; false: that was the last one. */
static bool answer(struct session *session, const char *command)
{
	if (!strncasecmp(command, "EHLO", 4))
		return reply(session, session->tls ? "250-sink\r\n250 PIPELINING\r\n"
			: "250-sink\r\n250-PIPELINING\r\n250 STARTTLS\r\n");
	if (!strncasecmp(command, "STARTTLS", 8))
		return reply(session, "220 2.0.0 go on\r\n") && secure(session);
	if (!strncasecmp(command, "DATA", 4))
		return reply(session, "354 go on\r\n") && content(session)
			&& reply(session, "250 2.0.0 taken\r\n");
	if (!strncasecmp(command, "QUIT", 4)) {
		reply(session, "221 2.0.0 bye\r\n");
		return false;
	}
	return reply(session, "250 2.0.0 fine\r\n");
}

static void *serve(void *given)
{
	struct session *session = given;
	const char *command;
	bool goes_on = reply(session, "220 sink ESMTP\r\n");
	while (goes_on && (command = line(session)))
		goes_on = answer(session, command);
	flush(session);
	if (session->tls) {
		SSL_shutdown(session->tls);
		SSL_free(session->tls);
	}
	close(session->socket);
	free(session);
	return NULL;
}

static void serve_all(int listener)
{
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	for (;;) {
		int accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC), on = 1;
		struct session *session = accepted < 0 ? NULL : calloc(1, sizeof *session);
		if (!session) {
			perror("smtpsink");
			exit(1);
		}
		setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		session->socket = accepted;
		pthread_t thread;
		if (pthread_create(&thread, &attributes, serve, session)) {
			fprintf(stderr, "smtpsink: no more threads\n");
			exit(1);
		}
	}
}

int main(int count, char **words)
{
	static const struct option known[] = {
		{"port", required_argument, NULL, 'p'},
		{"certificate", required_argument, NULL, 'c'},
		{"key", required_argument, NULL, 'k'},
		{0},
	};
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	const char *certificate = NULL, *key = NULL;
	for (int option; (option = getopt_long(count, words, "", known, NULL)) != -1;)
		if (option == 'p')
			at.sin_port = htons((uint16_t)atoi(optarg));
		else if (option == 'c')
			certificate = optarg;
		else if (option == 'k')
			key = optarg;
		else
			usage("an unknown option");
	if (!at.sin_port || !certificate || !key)
		usage("an option is missing");
	signal(SIGPIPE, SIG_IGN);  /* OpenSSL writes without MSG_NOSIGNAL */
	context = SSL_CTX_new(TLS_server_method());
	if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION)
		|| SSL_CTX_use_certificate_chain_file(context, certificate) != 1
		|| SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
		usage("the certificate, or its key, cannot be used");
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, BACKLOG)) {
		perror("smtpsink");
		return 1;
	}
	serve_all(listener);
}
