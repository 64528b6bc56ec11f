"""Lesson 6's trees and forests beside scikit-learn's: fit and predict on adult, growth with the rows

python benchmarks/trees.py [--runs 5] [--data FOLDER] [--only adult growth] [--most 1000000] [--no-write]

adult: all rows, the same numbers for both; a full tree, and forests of 50 trees that look at the root of the number of columns; everything
on one thread. Both take turns, and the ratios are taken within a run. growth: a full tree on generated tables of ten columns (half of
them with few different values), from a thousand rows to a million; the NumPy form up to a hundred thousand. The results go to
results/trees.json, unless --no-write says no. OMP_NUM_THREADS=1 before the command.
"""
import statistics
import time

import numpy as np
from common import heading, keep, options, spread, verdict


def timed(f):
    "What f() gives, and its seconds"
    start = time.perf_counter()
    return f(), time.perf_counter() - start


def adult_table():
    "Numbers and targets of adult, and the track"
    from topdown.data import get
    from topdown.tabular import TablePrep, read_table
    data = get('adult')
    table = read_table(data.path/'adult.csv.gz')
    x = TablePrep(target='salary', scale=False).fit(table).numbers(table)
    return np.asarray(x, dtype=float), table['salary'].to_numpy(), data.track


def adult(args):
    "Seconds to fit and to predict, ours and theirs in turn"
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    from topdown.trees import DecisionTree, RandomForest
    heading('Trees on adult', 'topdown-course', 'scikit-learn', 'numba', 'numpy')
    x, y, track = adult_table()
    print(f'{len(x):,} rows, {x.shape[1]} columns, {track}')
    pairs = {'tree': (lambda: DecisionTree(fast=True), lambda: DecisionTreeClassifier(random_state=0)),
             'forest': (lambda: RandomForest(n=50, oob=False, fast=True), lambda: RandomForestClassifier(50, n_jobs=1, random_state=0))}
    DecisionTree(fast=True).fit(x[:100], y[:100]).predict(x[:100])   # compiles
    found = {}
    for name, makers in pairs.items():
        seconds = {(who, what): [] for who in ('ours', 'theirs') for what in ('fit', 'predict')}
        for run in range(args.runs):
            turns = list(zip(('ours', 'theirs'), makers))
            for who, make in turns[::-1] if run % 2 else turns:
                model = make()
                _, fit = timed(lambda: model.fit(x, y))
                _, predict = timed(lambda: [model.predict(x) for _ in range(10 if name == 'tree' else 1)])
                seconds[who, 'fit'].append(fit)
                seconds[who, 'predict'].append(predict/(10 if name == 'tree' else 1))
        for what in ('fit', 'predict'):
            ratio = [a/b for a, b in zip(seconds['ours', what], seconds['theirs', what])]
            print(f'  {name}, {what:<8} ours {spread(seconds["ours", what], 4):<28} scikit-learn {spread(seconds["theirs", what], 4):<28} '
                  f'ratio {spread(ratio)}')
            found[f'{name}_{what}'] = {'ours': seconds['ours', what], 'theirs': seconds['theirs', what]}
            if (name, what) == ('tree', 'fit'): verdict('06b', 'tree_fit_of_sklearn', track, statistics.median(ratio))
            if (name, what) == ('tree', 'predict'): verdict('06b', 'tree_predict_of_sklearn', track, statistics.median(ratio))
            if (name, what) == ('forest', 'fit'): verdict('06b', 'forest_fit_of_sklearn', track, statistics.median(ratio))
            if (name, what) == ('forest', 'predict'): verdict('06b', 'forest_predict_of_sklearn', track, statistics.median(ratio))
    return {'rows': len(x), 'columns': x.shape[1], 'track': track} | found


def generated(rows, seed=0):
    "A table of ten columns, and a target that depends on four of them"
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 10)).astype(np.float32).astype(float)
    x[:, 5:] = np.round(4*x[:, 5:])
    return x, (x[:, 0] + np.sin(2*x[:, 1]) + x[:, 5]/4*(x[:, 6] > 0) + rng.normal(0, 0.5, rows) > 0).astype(int)


def growth(args):
    "Seconds for a full tree by the number of rows"
    from sklearn.tree import DecisionTreeClassifier

    from topdown.trees import DecisionTree
    heading('A full tree, by the number of rows', 'topdown-course', 'scikit-learn', 'numba', 'numpy')
    makers = {'compiled': (lambda: DecisionTree(fast=True), args.most), 'numpy': (lambda: DecisionTree(fast=False), 100_000),
              'scikit-learn': (lambda: DecisionTreeClassifier(random_state=0), args.most)}
    DecisionTree(fast=True).fit(*generated(100))
    lines, rows = [], 1000
    while rows <= args.most:
        x, y = generated(rows)
        for name, (make, most) in makers.items():
            if rows > most: continue
            runs = []
            for _ in range(args.runs if rows < 100_000 else 1):
                model, seconds = timed(lambda: make().fit(x, y))
                runs.append(seconds)
            lines.append({'rows': rows, 'who': name, 'seconds': statistics.median(runs)})
            print(f'  {rows:>9,} rows  {name:<13} {lines[-1]["seconds"]:9.4f} s', flush=True)
        rows *= 10
    return lines


def main():
    args = options(__doc__.splitlines()[0], 5, parts=['adult', 'growth'], more=lambda p: p.add_argument(
        '--most', type=int, default=1_000_000, help='rows of the largest generated table, by default a million'))
    keep('trees', {part: {'adult': adult, 'growth': growth}[part](args) for part in args.only}, args)


if __name__ == '__main__': main()
