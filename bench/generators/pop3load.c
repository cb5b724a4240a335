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
 * --tls HOST        TLS from the first octet on, for this host; without it clear text
 * --resume          every client comes again with its last ticket; without it all handshakes are full
 *
 * Client k of N does the sessions k, k + N, and so on, and session s is that of user s modulo USERS:
 * as long as USERS is a multiple of N, no two clients ever want the same maildrop.
 *
 * Prints one line of JSON; idle prints it when all sessions are open. Exits with 1 if anything
 * was refused (-ERR), broken off, or not what it had to be: the numbers of LIST and UIDL, and the
 * octets of LIST and of the messages, must be those that STAT told. Such a run counts for nothing.
 */

#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { MAX_MESSAGES = 10000000 };   /* in one maildrop */

const char *const PROGRAM = "pop3load";

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
	const char *tls;                /* the host; NULL: clear text */
	bool resume;
} options = {.password = "secret", .first = 1, .users = 1, .clients = 1, .sessions = 1,
			 .expect = -1, .sources = 1};

/* What went well. */
static atomic_long done, messages, octets;
static double *spans;               /* seconds of each session that went well */
static double steps[STEPS];         /* seconds of each command, for ONE */

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

/* Say a command; the text of its reply, or NULL. */
__attribute__((format(printf, 2, 3)))
static char *ask(struct client *client, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	bool said = command(client, format, arguments);
	va_end(arguments);
	return said ? reply(client, format) : NULL;
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
	struct sockaddr_in source = {.sin_family = AF_INET};
	source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(session % options.sources));
	return connect_to(client, &options.server, options.sources > 1 ? &source : NULL)
		&& (!options.tls || secure(client));
}

static bool log_in(struct client *client, long session)
{
	char user[COMMAND / 2];
	numbered(user, sizeof user, options.user, options.first + session % options.users);
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

/* One session from connecting to the answer to QUIT; leaves the connection open. */
static bool session(struct client *client, long number)
{
	double began = now();
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
		bool said = session(client, number);
		disconnect(client, said);
		if (said) {
			spans[number] = now() - began;
			done++;
		}
	}
	return NULL;
}

static struct connection *idle;

/* Log in and stay; what the server said has been read to its end. */
static void *settle(void *argument)
{
	struct client *client = argument;
	for (long number = client->number; number < options.sessions; number += options.clients) {
		double began = now();
		struct listed told;
		bool settled = log_in(client, number) && stat_of(client, &told);
		idle[number] = client->at;
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
		client->at = idle[number];
		client->begin = client->end = 0;
		if (client->at.socket >= 0)
			disconnect(client, ask(client, "QUIT\r\n"));
	}
	return NULL;
}

static int in_order(const void *one, const void *other)
{
	double left = *(const double *)one, right = *(const double *)other;
	return (left > right) - (left < right);
}

static void report(double seconds)
{
	printf("{\"mode\": \"%s\", \"sessions\": %ld, \"messages\": %ld, \"octets\": %ld, "
		   "\"refused\": %ld, \"broken\": %ld, \"wrong\": %ld, \"resumed\": %ld, "
		   "\"seconds\": %.6f, \"generator_cpu\": %.6f",
		   MODES[options.mode], (long)done, (long)messages, (long)octets, (long)refused,
		   (long)broken, (long)wrong, (long)resumed, seconds, processor_time());
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

static void read_options(int count, char **words)
{
	static const struct option names[] = {
		{"host", 1, 0, 'h'},     {"port", 1, 0, 'p'},    {"user", 1, 0, 'u'},
		{"password", 1, 0, 'w'}, {"first", 1, 0, 'f'},   {"users", 1, 0, 'n'},
		{"clients", 1, 0, 'c'},  {"sessions", 1, 0, 's'}, {"expect", 1, 0, 'e'},
		{"sources", 1, 0, 'a'},  {"tls", 1, 0, 't'},     {"resume", 0, 0, 'r'},
		{0, 0, 0, 0}};
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
		case 't': options.tls = optarg; break;
		case 'r': options.resume = true; break;
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
	if (options.tls)
		prepare_tls(options.tls, options.resume);
	if (options.mode == ONE)
		options.clients = options.sessions = 1;
	if (options.clients > options.sessions)
		options.clients = options.sessions;
}

int main(int count, char **words)
{
	read_options(count, words);
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	spans = have((size_t)options.sessions, sizeof *spans);
	idle = have((size_t)options.sessions, sizeof *idle);
	struct client **clients = new_clients(options.clients);
	report(all(clients, options.clients, options.mode == IDLE ? settle : work));
	if (options.mode == IDLE) {
		while (getchar() != EOF)
			;
		all(clients, options.clients, leave);
	}
	return refused || broken || wrong;
}
