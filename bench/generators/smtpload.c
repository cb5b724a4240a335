/* smtpload: messages by many SMTP sessions at once, over TLS: what smtp-source cannot do.
 *
 *   smtpload --port PORT --to '%d@example.test' [options]
 *
 * --tls HOST        STARTTLS, for this host; without it clear text
 * --first N         the number of the first recipient (1)
 * --clients N       sessions at the same time (1)
 * --messages N      messages in all, each to the next recipient (1)
 * --octets N        in each of them, with CRLF at the ends of lines (4096)
 *
 * Every message has a connection of its own, on loopback, with EHLO, MAIL, RCPT, DATA and QUIT one
 * after the other, as smtp-source does it; in TLS STARTTLS and another EHLO come before. Prints one
 * line of JSON. Exits with 1 if anything was refused, broken off, or not what it had to be.
 */

#define _GNU_SOURCE
#include "load.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	LINE = 72,               /* octets of a line of text, without its end */
	MAX_OCTETS = 100 * 1024 * 1024,
};

const char *const PROGRAM = "smtpload";

static const char HEADER[] = "From: <sender@example.net>\r\n"
							 "To: <recipient@example.test>\r\n"
							 "Date: Thu, 1 Jan 2026 00:00:00 +0000\r\n"
							 "Message-ID: <smtpload@example.net>\r\n\r\n";
static const char END[] = ".\r\n";

static struct {
	struct sockaddr_in server;
	const char *to;
	const char *tls;                /* the host; NULL: clear text */
	long first, clients, messages, octets;
} options = {.first = 1, .clients = 1, .messages = 1, .octets = 4096};

static char *text;                  /* the message, and END */
static size_t length;               /* of both */
static atomic_long done;

/* The last line of a reply, which must begin with this code; else false. */
static bool reply(struct client *client, const char *code, const char *command)
{
	char *said;
	do
		if (!(said = line(client, NULL)))
			return false;
	while (strlen(said) > 3 && said[3] == '-');
	if (strncmp(said, code, 3) != 0)
		return fault(&refused, "%.*s: %s", (int)strcspn(command, "\r"), command, said);
	return true;
}

__attribute__((format(printf, 3, 4)))
static bool ask(struct client *client, const char *code, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	bool said = command(client, format, arguments);
	va_end(arguments);
	return said && reply(client, code, format);
}

static bool greet(struct client *client)
{
	return ask(client, "250", "EHLO smtpload.example.net\r\n");
}

static bool start_tls(struct client *client)
{
	return ask(client, "220", "STARTTLS\r\n") && secure(client) && greet(client);
}

static bool deliver(struct client *client, long number)
{
	char recipient[COMMAND / 2];
	numbered(recipient, sizeof recipient, options.to, options.first + number);
	return connect_to(client, &options.server, NULL) && reply(client, "220", "the greeting")
		&& greet(client) && (!options.tls || start_tls(client))
		&& ask(client, "250", "MAIL FROM:<sender@example.net>\r\n")
		&& ask(client, "250", "RCPT TO:<%s>\r\n", recipient)
		&& ask(client, "354", "DATA\r\n")
		&& say(client, text, length) && reply(client, "250", "the message")
		&& ask(client, "221", "QUIT\r\n");
}

static void *work(void *argument)
{
	struct client *client = argument;
	for (long number = client->number; number < options.messages; number += options.clients) {
		bool said = deliver(client, number);
		disconnect(client, said);
		done += said;
	}
	return NULL;
}

/* Lines of the same length but the last, so that there are as many octets as were asked for. */
static void compose(void)
{
	size_t octets = (size_t)options.octets, header = sizeof HEADER - 1;
	text = have(octets + sizeof END, 1);
	memcpy(text, HEADER, header);
	memset(text + header, 'x', octets - header);
	for (size_t end = header + LINE; end + 3 < octets; end += LINE + 2)
		memcpy(text + end, "\r\n", 2);
	memcpy(text + octets - 2, "\r\n", 2);
	memcpy(text + octets, END, sizeof END - 1);
	length = octets + sizeof END - 1;
}

static void read_options(int count, char **words)
{
	static const struct option names[] = {
		{"port", 1, 0, 'p'},    {"to", 1, 0, 't'},       {"tls", 1, 0, 'h'},
		{"first", 1, 0, 'n'},   {"clients", 1, 0, 'c'},  {"messages", 1, 0, 'm'},
		{"octets", 1, 0, 'o'},  {0, 0, 0, 0}};
	options.server = (struct sockaddr_in){.sin_family = AF_INET};
	options.server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int name;
	while ((name = getopt_long(count, words, "", names, NULL)) != -1)
		switch (name) {
		case 'p': options.server.sin_port = htons((uint16_t)number_of(optarg, 1, 65535)); break;
		case 't': options.to = optarg; break;
		case 'h': options.tls = optarg; break;
		case 'n': options.first = number_of(optarg, 0, LONG_MAX / 2); break;
		case 'c': options.clients = number_of(optarg, 1, MAX_CLIENTS); break;
		case 'm': options.messages = number_of(optarg, 1, 100000000); break;
		case 'o': options.octets = number_of(optarg, sizeof HEADER + 2, MAX_OCTETS); break;
		default: usage("an unknown option");
		}
	if (optind != count)
		usage("nothing but options is understood");
	if (!options.to || !options.server.sin_port)
		usage("--to and --port are needed");
	if (options.tls)
		prepare_tls(options.tls, false);
	if (options.clients > options.messages)
		options.clients = options.messages;
}

int main(int count, char **words)
{
	read_options(count, words);
	compose();
	double seconds = all(new_clients(options.clients), options.clients, work);
	printf("{\"messages\": %ld, \"refused\": %ld, \"broken\": %ld, \"wrong\": %ld, "
		   "\"seconds\": %.6f, \"generator_cpu\": %.6f}\n",
		   (long)done, (long)refused, (long)broken, (long)wrong, seconds, processor_time());
	return refused || broken || wrong;
}
