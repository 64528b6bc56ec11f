"""Lesson 6's net for tables: the same sums as PyTorch's layers, shapes, seeds, batches, and what it refuses"""
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from topdown.learner import AdamW, Learner
from topdown.settings import CourseError
from topdown.tabular import Prepared, TablePrep, TabularNet, tabular_dls


def rows(n, sizes=(3, 5), conts=2, y='classes', seed=0):
    "Prepared rows by a die"
    g = torch.Generator().manual_seed(seed)
    cats = torch.stack([torch.randint(k, (n,), generator=g) for k in sizes], 1) if sizes else torch.zeros(n, 0).long()
    target = torch.randint(2, (n,), generator=g) if y == 'classes' else torch.randn(n, generator=g)
    return Prepared(cats, torch.randn(n, conts, generator=g), target)


def test_without_hidden_layers_it_is_embeddings_and_one_linear_layer():
    data, net = rows(20), TabularNet([3, 5], 2, 3, hidden=()).eval()
    x = torch.cat([net.tables[0].weight[data.cats[:, 0]], net.tables[1].weight[data.cats[:, 1]], F.batch_norm(data.conts, torch.zeros(2), torch.ones(2))], 1)
    want = F.linear(x, net.layers[-1].weight, net.layers[-1].bias)
    assert net(data.cats, data.conts).shape == (20, 3)
    torch.testing.assert_close(net(data.cats, data.conts), want)


def test_it_is_fastais_model_with_the_same_weights():
    tabular = pytest.importorskip('fastai.tabular.model')
    data, ours = rows(40), TabularNet([3, 5], 2, 2, hidden=(7, 4))
    theirs = tabular.TabularModel([(t.num_embeddings, t.embedding_dim) for t in ours.tables], 2, 2, [7, 4])
    kinds = torch.nn.Embedding, torch.nn.Linear, torch.nn.BatchNorm1d
    assert [tuple(p.shape) for m in ours.modules() if isinstance(m, kinds[0]) for p in m.parameters()] == [(3, 3), (5, 4)]
    with torch.no_grad():
        for kind in kinds:
            pairs = list(zip(*([m for m in net.modules() if isinstance(m, kind)] for net in (ours, theirs)), strict=True))
            for a, b in pairs:
                b.weight.copy_(a.weight)
                if kind is kinds[0]: continue
                if b.bias is None: a.bias.zero_()                # batch norm follows and has an offset of its own
                else: b.bias.copy_(a.bias)
    for a, b in ((ours.train(), theirs.train()), (ours.eval(), theirs.eval())):
        torch.testing.assert_close(a(data.cats, data.conts), b(data.cats, data.conts))


@pytest.mark.parametrize('sizes, conts, out, shape', [((3, 5), 2, 2, (6, 2)), ((3, 5), 2, 1, (6,)), ((), 4, 3, (6, 3)), ((9,), 0, 1, (6,))])
def test_shapes(sizes, conts, out, shape):
    data, net = rows(6, sizes, conts), TabularNet(sizes, conts, out, hidden=(8,), p=0.5)
    assert net(data.cats, data.conts).shape == shape
    net.eval()
    assert torch.equal(net(data.cats, data.conts), net(data.cats, data.conts)) and net(data.cats[:1], data.conts[:1]).shape == (1, *shape[1:])


def test_the_seed_decides_and_nothing_else_is_disturbed():
    torch.manual_seed(7)
    a, after = TabularNet([4], 1, 2), torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(3))
    b, c = TabularNet([4], 1, 2), TabularNet([4], 1, 2, seed=1)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters())) and not torch.equal(a.layers[0].weight, c.layers[0].weight)


def test_the_widths_follow_the_rule_up_to_fifty():
    assert [t.embedding_dim for t in TabularNet([1, 2, 3, 42, 10_000], 0, 2).tables] == [2, 2, 3, 13, 50]


@pytest.mark.parametrize('bs, n, batches', [(64, 100, 2), (64, 129, 2), (64, 10, 1), (2, 3, 1), (64, 64, 1)])
def test_a_last_batch_of_one_row_is_left_out(bs, n, batches):
    train, valid = tabular_dls(rows(n), rows(5), bs=bs)
    assert len(train) == batches and all(len(y) > 1 for *_, y in train) and len(valid) == 1
    assert tabular_dls(rows(n), bs=bs)[1] is None


def test_a_net_learns_what_only_categories_say():
    rng = np.random.default_rng(0)
    t = pd.DataFrame({'kind': rng.choice(list('abcdefgh'), 800), 'x': rng.normal(size=800)})
    t['y'] = np.where(t.kind.isin(list('aceg')), 'yes', 'no')
    prep = TablePrep('y', cats=['kind'], conts=['x']).fit(t[:600])
    parts = prep.transform(t[:600]), prep.transform(t[600:])
    learn = Learner(TabularNet(prep.cat_sizes, 1, 2, hidden=(16,)), tabular_dls(*parts), F.cross_entropy, AdamW, device='cpu', progress=False)
    learn.fit(5, 0.01)
    assert (learn.predict(parts[1].cats, parts[1].conts).argmax(1) == parts[1].y).float().mean() > 0.98


def test_a_net_predicts_numbers():
    t = pd.DataFrame({'x': np.linspace(-2, 2, 400)})
    t['y'] = t.x**2
    prep = TablePrep('y', cats=[], conts=['x']).fit(t)
    data = prep.transform(t)
    learn = Learner(TabularNet([], 1, 1, hidden=(32,)), tabular_dls(data), F.mse_loss, AdamW, device='cpu', progress=False)
    learn.fit_one_cycle(30, 0.02)
    assert F.mse_loss(learn.predict(data.cats, data.conts), data.y) < 0.1*data.y.var()


@pytest.mark.parametrize('given, says', [
    (([], 0, 2), 'at least one column'), (([3], -1, 2), 'at least one column'), (([3], 1, 0), 'sizes of 1 or more'), (([0], 1, 2), 'sizes of 1 or more'),
    (([3], 1, 2, (8, 0)), 'sizes of 1 or more'), (([3], 1, 2, (8,), 1.), 'from 0 to below 1'), (([3], 1, 2, (8,), -0.1), 'from 0 to below 1')])
def test_what_a_net_refuses(given, says):
    with pytest.raises(CourseError, match=says): TabularNet(*given)


def test_what_the_rest_refuses():
    data = rows(10)
    with pytest.raises(CourseError, match='2 category and 2 number columns; this net was made for 1 and 2'): TabularNet([3], 2, 2)(data.cats, data.conts)
    with pytest.raises(CourseError, match='have no target'): tabular_dls(Prepared(data.cats, data.conts))
    with pytest.raises(CourseError, match='valid have no target'): tabular_dls(data, Prepared(data.cats, data.conts))
    for bs, n in ((1, 10), (64, 1)):
        with pytest.raises(CourseError, match='at least 2 rows in a batch'): tabular_dls(rows(n), bs=bs)
