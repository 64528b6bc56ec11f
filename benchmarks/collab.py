"""Lesson 5's model beside those of fastai, scikit-surprise and lenskit, on the same split; and sparse beside dense gradients

python benchmarks/collab.py [--runs 3] [--data FOLDER] [--lenskit PYTHON] [--only peers gradients] [--no-write]

MovieLens 100K, 20 % of the ratings at random kept back (seed 42). fastai: `collab_learner` with 50 factors, 5 epochs, rate 5e-3,
weight decay 0.1, batches of 64. scikit-surprise: `SVD` as it comes (100 factors, 20 epochs) and with 50 factors; it is installed into
an environment of its own, .venv/peers, the first time. lenskit: `BiasedMFScorer` with 50 features, only if --lenskit names a Python
that has it, because it wants other versions than ours. Ours: `factorise` as it comes, and the mean of 8 models with different seeds,
for those who have more time. Everyone gets the numbers of people and films, and is timed from there to the trained model. All take
turns; the ratios are taken within a run. The second part times one training step on tables of three sizes. Both go to
results/collab.json, unless --no-write says no. OMP_NUM_THREADS=1 before the command: with one thread, as where other programs need the
second core.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from common import heading, keep, options, spread, verdict

ROOT = Path(__file__).resolve().parents[1]
PEERS = 'scikit-surprise==1.1.5'
# people, items, factors, batch size, and what the size is like
TABLES = [(943, 1682, 20, 512, 'MovieLens 100K'), (160_000, 40_000, 8, 65_536, '25 million, large batches'),
          (160_000, 40_000, 8, 512, '25 million, small batches')]


def ours(train, valid, seeds=1):
    "Seconds, and predictions for the ratings kept back"
    import torch

    from topdown.collab import factorise
    start = time.perf_counter()
    models = [factorise(train, seed=42 + i).model for i in range(seeds)]
    seconds = time.perf_counter() - start
    with torch.no_grad(): return seconds, torch.stack([m.cpu()(valid.user, valid.item) for m in models]).mean(0).numpy()


def fastai(train, valid):
    "The recipe of the book's chapter 8"
    import pandas as pd
    from fastai.collab import TabularCollab, collab_learner
    from fastai.data.block import TransformBlock
    from fastai.tabular.core import Categorify
    warnings.filterwarnings('ignore', message='The given NumPy array is not writable') # of fastai's own
    n = len(train)
    tables = [pd.DataFrame({'user': r.user.numpy(), 'item': r.item.numpy(), 'rating': r.value.numpy()}) for r in (train, valid)]
    t = pd.concat(tables, ignore_index=True)
    splits = list(range(n)), list(range(n, len(t)))
    to = TabularCollab(t, [Categorify], ['user', 'item'], y_names=['rating'], y_block=TransformBlock(), splits=splits)
    dls = to.dataloaders(path='.', bs=64, device='cpu')
    learn = collab_learner(dls, n_factors=50, y_range=(0.5, 5.5))
    start = time.perf_counter()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(5, 5e-3, wd=0.1)
    seconds = time.perf_counter() - start
    with learn.no_bar(): found, _ = learn.get_preds()
    return seconds, found.flatten().numpy()


def surprise(a, factors):
    "scikit-surprise; runs where it is installed, and so imports nothing of ours"
    import pandas as pd
    from surprise import SVD, Dataset, Reader
    t = pd.DataFrame({name: a[f'train_{name}'] for name in ('user', 'item', 'value')})
    train = Dataset.load_from_df(t, Reader(rating_scale=(1, 5))).build_full_trainset()
    start = time.perf_counter()
    model = SVD(n_factors=factors, random_state=42).fit(train)
    return time.perf_counter() - start, [model.predict(u, i).est for u, i in zip(a['valid_user'].tolist(), a['valid_item'].tolist())]


def lenskit(a):
    "lenskit, without its pool of processes"
    import pandas as pd
    from lenskit.als import BiasedMFScorer
    from lenskit.data import ItemList, from_interactions_df
    t = pd.DataFrame({'user_id': a['train_user'], 'item_id': a['train_item'], 'rating': a['train_value']})
    data, model = from_interactions_df(t), BiasedMFScorer(features=50)
    start = time.perf_counter()
    model.train(data)
    seconds, found = time.perf_counter() - start, np.full(len(a['valid_user']), t['rating'].mean())
    for u in np.unique(a['valid_user']):
        rows = np.flatnonzero(a['valid_user'] == u)
        scores = model(int(u), ItemList(item_ids=a['valid_item'][rows])).scores('numpy')
        found[rows] = np.where(np.isfinite(scores), scores, found[rows])
    return seconds, found


def peers_python():
    "A Python with scikit-surprise, made the first time"
    folder = ROOT/'.venv'/'peers'
    python = folder/('Scripts/python.exe' if os.name == 'nt' else 'bin/python')
    if not python.exists(): subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
    if subprocess.run([python, '-c', 'import surprise, pandas'], capture_output=True).returncode:
        subprocess.run([python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', PEERS, 'pandas'], check=True)
    return python


def elsewhere(python, name, train, valid):
    "Run a peer under another Python"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder)/'split.npz'
        parts, names = {'train': train, 'valid': valid}, ('user', 'item', 'value')
        np.savez(file, **{f'{part}_{column}': getattr(r, column).numpy() for part, r in parts.items() for column in names})
        subprocess.run([python, __file__, '--peer', name, '--file', file], check=True, stdout=subprocess.DEVNULL)
        found = np.load(file.with_suffix('.out.npz'))
        return found['seconds'].item(), found['predicted']


def compare(args):
    "Error and seconds of everyone, in turn"
    from topdown.collab import Means, read_movies
    from topdown.data import get
    heading('Matrix factorisation on MovieLens', 'topdown-course', 'torch', 'fastai')
    data = get('ml-100k')
    train, valid = read_movies(data)[0].split(0.2, seed=42)
    truth, python = valid.value.numpy(), peers_python()
    def mse(predicted): return float(((np.asarray(predicted) - truth)**2).mean())
    people = {'ours': lambda: ours(train, valid), 'ours, mean of 8 seeds': lambda: ours(train, valid, 8),
              'fastai': lambda: fastai(train, valid),
              'scikit-surprise SVD, 100 factors': lambda: elsewhere(python, 'surprise-100', train, valid),
              'scikit-surprise SVD, 50 factors': lambda: elsewhere(python, 'surprise-50', train, valid)}
    if args.lenskit: people['lenskit BiasedMFScorer'] = lambda: elsewhere(args.lenskit, 'lenskit', train, valid)
    print(f'{len(train):,} ratings to learn from, {len(valid):,} to judge by; scikit-surprise {PEERS.split("==")[1]}')
    print(f'means of people and films, shrunk: MSE {mse(Means(train)(valid.user, valid.item)):.4f}')
    runs, names = {name: [] for name in people}, list(people)
    for run in range(args.runs):
        for name in names[run % len(names):] + names[:run % len(names)]:
            seconds, predicted = people[name]()
            runs[name].append((seconds, mse(predicted)))
            print(f'  run {run + 1}: {name}: MSE {runs[name][-1][1]:.4f} in {seconds:.2f} s', flush=True)
    for name, of in runs.items():
        ratio = [s/o for (s, _), (o, _) in zip(of, runs['ours'])]
        print(f'  {name:<33} MSE {spread([e for _, e in of], 4):<27} seconds {spread([s for s, _ in of]):<24} '
              f'of ours, run by run: {spread(ratio, 1)}')
    verdict('05', 'rating_mse', data.track, statistics.median(e for _, e in runs['ours']))
    verdict('05', 'rating_mse_8_seeds', data.track, statistics.median(e for _, e in runs['ours, mean of 8 seeds']))
    verdict('05', 'seconds_of_fastai', data.track, statistics.median(o/s for (o, _), (s, _) in zip(runs['ours'], runs['fastai'])))
    return {name: {'seconds': [s for s, _ in of], 'mse': [e for _, e in of]} for name, of in runs.items()}


def steps(users, items, factors, bs):
    "Name → a function that does one training step: forward, loss, backward, update"
    import torch
    from torch import nn
    from torch.nn import functional as F

    from topdown.collab import DotProduct
    from topdown.learner import Adam
    g = torch.Generator().manual_seed(0)
    def some(n): return torch.randint(n, (bs,), generator=g)
    batches = [(some(users), some(items), 1 + 4*torch.rand(bs, generator=g)) for _ in range(20)]

    class Tables(nn.Module):
        def __init__(self, sparse):
            super().__init__()
            shapes = (users, factors), (items, factors), (users, 1), (items, 1)
            self.p, self.q, self.a, self.b = (nn.Embedding(*shape, sparse=sparse) for shape in shapes)
            for table in (self.p, self.q): nn.init.normal_(table.weight, std=0.01)
        def forward(self, user, item):
            p, q = self.p(user), self.q(item)
            self.penalty = (p.pow(2).sum() + q.pow(2).sum())/len(user)
            return 0.5 + 5*torch.sigmoid((p*q).sum(1) + self.a(user)[:, 0] + self.b(item)[:, 0])
    def step(model, opt):
        at = iter(range(10**9))
        def run():
            user, item, value = batches[next(at) % 20]
            (F.mse_loss(model(user, item), value) + 0.1*model.penalty).backward()
            opt.step(); opt.zero_grad()
        return run
    made = [('dense, by hand, one table each', DotProduct(users, items, factors), Adam),
            ('dense, four nn.Embedding', Tables(False), torch.optim.Adam),
            ('sparse, four nn.Embedding', Tables(True), torch.optim.SparseAdam)]
    return {name: step(model, opt(list(model.parameters()), lr=0.01)) for name, model, opt in made}


def gradients(args):
    "Milliseconds of a step, for tables and batches of three sizes"
    import torch
    heading('A training step with dense and with sparse gradients', 'topdown-course', 'torch')
    print(f'{torch.get_num_threads()} threads; milliseconds a step, median (least to most) of {args.runs} runs')
    found = []
    for users, items, factors, bs, like in TABLES:
        made, taken = steps(users, items, factors, bs), {}
        for run in range(args.runs + 1): # the first only warms up
            for name, one in made.items():
                count = 50 if bs < 10_000 else 10
                start = time.perf_counter()
                for _ in range(count): one()
                if run: taken.setdefault(name, []).append((time.perf_counter() - start)/count*1000)
        print(f'\n{users:,} people, {items:,} items, {factors} factors, batches of {bs:,} (as for {like})')
        for name, values in taken.items(): print(f'  {name:<33}{spread(values)}')
        found.append({'users': users, 'items': items, 'factors': factors, 'batch': bs, 'like': like, 'milliseconds': taken})
    return found


def more(p):
    "The options of this benchmark alone"
    p.add_argument('--lenskit', metavar='PYTHON', help='a Python that has lenskit')
    p.add_argument('--peer', help=argparse.SUPPRESS) # for a process under another Python: which peer to run, and on which file
    p.add_argument('--file', help=argparse.SUPPRESS)


def main():
    args = options(__doc__.splitlines()[0], 3, parts=['peers', 'gradients'], more=more)
    if args.peer:
        a = np.load(args.file)
        seconds, predicted = lenskit(a) if args.peer == 'lenskit' else surprise(a, int(args.peer.split('-')[1]))
        np.savez(Path(args.file).with_suffix('.out.npz'), seconds=seconds, predicted=predicted)
        return
    keep('collab', {part: {'peers': compare, 'gradients': gradients}[part](args) for part in args.only}, args)


if __name__ == '__main__': main()
