"""Ratings, means and factor models against pandas, PyTorch's autograd and known truths; and bad input"""
import gzip

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from topdown.collab import DotProduct, EmbeddingNet, Means, RatingDecay, Ratings, factorise, read_movies, read_ratings
from topdown.core import split
from topdown.data import get
from topdown.learner import Adam, Checkpoint, Learner
from topdown.settings import CourseError


pytestmark = pytest.mark.usefixtures('one_thread')


def some(n=400, users=20, items=15, seed=0):
    rng = np.random.default_rng(seed)
    return Ratings(rng.integers(0, users, n), rng.integers(0, items, n), rng.integers(1, 6, n), rng.permutation(n), scale=(1, 5))


# --- ratings


def test_the_form_of_the_columns_makes_no_difference():
    u, i, r = [3, 3, 9, 11], [5, 7, 5, 8], [1, 2, 3, 4]
    forms = [Ratings(u, i, r), Ratings(np.array(u), np.array(i), np.array(r)), Ratings(torch.tensor(u), torch.tensor(i), torch.tensor(r)),
             Ratings(pd.Series(u, index=[7, 7, 7, 7]), pd.Series(map(str, i)), pd.Series(r, dtype='float32')),
             Ratings(tuple(map(float, u)), [f' {x} ' for x in i], r), Ratings(['3', 3, 9.0, np.int32(11)], i, r)]
    for f in forms:
        assert f.users == ['3', '9', '11'] and f.items == ['5', '7', '8']          # as numbers: 9 before 11
        assert f.user.tolist() == [0, 0, 1, 2] and f.item.tolist() == [0, 1, 0, 2] and f.value.tolist() == r
        assert f.user.dtype == f.item.dtype == torch.int64 and f.value.dtype == torch.float32


def test_texts_come_after_numbers(): assert Ratings(['b', 10, 'a', 9], [1]*4, [1, 2, 3, 4]).users == ['9', '10', 'a', 'b']


def test_the_latest_of_duplicates_stays_and_they_are_counted():
    r = Ratings(['a', 'a', 'b', 'a'], [1, 1, 1, '1'], [5, 2, 3, 4], times=[30, 20, 1, 10])
    assert r.duplicates == 2 and len(r) == 2 and r.value.tolist() == [5, 3] and r.time.tolist() == [30, 1]
    assert Ratings([1, 1], [1, 1], [2, 4], times=[5, 5]).value.tolist() == [4]      # at the same time: the last row
    assert Ratings([1, 1, 1], [1, 1, 1], [2, 4, 3], scale=(1, 5)).value.tolist() == [3]   # without times as well
    assert 'older duplicates left out: 2' in repr(r)


def test_duplicates_like_pandas():
    rng = np.random.default_rng(3)
    t = pd.DataFrame({'u': rng.integers(0, 9, 500), 'i': rng.integers(0, 9, 500), 'r': rng.integers(1, 6, 500), 't': rng.integers(0, 50, 500)})
    ours = Ratings(t.u, t.i, t.r, t.t)
    last = t.sort_values('t', kind='stable').drop_duplicates(['u', 'i'], keep='last')
    theirs = {(u, i): r for u, i, r in zip(last.u, last.i, last.r)}
    assert {(int(ours.users[u]), int(ours.items[i])): r for u, i, r in zip(ours.user, ours.item, ours.value.tolist())} == theirs
    assert ours.duplicates == len(t) - len(last)


@pytest.mark.parametrize('columns, message', [
    (([1, None], [1, 2], [1, 2]), r"1 of 2 values of 'user' are missing .* row 1"),
    (([1, 2], [1, float('nan')], [1, 2]), r"'item' are missing"),
    (([1, 2], [1, 2], [float('nan'), 2]), r"'rating' are missing .* row 0"),
    (([1, 2], [1, 2], [1, float('inf')]), r'inf in row 1 is no finite number'),
    (([1, 2], [1, 2], [1, 'good']), r"a rating is a number; found 'good'"),
    (([1, True], ['1', '2'], [1, 2]), r'True is no user id'),
    (([1, 1.5], [1, 2], [1, 2]), r'1.5 is no user id'),
    (([1, 2], ['a', '  '], [1, 2]), r"'  ' is no item id"),
    (([1, (2,)], [1, 2], [1, 2]), r'\(2,\) is no user id'),
    (([1, 2], [1], [1, 2]), r'different lengths'),
    (([], [], []), r'0 rows'),
    (([1, 2], [1, 2], [3, 3]), r'give it, as in scale='),
])
def test_bad_columns(columns, message):
    with pytest.raises(CourseError, match=message): Ratings(*columns)


def test_off_the_scale_names_row_and_value():
    with pytest.raises(CourseError, match=r'rating 0 in row 2 is off the scale 1 to 5; 2 of 4 are'): Ratings([1]*4, [1, 2, 3, 4], [1, 5, 0, 6], scale=(1, 5))
    with pytest.raises(CourseError, match=r"'time' are missing"): Ratings([1], [1], [3], times=[None], scale=(1, 5))
    with pytest.raises(CourseError, match=r'5 to 1'): Ratings([1], [1], [3], scale=(5, 1))


def test_parts_keep_all_positions():
    r = some()
    train, valid = r.split(0.25, seed=7)
    assert (len(train), len(valid)) == (len(r) - len(r)//4, len(r)//4) and train.users is r.users and valid.items is r.items
    pairs = lambda x: {(u, i, v) for u, i, v in zip(x.user.tolist(), x.item.tolist(), x.value.tolist())}
    assert pairs(train) | pairs(valid) == pairs(r) and not pairs(train) & pairs(valid)
    assert valid.user.tolist() == r.user[split(r, 0.25, 7)[1]].tolist()
    past, future = r.split_by_time(0.3)
    assert past.time.max() <= future.time.min() and len(past) + len(future) == len(r)
    with pytest.raises(CourseError, match='no times'): Ratings([1, 2], [1, 2], [1, 2]).split_by_time()
    with pytest.raises(CourseError, match='would be empty'): r.split_by_time(0)


def test_the_random_split_is_that_of_fastai():
    from fastai.data.transforms import RandomSplitter
    r = some()
    theirs = RandomSplitter(0.2, seed=42)(range(len(r)))
    assert sorted(theirs[1]) == sorted(split(r)[1])


def test_find():
    r = Ratings([7, 'x'], ['a', 'b'], [1, 2])
    found = r.find('user', ['x', 7, '7', 7.0, 'y'])
    assert found.dtype == torch.int64 and found.tolist() == [1, 0, 0, 0, -1] and r.find('item', ['b']).tolist() == [1] and r.find('item', []).tolist() == []
    with pytest.raises(CourseError, match='kind'): r.find('film', [1])
    with pytest.raises(CourseError, match='no user id'): r.find('user', [None])


# --- files


def test_read_ratings(tmp_path):
    p = tmp_path/'r.tsv.gz'
    p.write_bytes(gzip.compress(b'1\tx\t3\t10\n1\tx\t4\t20\n2\ty\t5\t30\n'))
    r = read_ratings(p)
    assert len(r) == 2 and r.duplicates == 1 and r.value.tolist() == [4, 5]
    (tmp_path/'r.csv').write_text('5,ann,1\n2,bob,1\n')
    r = read_ratings(tmp_path/'r.csv', sep=',', names=('rating', 'user', 'item'))
    assert r.users == ['ann', 'bob'] and r.time is None


def test_unreadable_files(tmp_path):
    whole = gzip.compress(b''.join(b'%d\t%d\t%d\t1\n' % (k, k*k % 97, k % 5 + 1) for k in range(3000)))
    files = {'empty.tsv': b'', 'empty.tsv.gz': gzip.compress(b''), 'cut.tsv.gz': whole[:len(whole)//2], 'no.tsv.gz': b'no gzip', 'bin.tsv': b'\xff\xfe\x00\x81\xc3' * 20}
    for name, data in files.items():
        (tmp_path/name).write_bytes(data)
        with pytest.raises(CourseError, match=name.replace('.', r'\.') + ' (cannot be read|is empty)'): read_ratings(tmp_path/name)
    with pytest.raises(CourseError, match='there is no file'): read_ratings(tmp_path/'none.tsv')
    (tmp_path/'narrow.tsv').write_text('1\t2\n3\t4\n')
    with pytest.raises(CourseError, match="'rating' are missing"): read_ratings(tmp_path/'narrow.tsv')


def test_read_movies():
    ratings, films, people = read_movies(get('ml-100k', track='sample'))
    assert list(films.columns) == ['title', 'year', 'genres', 'ratings'] and list(people.columns) == ['age', 'sex', 'job']
    assert set(ratings.items) <= set(films.index) and set(ratings.users) <= set(people.index)
    assert films['ratings'].sum() == len(ratings) and ratings.scale == (1, 5) and films['year'].between(1900, 2000).all()
    assert films['genres'].str.len().min() > 2 and ratings.duplicates == 0


# --- means


@pytest.mark.parametrize('damping', [0, 5])
def test_means_like_pandas(damping):
    r = some()
    t = pd.DataFrame({'u': r.user, 'i': r.item, 'r': r.value.double()})
    mean = t.r.mean()
    shrunk = lambda by, x: x.groupby(by).sum()/(x.groupby(by).size() + damping)
    item = shrunk(t.i, t.r - mean)
    user = shrunk(t.u, t.r - mean - t.i.map(item))
    theirs = (mean + t.i.map(item) + t.u.map(user)).clip(1, 5)
    ours = Means(r, damping)(r.user, r.item)
    assert ours.shape == r.value.shape and ours.dtype == torch.float32
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5)


def test_means_of_strangers():
    r = some()
    m, none = Means(r), torch.tensor([-1])
    assert m(none, none).item() == pytest.approx(m.mean) and m(torch.tensor([2]), none).item() == pytest.approx(m.mean + m.user[2].item())
    few = Ratings([1, 1], [1, 2], [5, 5], scale=(1, 5)).rows([0])       # item 2 has no rating left
    assert Means(few, 0)(torch.tensor([0]), torch.tensor([1])).item() == 5
    with pytest.raises(CourseError, match='0 or more'): Means(r, -1)


# --- the model


def plainly(model, user, item):
    "The same model by PyTorch's autograd"
    p, q = model.users[user], model.items[item]
    s = (p[:, :-1]*q[:, :-1]).sum(1) + p[:, -1] + q[:, -1]
    low, high = model.y_range
    return low + (high - low)*s.sigmoid(), (p[:, :-1].pow(2).sum() + q[:, :-1].pow(2).sum())/len(user)


def test_gradient_by_hand_is_that_of_autograd():
    model = DotProduct(9, 7, 5).double()
    torch.manual_seed(0)
    for p in model.parameters(): torch.nn.init.normal_(p)
    user, item, y = torch.randint(9, (64,)), torch.randint(7, (64,)), torch.rand(64).double()*4 + 1
    ours, theirs = (F.mse_loss(out, y) + 0.13*penalty for out, penalty in ((model(user, item), model.penalty), plainly(model, user, item)))
    a, b = (torch.autograd.grad(loss, list(model.parameters())) for loss in (ours, theirs))
    assert abs(ours - theirs) < 1e-12 and a[0].shape == (9, 6) and a[1].shape == (7, 6)
    for x, z in zip(a, b): torch.testing.assert_close(x, z, rtol=0, atol=1e-12)
    unused = sorted(set(range(9)) - set(user.tolist()[:3]))
    g, _ = torch.autograd.grad(model(user[:3], item[:3]).sum(), list(model.parameters()))
    assert (g[unused] == 0).all() and (g[user[0]] != 0).any()           # without the penalty in the loss, too


def test_decay_by_rating_is_the_penalty_in_the_loss():
    r = some(64)
    model, other = DotProduct(20, 15, 3), DotProduct(20, 15, 3)
    learn = Learner(model, (r.dl(64), None), F.mse_loss, Adam, 0.01, cbs=[RatingDecay(0.5)], progress=False)
    learn.fit(3)
    opt = Adam(other.parameters(), lr=0.01)
    for _ in range(3):
        out, penalty = plainly(other, r.user, r.item)
        (F.mse_loss(out, r.value) + 0.5*penalty).backward()
        opt.step(); opt.zero_grad()
    torch.testing.assert_close(model.users, other.users, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.items, other.items, rtol=0, atol=1e-5)


def test_range_and_first_prediction():
    model = DotProduct(3, 4, 2, y_range=(0, 10), mean=2.5)
    user, item = torch.tensor([0, 1, 2]), torch.tensor([3, 0, 1])
    assert model(user, item).shape == (3,) and torch.allclose(model(user, item), torch.tensor(2.5), atol=0.01)
    with torch.no_grad(): model.users *= 1e6
    assert ((model(user, item) >= 0) & (model(user, item) <= 10)).all()
    assert torch.allclose(DotProduct(3, 4, 2, y_range=None, mean=0.)(user, item), torch.tensor(0.), atol=0.01)
    for wrong in (dict(factors=0), dict(mean=9.)):
        with pytest.raises(CourseError): DotProduct(3, 4, **wrong)


def test_known_factors_are_found():
    "Ratings without noise, of rank 2: the error on those held back is small, and the tables have the right rank"
    torch.manual_seed(1)
    P, Q = torch.randn(120, 2), torch.randn(80, 2)
    true = 1 + 4*torch.sigmoid(P @ Q.T)
    user, item = torch.meshgrid(torch.arange(120), torch.arange(80), indexing='ij')
    keep = torch.randperm(9600)[:6000]
    r = Ratings(user.flatten()[keep], item.flatten()[keep], true.flatten()[keep], scale=(1, 5))
    train, valid = r.split()
    learn = factorise(train, valid, factors=2, wd=0, epochs=30, lr=0.03, y_range=(1 - 1e-3, 5 + 1e-3))
    assert learn.history[-1]['valid_loss'] < 0.01*valid.value.var()


def test_same_seed_same_bits():
    r = some()
    a, b, c = (factorise(r, factors=3, epochs=2, seed=s).model.users for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_an_interrupted_training_goes_on_exactly(tmp_path):
    r = some()
    def learner():
        return Learner(DotProduct(20, 15, 3), (r.dl(64, shuffle=True), None), F.mse_loss, Adam, 0.01, cbs=[RatingDecay(0.1)], progress=False)
    whole = learner(); whole.fit_one_cycle(3)
    class Stop(Exception): pass
    cut = learner()
    def halt(*_):
        if cut.step == 12: raise Stop
    cut.model.register_forward_hook(halt)
    with pytest.raises(Stop): cut.fit_one_cycle(3, keep=Checkpoint(tmp_path/'run', every=5))
    rest = learner(); rest.fit_one_cycle(3, keep=Checkpoint(tmp_path/'run', every=5))
    assert rest.step == whole.step and torch.equal(rest.model.users, whole.model.users) and torch.equal(rest.model.items, whole.model.items)


def test_small_tables():
    one = Ratings(['ann']*4, [1, 2, 3, 4], [1, 2, 4, 5])
    learn = factorise(one, factors=2, epochs=3)
    out = learn.predict(one.user, one.item)
    assert out.shape == (4,) and out.isfinite().all()
    single = Ratings([1], [1], [4], scale=(1, 5))
    assert factorise(single, single, factors=1, epochs=1).history[0]['valid_loss'] < 1


def test_embedding_net():
    net = EmbeddingNet(20, 15, factors=4, hidden=8, mean=3.0)
    r = some()
    out = net(r.user, r.item)
    assert out.shape == r.value.shape and abs(out.mean().item() - 3) < 0.3 and ((out > 0.5) & (out < 5.5)).all()
    F.mse_loss(out, r.value).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    for wrong in (dict(factors=0), dict(hidden=0)):
        with pytest.raises(CourseError, match='at least 1'): EmbeddingNet(3, 3, **wrong)


def test_bad_settings():
    with pytest.raises(CourseError, match='0 or more'): RatingDecay(-0.1)
    with pytest.raises(CourseError, match='epochs is 0'): factorise(some(), epochs=0)


@pytest.mark.real
def test_real_ratings_beat_the_bound():
    train, valid = read_movies(get('ml-100k'))[0].split()
    assert factorise(train, valid).history[-1]['valid_loss'] <= 0.85
