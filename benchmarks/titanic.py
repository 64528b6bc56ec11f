"""Lesson 6's models of the Titanic table: on the split of the published figures, and on 20 others

python benchmarks/titanic.py [--runs 20] [--data FOLDER] [--only nets forest] [--no-write]

891 passengers. The linear model and the net are those of 06a_tables: nine columns of numbers, 60 steps of gradient descent, and 20 hidden
units with 100 steps of AdamW; `TabularNet` gets codes and numbers from `TablePrep`. A fifth is held back, as fastai's
RandomSplitter(0.2, seed) does: with seed 42, to which the published figures belong (linear 0.7865, net 0.8258), then with seeds 0 to 19.
The forest has 100 trees, at least 5 rows in a leaf, and holds back a quarter (published: an error of 0.1883). On seed 42 each net is
trained from ten starts. A lead inside its spread is no lead, and is called so. The results go to results/titanic.json, unless
--no-write says no. OMP_NUM_THREADS=1 before the command: the batches are small.
"""
import statistics
import time

import numpy as np
from common import heading, keep, options, verdict


def numbers(people, age):
    "Nine columns, as in the lesson"
    columns = [people.Sex == 'male', people.Pclass == 1, people.Pclass == 2, people.Embarked == 'C', people.Embarked == 'Q',
               people.Age.fillna(age), people.SibSp, people.Parch, np.log1p(people.Fare)]
    return np.array(columns, dtype=float).T


def arrays(people, learn, judge):
    "Scaled numbers and answers as tensors, by what the rows to learn from say"
    import torch
    x, y = numbers(people, people.Age.iloc[learn].median()), torch.tensor(people.Survived.to_numpy(dtype=float))
    x = torch.tensor((x - x[learn].mean(0))/x[learn].std(0, ddof=1))
    return x[learn], y[learn], x[judge], y[judge]


def right(scores, y): return float(((scores > 0) == (y == 1)).double().mean())


def linear(x, y, xv, yv, steps=60):
    "Gradient descent, all rows in each step, rate 1"
    import torch
    w, b = torch.zeros(x.shape[1]).double(), 0.
    for _ in range(steps):
        miss = torch.sigmoid(x @ w + b) - y
        w, b = w - x.T @ miss/len(y), b - miss.mean()
    return right(xv @ w + b, yv)


def net(x, y, xv, yv, seed):
    "20 hidden units through `Learner`"
    from torch import nn
    from torch.nn import functional as F

    from topdown.core import set_seed
    from topdown.learner import AdamW, DataLoader, Learner, TensorDataset
    set_seed(seed)
    model = nn.Sequential(nn.Linear(x.shape[1], 20), nn.ReLU(), nn.Linear(20, 1), nn.Flatten(0))
    dls = DataLoader(TensorDataset(x.float(), y.float()), bs=len(y)), None
    learn = Learner(model, dls, F.binary_cross_entropy_with_logits, AdamW, lr=0.03, device='cpu', progress=False)
    learn.fit(100)
    return right(learn.predict(xv.float()), yv)


def tabular(people, learn, judge, seed):
    "`TablePrep` and `TabularNet`"
    from torch.nn import functional as F

    from topdown.learner import AdamW, Learner
    from topdown.tabular import TablePrep, TabularNet, tabular_dls
    people = people.assign(LogFare=np.log1p(people.Fare))
    prep = TablePrep('Survived', cats=['Sex', 'Pclass', 'Embarked'], conts=['Age', 'SibSp', 'Parch', 'LogFare']).fit(people.iloc[learn])
    ready, held = (prep.transform(people.iloc[rows]) for rows in (learn, judge))
    model = TabularNet(prep.cat_sizes, ready.conts.shape[1], out=2, hidden=(20,), seed=seed)
    trained = Learner(model, tabular_dls(ready, held, seed=seed), F.cross_entropy, AdamW, device='cpu', progress=False)
    trained.fit_one_cycle(10, 0.01)
    dl = trained.dls[1]
    predicted = trained.predict(*dl.ds.tensors[:2]).argmax(1)
    return float((predicted == dl.ds.tensors[2]).double().mean())


def women(people, judge): return float(((people.Sex == 'female') == (people.Survived == 1)).iloc[judge].mean())


def on(people, seed):
    "Accuracy of every model on one split, and seconds"
    from topdown.core import split
    learn, judge = split(people, 0.2, seed)
    parts, found, taken = arrays(people, learn, judge), {'women survive': women(people, judge)}, {}
    for name, run in {'linear': lambda: linear(*parts), 'net': lambda: net(*parts, seed), 'TabularNet': lambda: tabular(people, learn, judge, seed)}.items():
        start = time.perf_counter()
        found[name] = run()
        taken[name] = time.perf_counter() - start
    return found, taken


def forest(people, seed):
    "Error of our forest and of scikit-learn's with a quarter held back"
    from sklearn.ensemble import RandomForestClassifier

    from topdown.core import split
    from topdown.trees import RandomForest
    learn, judge = split(people, 0.25, seed)
    x, y = numbers(people, people.Age.iloc[learn].median()), people.Survived.to_numpy()
    ours = RandomForest('classify', n=100, min_leaf=5, seed=seed).fit(x[learn], y[learn])
    theirs = RandomForestClassifier(100, min_samples_leaf=5, random_state=seed, n_jobs=1).fit(x[learn], y[learn])
    return {name: float((m.predict(x[judge]) != y[judge]).mean()) for name, m in (('forest', ours), ("scikit-learn's", theirs))}


def compared(a, b, what):
    "One sentence about a lead on the same splits"
    lead = np.array(a) - np.array(b)
    wins, ties = int((lead > 0).sum()), int((lead == 0).sum())
    inside = abs(lead.mean()) <= lead.std(ddof=1)
    print(f'  {what}: {lead.mean():+.4f} on average, spread {lead.std(ddof=1):.4f}, ahead in {wins} of {len(lead)} (ties {ties}): '
          + ('inside the spread, no difference claimed' if inside else 'more than the spread'))


def summary(runs):
    "Mean, spread and range of each model's accuracies"
    for name in runs[0]:
        values = [r[name] for r in runs]
        print(f'  {name:<15} mean {statistics.mean(values):.4f}, spread {statistics.stdev(values) if len(values) > 1 else 0:.4f}, '
              f'{min(values):.4f} to {max(values):.4f}')


def nets(args, people, track):
    "Linear model and nets"
    from topdown.core import split
    published, _ = on(people, 42)
    print('seed 42:', ', '.join(f'{name} {value:.4f}' for name, value in published.items()))
    learn, judge = split(people, 0.2, 42)
    parts = arrays(people, learn, judge)
    starts = {'net': [net(*parts, seed) for seed in range(10)], 'TabularNet': [tabular(people, learn, judge, seed) for seed in range(10)]}
    for name, values in starts.items(): print(f'  {name} from ten starts: median {statistics.median(values):.4f}, {min(values):.4f} to {max(values):.4f}')
    runs, seconds = [], []
    for seed in range(args.runs):
        found, taken = on(people, seed)
        runs.append(found); seconds.append(taken)
    print(f'{args.runs} splits, seeds 0 to {args.runs - 1}:')
    summary(runs)
    for name in seconds[0]: print(f'  {name}: median {statistics.median(s[name] for s in seconds):.2f} s')
    if args.runs > 1:
        for a, b in (('linear', 'women survive'), ('net', 'linear'), ('TabularNet', 'net')): compared([r[a] for r in runs], [r[b] for r in runs], f'{a} − {b}')
    verdict('06a', 'titanic_linear', track, published['linear'])
    verdict('06a', 'titanic_net', track, statistics.median(starts['net']))
    return {'seed 42': published, 'ten starts': starts, 'splits': runs}


def forests(args, people, track):
    "The forest"
    published = forest(people, 42)
    runs = [forest(people, seed) for seed in range(args.runs)]
    print('error with a quarter held back, seed 42:', ', '.join(f'{name} {value:.4f}' for name, value in published.items()))
    print(f'{args.runs} splits:')
    summary(runs)
    if args.runs > 1: compared([r['forest'] for r in runs], [r["scikit-learn's"] for r in runs], "error of ours − scikit-learn's")
    verdict('06b', 'titanic_forest_error', track, published['forest'])
    verdict('06b', 'titanic_forest_error_of_splits', track, statistics.mean(r['forest'] for r in runs))
    return {'seed 42': published, 'splits': runs}


def main():
    args = options(__doc__.splitlines()[0], 20, parts=['nets', 'forest'])
    import torch

    from topdown.data import get
    from topdown.tabular import read_table
    torch.set_num_threads(1)
    heading('Who survived the Titanic?', 'topdown-course', 'torch', 'scikit-learn')
    data = get('titanic')
    people = read_table(data.path/'train.csv')
    keep('titanic', {part: {'nets': nets, 'forest': forests}[part](args, people, data.track) for part in args.only}, args)


if __name__ == '__main__': main()
