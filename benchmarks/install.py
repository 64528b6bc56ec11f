"""Seconds that a lesson's install cell takes on an imitated Colab, where PyTorch and fastai are installed

python benchmarks/install.py [--runs 3]

The imitation is that of tests/hosts.py; the package index must be reachable, and the course comes from the last commit of this clone.
"""
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import heading, options, spread, verdict

sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'tests'))


def main():
    args = options(__doc__.splitlines()[0], 3)
    from hosts import colab, install_from_here
    heading('The install cell', 'topdown-course', 'pip')
    cell, times = install_from_here(), []
    for _ in range(args.runs):
        with tempfile.TemporaryDirectory() as folder:
            host, start = colab(Path(folder)/'colab'), time.perf_counter()
            status, said = host.cells(cell, seconds=600)
            times.append(time.perf_counter() - start)
        if status: raise SystemExit(said)
    print(said.strip())
    print(f'install cell {spread(times, 1)} s')
    verdict('00', 'install_seconds', 'sample', statistics.median(times))


if __name__ == '__main__': main()
