"""Our byte-pair encoding beside the library `tokenizers`, with the same joins on the same text: encoding 1 MB, and learning

python benchmarks/bpe.py [--runs 5] [--data FOLDER]

The text is the reviews of the set imdb, a million bytes (repeated if there are fewer). Both must give the same ids; ours forgets the
pieces that it remembers before each run. `tokenizers` runs three times: with our rule for pieces, which it reads as a regular expression, on
one text and on a list of texts, where it need not note offsets; and with its own rule in Rust (that of GPT-2). Ours is compared with the
fastest of the three. Learning: both learn from the same reviews, and must find the same joins. One thread each: OMP_NUM_THREADS=1.
"""
import os
import statistics
import time

from common import heading, options, spread, verdict

SIZES = (1024, 4096)


def seconds(work):
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def encoding(bpe, texts, runs):
    "Seconds of ours and of three ways with `tokenizers`; the sides take turns"
    from tokenizers.pre_tokenizers import ByteLevel
    same, own, whole = bpe.as_tokenizer(), bpe.as_tokenizer(), ''.join(texts)
    own.pre_tokenizer = ByteLevel(add_prefix_space=False)
    sides = {'ours': lambda: bpe.encode(whole), 'tokenizers, one text': lambda: same.encode(whole).ids,
             'tokenizers, a list of texts': lambda: [e.ids for e in same.encode_batch_fast(texts)],
             'tokenizers, one text, its own pieces': lambda: own.encode(whole).ids}
    times, found = {name: [] for name in sides}, {}
    for _ in range(runs):
        bpe._ids_of.cache_clear()
        for name, work in sides.items():
            t, found[name] = seconds(work)
            times[name].append(t)
        if found['ours'] != found['tokenizers, one text'] or [bpe.encode(t) for t in texts] != found['tokenizers, a list of texts']:
            raise SystemExit('the ids differ')
    return times


def learning(texts, size):
    "Seconds to learn, ours and theirs"
    from tokenizers import pre_tokenizers, trainers
    from topdown.text import BPE
    ours, bpe = seconds(lambda: BPE.train(texts, size))
    fast = BPE([]).as_tokenizer()
    teacher = trainers.BpeTrainer(vocab_size=size, min_frequency=2, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    theirs, _ = seconds(lambda: fast.train_from_iterator(texts, teacher))
    if fast.get_vocab() != bpe.as_tokenizer().get_vocab(): raise SystemExit('the tokens differ')
    return bpe, ours, theirs


def main():
    os.environ['TOKENIZERS_PARALLELISM'] = 'false'
    args = options(__doc__.splitlines()[0], 5)
    from topdown.data import get
    from topdown.text import read_texts
    heading('Byte-pair encoding', 'topdown-course', 'tokenizers')
    data = get('imdb')
    reviews = read_texts(data.path/'texts.csv.gz')
    train, rest = (reviews.loc[reviews['is_valid'] == part, 'text'].tolist() for part in (False, True))
    texts, worst = [], 0
    while sum(len(t.encode()) for t in texts) < 1_000_000: texts += [t + '\n' for t in rest]
    while sum(len(t.encode()) for t in texts) > 1_000_000: texts.pop()
    for size in SIZES:
        bpe, ours, theirs = learning(train[:400], size)
        print(f'\n{size} tokens asked for, {len(bpe)} learned from 400 reviews: ours {ours:.2f} s, tokenizers {theirs:.2f} s, '
              f'ours / tokenizers {ours/theirs:.1f}')
        found = encoding(bpe, texts, args.runs)
        for name, t in found.items(): print(f'  encode 1 MB, {name:<37}{spread(t)} s')
        ratio = [mine/min(others) for mine, *others in zip(*found.values())]
        print(f'  ours / the fastest of the others {spread(ratio)}', flush=True)
        worst = max(worst, statistics.median(ratio))
    verdict('07a', 'bpe_encode_ratio', data.track, worst)


if __name__ == '__main__': main()
