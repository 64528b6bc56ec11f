"""Seconds and peak memory of a whole lesson, from `topdown run` to its last cell, on the sample track and, with --data, on the real one

python benchmarks/whole.py [--runs 1] [--data FOLDER] [--lessons 03 04]
"""
import os
import statistics
import tempfile

from common import heading, options, spread, verdict


def main():
    args = options(__doc__.splitlines()[0], 1, lessons=True)
    home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True) # not the reader's own ledger; the first run also makes the data
    os.environ['TOPDOWN_HOME'] = home.name
    from topdown.runner import run
    from topdown.settings import course
    heading('Whole lessons', 'topdown-course', 'fastai', 'torch', 'nbclient')
    for lesson in [o for o in course().lessons if not args.lessons or o.number in args.lessons]:
        for track in ('sample', 'real') if args.data else ('sample',):
            found = []
            for _ in range(args.runs):
                with tempfile.TemporaryDirectory() as out: found.append(run(lesson.number, track, args.data, out))
                if not found[-1].ok: raise SystemExit(f'lesson {lesson.number}, {track} track: {found[-1].failure}')
            seconds, peak = [o.seconds for o in found], [o.peak_mb for o in found]
            print(f'lesson {lesson.number}, {track} track: {spread(seconds, 1)} s, at most {spread(peak, 0)} MB', flush=True)
            verdict(lesson.number, 'run_seconds', track, statistics.median(seconds))
            verdict(lesson.number, 'run_peak_mb', track, statistics.median(peak))


if __name__ == '__main__': main()
