"""Attention, heads, blocks, GPT and encoder against PyTorch's and Hugging Face's; writing; bad input"""
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from topdown.settings import CourseError
from topdown.transformer import (GPT, Encoder, Heads, KVCache, TransformerBlock, Writer, attention, attention_maps, bert_encoder, generate,
                                 next_chances, writer_page)

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(autouse=True)
def seeded(): torch.manual_seed(0)


def close(a, b, eps=1e-5):
    assert a.shape == b.shape
    torch.testing.assert_close(a, b, rtol=0, atol=eps)


def tiny(vocab=11, context=16, **kw):
    model = GPT(vocab, **(dict(width=16, layers=2, heads=4, context=context) | kw))
    with torch.no_grad():
        for p in model.parameters(): p.add_(0.1*torch.randn_like(p))
    return model.eval()


# --- attention


@pytest.mark.parametrize('shape', [(5, 7, 8), (1, 1, 1), (64, 64, 24)])
@pytest.mark.parametrize('masked', [False, True])
def test_attention_is_that_of_pytorch(shape, masked):
    T, S, d = shape
    q, k, v = (torch.randn(2, 3, n, d, requires_grad=True) for n in (T, S, S))
    mask = (torch.rand(2, 1, T, S) > 0.5) | (torch.arange(S) == 0) if masked else None
    (ours, weights), theirs = attention(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, mask)
    close(ours, theirs)
    close(weights.sum(-1), torch.ones(2, 3, T))
    some = torch.randn_like(ours)
    for a, b in zip(*(torch.autograd.grad((o*some).sum(), (q, k, v)) for o in (ours, theirs))): close(a, b)


def test_no_axes_before_the_last_two():
    q, k, v = torch.randn(4, 3), torch.randn(6, 3), torch.randn(6, 2)
    out, weights = attention(q, k, v)
    close(out, torch.stack([(k @ one/math.sqrt(3)).softmax(0) @ v for one in q]))
    assert weights.shape == (4, 6)


def test_nothing_to_look_at_gives_no_nan():
    q = torch.randn(3, 4, requires_grad=True)
    mask = torch.tensor([[False]*3, [True, False, False], [True]*3])
    out, weights = attention(q, q, q, mask)
    out.sum().backward()
    assert out.isfinite().all() and q.grad.isfinite().all() and weights[1].tolist() == [1, 0, 0]


def test_half_precision_mask():
    q = torch.randn(3, 4, dtype=torch.bfloat16)
    assert attention(q, q, q, torch.ones(3, 3).tril().bool())[0].isfinite().all()


@pytest.mark.parametrize('shapes, mask, message', [
    (((2, 4), (3, 5), (3, 5)), None, r'queries \(2, 4\), keys \(3, 5\)'),
    (((2, 4), (3, 4), (2, 4)), None, r'the same number of places'),
    (((2, 4), (3, 4), (3, 4)), torch.ones(2, 3), r'the mask is of torch.float32'),
    (((2, 4), (3, 4), (3, 4)), torch.ones(3, 3).bool(), r'does not fit 2 queries and 3 keys'),
    (((2, 4), (3, 4), (3, 4)), torch.ones(3).bool(), r'does not fit'),
])
def test_bad_attention(shapes, mask, message):
    with pytest.raises(CourseError, match=message): attention(*map(torch.randn, shapes), mask)


# --- heads and blocks


def as_pytorch(heads, width, n):
    peer = nn.MultiheadAttention(width, n, batch_first=True)
    with torch.no_grad():
        for mine, other in ((heads.qkv.weight, peer.in_proj_weight), (heads.qkv.bias, peer.in_proj_bias),
                            (heads.out.weight, peer.out_proj.weight), (heads.out.bias, peer.out_proj.bias)):
            mine.add_(0.1*torch.randn_like(mine))
            other.copy_(mine)
    return peer


@pytest.mark.parametrize('keep', [False, True])
@pytest.mark.parametrize('n', [1, 3, 12])
def test_heads_are_those_of_pytorch(n, keep):
    heads = Heads(12, n)
    heads.keep = keep
    peer, causal = as_pytorch(heads, 12, n), torch.ones(5, 5).tril().bool()
    x = torch.randn(2, 5, 12, requires_grad=True)
    ours, (theirs, weights) = heads(x, causal), peer(x, x, x, attn_mask=~causal, average_attn_weights=False)
    close(ours, theirs)
    if keep: close(heads.seen, weights)
    else: assert heads.seen is None
    some = torch.randn_like(ours)
    a, b = (torch.autograd.grad((o*some).sum(), x)[0] for o in (ours, theirs))
    close(a, b)


def test_padding_of_heads():
    heads = Heads(12, 3)
    peer, x, mask = as_pytorch(heads, 12, 3), torch.randn(2, 5, 12), torch.tensor([[1, 1, 1, 0, 0], [1]*5]).bool()
    close(heads(x, mask[:, None, None]), peer(x, x, x, key_padding_mask=~mask)[0])


@pytest.mark.parametrize('heads, width', [(3, 10), (0, 12), (-1, 12)])
def test_uneven_heads(heads, width):
    with pytest.raises(CourseError, match='cannot share'): Heads(width, heads)


@pytest.mark.parametrize('norm_first', [True, False])
@pytest.mark.parametrize('inner', [None, 7])
def test_block_is_that_of_pytorch(norm_first, inner):
    block = TransformerBlock(12, 3, inner, norm_first=norm_first, eps=1e-6)
    peer = nn.TransformerEncoderLayer(12, 3, inner or 48, 0., 'gelu', layer_norm_eps=1e-6, batch_first=True, norm_first=norm_first)
    pairs = [(block.attend.out, peer.self_attn.out_proj), (block.think[0], peer.linear1), (block.think[2], peer.linear2),
             (block.norm1, peer.norm1), (block.norm2, peer.norm2)]
    pairs = [(getattr(a, n), getattr(b, n)) for a, b in pairs for n in ('weight', 'bias')]
    pairs += [(block.attend.qkv.weight, peer.self_attn.in_proj_weight), (block.attend.qkv.bias, peer.self_attn.in_proj_bias)]
    with torch.no_grad():
        for mine, other in pairs: mine.add_(0.2*torch.randn_like(mine)); other.copy_(mine)
    assert len(pairs) == len(list(block.parameters())) == len(list(peer.parameters()))
    x, causal = torch.randn(2, 5, 12), torch.ones(5, 5).tril().bool()
    ours, theirs = block(x, causal), peer(x, ~causal)
    close(ours, theirs)
    for out in (ours, theirs): (out**2).mean().backward()
    for a, b in pairs: close(a.grad, b.grad)


def test_dropout_only_in_training():
    block, x = TransformerBlock(12, 3, dropout=0.5), torch.randn(1, 5, 12)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


# --- GPT


class Peer(nn.Module):
    "The same net of PyTorch's layers"
    def __init__(self, gpt):
        super().__init__()
        s = gpt.settings
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(s['width'], s['heads'], 4*s['width'], 0., 'gelu', batch_first=True, norm_first=True)
                                    for _ in range(s['layers']))
        self.tokens, self.places, self.norm = gpt.tokens, gpt.places, gpt.norm
        with torch.no_grad():
            for b, p in zip(gpt.blocks, self.layers):
                p.self_attn.in_proj_weight.copy_(b.attend.qkv.weight); p.self_attn.in_proj_bias.copy_(b.attend.qkv.bias)
                for mine, other in ((b.attend.out, p.self_attn.out_proj), (b.think[0], p.linear1), (b.think[2], p.linear2),
                                    (b.norm1, p.norm1), (b.norm2, p.norm2)): other.load_state_dict(mine.state_dict())
    def forward(self, ids):
        x = self.tokens(ids) + self.places.weight[:ids.shape[1]]
        mask = ~torch.ones(ids.shape[1], ids.shape[1]).tril().bool()
        for layer in self.layers: x = layer(x, mask)
        return F.linear(self.norm(x), self.tokens.weight)


def test_gpt_is_that_of_pytorchs_layers():
    gpt = tiny().train()
    peer, ids = Peer(gpt).train(), torch.randint(11, (3, 16))
    ours, theirs = gpt(ids), peer(ids)
    close(ours, theirs)
    a, b = (torch.autograd.grad(F.cross_entropy(o.flatten(0, 1), ids.flatten()), (gpt.tokens.weight, gpt.places.weight)) for o in (ours, theirs))
    for x, y in zip(a, b): close(x, y)


@pytest.mark.parametrize('at', [0, 7, 15])
def test_nobody_looks_ahead(at):
    gpt, ids = tiny(), torch.randint(11, (2, 16))
    other = ids.clone()
    other[:, at] = (ids[:, at] + 1) % 11
    changed = (gpt(ids) - gpt(other)).abs().amax((0, 2)) > 0
    assert not changed[:at].any() and changed[at:].all()


def test_start_of_gpt():
    torch.manual_seed(3)
    gpt, ids = GPT(65), torch.randint(65, (8, 64))
    assert sum(p.numel() for p in gpt.parameters()) == 2*(12*96**2 + 13*96) + (65 + 64)*96 + 2*96
    assert F.cross_entropy(gpt(ids).flatten(0, 1), torch.randint(65, (8*64,))) < math.log(65) + 1
    assert 'mask' not in gpt.state_dict()


def test_gpt_learns():
    gpt, ids = GPT(5, 16, 1, 2, 8), torch.arange(400) % 5
    opt, x = torch.optim.Adam(gpt.parameters(), 0.01), ids.unfold(0, 9, 1)
    for _ in range(60):
        rows = x[torch.randint(len(x), (16,))]
        loss = F.cross_entropy(gpt(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        opt.zero_grad(); loss.backward(); opt.step()
    assert loss < 0.3
    assert generate(gpt, ids[:3], 30, temperature=0).tolist() == (torch.arange(33) % 5).tolist()     # beyond the context of 8


@pytest.mark.parametrize('ids, message', [
    (torch.zeros(1, 17, dtype=torch.int64), 'its context is 16'), (torch.full((1, 2), 11), 'piece 11 is outside .* 0 to 10'),
    (torch.full((1, 2), -1), 'piece -1 is outside'), (torch.zeros(1, 2), 'of type int64'), (torch.zeros(3, dtype=torch.int64), 'shape'),
    (torch.zeros(1, 0, dtype=torch.int64), 'shape')])
def test_bad_ids(ids, message):
    with pytest.raises(CourseError, match=message): tiny()(ids)


@pytest.mark.parametrize('settings', [dict(vocab=0), dict(vocab=5, layers=0), dict(vocab=5, context=0)])
def test_bad_settings(settings):
    with pytest.raises(CourseError, match='at least 1'): GPT(**settings)


# --- writing


@pytest.mark.parametrize('how', [{}, dict(temperature=0.3), dict(top_k=4), dict(top_p=0.7), dict(temperature=1.7, top_k=6, top_p=0.9)])
def test_chances_are_those_of_hugging_face(how):
    gen = pytest.importorskip('transformers.generation.logits_process')
    scores = 3*torch.randn(50, 11)
    theirs = scores/how.get('temperature', 1.)
    if 'top_k' in how: theirs = gen.TopKLogitsWarper(how['top_k'])(None, theirs)
    if 'top_p' in how: theirs = gen.TopPLogitsWarper(how['top_p'])(None, theirs)
    close(next_chances(scores, **how), theirs.softmax(-1))


def test_edges_of_chances():
    scores = torch.tensor([1., 3., 2.])
    assert next_chances(scores, 0).tolist() == next_chances(scores, top_k=1).tolist() == next_chances(scores, top_p=1e-9).tolist() == [0, 1, 0]
    close(next_chances(scores, top_k=99, top_p=1.), scores.softmax(0))
    close(next_chances(scores, 1e-30), torch.tensor([0., 1., 0.]))
    close(next_chances(torch.zeros(4), top_k=2).sort().values, torch.tensor([0., 0., 0.5, 0.5]))      # equal ones: still two
    for bad, what in ((dict(temperature=-1), 'temperature'), (dict(temperature=math.nan), 'temperature'), (dict(temperature=math.inf), 'temperature'),
                      (dict(top_k=0), 'top_k'), (dict(top_p=0.), 'top_p'), (dict(top_p=1.5), 'top_p')):
        with pytest.raises(CourseError, match=what): next_chances(scores, **bad)


@pytest.mark.parametrize('cuts', [[16], [1]*16, [10, 6], [1, 15], [5, 1, 10]])
def test_cache_gives_the_same_scores(cuts):
    gpt, ids, cache = tiny(), torch.randint(11, (3, 16)), KVCache(16)
    with torch.no_grad(): parts = torch.cat([gpt(part, cache) for part in ids.split(cuts, 1)], 1)
    close(parts, gpt(ids))
    assert len(cache) == 16 and all(k.shape == (3, 4, 16, 4) for k, _ in cache.kept.values())


@pytest.mark.parametrize('context, start', [(16, 1), (16, 16), (16, 40), (1, 3), (2, 1), (3, 5)])
def test_with_and_without_cache(context, start):
    gpt, ids = tiny(context=context), torch.randint(11, (start,))
    a, b = (generate(gpt, ids, 50, temperature=0.9, top_k=8, top_p=0.95, cache=c, seed=5) for c in (True, False))
    assert a.shape == (start + 50,) and torch.equal(a, b) and torch.equal(a[:start], ids)
    assert not torch.equal(a, generate(gpt, ids, 50, seed=6))


def test_generate_leaves_the_mode_and_the_seed_alone():
    gpt, before = tiny(dropout=0.5).train(), torch.random.get_rng_state()
    a, b = (generate(gpt, torch.tensor([1]), 20) for _ in range(2))
    assert gpt.training and torch.equal(a, b) and torch.equal(before, torch.random.get_rng_state())


def test_bad_generate():
    for ids in (torch.zeros(0, dtype=torch.int64), torch.zeros(1, 2, dtype=torch.int64)):
        with pytest.raises(CourseError, match='one axis'): generate(tiny(), ids)
    with pytest.raises(CourseError, match='at least 1'): generate(tiny(), torch.tensor([1]), 0)
    with pytest.raises(CourseError, match='room for 3'):
        with torch.no_grad(): tiny()(torch.tensor([[1, 2, 3, 4]]), KVCache(3))


def test_maps():
    gpt, ids = tiny().train(), torch.randint(11, (2, 9))
    maps = attention_maps(gpt, ids)
    assert [m.shape for m in maps] == [(2, 4, 9, 9)]*2 and gpt.training
    assert all((m.triu(1) == 0).all() for m in maps) and not any(b.attend.keep or b.attend.seen is not None for b in gpt.blocks)
    with pytest.raises(CourseError): attention_maps(gpt, torch.full((1, 2), 99))
    assert not any(b.attend.keep for b in gpt.blocks)
    with pytest.raises(CourseError, match='no Heads'): attention_maps(nn.Linear(2, 2), torch.ones(1, 2))


# --- the encoder


def test_encoder_is_that_of_hugging_face():
    transformers = pytest.importorskip('transformers')
    config = transformers.BertConfig(vocab_size=50, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40,
                                     max_position_embeddings=32)
    theirs = transformers.BertModel(config).eval()
    with torch.no_grad():
        for p in theirs.parameters(): p.add_(0.1*torch.randn_like(p))
    ours, ids, mask = bert_encoder(theirs.state_dict(), 4), torch.randint(50, (3, 12)), torch.ones(3, 12, dtype=torch.int64)
    mask[0, 7:], mask[1, 3:] = 0, 0
    with torch.no_grad(): a, b = ours(ids, mask), theirs(ids, attention_mask=mask).last_hidden_state
    close(a[mask == 1], b[mask == 1])
    assert [m.shape for m in attention_maps(ours, ids, mask)] == [(3, 4, 12, 12)]*3
    assert all((m[0, :, :, 7:] == 0).all() for m in attention_maps(ours, ids, mask))
    with pytest.raises(CourseError, match="no 'encoder.layer.1.output.dense.bias'"):
        bert_encoder({k: v for k, v in theirs.state_dict().items() if k != 'encoder.layer.1.output.dense.bias'}, 4)


def test_bad_encoder():
    model = Encoder(10, 8, 1, 2, context=4)
    with pytest.raises(CourseError, match='same shape'): model(torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, 2))
    with pytest.raises(CourseError, match='piece 10 is outside'): model(torch.full((1, 3), 10), torch.ones(1, 3))
    with pytest.raises(CourseError, match='at most 4 places'): model(torch.zeros(1, 5, dtype=torch.int64), torch.ones(1, 5))


# --- the writer and its page


CHARS = list('\n abcdefgh')


@pytest.fixture
def writer(): return Writer(tiny(10), CHARS)


def test_writer(writer, tmp_path):
    text = writer.write('abc', 40, seed=3)
    assert text.startswith('abc') and len(text) == 43 and set(text) <= set(CHARS) and len(writer.write('', 5)) == 5
    assert writer.write('a'*500, 5).startswith('a'*500)                                # longer than the context
    writer.save(tmp_path/'w', {'name': 'x', 'licence': 'y', 'source': 'z'}, {'bits': 2})
    again = Writer.load(tmp_path/'w')
    assert again.write('abc', 40, seed=3) == text and again.about['data']['licence'] == 'y' and again.about['metrics'] == {'bits': 2.0}


@pytest.mark.parametrize('start, n, message', [('é', 5, "never seen 'é'"), ('a\0b', 5, 'never seen'), ('abc🦉', 5, 'never seen'), ('שלום', 5, 'never seen'),
                                               ('a', 0, 'between 1'), ('a', 10**9, 'between 1 and 2000')])
def test_what_a_writer_refuses(writer, start, n, message):
    with pytest.raises(CourseError, match=message): writer.write(start, n)


@pytest.mark.parametrize('change, message', [
    ({'format': 'x'}, 'this is no topdown-writer'), ({'format_version': 2}, 'this is no topdown-writer'),
    ({'settings': {'vocab': 10, 'width': 10**9, 'layers': 2, 'heads': 4, 'context': 16, 'dropout': 0.}}, 'do not fit the numbers'),
    ({'settings': {'vocab': 10, 'width': 16, 'layers': 10**9, 'heads': 4, 'context': 16, 'dropout': 0.}}, 'do not fit the numbers'),
    ({'settings': {'vocab': 10, 'width': 16, 'layers': 2, 'heads': 5, 'context': 16, 'dropout': 0.}}, 'cannot share'),
    ({'settings': None}, 'do not fit'), ({'settings': {}}, 'do not fit'), ({'characters': CHARS[1:]}, 'of different texts')])
def test_a_writer_that_does_not_fit(writer, tmp_path, change, message):
    from topdown.store import read_json, write_json
    writer.save(tmp_path, {})
    write_json(tmp_path/'writer.json', read_json(tmp_path/'writer.json') | change)
    with pytest.raises(CourseError, match=message): Writer.load(tmp_path)


def test_page(writer):
    gr = pytest.importorskip('gradio')
    page = writer_page(writer, 'Title')
    click = next(iter(page.fns.values())).fn
    assert click('abc', 20.0, 0.8, 0, 1, 3.0) == writer.write('abc', 20, seed=3)
    assert click(None, 20, 0, 5, 0.5, 3) and len(click('', 20, 2, 0, 1, 3)) == 20
    for bad in (('é', 20, 1, 0, 1, 1), ('a', 5000, 1, 0, 1, 1), ('a', 5, -1, 0, 1, 1), ('a', 5, 1, 0, 7, 1)):
        with pytest.raises(gr.Error): click(*bad)
    page.close()
