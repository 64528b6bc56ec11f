"""Byte-pair encoding and word vectors: the same ids and joins as `tokenizers`, everything comes back, bad input, planted meanings"""
import json
import random

import pytest
import torch
from torch.nn import functional as F

from topdown.settings import CourseError
from topdown.text import BPE, SkipGram, WordVectors, _neighbours, _numbered, _PIECES, _thinned, _vocabulary, nearest_words, word_vectors

pytestmark = pytest.mark.usefixtures('one_thread')

ODD = ['', ' ', '\0', 'a\0b', '  two  blanks ', '\t\n\r\n\x0b\x0c', '\x1c\x1d\x1e\x1f\x85',
       "don't, it's 10/10!!", 'déjà vu, naïve, Zoë', 'e\u0301 combining',
       'مرحبا بالعالم', 'שלום', '这部电影很棒', '映画は素晴らしかった。', 'फ़िल्म अद्भुत थी', '🙂👍🏽👨‍👩‍👧', '\u200f\u202eright to left', '\ufeffmark', '\uffff\U0010ffff',
       'ａｂｃ ½ ² Ⅷ', '_under_score_', 'x'*99, '1'*99, '!'*99, ' '*99, '好'*99, 'a1b2', ' 1 a ! ', '\u3000wide\u2028line\xa0fixed']
ENGLISH = ['the plot of the film is the plot of the book', 'She said: "the 3 films, the 30 films and the 300 films!"',
           'stay stayed staying play played playing'] * 3


def texts(n, seed, letters=None):
    "Random texts: a few letters, or anything that Unicode has"
    rng = random.Random(seed)
    def sign():
        if letters: return rng.choice(letters)
        kind = rng.random()
        low, high = (0, 0x80) if kind < 0.5 else (0x80, 0x800) if kind < 0.7 else (0x800, 0xd800) if kind < 0.85 else (0xe000, 0x110000)
        return chr(rng.randrange(low, high))
    return [''.join(sign() for _ in range(rng.randrange(60))) for _ in range(n)]


# --- pieces and bytes


@pytest.mark.parametrize('text', [*ODD, *texts(50, 1)])
def test_pieces_are_the_text(text):
    pieces = _PIECES.findall(text)
    assert ''.join(pieces) == text and all(1 <= len(p) <= 25 for p in pieces)


def test_every_text_comes_back_and_is_cut_as_tokenizers_does():
    bpe = BPE.train(ENGLISH + ODD + texts(100, 2), 500)
    fast = bpe.as_tokenizer()
    for text in ODD + ENGLISH + texts(1500, 3) + texts(300, 4, 'ab ') + texts(300, 5, 'the plofim1 !'):
        ids = bpe.encode(text)
        assert bpe.decode(ids) == text
        assert fast.encode(text).ids == ids, repr(text)
        assert fast.decode(ids) == text


def naive(bpe, piece):
    "All joins one after the other, each wherever it fits: only for merges that were learned"
    tokens = [bytes([b]) for b in piece.encode()]
    for a, b in bpe.merges:
        out = []
        for t in tokens:
            if out and (out[-1], t) == (bpe.tokens[a], bpe.tokens[b]) and len(out[-1]) == len(bpe.tokens[a]): out[-1] += t
            else: out.append(t)
        tokens = out
    return tokens


def test_like_all_joins_in_their_order():
    bpe = BPE.train(ENGLISH, 330)
    for word in ('played', 'restaying', 'the', 'films', 'booklet'):
        assert [bpe.tokens[i] for i in bpe.encode(word)] == naive(bpe, word)


@pytest.mark.parametrize('seed', range(20))
def test_any_merges_like_tokenizers(seed):
    "Also merges that nobody would learn: the same bytes joined in several ways, in any order"
    rng, pairs = random.Random(seed), []
    bpe = BPE([])
    letters = bpe.encode('abc')
    for _ in range(40):
        pair = (rng.choice(letters + list(range(256, len(bpe.tokens)))), rng.choice(letters + list(range(256, len(bpe.tokens)))))
        if pair in bpe._rank or len(bpe.tokens[pair[0]]) > 6: continue
        bpe._add(pair); pairs.append(pair)
    bpe = BPE(pairs)
    fast = bpe.as_tokenizer()
    for text in texts(200, seed, 'abc'): assert bpe.encode(text) == fast.encode(text).ids


# --- learning


@pytest.mark.parametrize('corpus, size', [(ENGLISH, 300), (ENGLISH, 2000), (ODD, 400), (texts(300, 6, 'ab'), 300), (texts(300, 7, 'aaab '), 320),
                                          (texts(200, 8), 400), (texts(400, 9, 'abcdefgh .1'), 600)])
def test_learns_what_tokenizers_learns(corpus, size):
    from tokenizers import pre_tokenizers, trainers
    bpe = BPE.train(corpus, size)
    fast = BPE([]).as_tokenizer()
    fast.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, min_frequency=2, show_progress=False,
                                                         initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    theirs, ours = (json.loads(t.to_str())['model'] for t in (fast, bpe.as_tokenizer()))
    assert ours['merges'] == theirs['merges'] and ours['vocab'] == theirs['vocab']


def test_by_hand():
    bpe = BPE.train(['aaabdaaabac'], 259)                                      # a well-known example: aa, then ab, then aaab
    assert bpe.tokens[256] == b'aa' and b'aaab' in bpe.tokens[257:]
    assert bpe.decode(bpe.encode('aaabdaaabac')) == 'aaabdaaabac'


def test_nothing_to_learn():
    assert len(BPE.train([], 300)) == len(BPE.train(['', 'abc'], 300)) == 256
    assert len(BPE.train(['abab abab'], 256)) == 256


def test_order_of_texts_does_not_matter():
    assert BPE.train(ENGLISH, 320).merges == BPE.train(ENGLISH[::-1], 320).merges


@pytest.mark.parametrize('args, message', [
    (('one text', 300), 'put it in brackets'), ((['a', None], 300), 'text 1 is no text but NoneType'),
    ((['a', b'b'], 300), 'text 1 is no text but bytes'), ((['a'], 255), 'size 255 is too small'),
    ((['a'], 257, ['<a>', '<b>']), 'alone are 258'), ((['a'], 300, ['<a>', '<a>']), 'different names'), ((['a'], 300, [1]), 'different names'), ((['a'], 300, 'ab'), 'different names'),
    ((['ab\ud800'], 300), 'character 2 of'),
])
def test_bad_training(args, message):
    with pytest.raises(CourseError, match=message): BPE.train(*args)


# --- special tokens, ids, files


def test_special_tokens_never_come_from_a_text():
    bpe = BPE.train(ENGLISH, 300, ['<end>', 'the'])
    assert len(bpe) == 300 and list(bpe.special.values()) == [298, 299]
    assert not set(bpe.encode('<end> the <end>')) & {298, 299}
    assert bpe.decode([*bpe.encode('so '), 298]) == bpe.decode(torch.tensor([*bpe.encode('so '), 298])) == 'so <end>'


@pytest.mark.parametrize('ids, message', [([-1], '-1 is no id'), ([0, 300], '300 is no id'), ([10**9], 'is no id')])
def test_bad_ids(ids, message):
    with pytest.raises(CourseError, match=message): BPE.train(ENGLISH, 300).decode(ids)


@pytest.mark.parametrize('text', [None, 7, b'bytes', ['a'], float('nan')])
def test_encode_takes_texts_only(text):
    with pytest.raises(CourseError, match='encode takes a text'): BPE([]).encode(text)


def test_half_a_character():
    bpe = BPE([])
    assert bpe.decode(bpe.encode('🙂')[:3]) == '�'
    with pytest.raises(CourseError, match='half of one'): bpe.encode('x\udfff')


def test_saved_and_loaded(tmp_path):
    bpe = BPE.train(ENGLISH + ODD, 400, ['<pad>', 'ende ⏹'])
    again = BPE.load(bpe.save(tmp_path/'ü.json'))
    assert again.merges == bpe.merges and again.tokens == bpe.tokens and again.special == bpe.special
    assert all(again.encode(t) == bpe.encode(t) for t in ODD)


def test_damaged_files(tmp_path):
    "Whatever happens to a byte of the file: the same again, another tokenizer that works, or an error of ours"
    file, rng = BPE.train(ENGLISH, 300, ['<pad>']).save(tmp_path/'b.json'), random.Random(1)
    whole = file.read_bytes()
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)): data[rng.randrange(len(data))] = rng.choice(b'0123456789 "[]{},:-ax\xff\0')
        file.write_bytes(data[:rng.randrange(len(data))] if rng.random() < 0.3 else data)
        try: bpe = BPE.load(file)
        except CourseError: continue
        assert bpe.decode(bpe.encode('the plot')) == 'the plot'
    for bad in ({}, {'merges': 7, 'special': []}, {'merges': ['1']}, {'merges': ['1 2', '1 2'], 'special': []},
                {'merges': [[1, 2]], 'special': []}, [], 3):
        file.write_text(json.dumps({'format': 'topdown.bpe 1'} | bad if isinstance(bad, dict) else bad))
        with pytest.raises(CourseError): BPE.load(file)
    with pytest.raises(CourseError, match='no file'): BPE.load(tmp_path/'none.json')


@pytest.mark.parametrize('text', ['a'*300_000, '好'*100_000, ' '*300_000, '🙂'*75_000, 'ab'*150_000])
def test_texts_without_blanks_take_no_time(text):
    "300,000 characters or bytes in one word: quadratic time would need hours"
    import time
    bpe, start = BPE.train(['aaaa bbbb abab 好好好 🙂🙂'], 270), time.perf_counter()
    assert bpe.decode(bpe.encode(text)) == text
    assert time.perf_counter() - start < 20


# --- word vectors


def test_neighbours_of_a_window_of_one():
    words, counts = _vocabulary(['a b c', 'b d'], 1)
    ids = _numbered(['a b c', 'b d', 'x', ''], words)
    assert words[0] == 'b' and counts.tolist() == [2, 1, 1, 1] and (ids < 0).sum() == 4
    pairs = {(words[i], words[j]) for i, j in _neighbours(ids, 1, torch.Generator()).tolist()}
    assert pairs == {('a', 'b'), ('b', 'a'), ('b', 'c'), ('c', 'b'), ('b', 'd'), ('d', 'b')}


def test_neighbours_stay_in_their_text_and_window():
    words = [first + second for first in 'abcdefghijklmnopqrst' for second in 'vwxyz']               # twenty texts of five words
    ids = _numbered([' '.join(words[k:k + 5]) for k in range(0, 100, 5)], words)
    pairs = _neighbours(ids, 3, torch.Generator().manual_seed(1))
    at = {i: k for k, i in enumerate(ids.tolist())}
    for a, b in pairs.tolist(): assert words[a][0] == words[b][0] and 1 <= abs(at[a] - at[b]) <= 3
    assert sorted(map(tuple, pairs.tolist())) == sorted((b, a) for a, b in pairs.tolist())          # both directions
    assert 20*2*4 < len(pairs) < 20*2*(4 + 3 + 2)


def test_near_words_are_kept_more_often():
    n = 20_000
    ids = torch.arange(n)
    far = (lambda p: (p[:, 0] - p[:, 1]).abs())(_neighbours(ids, 4, torch.Generator().manual_seed(0)))
    for d, share in ((1, 1), (2, 0.75), (3, 0.5), (4, 0.25)): assert abs((far == d).sum().item()/(2*n) - share) < 0.02


def test_frequent_words_are_thinned():
    ids, counts = torch.cat([torch.zeros(40_000), torch.ones(100), -torch.ones(5)]).long(), torch.tensor([40_000., 100.])
    kept = _thinned(ids, counts, 100, torch.Generator().manual_seed(0))
    assert abs((kept == 0).sum().item() - 2000) < 200 and (kept == 1).sum() == 100 and (kept < 0).sum() == 5


def test_scores_are_dot_products():
    torch.manual_seed(0)
    model = SkipGram(torch.tensor([5., 3., 2.]).double(), 4, others=2)
    torch.nn.init.normal_(model.near.weight)
    a, b = torch.tensor([0, 1, 2, 2]), torch.tensor([1, 1, 0, 2])
    scores = model(a, b)
    assert scores.shape == (4, 3)
    assert torch.allclose(scores[:, 0], (model.word.weight[a]*model.near.weight[b]).sum(1), atol=1e-6)
    table = model.word.weight @ model.near.weight.T
    assert all((table[i] - s).abs().min() < 1e-6 for i, row in zip(a, scores) for s in row)


def test_drawn_by_frequency():
    model = SkipGram(torch.tensor([10_000., 100., 1.]).double(), 2)
    share = torch.bincount(model.tickets).double()/len(model.tickets)
    want = torch.tensor([10_000., 100., 1.]).double()**0.75
    assert torch.allclose(share, want/want.sum(), atol=1e-4)


def planted(n, seed):
    "Animals eat food, people read books: words of a kind can stand for each other"
    rng = random.Random(seed)
    kinds = [(['cat', 'dog', 'cow'], ['eats', 'likes'], ['grass', 'fish', 'bread']),
             (['man', 'woman', 'child'], ['reads', 'writes'], ['books', 'letters', 'poems'])]
    return [' '.join(['the', rng.choice(k[0]), rng.choice(k[1]), 'the', rng.choice(k[2])]) for k in (rng.choice(kinds) for _ in range(n))]


def test_planted_meanings_are_found():
    v = word_vectors(planted(800, 1), planted(100, 2), width=16, epochs=4, lr=0.02)
    assert v.rows.shape == (17, 16) and torch.allclose(v.rows.norm(dim=1), torch.ones(17), atol=1e-5) and v.right > 0.3
    assert v.words[0] == 'the'
    for kind in ('cat dog cow grass fish bread eats likes', 'man woman child books letters poems reads writes'):
        for word in kind.split(): assert nearest_words(v, word, 1).index[0] in kind.split()
    same = word_vectors(planted(800, 1), planted(100, 2), width=16, epochs=4, lr=0.02)
    assert torch.equal(v.rows, same.rows) and v.right == same.right
    assert not torch.equal(v.rows, word_vectors(planted(800, 1), planted(100, 2), width=16, epochs=1, seed=1).rows)


def test_nearest_words():
    v = WordVectors(['a', 'b', 'c'], F.normalize(torch.tensor([[1., 0], [1, 1], [-1, 0]])))
    near = nearest_words(v, 'a')
    assert near.index.tolist() == ['b', 'c'] and abs(near['b'] - 0.5**0.5) < 1e-6 and abs(near['c'] + 1) < 1e-6
    assert nearest_words(v, 'c', 1).index.tolist() == ['b']
    with pytest.raises(CourseError, match=r"'A' is not among the 3 words"): nearest_words(v, 'A')


@pytest.mark.parametrize('args, message', [(([], ['a']), '0 words occur 10 times'), ((['a b']*9, ['a b']), '0 words occur 10 times'),
                                           ((['a']*20 + ['b']*20, ['a b']), 'no two known words'), ((['a b']*20, ['zebra']), 'no two known words')])
def test_too_few_texts(args, message):
    with pytest.raises(CourseError, match=message): word_vectors(*args)
