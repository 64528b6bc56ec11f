"""Language models: human numbers beside fast.ai's book, the play beside nanoGPT's figures, what a language model's reading is worth for reviews"""
import math
import statistics
import time

import pandas as pd
import torch
from common import heading, keep, options, spread, verdict
from torch import nn
from torch.nn import functional as F

from topdown.core import set_seed
from topdown.data import get
from topdown.language import Bigrams, LanguageModel, LMClassifier, Vocab, bits_per_char, layer_rates, lm_batches, lm_loss, stack_texts
from topdown.learner import AdamW, DataLoader, Learner, TensorDataset, accuracy
from topdown.settings import track

SEEDS = 42, 43, 44, 45, 46


def trained(model, batches, epochs, rate, opt=AdamW, loss=lm_loss, metrics=(accuracy,)):
    start = time.perf_counter()
    learn = Learner(model, batches, loss, opt, metrics=list(metrics), device='cpu', progress=False)
    learn.fit_one_cycle(epochs, rate)
    return learn.history[-1] | {'seconds': time.perf_counter() - start}


def numbers(runs):
    "Next-word accuracy on the last fifth of the numbers; rows of 16, 64 of them, as in the book"
    folder, found = get('human_numbers').path, {}
    text = ' . '.join(line.strip() for part in ('train', 'valid') for line in (folder/f'{part}.txt').read_text().splitlines())
    vocab = Vocab.of(text, 'words')
    ids = vocab.encode(text)
    batches = [lm_batches(part, 64, 16) for part in ids.tensor_split([int(0.8*len(ids))])]
    settings = {'RNN, 1 layer of 64, 15 epochs (book: 0.64)': (dict(cell=nn.RNN, hidden=64), 15, 3e-3),
                'LSTM, 2 layers of 64, 15 epochs (book: 0.76)': (dict(hidden=64, layers=2), 15, 1e-2),
                'RNN, 1 layer of 128, 8 epochs (the lesson)': (dict(cell=nn.RNN), 8, 1e-2), 'LSTM, 1 layer of 128, 8 epochs (the lesson)': ({}, 8, 1e-2)}
    for name, (kw, epochs, rate) in settings.items():
        rows = []
        for seed in SEEDS[:runs]:
            set_seed(seed)
            rows.append(trained(LanguageModel(len(vocab), width=64, **kw), batches, epochs, rate))
        found[name] = [round(r['accuracy'], 4) for r in rows]
        print(f'{name:<50} accuracy {spread(found[name], 3)}, {spread([r["seconds"] for r in rows], 1)} s', flush=True)
    verdict('07b', 'numbers_accuracy', track(), statistics.median(found[name]))
    return {'numbers': found}


def play(runs):
    "Bits a character on the last tenth, with the lesson's settings"
    dataset = get('tinyshakespeare')
    text = (dataset.path/'input.txt').read_text(encoding='utf-8')
    vocab = Vocab.of(text)
    seen, unseen = vocab.encode(text).tensor_split([len(text)*9//10])
    found = {'bigrams': [bits_per_char(Bigrams(seen, len(vocab), 0.1), unseen)], 'LSTM': [], 'LSTM, memory emptied every 64 characters': []}
    for seed in SEEDS[:runs]:
        set_seed(seed)
        model = LanguageModel(len(vocab), width=64, hidden=192)
        seconds = trained(model, (lm_batches(seen, 16), None), 2, 1e-2)['seconds']
        found['LSTM'].append(bits_per_char(model, unseen))
        model.carry = False
        found['LSTM, memory emptied every 64 characters'].append(bits_per_char(model, unseen))
        print(f'seed {seed}: {found["LSTM"][-1]:.3f} bits ({found["LSTM"][-1]*math.log(2):.3f} nats), {seconds:.0f} s', flush=True)
    for name, bits in found.items(): print(f'{name:<50} bits {spread(bits, 3)}')
    print('published, on another tenth: nanoGPT 6 layers on a GPU 2.12, 4 layers on a laptop 2.71')
    verdict('07b', 'play_bits', dataset.track, statistics.median(found['LSTM']))
    return {'play': {k: [round(b, 4) for b in v] for k, v in found.items()}}


def reading(runs):
    "What reading all reviews is worth for judging them, by the number of labels"
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    reviews, found = pd.read_csv(get('imdb').path/'texts.csv.gz'), {}
    reviews['text'] = reviews['text'].str.replace('<br />', ' ')
    told, asked = reviews[~reviews['is_valid']], reviews[reviews['is_valid']]
    vocab = Vocab.of(' '.join(told['text']), 'words', size=2500)
    told_ids, asked_ids = ([vocab.encode(t)[-80:] for t in part['text']] for part in (told, asked))
    marks = [torch.tensor((part['label'] == 'positive').to_numpy()).long() for part in (told, asked)]
    judged_by = DataLoader(TensorDataset(*stack_texts(asked_ids), marks[1]), bs=200)
    set_seed(42)
    reader = LanguageModel(len(vocab), width=64, hidden=128)
    trained(reader, [lm_batches(torch.cat(ids), 32, 32) for ids in (told_ids, asked_ids)], 6 if len(told) < 2000 else 3, 1e-2)
    for n in (100, 300, 1000):
        rows = {name: [] for name in ('TF-IDF', 'head alone, fresh net', 'head alone', 'gradual', 'from nothing')}
        for seed in SEEDS[:runs]:
            few = torch.randperm(len(told), generator=torch.Generator().manual_seed(seed))[:n].tolist()
            data = TensorDataset(*stack_texts([told_ids[i] for i in few]), marks[0][few])
            def stage(model, layers, epochs, factor):
                model.unfreeze(layers)
                batches = DataLoader(data, bs=16, shuffle=True, drop_last=True, seed=seed), judged_by
                return trained(model, batches, epochs, 1e-2, layer_rates(model, factor), F.cross_entropy)['accuracy']
            tfidf = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=500))
            tfidf.fit([vocab.decode(told_ids[i]) for i in few], marks[0][few].numpy())
            rows['TF-IDF'].append(tfidf.score([vocab.decode(ids) for ids in asked_ids], marks[1].numpy()))
            set_seed(seed)
            fresh, judge = LanguageModel(len(vocab), width=64, hidden=128), LMClassifier(reader)
            rows['head alone, fresh net'].append(stage(LMClassifier(fresh), 1, 8, 1.5))
            rows['head alone'].append(stage(judge, 1, 8, 1.5))
            rows['gradual'].append([stage(judge, k, 8, 1.5) for k in (2, 3)][-1])
            rows['from nothing'].append(stage(LMClassifier(fresh), 3, 24, 1.))
        found[n] = {k: [round(a, 4) for a in v] for k, v in rows.items()}
        for name, accuracies in rows.items(): print(f'{n:>5} labels, {name:<24} accuracy {spread(accuracies, 3)}', flush=True)
    return {'reading': found}


def speed(runs):
    "Our LSTM's loop beside PyTorch's compiled one, forward and backward"
    from topdown.language import LSTM
    found = {}
    for name, layer in (('ours', LSTM(64, 192)), ('PyTorch', nn.LSTM(64, 192, batch_first=True))):
        x, times = torch.randn(16, 64, 64), []
        for _ in range(runs + 2):
            start = time.perf_counter()
            layer(x)[0].sum().backward()
            times.append(time.perf_counter() - start)
        found[name] = [round(1000*t, 1) for t in times[2:]]
        print(f'{name}: {spread(found[name], 1)} ms for 16 rows of 64 characters')
    return {'speed': found}


if __name__ == '__main__':
    parts = {'numbers': numbers, 'play': play, 'reading': reading, 'speed': speed}
    args = options(__doc__, 3, parts=list(parts))
    heading('Language models', 'topdown-course', 'torch', 'scikit-learn')
    torch.set_num_threads(1)
    for name in args.only: keep('language', parts[name](args.runs), args)
