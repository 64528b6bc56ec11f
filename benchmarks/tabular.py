"""Lesson 6's methods on three tables, each on several splits, and our forest beside scikit-learn's on the same rows

python benchmarks/tabular.py [--runs 5] [--data FOLDER] [--only titanic adult bulldozers] [--no-write]

The settings are those of the table at the end of 06b_trees; nothing is tuned to a table. titanic: a random quarter kept back, 20 splits
(seeds 42 to 61); more of it is in benchmarks/titanic.py. adult: a random fifth, one split
for each run, from seed 42 on. bulldozers: the latest fifth, so there is only one split; each run has a seed of its own for nets and
forests. A run also fits scikit-learn's forest with the settings of ours. Errors are shares of wrong answers, or RMSLE. Results go to results/tabular.json, unless --no-write says no. One thread: OMP_NUM_THREADS=1.
"""
import statistics
import time
from types import SimpleNamespace

import numpy as np
from common import heading, keep, options, spread, verdict

FOREST = dict(max_features=0.5, min_leaf=3)


def read(name):
    "The table, its target and the settings for TablePrep"
    from topdown.data import get
    from topdown.tabular import read_table
    path = get(name).path
    if name == 'adult': return read_table(path/'adult.csv.gz').drop(columns='fnlwgt'), 'salary', {}
    if name == 'titanic':
        t = read_table(path/'train.csv').drop(columns=['PassengerId', 'Name', 'Ticket', 'Cabin'])
        return t, 'Survived', dict(cats=['Pclass', 'Sex', 'Embarked'], logs=['Fare'])
    t = read_table(path/'bulldozers.csv.gz').drop(columns=['SalesID', 'MachineID'])
    t = t.assign(YearMade=t['YearMade'].where(t['YearMade'] > 1900), SalePrice=np.log(t['SalePrice']))
    return t, 'SalePrice', dict(dates=['saledate'])


def arranged(train, valid, target, **settings):
    "Both forms of the table: categories and numbers apart, and one array for trees"
    from topdown.tabular import TablePrep
    prep = TablePrep(target, **settings).fit(train)
    nets, trees = [prep.transform(df) for df in (train, valid)], [np.asarray(prep.numbers(df)) for df in (train, valid)]
    y, y_valid = (np.asarray(part.y, dtype='float64') for part in nets)
    task = 'classify' if set(y) == {0, 1} else 'regress'
    return SimpleNamespace(prep=prep, task=task, train=nets[0], valid=nets[1], x=trees[0], x_valid=trees[1], y=y, y_valid=y_valid)


def net(t, seed, hidden=(64, 32), epochs=10, rate=0.005):
    import torch
    from torch.nn import functional as F

    from topdown.learner import Adam, Learner
    from topdown.tabular import Prepared, TabularNet, tabular_dls
    middle, size = (t.y.mean(), t.y.std()) if t.task == 'regress' else (0, 1)
    batches, _ = tabular_dls(Prepared(t.train.cats, t.train.conts, torch.tensor((t.y - middle)/size).float()), seed=seed)
    model = TabularNet(t.prep.cat_sizes, t.train.conts.shape[1], 1, hidden, seed=seed)
    loss = F.binary_cross_entropy_with_logits if t.task == 'classify' else F.mse_loss
    learn = Learner(model, (batches, None), loss, Adam, device='cpu', progress=False)
    learn.fit_one_cycle(epochs, rate)
    out = learn.predict(t.valid.cats, t.valid.conts).double().numpy()
    return 1/(1 + np.exp(-out)) if t.task == 'classify' else middle + size*out


def by(model, t, **how):
    model.fit(t.x, t.y, **how)
    return model.predict_proba(t.x_valid)[:, 1] if t.task == 'classify' else np.asarray(model.predict(t.x_valid))


def light(t, seed):
    import lightgbm
    kind = lightgbm.LGBMClassifier if t.task == 'classify' else lightgbm.LGBMRegressor
    model = kind(n_estimators=200, learning_rate=0.05, num_leaves=15, random_state=seed, n_jobs=1, verbose=-1)
    return by(model, t, categorical_feature=list(range(len(t.prep.cat_sizes))))


def peer(t, seed):
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    kind = RandomForestClassifier if t.task == 'classify' else RandomForestRegressor
    return by(kind(100, max_features=FOREST['max_features'], min_samples_leaf=FOREST['min_leaf'], random_state=seed, n_jobs=1), t)


def methods(seed):
    "Name → a function from a table to its answers"
    from topdown.trees import BoostedTrees, DecisionTree, RandomForest
    return {'guess': lambda t: np.full(len(t.y_valid), t.y.mean()), 'linear': lambda t: net(t, seed, ()), 'net': lambda t: net(t, seed),
            'tree': lambda t: by(DecisionTree(t.task, min_leaf=20), t),
            'forest': lambda t: by(RandomForest(t.task, n=100, oob=False, seed=seed, **FOREST), t), "scikit-learn's forest": lambda t: peer(t, seed),
            'boosting': lambda t: by(BoostedTrees(t.task), t), 'LightGBM': lambda t: light(t, seed)}


MIXED = {'net + LightGBM': ('net', 'LightGBM'), 'net + forest + LightGBM': ('net', 'forest', 'LightGBM')}


def wrong(said, t):
    if t.task == 'classify': return float(((said > 0.5) != t.y_valid).mean())
    return float(((said - t.y_valid)**2).mean()**0.5)


def one_run(t, seed):
    "Error and seconds of every method"
    answers, seconds = {}, {}
    for name, f in methods(seed).items():
        start = time.perf_counter()
        answers[name] = f(t)
        seconds[name] = time.perf_counter() - start
    for name, group in MIXED.items():
        answers[name], seconds[name] = np.mean([answers[m] for m in group], 0), sum(seconds[m] for m in group)
    return {name: (wrong(said, t), seconds[name]) for name, said in answers.items()}


def measure(name, runs):
    "Everything on one table: method → errors and seconds, a value for each run"
    from topdown.core import split
    from topdown.tabular import split_by_date
    df, target, settings = read(name)
    found = {}
    for seed in range(42, 42 + (20 if name == 'titanic' else runs)):
        rows = split_by_date(df, 'saledate', 0.2) if name == 'bulldozers' else split(df, 0.25 if name == 'titanic' else 0.2, seed)
        t = arranged(df.iloc[rows[0]], df.iloc[rows[1]], target, **settings)
        for method, (error, seconds) in one_run(t, seed).items():
            kept = found.setdefault(method, {'error': [], 'seconds': []})
            kept['error'].append(error)
            kept['seconds'].append(seconds)
    print(f'\n{name}: {len(t.y):,} rows to learn from, {len(t.y_valid):,} to judge by, runs: {len(kept["error"])}')
    print(f'  {"":<25}{"error: median (least to most), with seed 42":<46}seconds')
    for method, v in found.items(): print(f'  {method:<25}{spread(v["error"], 4)}, {v["error"][0]:<18.4f}{spread(v["seconds"])}')
    return found


def verdicts(found, track):
    "What the lesson must reach"
    def middle(name, method): return statistics.median(found[name][method]['error'])
    if 'adult' in found:
        for metric, method in (('adult_net_accuracy', 'net'), ('adult_lightgbm_accuracy', 'LightGBM')):
            verdict('06b', metric, track, 1 - middle('adult', method))
    if 'bulldozers' in found:
        ours, theirs = middle('bulldozers', 'forest'), middle('bulldozers', "scikit-learn's forest")
        print(f'\nRMSLE of our forest {ours:.4f}, of scikit-learn\'s {theirs:.4f}: {ours/theirs - 1:+.2%}')
        verdict('06b', 'bulldozers_forest_of_sklearn', track, ours/theirs)
        for metric, method in (('bulldozers_lightgbm_of_forest', 'LightGBM'), ('bulldozers_ensemble_of_forest', 'net + forest + LightGBM')):
            verdict('06b', metric, track, middle('bulldozers', method)/ours)


def main():
    args = options(__doc__.splitlines()[0], 5, parts=['titanic', 'adult', 'bulldozers'])
    import torch

    from topdown.settings import track
    torch.set_num_threads(1)
    heading('Tables: nets, trees, boosting', 'topdown-course', 'torch', 'scikit-learn', 'lightgbm', 'numba')
    df, target, settings = read('titanic')
    one_run(arranged(df, df, target, **settings), 0) # what is compiled is compiled now
    found = {name: measure(name, args.runs) for name in args.only}
    verdicts(found, track())
    keep('tabular', found, args)


if __name__ == '__main__': main()
