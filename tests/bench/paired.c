/* paired: times commands in turn (A B C A B C ...), so that each meets the same machine, and prints for each the
 * least and the median time, the processor time and the peak memory of its process tree, and its ratio to the
 * first, taken round by round (the median of the ratios).
 *
 * usage: paired ROUNDS NAME=COMMAND...     {} in a command becomes a word of its own for each run
 *
 * It is small on purpose: a child shares the memory of its parent until it executes its program, and
 * the kernel counts that as the child's peak. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CASES = 8, WORDS = 32, WARM = 3 };
extern char **environ;

struct run {
	double wall, cpu; /* ms */
	long peak;        /* KiB, of the largest process */
	int status;
};

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static double ms(struct timeval t) { return t.tv_sec * 1e3 + t.tv_usec / 1e3; }

static struct run once(const char *command, const char *word)
{
	char *text = strdup(command), *argv[WORDS];
	int n = 0;
	for (char *w = strtok(text, " "); w && n < WORDS - 1; w = strtok(NULL, " "))
		argv[n++] = strcmp(w, "{}") ? w : (char *)word;
	argv[n] = NULL;
	posix_spawn_file_actions_t files;
	posix_spawn_file_actions_init(&files);
	for (int fd = 0; fd < (getenv("VERBOSE") ? 2 : 3); fd++)
		posix_spawn_file_actions_addopen(&files, fd, "/dev/null", O_RDWR, 0);
	struct run r = {0};
	struct rusage use;
	pid_t pid;
	double start = now();
	if (posix_spawnp(&pid, argv[0], &files, NULL, argv, environ)) {
		perror(argv[0]);
		exit(1);
	}
	wait4(pid, &r.status, 0, &use);
	r.wall = now() - start;
	r.cpu = ms(use.ru_utime) + ms(use.ru_stime);
	r.peak = use.ru_maxrss;
	posix_spawn_file_actions_destroy(&files);
	free(text);
	return r;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median(double *v, int n)
{
	qsort(v, n, sizeof *v, ascending);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

int main(int argc, char **argv)
{
	int rounds = argc > 2 ? atoi(argv[1]) : 0, cases = argc - 2;
	if (rounds < 1 || cases < 1 || cases > CASES) {
		fprintf(stderr, "usage: paired ROUNDS NAME=COMMAND...\n");
		return 2;
	}
	struct run *runs = calloc((size_t)rounds * cases, sizeof *runs);
	double *wall = calloc(rounds, sizeof *wall), *cpu = calloc(rounds, sizeof *cpu), *ratio = calloc(rounds, sizeof *ratio);
	for (int r = -WARM; r < rounds; r++)
		for (int c = 0; c < cases; c++) {
			char word[64];
			snprintf(word, sizeof word, "bench-%d-%d-%d", getpid(), r + WARM, c);
			struct run one = once(strchr(argv[c + 2], '=') + 1, word);
			if (one.status) {
				fprintf(stderr, "%s: wait status %#x\n", argv[c + 2], one.status);
				return 1;
			}
			if (r >= 0)
				runs[r * cases + c] = one;
		}
	printf("%-16s%10s%10s%10s%12s%12s\n", "", "least ms", "median", "CPU ms", "peak MiB", "of first");
	for (int c = 0; c < cases; c++) {
		long peak = 0;
		for (int r = 0; r < rounds; r++) {
			struct run one = runs[r * cases + c];
			wall[r] = one.wall;
			cpu[r] = one.cpu;
			ratio[r] = one.wall / runs[r * cases].wall;
			if (one.peak > peak)
				peak = one.peak;
		}
		double middle = median(wall, rounds);
		printf("%-16.*s%10.2f%10.2f%10.2f%12.1f%12.3f\n", (int)strcspn(argv[c + 2], "="), argv[c + 2],
			wall[0], middle, median(cpu, rounds), peak / 1024.0, median(ratio, rounds));
	}
	return 0;
}
