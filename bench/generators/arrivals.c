/* arrivals COUNT SECONDS: waits until COUNT messages have come into directories.
 *
 * The paths of the directories (each a Maildir's "new") are read from standard input, a line
 * each, until a line is empty. Prints "ready" when all of them are watched. As long as standard
 * input stays open messages are still sent, and nobody needs the answer: it sleeps but for a look
 * a second, since the kernel keeps only so many events (fs.inotify.max_queued_events); where they
 * were too many for it, it ends with status 2. From the end of standard input on it waits for
 * what is missing, and prints one line: how many messages came, and when the last one of COUNT was
 * seen, in seconds of CLOCK_MONOTONIC. Ends SECONDS later in any case, with status 1 if some are
 * missing.
 *
 * A message comes by link(2) or rename(2); a file that is written in place counts when it is made.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

/* Nanoseconds to let events gather: woken for each, this would take time from the servers. */
#define GATHER 2000000
/* Milliseconds between two looks while messages are sent. */
#define LOOK 1000

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void die(const char *what)
{
	fprintf(stderr, "arrivals: %s: %s\n", what, strerror(errno));
	exit(2);
}

static int watch_all(void)
{
	char *path = NULL;
	size_t room = 0;
	ssize_t length;
	int events = inotify_init1(IN_NONBLOCK);

	if (events < 0)
		die("inotify");
	while ((length = getline(&path, &room, stdin)) > 0 && *path != '\n') {
		if (path[length - 1] == '\n')
			path[length - 1] = '\0';
		if (inotify_add_watch(events, path, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR) < 0)
			die(path);
	}
	free(path);
	return events;
}

/* How many messages the events that have gathered tell of. */
static long take(int events)
{
	static char buffer[1 << 20] __attribute__((aligned(8)));
	ssize_t length = read(events, buffer, sizeof buffer);
	long count = 0;

	if (length < 0 && errno != EAGAIN)
		die("read");
	for (char *at = buffer; at < buffer + length;) {
		struct inotify_event *event = (struct inotify_event *)at;

		if (event->mask & IN_Q_OVERFLOW) {
			fprintf(stderr, "arrivals: more than fs.inotify.max_queued_events\n");
			exit(2);
		}
		count++;
		at += sizeof *event + event->len;
	}
	return count;
}

/* Until nothing more is sent; how many messages have come meanwhile. */
static long while_sending(int events)
{
	struct pollfd sending = { .fd = STDIN_FILENO, .events = POLLIN };
	long count = 0;

	while (poll(&sending, 1, LOOK) <= 0)
		count += take(events);
	return count;
}

int main(int argc, char **argv)
{
	const struct timespec gather = { 0, GATHER };
	struct pollfd ready = { .events = POLLIN };
	double end, last;
	long wanted, count;

	if (argc != 3) {
		fprintf(stderr, "usage: arrivals COUNT SECONDS <DIRECTORIES\n");
		return 2;
	}
	wanted = atol(argv[1]);
	ready.fd = watch_all();
	puts("ready");
	fflush(stdout);
	count = while_sending(ready.fd);
	last = now();
	end = last + atof(argv[2]);
	while (count < wanted && now() < end) {
		if (poll(&ready, 1, (int)((end - now()) * 1000) + 1) <= 0)
			continue;
		last = now();
		count += take(ready.fd);
		nanosleep(&gather, NULL);
	}
	printf("%ld %.6f\n", count, last);
	return count < wanted;
}
