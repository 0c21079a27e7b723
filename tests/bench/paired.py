"""paired.py ROUNDS WORK NAME COMMAND NAME COMMAND [...] ...

Times whole processes in turns, so that every command meets the same machine, and prints the median
of each with its ratio to the first of its group. A word without a command after it starts a group."""
import shlex
import statistics
import subprocess
import sys
import time

PROGRAMS = ("docker", "podman", "sampan")


def groups(words):
    group = None
    while words:
        if words[0] in PROGRAMS:
            group[1].append((words[0], shlex.split(words[1])))
            words = words[2:]
        else:
            if group:
                yield group
            group = (words[0], [])
            words = words[1:]
    yield group


def once(command):
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    took = (time.perf_counter() - start) * 1000
    if done.returncode:
        sys.exit(f"{shlex.join(command)}: status {done.returncode}\n{done.stderr.decode()}")
    return took


rounds = int(sys.argv[1])
print(f"{'work':<22}{'engine':<10}{'median ms':>10}{'min':>8}{'max':>8}{'of docker':>11}")
for work, cases in groups(sys.argv[2:]):
    times = {name: [] for name, _ in cases}
    for round_ in range(rounds + 2):
        for name, command in cases:
            took = once(command)
            if round_ >= 2:  # the first two warm the caches
                times[name].append(took)
    first = statistics.median(times[cases[0][0]])
    for name, all_ in times.items():
        median = statistics.median(all_)
        print(f"{work:<22}{name:<10}{median:>10.1f}{min(all_):>8.1f}{max(all_):>8.1f}{'1/%.1f' % (first / median) if median < first else '%.2f' % (median / first):>11}")
