"""Seconds that the grader takes beyond the run of the same cells in plain Python, with a helper started anew and with a warm one

python benchmarks/grader.py [--runs 5] [--ids 3.1 4.4 6.4]

The peer is a fresh Python process that runs the given cells and the reference solution, imports included, as the learner's own kernel would.
"""
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import heading, options, spread, verdict

COLD = 'import sys, time; start = time.perf_counter()\nfrom topdown.grader import grade\nfrom topdown.exercises import find_exercise\n' \
       'e = find_exercise(sys.argv[1])\nfor _ in range(2):\n    begun = time.perf_counter()\n    assert grade(e, e.solution).passed\n' \
       '    print(time.perf_counter() - (start if start else begun)); start = 0'


def seconds(*command):
    "How long a fresh Python takes, and what it prints"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, encoding='utf-8', check=True)
    return time.perf_counter() - start, done.stdout.split()


def main():
    args = options(__doc__.splitlines()[0], 5, more=lambda p: p.add_argument('--ids', nargs='*', help='exercises; one of each lesson by default'))
    from topdown.exercises import exercises, find_exercise, given_for
    heading('The grader beside plain Python', 'topdown-course', 'torch')
    last = {e.lesson: e for e in exercises()}.values() # the large one of each lesson
    cold, warm = [], []
    for e in [find_exercise(i) for i in args.ids] if args.ids else last:
        plain, first, second = [], [], []
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder)/'cells.py'
            file.write_text('\n'.join([*given_for(e, e.solution), *e.solution]), encoding='utf-8')
            for _ in range(args.runs):
                plain.append(seconds(str(file))[0])
                _, (a, b) = seconds('-c', COLD, e.id)
                first.append(float(a)); second.append(float(b))
        cold.append(statistics.median(first) - statistics.median(plain))
        warm.append(statistics.median(second))
        print(f'{e.id} plain {spread(plain)} s, helper started anew {spread(first)} s ({cold[-1]:+.2f}), warm {spread(second)} s, checks included', flush=True)
    print(f'beyond the plain run: {min(cold):+.2f} to {max(cold):+.2f} s; the warm helper answers within {max(warm):.2f} s')
    verdict('04', 'grader_overhead_seconds', 'sample', max(cold))


if __name__ == '__main__': main()
