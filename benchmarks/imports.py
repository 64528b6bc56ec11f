"""Seconds to import the package, and to print the command's help, each in a new process

python benchmarks/imports.py [--runs 7]
"""
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import heading, options, spread, verdict


def seconds(command):
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main():
    args = options(__doc__.splitlines()[0], 7)
    heading('Imports and help', 'topdown-course', 'typer', 'rich')
    empty = [seconds([sys.executable, '-c', 'pass']) for _ in range(args.runs)]
    print(f'{"python -c pass":<22} {spread(empty, 3)} s')
    slowest = 0.
    for module in ('topdown', 'topdown.data', 'topdown.cli', 'torch'):
        found = [seconds([sys.executable, '-c', f'import {module}']) for _ in range(args.runs)]
        print(f'import {module:<15} {spread(found, 3)} s' + '  (for comparison)'*(module == 'torch'))
        if module != 'torch': slowest = max(slowest, statistics.median(found))
    found = [seconds([str(Path(sys.executable).parent/'topdown'), '--help']) for _ in range(args.runs)]
    print(f'{"topdown --help":<22} {spread(found, 3)} s')
    verdict('00', 'import_seconds', 'sample', slowest)
    verdict('00', 'help_seconds', 'sample', statistics.median(found))


if __name__ == '__main__': main()
