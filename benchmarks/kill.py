"""Kill a training with `kill -9` at random moments, go on, and compare the end with that of a training that was left alone

python benchmarks/kill.py [--runs 50]

Each run is a process of its own that trains lesson 4's `Learner` and saves after every third step. It is killed at a random moment, a second
process goes on, and weights, averages, optimiser, losses, rates and history must be equal to the last bit. The training has everything that
could go wrong: Dropout, BatchNorm, AdamW, one cycle, a shuffled loader, and noise from Python's and NumPy's random numbers.
"""
import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def train(folder):
    "The training; its end is written to `end.safetensors`"
    import numpy as np
    import torch
    import torch.nn.functional as F
    from torch import nn

    from topdown.checkpoint import save_state
    from topdown.core import set_seed
    from topdown.learner import AdamW, Callback, Checkpoint, DataLoader, Learner, TensorDataset

    class Noise(Callback):
        def before_batch(self, learn): learn.xb = [x + 0.01*random.gauss(0, 1) + 0.01*np.random.randn() for x in learn.xb]

    class Ready(Callback):
        order = 99
        def before_fit(self, learn): print('ready', flush=True)

    torch.set_num_threads(1) # the net is small
    set_seed(42)
    x = torch.rand(1000, 64)
    y = (x[:, :32].sum(1) - x[:, 32:].sum(1)).abs().long() % 10
    loaders = DataLoader(TensorDataset(x[:800], y[:800]), bs=16, shuffle=True), DataLoader(TensorDataset(x[800:], y[800:]), bs=200)
    model = nn.Sequential(nn.Linear(64, 50), nn.BatchNorm1d(50), nn.ReLU(), nn.Dropout(0.3), nn.Linear(50, 10))
    def right(scores, y): return (scores.argmax(1) == y).float().mean()
    learn = Learner(model, loaders, F.cross_entropy, AdamW, metrics=right, cbs=[Noise(), Ready()], device='cpu', progress=False)
    learn.fit_one_cycle(6, 0.01, keep=Checkpoint(folder, every=3))
    save_state(folder/'end.safetensors', {'model': model.state_dict(), 'optimiser': learn.opt.state_dict(), 'losses': torch.tensor(learn.losses).double(),
                                          'lrs': torch.tensor(learn.lrs).double(), 'history': learn.history, 'after': torch.rand(3)}, {})


def start(folder): return subprocess.Popen([sys.executable, __file__, '--train', folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    "What a process that must end well printed"
    out, err = process.communicate(timeout=300)
    if process.returncode: sys.exit(f'a training failed:\n{err}')
    return out


def equal(a, b):
    "The same values, to the last bit"
    import torch
    if isinstance(a, torch.Tensor): return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--runs', type=int, default=50, help='trainings to kill, by default 50')
    p.add_argument('--seed', type=int, default=0, help='of the moments')
    p.add_argument('--train', type=Path, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.train: return train(args.train)
    from common import heading

    from topdown.checkpoint import load_state
    heading('Kill and go on', 'topdown-course', 'torch')
    moments, tries, killed, good, steps = random.Random(args.seed), 0, 0, 0, []
    with tempfile.TemporaryDirectory() as home:
        alone = start(Path(home)/'alone')
        alone.stdout.readline()
        begin = time.perf_counter()
        finish(alone)
        seconds = time.perf_counter() - begin
        expected, _ = load_state(Path(home)/'alone'/'end.safetensors')
        print(f"left alone: {len(expected['losses'])} steps in {seconds:.1f} s", flush=True)
        while killed < args.runs:
            tries += 1
            folder = Path(home)/f'try{tries}'
            process = start(folder)
            process.stdout.readline() # it trains now
            time.sleep(moments.uniform(0, 0.9*seconds))
            process.kill()
            process.communicate()
            if (folder/'end.safetensors').exists(): seconds *= 0.8; continue # it was faster than the killer; try another
            killed += 1
            said = finish(start(folder))
            found = re.search(r'after step (\d+)', said)
            steps.append(int(found[1]) if found else len(expected['losses']) if 'complete' in said else 0)
            same = equal(load_state(folder/'end.safetensors')[0], expected)
            good += same
            print(f"run {killed}: killed, went on after step {steps[-1]}, the end is {'equal' if same else 'DIFFERENT'}", flush=True)
    print(f'{good} of {killed} killed trainings went on and ended equal; they went on after step {min(steps)} to {max(steps)}')
    if good < killed: sys.exit(1)


if __name__ == '__main__': main()
