"""Vocabularies, batches, bigrams and recurrent nets against plain Python and PyTorch; writing, judging, and bad input"""
import math
import random
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from topdown.core import set_seed
from topdown.language import (LSTM, RNN, Bigrams, LanguageModel, LMClassifier, Vocab, bits_per_char, layer_rates, lm_batches, lm_loss, lstm_cell,
                              rnn_cell, sample_text, stack_texts)
from topdown.learner import AdamW, DataLoader, Learner, TensorDataset, accuracy
from topdown.settings import CourseError

pytestmark = pytest.mark.usefixtures('one_thread')

STRANGE = ['naïve café', 'שלום \u200fעולם', 'مرحبا', '日本語のテキスト', '👩‍🚀 flies 🎭', 'a\0b\x07c', 'tab\tand\r\nline', '\ufeffmark', ' ', '\n']


# --- vocabularies


@pytest.mark.parametrize('text', STRANGE)
def test_characters_come_back_as_they_were(text):
    v = Vocab.of(text)
    ids = v.encode(text)
    assert ids.dtype == torch.int64 and len(ids) == len(text) and v.decode(ids) == text and len(v) == len(set(text))
    assert v.decode(ids.tolist()) == text and v.pieces == sorted(set(text))


def test_words_are_small_and_marks_stand_alone():
    v = Vocab.of("It's the Film's end -- isn't it? 10/10!", 'words')
    assert v.decode(v.encode("IT'S THE FILM'S end")) == "it's the film's end"
    assert v.decode(v.encode('10/10!')) == '10 / 10 !'
    assert v.decode(v.encode('')) == '' and v.encode('   ').shape == (0,)


def test_the_most_frequent_words_stay_and_ties_go_by_the_alphabet():
    assert Vocab.of('b b a a c d', 'words', size=4).pieces == ['<unk>', 'a', 'b', 'c']
    v = Vocab.of('b b a a c d', 'words', size=3)
    assert v.encode('a d zebra b').tolist() == [1, 0, 0, 2] and v.decode([1, 0]) == 'a <unk>'
    assert Vocab.of('a b', 'words', size=100).pieces == ['<unk>', 'a', 'b']


@pytest.mark.parametrize('act, message', [
    (lambda: Vocab.of(''), 'the text is empty'), (lambda: Vocab.of('   ', 'words'), 'the text is empty'),
    (lambda: Vocab.of(b'bytes'), 'decode bytes first'), (lambda: Vocab.of(None), 'a text is a str'), (lambda: Vocab.of(['a']), 'found list'),
    (lambda: Vocab.of('a', 'letters'), 'kind of pieces'), (lambda: Vocab.of('a', 'words', size=1), 'at least 2 pieces'),
    (lambda: Vocab(['a', 'b', 'a']), '1 pieces stand twice'), (lambda: Vocab.of('abc').encode('ab\0'), r"'\\x00', number 3 of the characters"),
    (lambda: Vocab.of('abc').encode('c🎭'), "'🎭', number 2"), (lambda: Vocab.of('one two', 'words').encode('one zwei'), "'zwei', number 2 of the words"),
    (lambda: Vocab.of('ab').decode([0, 2]), '2 is no number of this vocabulary: it has 0 to 1'), (lambda: Vocab.of('ab').decode([-1]), '-1 is no number'),
])
def test_bad_vocabularies(act, message):
    with pytest.raises(CourseError, match=message): act()


# --- batches


@pytest.mark.parametrize('n, bs, seq', [(101, 4, 5), (100, 4, 5), (21, 4, 5), (22, 1, 1), (50, 7, 7), (1000, 3, 64)])
def test_batches_are_strips_read_in_order(n, bs, seq):
    ids = torch.randint(0, 9, (n,), generator=torch.Generator().manual_seed(n))
    xs, ys = zip(*lm_batches(ids, bs, seq))
    x, y, steps = torch.cat(xs, 1), torch.cat(ys, 1), (n - 1)//(bs*seq)
    assert len(xs) == steps and all(b.shape == (bs, seq) for b in xs + ys)
    for i in range(bs):
        start = i*steps*seq
        assert x[i].tolist() == ids[start:start + steps*seq].tolist() and y[i].tolist() == ids[start + 1:start + 1 + steps*seq].tolist()


def test_shuffled_rows_are_the_same_rows():
    ids = torch.arange(400)
    plain, mixed = (torch.cat([x for x, _ in lm_batches(ids, 4, 10, shuffle=s)]) for s in (False, True))
    assert plain.tolist() != mixed.tolist() and sorted(plain[:, 0].tolist()) == sorted(mixed[:, 0].tolist())


@pytest.mark.parametrize('n, bs, seq', [(0, 1, 1), (1, 1, 1), (20, 4, 5), (100, 0, 5), (100, 5, 0), (100, -1, 5)])
def test_too_short_a_text(n, bs, seq):
    with pytest.raises(CourseError, match='too few for batches'): lm_batches(torch.arange(n), bs, seq)


# --- counting, and bits


def test_bigrams_like_a_counter():
    rng = random.Random(1)
    ids = [rng.randrange(6) for _ in range(500)]
    b, pairs = Bigrams(torch.tensor(ids), 7, smooth=0.5), Counter(zip(ids, ids[1:]))
    assert {(i, j): n for i, row in enumerate(b.counts.tolist()) for j, n in enumerate(row) if n} == dict(pairs)
    assert torch.allclose(b.p.sum(1), torch.ones(7)) and torch.allclose(b.p[6], torch.full((7,), 1/7))
    row = sum(n for (i, _), n in pairs.items() if i == 2)
    assert b.p[2, 3].item() == pytest.approx((pairs[2, 3] + 0.5)/(row + 3.5))
    assert b(torch.tensor([[1, 2, 3]])).softmax(-1)[0, 1].tolist() == pytest.approx(b.p[2].tolist(), abs=1e-6)


def test_without_smoothing_one_unseen_pair_costs_everything():
    b = Bigrams(torch.tensor([0, 1, 0, 1, 0]), 2, smooth=0)
    assert bits_per_char(b, torch.tensor([0, 1, 0, 1, 0]), 1, 4) == 0
    assert math.isinf(bits_per_char(b, torch.tensor([0, 1, 1, 0, 1]), 1, 4))


def test_bits_are_what_the_learner_measures():
    ids, m = torch.randint(0, 11, (700,)), LanguageModel(11, 8, 12)
    learn = Learner(m, (lm_batches(ids, 4, 16), lm_batches(ids, 4, 16)), lm_loss, AdamW, device='cpu', progress=False)
    assert bits_per_char(m, ids, 4, 16) == pytest.approx(learn.validate()['valid_loss']/math.log(2), rel=1e-5)
    nn.init.zeros_(m.out.weight); nn.init.zeros_(m.out.bias)
    assert bits_per_char(m, ids, 4, 16) == pytest.approx(math.log2(11), rel=1e-5)


# --- recurrent layers against PyTorch's


def compare(ours, theirs, x, state):
    ours.load_state_dict(theirs.state_dict())
    results = []
    for layer in (ours, theirs):
        xs = x.clone().requires_grad_()
        given = None if state is None else state.clone().requires_grad_() if torch.is_tensor(state) else tuple(s.clone().requires_grad_() for s in state)
        out, after = layer(xs, given)
        ends = [after] if torch.is_tensor(after) else list(after)
        weights = torch.linspace(-1, 1, out.numel()).view(out.shape)
        ((out*weights).sum() + sum((e**2).sum() for e in ends)).backward()
        starts = [] if given is None else [given.grad] if torch.is_tensor(given) else [s.grad for s in given]
        results.append([out, *ends, xs.grad, *starts, *(p.grad for p in layer.parameters())])
    for a, b in zip(*results, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 1e-5*max(1, b.abs().max())


@pytest.mark.parametrize('kind', ['rnn', 'lstm'])
@pytest.mark.parametrize('rows, steps, n_in, n_out', [(1, 1, 1, 1), (3, 9, 5, 7), (16, 40, 32, 64), (2, 64, 8, 192)])
@pytest.mark.parametrize('with_state', [False, True])
def test_layers_equal_pytorch_forward_and_backward(kind, rows, steps, n_in, n_out, with_state):
    set_seed(rows*steps)
    ours, theirs = (RNN, nn.RNN) if kind == 'rnn' else (LSTM, nn.LSTM)
    h = torch.randn(1, rows, n_out)
    state = None if not with_state else h if kind == 'rnn' else (h, torch.randn(1, rows, n_out))
    compare(ours(n_in, n_out), theirs(n_in, n_out, batch_first=True), torch.randn(rows, steps, n_in), state)


def test_cells_equal_pytorch():
    set_seed(3)
    x, h, c = torch.randn(6, 5), torch.randn(6, 4), torch.randn(6, 4)
    for cell, ours, state in ((nn.RNNCell(5, 4), rnn_cell, (h,)), (nn.LSTMCell(5, 4), lstm_cell, (h, c))):
        theirs = cell(x, state[0] if len(state) == 1 else state)
        mine = ours(x, *state, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
        for a, b in zip([mine] if torch.is_tensor(mine) else mine, [theirs] if torch.is_tensor(theirs) else theirs):
            assert a.shape == b.shape and torch.allclose(a, b, atol=1e-6)


def test_large_inputs_stay_finite():
    out, (h, c) = LSTM(2, 3)(torch.full((1, 50, 2), 1e4))
    assert out.isfinite().all() and c.isfinite().all() and (out.abs() <= 1).all()


def test_weights_begin_as_pytorchs():
    set_seed(1)
    for name, p in LSTM(50, 64).named_parameters():
        assert p.abs().max() <= 1/8 and p.std().item() == pytest.approx(0.125/3**0.5, rel=0.1), name


# --- the model


def test_two_layers_equal_pytorchs_two():
    set_seed(2)
    m, whole = LanguageModel(9, 6, 6, layers=2), nn.LSTM(6, 6, num_layers=2, batch_first=True)
    for i, cell in enumerate(m.cells): cell.load_state_dict({f'{k[:-1]}0': v for k, v in whole.state_dict().items() if k.endswith(f'l{i}')})
    ids = torch.randint(0, 9, (3, 20))
    scores, state = m.run(ids)
    out, (h, c) = whole(m.embed(ids))
    assert torch.allclose(scores, m.out(out), atol=1e-6) and torch.allclose(torch.cat([s[0] for s in state]), h, atol=1e-6)


@pytest.mark.parametrize('cell', [RNN, LSTM, nn.RNN, nn.LSTM, nn.GRU])
def test_memory_is_carried_cut_and_emptied(cell):
    set_seed(4)
    m, ids = LanguageModel(9, 6, 5, layers=2, cell=cell), torch.randint(0, 9, (3, 24))
    whole = m.run(ids)[0]
    parts = [m(part) for part in ids.split(6, 1)]
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)
    tensors = [t for s in m.state for t in ([s] if torch.is_tensor(s) else s)]
    assert tensors and not any(t.requires_grad for t in tensors)                   # no history behind it
    m.train(); assert m.state is None
    m(ids); m.eval(); assert m.state is None
    m(ids); assert torch.allclose(m(ids[:2]), whole[:2], atol=1e-5)               # another number of rows: from nothing
    m.carry = False; m(ids); assert torch.allclose(m(ids), whole, atol=1e-6)


def test_training_lowers_the_loss_and_is_repeatable():
    text = 'to be or not to be that is the question '*60
    v = Vocab.of(text); ids = v.encode(text)
    def train():
        set_seed(5)
        learn = Learner(LanguageModel(len(v), 16, 32), (lm_batches(ids, 8, 20), lm_batches(ids, 8, 20)), lm_loss, AdamW, metrics=[accuracy],
                        device='cpu', progress=False)
        learn.fit(6, 0.02)
        return learn
    a, b = train(), train()
    assert a.losses == b.losses and a.history[-1]['valid_loss'] < 0.5*a.losses[0] and a.history[-1]['accuracy'] > 0.7
    assert sample_text(a.model, v, 'to be', 20, 0.) == sample_text(b.model, v, 'to be', 20, 0.)


# --- writing


def test_the_likeliest_way_is_that_of_the_whole_text():
    set_seed(6)
    v = Vocab.of('abcdef')
    m = LanguageModel(6, 8, 16).eval()
    nn.init.normal_(m.out.weight, std=3)
    ids = v.encode('fade').tolist()
    for _ in range(15): ids.append(m.run(torch.tensor([ids]))[0][0, -1].argmax().item())   # reads everything anew at each step
    assert sample_text(m, v, 'fade', 15, 0.) == v.decode(ids)


def test_draws_follow_the_chances_and_the_seed():
    v, b = Vocab.of('ab'), Bigrams(torch.tensor([0, 0, 0, 0, 1, 0]), 2, smooth=0)
    text = sample_text(b, v, 'a', 4000)
    after_a = [y for x, y in zip(text, text[1:]) if x == 'a']
    assert after_a.count('b')/len(after_a) == pytest.approx(0.25, abs=0.03) and 'bb' not in text
    assert sample_text(b, v, 'a', 50, seed=1) == sample_text(b, v, 'a', 50, seed=1) != sample_text(b, v, 'a', 50, seed=2)
    state = torch.random.get_rng_state(); sample_text(b, v, 'a', 5); assert torch.equal(state, torch.random.get_rng_state())
    assert sample_text(b, v, 'a', 30, 0.05) == 'a'*31                             # nearly always the likeliest


def test_unknown_is_read_but_never_written():
    v = Vocab.of('a a a b b c', 'words', size=3)
    b = Bigrams(v.encode('z z z z a z z z b z'), 3)
    text = sample_text(b, v, 'z', 200)
    assert text.startswith('<unk> ') and set(text.split()[1:]) == {'a', 'b'}


@pytest.mark.parametrize('kw, message', [(dict(start=''), 'start is empty'), (dict(start='az'), "'z', number 2"), (dict(n=0), 'at least 1 piece'),
                                         (dict(temperature=-0.1), 'it is 0 or more'), (dict(temperature=float('nan')), 'it is 0 or more')])
def test_bad_writing(kw, message):
    with pytest.raises(CourseError, match=message): sample_text(Bigrams(torch.tensor([0, 1]), 2), Vocab.of('ab'), **(dict(start='a', n=3) | kw))


# --- judging


def test_texts_are_filled_up_and_cut():
    table, lengths = stack_texts([torch.arange(100_000), torch.tensor([3, 4]), torch.tensor([], dtype=torch.int64)], 5)
    assert table.tolist() == [[99995, 99996, 99997, 99998, 99999], [3, 4, 0, 0, 0], [0]*5] and lengths.tolist() == [5, 2, 1]
    with pytest.raises(CourseError, match='at least 1 of each'): stack_texts([torch.tensor([1])], 0)


def test_neighbours_and_filling_make_no_difference():
    set_seed(7)
    model = LMClassifier(LanguageModel(20, 6, 8), classes=3).eval()
    texts = [torch.randint(0, 20, (n,)) for n in (1, 4, 9)]
    together, alone = model(*stack_texts(texts)), torch.cat([model(*stack_texts([t])) for t in texts])
    assert together.shape == (3, 3) and torch.allclose(together, alone, atol=1e-5)


def test_only_open_layers_learn_each_at_its_rate():
    set_seed(8)
    lm = LanguageModel(20, 6, 8, layers=2)
    model = LMClassifier(lm)
    assert [type(layer) for layer in model.layers()] == [nn.Sequential, nn.LSTM, nn.LSTM, nn.Embedding] and model.layers()[1] is model.lm.cells[1]
    data = TensorDataset(*stack_texts([torch.randint(0, 20, (6,)) for _ in range(24)]), torch.arange(24) % 2)
    model.unfreeze(2)
    before = {k: t.clone() for k, t in model.state_dict().items()}
    learn = Learner(model, DataLoader(data, 8, shuffle=True), F.cross_entropy, layer_rates(model, 4), device='cpu', progress=False)
    learn.fit(1, 0.01)
    assert [g['lr'] for g in learn.opt.param_groups] == [0.01, 0.0025]
    moved = {k for k, t in model.state_dict().items() if not torch.equal(t, before[k])}
    assert any(k.startswith('head') for k in moved) and any(k.startswith('lm.cells.1') for k in moved)
    assert not any(k.startswith(('lm.embed', 'lm.cells.0')) for k in moved)
    assert all(torch.equal(a, b) for a, b in zip(lm.parameters(), LMClassifier(lm).lm.parameters()))
    with pytest.raises(CourseError, match='at least the head'): model.unfreeze(0)


def test_the_language_model_itself_is_not_touched():
    lm = LanguageModel(20, 6, 8)
    lm(torch.randint(0, 20, (2, 5)))
    model = LMClassifier(lm)
    assert model.lm.state is None and lm.state is not None
    nn.init.zeros_(model.lm.embed.weight)
    assert lm.embed.weight.abs().sum() > 0
