/* pop3load: many POP3 clients at once, who check what they are told.
 *
 *   pop3load --port PORT --user 'user%d@example.test' [options] MODE
 *
 * MODE     session  STAT, LIST, UIDL: a client that looks for new mail
 *          login    nothing between the login and QUIT
 *          fetch    STAT, LIST, then RETR and DELE of each message
 *          retr     the same without DELE
 *          one      as session, once, with the time of each command
 *          idle     stays logged in until standard input ends
 * --host ADDRESS    IPv4 (127.0.0.1)
 * --password TEXT   of all users (secret)
 * --first N         the number of the first user (1)
 * --users N         how many users take turns (1)
 * --clients N       sessions at the same time; for idle, how many open them (1)
 * --sessions N      sessions in all (1)
 * --expect N        messages that every maildrop must have; without it any number is right
 * --sources N       addresses that connections come from, 127.0.0.1 and so on (1)
 *
 * Client k of N does the sessions k, k + N, and so on, and session s is that of user s modulo USERS:
 * as long as USERS is a multiple of N, no two clients ever want the same maildrop.
 *
 * Prints one line of JSON; idle prints it when all sessions are open. Exits with 1 if anything
 * was refused (-ERR), broken off, or not what it had to be: the numbers of LIST and UIDL, and the
 * octets of LIST and of the messages, must be those that STAT told. Such a run counts for nothing.
 *
 * Every client is a thread with a blocking socket, and reads with large buffers: it costs a small
 * part of what any server does for it.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	BUFFER = 128 * 1024,     /* octets; larger than any line that a server may send */
	COMMAND = 512,           /* octets in a command with its CRLF */
	PATIENCE = 120,          /* seconds without an octet, after which a session is broken */
	STACK = 256 * 1024,      /* octets for each thread: its buffer is not on it */
	SHOWN = 5,               /* faults that are told on standard error */
	MAX_CLIENTS = 4096,
	MAX_MESSAGES = 10000000, /* in one maildrop */
};

enum mode { SESSION, LOGIN, FETCH, RETR, ONE, IDLE };
static const char *const MODES[] = {"session", "login", "fetch", "retr", "one", "idle"};

enum step { STEP_LOGIN, STEP_STAT, STEP_LIST, STEP_UIDL, STEP_QUIT, STEPS };
static const char *const STEP_NAMES[] = {"login", "stat", "list", "uidl", "quit"};

static struct {
	struct sockaddr_in server;
	const char *user;
	const char *password;
	enum mode mode;
	long first, users, clients, sessions, expect, sources;
} options = {.password = "secret", .first = 1, .users = 1, .clients = 1, .sessions = 1,
			 .expect = -1, .sources = 1};

/* What went well, and what did not. */
static atomic_long done, messages, octets, refused, broken, wrong;
static double *spans;               /* seconds of each session that went well */
static double steps[STEPS];         /* seconds of each command, for ONE */

struct client {
	long number;
	int socket;
	size_t begin, end;              /* what of the buffer is unread */
	char buffer[BUFFER + 1];        /* a zero always follows the last octet */
};

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Count a fault, and show the first few; false, for the caller to return. */
__attribute__((format(printf, 2, 3)))
static bool fault(atomic_long *kind, const char *format, ...)
{
	static atomic_int shown;
	(*kind)++;
	if (shown++ < SHOWN) {
		va_list arguments;
		va_start(arguments, format);
		fputs("pop3load: ", stderr);
		vfprintf(stderr, format, arguments);
		fputc('\n', stderr);
		va_end(arguments);
	}
	return false;
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
	ssize_t count;
	do
		count = read(client->socket, client->buffer + client->end, BUFFER - client->end);
	while (count < 0 && errno == EINTR);
	if (count <= 0)
		return fault(&broken, "the connection broke: %s",
					 count < 0 ? strerror(errno) : "closed by the server");
	client->end += (size_t)count;
	client->buffer[client->end] = '\0';
	return true;
}

/* The next line, without its end; NULL if there is none. It is good until the next call. */
static char *line(struct client *client, size_t *length)
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

/* The text of a reply that must be good; NULL if it is not. */
static char *reply(struct client *client, const char *command)
{
	char *text = line(client, NULL);
	if (!text)
		return NULL;
	if (strncmp(text, "+OK", 3) != 0) {
		fault(&refused, "%.*s: %s", (int)strcspn(command, "\r"), command, text);
		return NULL;
	}
	return text + 3;
}

/* Send a command; the text of its reply, or NULL. */
__attribute__((format(printf, 2, 3)))
static char *ask(struct client *client, const char *format, ...)
{
	char command[COMMAND];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(command, sizeof command, format, arguments);
	va_end(arguments);
	if (length >= COMMAND) {
		fault(&wrong, "a command of more than %d octets", COMMAND);
		return NULL;
	}
	if (send(client->socket, command, (size_t)length, MSG_NOSIGNAL) != length) {
		fault(&broken, "sending: %s", strerror(errno));
		return NULL;
	}
	return reply(client, command);
}

struct listed {
	long lines, octets;             /* octets: the second number of each line, if it is one */
};

/* The lines of a listing, which number from 1 on; false if they do not. */
static bool listing(struct client *client, struct listed *found)
{
    *found = (struct listed){0, 0};
	for (;;) {
		char *text = line(client, NULL), *rest;
		if (!text)
			return false;
		if (text[0] == '.' && text[1] == '\0')
			return true;
		if (strtol(text, &rest, 10) != ++found->lines || *rest != ' ')
			return fault(&wrong, "line %ld of a listing is: %s", found->lines, text);
		found->octets += strtol(rest, NULL, 10);
	}
}

/* The octets of a message with its line ends and without stuffed dots; -1 if it never ends. */
static long message(struct client *client)
{
	long count = 0;
	size_t length;
	char *text;
	while ((text = line(client, &length))) {
		if (text[0] != '.')
			count += (long)length + 2;
		else if (length == 1)
			return count;
		else
			count += (long)length + 1;
	}
	return -1;
}

static bool connect_from(struct client *client, long session)
{
	client->begin = client->end = 0;
	client->socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client->socket < 0)
		return fault(&broken, "socket: %s", strerror(errno));
	int on = 1;
	struct timeval patience = {.tv_sec = PATIENCE};
	setsockopt(client->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(client->socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (options.sources > 1) {
		struct sockaddr_in source = {.sin_family = AF_INET};
		source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(session % options.sources));
		setsockopt(client->socket, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
		if (bind(client->socket, (struct sockaddr *)&source, sizeof source))
			return fault(&broken, "bind: %s", strerror(errno));
	}
	if (connect(client->socket, (struct sockaddr *)&options.server, sizeof options.server))
		return fault(&broken, "connect: %s", strerror(errno));
	return true;
}

static bool log_in(struct client *client, long session)
{
	char user[COMMAND / 2];
	long number = options.first + session % options.users;
	const char *place = strstr(options.user, "%d");
	if (place)
		snprintf(user, sizeof user, "%.*s%ld%s", (int)(place - options.user), options.user,
				 number, place + 2);
	else
		snprintf(user, sizeof user, "%s", options.user);
	return connect_from(client, session) && reply(client, "the greeting")
		&& ask(client, "USER %s\r\n", user) && ask(client, "PASS %s\r\n", options.password);
}

static void step(enum step which, double *began)
{
	if (options.mode != ONE)
		return;
	double time = now();
	steps[which] = time - *began;
    *began = time;
}

static bool same(const char *what, long found, long told)
{
	if (found == told)
		return true;
	return fault(&wrong, "%s: %ld, where it must be %ld", what, found, told);
}

/* STAT, as numbers. */
static bool stat_of(struct client *client, struct listed *told)
{
	char *text = ask(client, "STAT\r\n");
	if (!text)
		return false;
	if (sscanf(text, " %ld %ld", &told->lines, &told->octets) != 2 || told->lines < 0
		|| told->lines > MAX_MESSAGES)
		return fault(&wrong, "STAT: %s", text);
	return options.expect < 0 || same("messages in a maildrop", told->lines, options.expect);
}

static bool list_of(struct client *client, const struct listed *told)
{
	struct listed found;
	return ask(client, "LIST\r\n") && listing(client, &found)
		&& same("lines of LIST", found.lines, told->lines)
		&& same("octets of LIST", found.octets, told->octets);
}

static bool look(struct client *client, double began)
{
	struct listed told, found;
	if (!stat_of(client, &told))
		return false;
	step(STEP_STAT, &began);
	if (!list_of(client, &told))
		return false;
	step(STEP_LIST, &began);
	if (!ask(client, "UIDL\r\n") || !listing(client, &found)
		|| !same("lines of UIDL", found.lines, told.lines))
		return false;
	step(STEP_UIDL, &began);
	messages += told.lines;
	octets += told.octets;
	if (!ask(client, "QUIT\r\n"))
		return false;
	step(STEP_QUIT, &began);
	return true;
}

static bool take(struct client *client, bool deletes)
{
	struct listed told;
	if (!stat_of(client, &told) || !list_of(client, &told))
		return false;
	long total = 0;
	for (long number = 1; number <= told.lines; number++) {
		if (!ask(client, "RETR %ld\r\n", number))
			return false;
		long size = message(client);
		if (size < 0 || (deletes && !ask(client, "DELE %ld\r\n", number)))
			return false;
		total += size;
	}
	messages += told.lines;
	octets += total;
	return same("octets of all messages", total, told.octets) && ask(client, "QUIT\r\n");
}

/* One session from connecting to the answer to QUIT; leaves the socket open. */
static bool session(struct client *client, long number)
{
	double began = now();
	client->socket = -1;
	if (!log_in(client, number))
		return false;
	if (options.mode == LOGIN)
		return ask(client, "QUIT\r\n");
	if (options.mode == FETCH || options.mode == RETR)
		return take(client, options.mode == FETCH);
	step(STEP_LOGIN, &began);
	return look(client, began);
}

static void *work(void *argument)
{
	struct client *client = argument;
	for (long number = client->number; number < options.sessions; number += options.clients) {
		double began = now();
		if (session(client, number)) {
			spans[number] = now() - began;
			done++;
		}
		if (client->socket >= 0)
			close(client->socket);
	}
	return NULL;
}

static int *idle_sockets;

/* Log in and stay; what the server said has been read to its end. */
static void *settle(void *argument)
{
	struct client *client = argument;
	for (long number = client->number; number < options.sessions; number += options.clients) {
		double began = now();
		struct listed told;
		client->socket = -1;
		bool settled = log_in(client, number) && stat_of(client, &told);
		idle_sockets[number] = client->socket;
		if (settled) {
			spans[number] = now() - began;
			done++;
		}
	}
	return NULL;
}

static void *leave(void *argument)
{
	struct client *client = argument;
	for (long number = client->number; number < options.sessions; number += options.clients) {
		client->socket = idle_sockets[number];
		client->begin = client->end = 0;
		if (client->socket < 0)
			continue;
		ask(client, "QUIT\r\n");
		close(client->socket);
	}
	return NULL;
}

/* Have all clients do their part, and wait for them; seconds that it took. */
static double all(struct client **clients, void *(*part)(void *))
{
	pthread_t threads[MAX_CLIENTS];
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK);
	double began = now();
	for (long number = 0; number < options.clients; number++)
		if (pthread_create(&threads[number], &attributes, part, clients[number])) {
			fputs("pop3load: no more threads\n", stderr);
			exit(2);
		}
	for (long number = 0; number < options.clients; number++)
		pthread_join(threads[number], NULL);
	return now() - began;
}

static int in_order(const void *one, const void *other)
{
	double left = *(const double *)one, right = *(const double *)other;
	return (left > right) - (left < right);
}

static double processor_time(void)
{
	struct rusage used;
	getrusage(RUSAGE_SELF, &used);
	return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec)
		+ (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void report(double seconds)
{
	printf("{\"mode\": \"%s\", \"sessions\": %ld, \"messages\": %ld, \"octets\": %ld, "
		   "\"refused\": %ld, \"broken\": %ld, \"wrong\": %ld, \"seconds\": %.6f, "
		   "\"generator_cpu\": %.6f",
		   MODES[options.mode], (long)done, (long)messages, (long)octets, (long)refused,
		   (long)broken, (long)wrong, seconds, processor_time());
	qsort(spans, (size_t)options.sessions, sizeof *spans, in_order);
	const double *good = spans + (options.sessions - done);
	if (done > 0)
		printf(", \"median\": %.6f, \"p99\": %.6f, \"longest\": %.6f", good[done / 2],
			   good[done * 99 / 100], good[done - 1]);
	if (options.mode == ONE) {
		fputs(", \"steps\": {", stdout);
		for (int which = 0; which < STEPS; which++)
			printf("%s\"%s\": %.6f", which ? ", " : "", STEP_NAMES[which], steps[which]);
		putchar('}');
	}
	puts("}");
	fflush(stdout);
}

static void usage(const char *why)
{
	fprintf(stderr, "pop3load: %s; see the top of pop3load.c\n", why);
	exit(2);
}

static long number_of(const char *text, long least, long most)
{
	char *end;
	errno = 0;
	long number = strtol(text, &end, 10);
	if (errno || end == text || *end || number < least || number > most)
		usage("a number is not one, or out of range");
	return number;
}

static void read_options(int count, char **words)
{
	static const struct option names[] = {
		{"host", 1, 0, 'h'},     {"port", 1, 0, 'p'},    {"user", 1, 0, 'u'},
		{"password", 1, 0, 'w'}, {"first", 1, 0, 'f'},   {"users", 1, 0, 'n'},
		{"clients", 1, 0, 'c'},  {"sessions", 1, 0, 's'}, {"expect", 1, 0, 'e'},
		{"sources", 1, 0, 'a'},  {0, 0, 0, 0}};
	options.server = (struct sockaddr_in){.sin_family = AF_INET};
	options.server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int name;
	while ((name = getopt_long(count, words, "", names, NULL)) != -1)
		switch (name) {
		case 'h':
			if (inet_pton(AF_INET, optarg, &options.server.sin_addr) != 1)
				usage("--host wants an IPv4 address");
			break;
		case 'p': options.server.sin_port = htons((uint16_t)number_of(optarg, 1, 65535)); break;
		case 'u': options.user = optarg; break;
		case 'w': options.password = optarg; break;
		case 'f': options.first = number_of(optarg, 0, LONG_MAX / 2); break;
		case 'n': options.users = number_of(optarg, 1, LONG_MAX / 2); break;
		case 'c': options.clients = number_of(optarg, 1, MAX_CLIENTS); break;
		case 's': options.sessions = number_of(optarg, 1, 100000000); break;
		case 'e': options.expect = number_of(optarg, 0, MAX_MESSAGES); break;
		case 'a': options.sources = number_of(optarg, 1, 65000); break;
		default: usage("an unknown option");
		}
	if (optind != count - 1)
		usage("one mode is needed");
	for (options.mode = SESSION; options.mode <= IDLE; options.mode++)
		if (!strcmp(words[optind], MODES[options.mode]))
			break;
	if (options.mode > IDLE)
		usage("an unknown mode");
	if (!options.user || !options.server.sin_port)
		usage("--user and --port are needed");
	if (options.mode == ONE)
		options.clients = options.sessions = 1;
	if (options.clients > options.sessions)
		options.clients = options.sessions;
}

static void *have(size_t count, size_t size)
{
	void *memory = calloc(count, size);
	if (!memory)
		usage("no memory");
	return memory;
}

int main(int count, char **words)
{
	read_options(count, words);
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	spans = have((size_t)options.sessions, sizeof *spans);
	idle_sockets = have((size_t)options.sessions, sizeof *idle_sockets);
	struct client **clients = have((size_t)options.clients, sizeof *clients);
	for (long number = 0; number < options.clients; number++) {
		clients[number] = have(1, sizeof **clients);
		clients[number]->number = number;
	}
	report(all(clients, options.mode == IDLE ? settle : work));
	if (options.mode == IDLE) {
		while (getchar() != EOF)
			;
		all(clients, leave);
	}
	return refused || broken || wrong;
}
