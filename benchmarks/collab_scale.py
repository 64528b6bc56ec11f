"""The model of lesson 5 on 10^5, 10^6, 10^7 and 25 million ratings, streamed from Parquet: seconds, memory, error, factors recovered

python benchmarks/collab_scale.py [--sizes 100000 1000000 10000000 25000000] [--folder FOLDER] [--no-write]

For each size one process writes ratings of a known truth to Parquet (`write_low_rank`), and another, whose memory is measured, reads
and learns them. The tables grow with the ratings, so that each person and each item always has as many ratings on average (not so in
the smallest, where the table would be full). An error is held against the floor, the variance of the noise, and against floor·(1 +
d/n) for d numbers learned from n ratings. The factors are compared with the truth by canonical correlations, which are the cosines of
the principal angles. Without `--no-write` the figures go to results/collab_scale.json and are drawn in
benchmarks/collab_scale.svg. OMP_NUM_THREADS=1 before the command: with one thread, as
where other programs need the second core.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import heading

NOISE = 0.5
# ratings: people, items, factors, epochs, largest rate, batch size
SIZES = {100_000: (1_000, 400, 8, 8, 0.02, 2_048), 1_000_000: (6_400, 1_600, 8, 8, 0.02, 8_192),
         10_000_000: (64_000, 16_000, 8, 8, 0.02, 32_768), 25_000_000: (160_000, 40_000, 8, 8, 0.02, 65_536)}


def write(n, folder):
    "Files to learn from and to judge by"
    from topdown.collab import write_low_rank
    from topdown.ledger import peak_memory
    users, items, rank, *_ = SIZES[n]
    start = time.perf_counter()
    write_low_rank(folder/'train.parquet', users, items, n, rank, NOISE)
    seconds = time.perf_counter() - start
    write_low_rank(folder/'valid.parquet', users, items, max(20_000, n//50), rank, NOISE, part=1)
    return {'write_seconds': seconds, 'write_peak_mb': peak_memory(), 'file_mb': (folder/'train.parquet').stat().st_size/1e6}


def recovered(model, truth, rows):
    "Canonical correlations of people's and of items' factors, and the error against ratings without noise"
    import torch

    from topdown.collab import factor_match
    k, found = model.users.shape[1] - 1, {}
    for name, at in zip(('users', 'items'), rows):
        found[f'match_{name}'] = factor_match(getattr(model, name)[:, :k], getattr(truth, name)[at][:, :k]).tolist()
    g = torch.Generator().manual_seed(0)
    user, item = (torch.randint(len(at), (100_000,), generator=g) for at in rows)
    with torch.no_grad(): apart = model(user, item) - truth(rows[0][user], rows[1][item])
    return found | {'mse_without_noise': apart.pow(2).mean().item()}


def judge(valid, predict):
    "Mean squared error on the files to judge by"
    return sum(((b[2] - predict(*b[:2]))**2).sum().item() for b in valid)/valid.n


def learn(n, folder, wd=0.004, progress=False):
    "Learn from the files"
    import torch
    from torch.nn import functional as F

    from topdown.collab import DotProduct, ParquetRatings, RatingDecay, _truth
    from topdown.learner import Adam, Learner
    from topdown.ledger import peak_memory
    users, items, rank, epochs, lr, bs = SIZES[n]
    at_start, start = peak_memory(), time.perf_counter()
    stream = ParquetRatings(folder/'train.parquet', bs=bs)
    valid = ParquetRatings(folder/'valid.parquet', like=stream, shuffle=False)
    scanned = time.perf_counter()
    model = DotProduct(len(stream.users), len(stream.items), rank, (0.5, 5.5), stream.mean)
    learner = Learner(model, (stream, valid), F.mse_loss, Adam, cbs=[RatingDecay(wd)], device='cpu', progress=progress)
    learner.fit_one_cycle(epochs, lr)
    seconds = time.perf_counter() - scanned
    peak, parameters = peak_memory(), sum(p.numel() for p in model.parameters())
    truth = _truth(users, items, rank, 42)
    rows = [torch.tensor([int(i) for i in ids]) for ids in (stream.users, stream.items)]
    with torch.no_grad(): floor = judge(valid, lambda user, item: truth(rows[0][user], rows[1][item]))
    found = {'ratings': n, 'users': len(stream.users), 'items': len(stream.items), 'factors': rank, 'epochs': epochs, 'lr': lr, 'batch': bs,
             'wd': wd, 'parameters': parameters, 'threads': torch.get_num_threads(),
             'first_pass_seconds': scanned - start, 'train_seconds': seconds, 'start_mb': at_start, 'peak_mb': peak,
             'floor': floor, 'reachable': floor*(1 + parameters/n),
             'valid_mse': learner.history[-1]['valid_loss'], 'always_mean': judge(valid, lambda user, item: stream.mean)}
    return found | recovered(model, truth, rows)


def plot(runs, path):
    "Time and memory against the number of ratings"
    import matplotlib
    matplotlib.use('svg')
    matplotlib.rcParams['svg.hashsalt'] = 'collab_scale' # the same drawing, the same file
    import matplotlib.pyplot as plt
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    n = [r['ratings'] for r in runs]
    axes[0].plot(n, [r['train_seconds'] for r in runs], 'o-', label='training, all epochs')
    axes[0].plot(n, [r['first_pass_seconds'] for r in runs], 's--', label='first pass')
    axes[1].plot(n, [r['peak_mb'] - r['start_mb'] for r in runs], 'o-', label='added by the training, streamed')
    axes[1].plot(n, [x*20/1e6 for x in n], 's--', label='the ratings alone, as tensors')
    for ax, what in zip(axes, ('seconds', 'MB of memory')):
        ax.set(xscale='log', yscale='log', xlabel='ratings', ylabel=what)
        ax.grid(alpha=0.3); ax.legend(fontsize=8)
    fig.tight_layout(); fig.savefig(path, metadata={'Date': None})
    return path


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--sizes', nargs='*', type=int, default=list(SIZES), choices=list(SIZES), help='numbers of ratings; all by default')
    p.add_argument('--folder', help='where to put the files, 400 MB; a temporary folder by default')
    p.add_argument('--no-write', action='store_true', help='only print')
    p.add_argument('--progress', action='store_true', help='show the epochs')
    p.add_argument('--step', nargs=2, help=argparse.SUPPRESS) # what a process of its own is to do: write or learn, and the size
    args = p.parse_args()
    if args.step:
        what, n = args.step[0], int(args.step[1])
        found = write(n, Path(args.folder)) if what == 'write' else learn(n, Path(args.folder), progress=args.progress)
        print('\n' + json.dumps(found))
        return
    from topdown.store import write_json
    heading('Lesson 5 at scale: ratings streamed from Parquet', 'topdown-course', 'torch', 'pyarrow')
    runs = []
    for n in args.sizes:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            found = {}
            for what in ('write', 'learn'):
                command = [sys.executable, __file__, '--folder', folder, '--step', what, str(n)] + ['--progress']*args.progress
                track = os.environ | {'TOPDOWN_TRACK': 'sample'}
                process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=track)
                *said, last = process.stdout.strip().splitlines()
                if args.progress: print(*said, sep='\n')
                found |= json.loads(last)
        runs.append(found)
        r = found
        print(f'{n:>10,} ratings of {r["items"]:,} items by {r["users"]:,} people: written in {r["write_seconds"]:.1f} s, '
              f'first pass {r["first_pass_seconds"]:.1f} s, {r["epochs"]} epochs {r["train_seconds"]:.1f} s; '
              f'memory {r["peak_mb"]:.0f} MB at most, {r["start_mb"]:.0f} MB before; MSE {r["valid_mse"]:.4f} (floor {r["floor"]:.4f}, '
              f'reachable {r["reachable"]:.4f}, always the mean {r["always_mean"]:.2f}), without noise {r["mse_without_noise"]:.4f}; '
              f'smallest correlation of factors: people {min(r["match_users"]):.4f}, items {min(r["match_items"]):.4f}', flush=True)
    if args.no_write: return
    print(write_json(Path(__file__).parents[1]/'results'/'collab_scale.json', {'noise': NOISE, 'runs': runs}))
    print(plot(runs, Path(__file__).with_name('collab_scale.svg')))


if __name__ == '__main__': main()
