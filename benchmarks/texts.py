"""Lesson 7's judges of texts on short sentences and long reviews, and its graders of pairs, each with several seeds

python benchmarks/texts.py [--runs 3] [--data FOLDER] [--only rt-polarity imdb sts-captions] [--cut 128] [--most N] [--no-write]

The methods and settings are those of 07a_texts; nothing is tuned to a set, but for C of TF-IDF. rt-polarity: four fifths to learn from, a
fifth to judge by, another split for each seed. imdb: its own two parts, which share no films; each seed learns from another nine tenths of
the first part, and a review is cut after --cut tokens for MiniLM (TF-IDF reads all of it). sts-captions: its own two parts; seeds change
the order and the dropout. What frozen layers make of a text is computed once for all seeds; its time is counted for each. `fine-tuned`
trains the upper two of MiniLM's six layers. Figures: share of right answers, and Pearson's correlation. --most N tries it on N rows of
each set. Results go to results/texts.json, unless --no-write says no. Threads: OMP_NUM_THREADS, 1 by default.
"""
import os
import statistics
import time
from types import SimpleNamespace

import numpy as np
from common import heading, keep, options, spread, verdict

os.environ.setdefault('OMP_NUM_THREADS', '1')
FILES = {'rt-polarity': 'rt-polarity.csv.gz', 'imdb': 'texts.csv.gz', 'sts-captions': 'sts.csv.gz'}
LEADS = {'rt-polarity': 'rt_lead', 'imdb': 'imdb_lead', 'sts-captions': 'sts_lead'}
SHORT = 64 # tokens that are kept of a sentence


def timed(f, *args):
    "What `f` answers, and how many seconds it took"
    start = time.perf_counter()
    return f(*args), time.perf_counter() - start


def read(name, most):
    "The set, or some of its rows"
    from topdown.data import get
    from topdown.text import read_texts
    texts = dict(text=['sentence1', 'sentence2'], label='score') if name == 'sts-captions' else {}
    df = read_texts(get(name).path/FILES[name], **texts)
    return df if most is None or most >= len(df) else df.sample(most, random_state=0).sort_index().reset_index(drop=True)


def rows(name, df, seed):
    "Positions to learn from and to judge by"
    from topdown.core import split
    if name == 'rt-polarity': return [np.asarray(r) for r in split(df, 0.2, seed)]
    ours = np.flatnonzero(~df['is_valid'])
    if name == 'imdb': ours = ours[np.asarray(split(ours, 0.1, seed)[0])]
    return ours, np.flatnonzero(df['is_valid'])


# Judges of one text

def prepared(name, cut, most):
    "The texts, what MiniLM makes of each, and what its frozen lower layers make of each"
    import torch

    from topdown.text import TextModel, embed, load_encoder
    df, encoder = read(name, most), load_encoder()
    classes = sorted(df['label'].unique())
    y = torch.tensor([classes.index(label) for label in df['label']])
    model = TextModel(encoder, classes, cut=cut)
    states, low = timed(model.states, df['text'].tolist(), y)
    embedded, all_layers = timed(lambda: embed(df['text'].tolist(), encoder, cut=cut).numpy())
    print(f'\n{name}: {len(df):,} texts of {df["text"].str.split().str.len().median():.0f} words (median), '
          f'{np.mean([len(p) for p in states.parts]):.0f} tokens kept on average', flush=True)
    return SimpleNamespace(name=name, df=df, encoder=encoder, classes=classes, cut=cut, y=y, states=states, low=low/len(df),
                           embedded=embedded, all_layers=all_layers/len(df))


def by_words(t, learn, judge, vectors, choices=(1,)):
    "Weigh words; which of the `choices` for C is best, a cross-validation among the texts to learn from decides"
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    x, text = vectors.fit_transform(t.df['text'].iloc[learn]), t.df['text'].iloc[judge]
    return GridSearchCV(LogisticRegression(max_iter=1000), {'C': choices}, cv=3).fit(x, t.y[learn].numpy()).predict(vectors.transform(text))


def by_embeddings(t, learn, judge):
    from sklearn.linear_model import LogisticRegression
    return LogisticRegression(C=10, max_iter=1000).fit(t.embedded[learn], t.y[learn].numpy()).predict(t.embedded[judge])


def trained(model, data, loss, seed, epochs, lr):
    "Train a half frozen model on the states of some texts"
    from topdown.core import set_seed
    from topdown.learner import AdamW, Learner
    from topdown.text import TextLoader
    set_seed(seed)
    Learner(model, (TextLoader(data, 32, True, seed), None), loss, AdamW, device='cpu', progress=False).fit_one_cycle(epochs, lr)
    return model.eval()


def by_fine_tuning(t, learn, judge, seed):
    import torch
    from torch.nn import functional as F

    from topdown.text import TextModel, TextStates
    def part(at): return TextStates([t.states.parts[i] for i in at], t.y[at])
    model = trained(TextModel(t.encoder, t.classes, cut=t.cut), part(learn), F.cross_entropy, seed, 2, 3e-4)
    data, out = part(judge), np.zeros(len(judge))
    for at in data.lengths.argsort().split(64):
        states, mask, _ = data[at]
        with torch.no_grad(): out[at] = model(states, mask).argmax(1)
    return out


def judges(t, seed):
    "Name → a function from rows to learn from and rows to judge by to answers, and what a text costs before that, in seconds"
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
    pairs = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    return {'always the same': (lambda learn, judge: np.full(len(judge), t.y[learn].mode().values), 0),
            'bag of words': (lambda *r: by_words(t, *r, CountVectorizer()), 0),
            'TF-IDF': (lambda *r: by_words(t, *r, TfidfVectorizer(), (1, 3, 10, 30)), 0),
            'TF-IDF, pairs': (lambda *r: by_words(t, *r, pairs, (1, 3, 10, 30)), 0),
            'frozen embeddings': (lambda *r: by_embeddings(t, *r), t.all_layers),
            'fine-tuned': (lambda *r: by_fine_tuning(t, *r, seed), t.low)}


def judged(name, runs, cut, most):
    "Share of right answers and seconds of each judge, a value for each seed"
    t, found = prepared(name, SHORT if name == 'rt-polarity' else cut, most), {}
    for seed in range(42, 42 + runs):
        learn, judge = rows(name, t.df, seed)
        for method, (f, before) in judges(t, seed).items():
            said, seconds = timed(f, learn, judge)
            kept = found.setdefault(method, {'right': [], 'seconds': []})
            kept['right'].append(float((said == t.y[judge].numpy()).mean()))
            kept['seconds'].append(seconds + before*len(learn))
        print(f'  seed {seed}: ' + ', '.join(f'{method} {v["right"][-1]:.4f}' for method, v in found.items()), flush=True)
    print(f'  {len(learn):,} to learn from, {len(judge):,} to judge by\n  {"":<20}{"right: median (least to most)":<32}seconds')
    for method, v in found.items(): print(f'  {method:<20}{spread(v["right"], 4):<32}{spread(v["seconds"], 1)}')
    return found


# Graders of pairs

def graded(name, runs, _, most):
    "Pearson's correlation and root mean squared error of each grader, a value for each seed"
    import torch
    from torch.nn import functional as F

    from topdown.text import PairModel, PairStates, TextStates, embed, load_encoder, pearson
    df, encoder = read(name, most), load_encoder()
    grades, found = torch.tensor(df['score'].to_numpy()).float(), {}
    (a, b), seconds = timed(lambda: [embed(df[c].tolist(), encoder) for c in ('sentence1', 'sentence2')])
    cosine = (a*b).sum(1)
    pairs, low = timed(PairModel(encoder).pairs, df['sentence1'].tolist(), df['sentence2'].tolist(), grades)
    def part(at): return PairStates(*(TextStates([s.parts[i] for i in at], grades[at]) for s in (pairs.first, pairs.second)))
    def score(method, said, judge, took):
        kept = found.setdefault(method, {'pearson': [], 'rmse': [], 'seconds': []})
        kept['pearson'].append(pearson(said, grades[judge]))
        kept['rmse'].append(float(((said - grades[judge])**2).mean()**0.5))
        kept['seconds'].append(took)
    for seed in range(42, 42 + runs):
        learn, judge = rows(name, df, seed)
        line = np.polyfit(cosine[learn], grades[learn], 1)
        score('frozen cosine', line[0]*cosine[judge] + line[1], judge, seconds*len(learn)/len(df))
        model, took = timed(trained, PairModel(encoder, *line), part(learn), F.mse_loss, seed, 3, 5e-5)
        score('fine-tuned', model.grade(part(judge)), judge, took + low*len(learn)/len(df))
    print(f'\n{name}: {len(learn):,} pairs to learn from, {len(judge):,} to judge by')
    print(f'  {"":<20}{"Pearson: median (least to most)":<34}{"RMSE, in grades":<26}seconds')
    for method, v in found.items(): print(f'  {method:<20}{spread(v["pearson"], 4):<34}{spread(v["rmse"], 3):<26}{spread(v["seconds"], 1)}')
    return found


def verdicts(found, track):
    "What the lesson must reach: the worst of one beside the best of the other"
    for name in found:
        kind, other = ('pearson', 'frozen cosine') if name == 'sts-captions' else ('right', 'TF-IDF, pairs')
        ours, theirs = found[name]['fine-tuned'][kind], found[name][other][kind]
        lead = min(ours) - max(theirs)
        print(f'\n{name}: the worst fine-tuned {min(ours):.4f}, the best {other} {max(theirs):.4f}: '
              f'{"outside" if lead > 0 else "not outside"} the spread of {len(ours)} seeds (medians differ by '
              f'{statistics.median(ours) - statistics.median(theirs):+.4f})')
        verdict('07a', LEADS[name], track, lead)


def main():
    def more(p):
        p.add_argument('--cut', type=int, default=128, help='tokens that are kept of a review, by default 128')
        p.add_argument('--most', type=int, help='only so many rows of each set, for a try')
    args = options(__doc__.splitlines()[0], 3, parts=list(FILES), more=more)
    import torch

    from topdown.settings import track
    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
    heading('Texts: counts, embeddings, fine-tuning', 'topdown-course', 'torch', 'transformers', 'tokenizers', 'scikit-learn')
    found = {name: (graded if name == 'sts-captions' else judged)(name, args.runs, args.cut, args.most) for name in args.only}
    verdicts(found, track())
    keep('texts', found, args)


if __name__ == '__main__': main()
