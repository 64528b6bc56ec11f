"""What every benchmark prints first, and how it sums up repeated runs"""
import argparse
import os
import platform
import statistics
import sys
from importlib.metadata import version
from pathlib import Path


def heading(title, *packages):
    "Machine and versions"
    import psutil
    print(f'\n{title}')
    print(f'{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {psutil.virtual_memory().total/1e9:.0f} GB, Python {platform.python_version()}')
    print(', '.join(f'{p} {version(p)}' for p in packages), flush=True)


def spread(values, digits=2):
    "Median, least and most of some figures, as text"
    return f'{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})'


def verdict(lesson, metric, track, value):
    "A figure beside the bound that results/contracts.toml sets for it"
    from topdown.ledger import check, contracts
    of = [c for c in contracts(kind='benchmark') if (c['lesson'], c['metric'], c['track']) == (lesson, metric, track)]
    for c, _, kept in check([dict(lesson=lesson, metric=metric, track=track, value=value)], of):
        print(f'{metric}, {track} track: {value:.4g}, to be at {"most" if c["better"] == "lower" else "least"} {c["bound"]:g}: {"kept" if kept else "MISSED"}')


def options(text, runs, lessons=False, parts=None, more=None):
    """The options that all benchmarks share; with `lessons` also a choice of lessons, with `parts` a choice of them, and whether to write;
    `more` may add others to the parser"""
    p = argparse.ArgumentParser(description=text)
    p.add_argument('--runs', type=int, default=runs, help=f'how often to repeat, by default {runs}')
    p.add_argument('--data', default=os.environ.get('TOPDOWN_DATA'), help='folder with the real data; by default TOPDOWN_DATA, else the sample track')
    if lessons: p.add_argument('--lessons', nargs='*', help='numbers of lessons, such as 03 04; all by default')
    if parts:
        p.add_argument('--only', nargs='*', choices=parts, default=parts, help='which parts; all by default')
        p.add_argument('--no-write', action='store_true', help='only print')
    if more: more(p)
    args = p.parse_args()
    if args.runs < 1: sys.exit('--runs must be at least 1')
    os.environ.pop('TOPDOWN_TRACK', None)
    if args.data: os.environ['TOPDOWN_DATA'] = os.path.abspath(args.data)
    return args


def keep(name, found, args):
    "Put what was found beside what results/NAME.json has already, unless only printing was asked for"
    from topdown.store import read_json, write_json
    file = Path(__file__).resolve().parents[1]/'results'/f'{name}.json'
    if not args.no_write: print(write_json(file, (read_json(file) if file.exists() else {}) | found))
