/* calibrate: milliseconds that a fixed piece of work takes, on two cores at a time.
 *
 * Half of it is arithmetic on memory that fits into a cache, half is system calls: a figure for
 * how fast the machine is at the moment, to be held beside the figures of the rounds.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WORDS 32768
#define PASSES 1000
#define CALLS 100000

static void *work(void *result)
{
	static _Thread_local uint64_t memory[WORDS];
	uint64_t sum = 88172645463325252u;

	memset(memory, 1, sizeof memory);
	for (int pass = 0; pass < PASSES; pass++)
		for (int i = 0; i < WORDS; i++) {
			sum ^= memory[i] + (sum << 7);
			memory[i] = sum ^ (sum >> 9);
		}
	for (int call = 0; call < CALLS; call++)
		sum += syscall(SYS_getppid);
	*(uint64_t *)result = sum;
	return NULL;
}

int main(void)
{
	struct timespec began, ended;
	uint64_t results[2];
	pthread_t other;

	clock_gettime(CLOCK_MONOTONIC, &began);
	if (pthread_create(&other, NULL, work, &results[0]) != 0)
		return 1;
	work(&results[1]);
	pthread_join(other, NULL);
	clock_gettime(CLOCK_MONOTONIC, &ended);
	printf("%.1f\n", (ended.tv_sec - began.tv_sec) * 1e3 + (ended.tv_nsec - began.tv_nsec) / 1e6);
	return results[0] != results[1];
}
