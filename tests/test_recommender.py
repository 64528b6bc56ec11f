"""Lesson 5, using the factors: predictions by id, folding in, reading, labels, the sliders, save and load"""
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA

from topdown.checkpoint import save_state
from topdown.collab import DotProduct, Means, Newcomer, Ratings, Recommender, factorise, load_recommender, pca, rate_films, spread_labels
from topdown.settings import CourseError

matplotlib.use('agg')


pytestmark = pytest.mark.usefixtures('one_thread')


def drawn(people=80, items=40, share=0.5, seed=0):
    "Ratings from two tastes: ids of people are whole numbers, ids of items are texts"
    rng = np.random.default_rng(seed)
    p, q = rng.normal(size=(people, 2)), rng.normal(size=(items, 2))
    user, item = (rng.random((people, items)) < share).nonzero()
    stars = (3.2 + (p[user]*q[item]).sum(1) + rng.normal(0, 0.4, len(user))).round().clip(1, 5)
    return Ratings((user + 100).tolist(), [f'i{n}' for n in item], stars.tolist(), scale=(1, 5))


RATINGS = drawn()
MODEL = factorise(RATINGS, factors=3, epochs=15, bs=64).model


@pytest.fixture
def rec(): return Recommender(MODEL, RATINGS, titles={i: f'Film {i}' for i in RATINGS.items})


# Predictions

def test_the_same_numbers_as_the_model(rec):
    said = rec.predict([RATINGS.users[u] for u in RATINGS.user], [RATINGS.items[i] for i in RATINGS.item])
    with torch.no_grad(): judge = MODEL(RATINGS.user, RATINGS.item)
    assert said.shape == judge.shape and said.dtype == torch.float32 and not said.requires_grad
    assert torch.allclose(said, judge, atol=1e-6)


@pytest.mark.parametrize('ids', [100, '100', 100.0, ' 100 ', np.int64(100), np.float32(100)], ids=repr)
def test_one_person_written_in_many_ways(rec, ids, capsys):
    assert rec.predict(ids, 'i1') == rec.predict('100', ['i1'])
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('kind', [list, tuple, np.array, pd.Series, pd.Index, torch.tensor])
def test_lists_of_every_kind(rec, kind):
    said = rec.predict(kind([100, 101, 102]), 'i1')
    assert torch.equal(said, torch.cat([rec.predict(u, 'i1') for u in (100, 101, 102)]))


def test_unknown_ids_fall_back_to_the_means_and_say_so(rec, capsys):
    means = Means(RATINGS)
    said = rec.predict(['100', 'Ann', 'Ann', '100', 'Bo'], ['i1', 'i1', 'i99', 'i99', 'i2'])
    out = capsys.readouterr().out
    assert out == "4 of 5 predictions are by the means alone: 2 unknown users, first 'Ann'; 1 unknown item, first 'i99'\n"
    user, item = RATINGS.find('user', ['100']), RATINGS.find('item', ['i1', 'i2'])
    nobody = torch.tensor([-1])
    want = [MODEL(user, item[:1]), means(nobody, item[:1]), means(nobody, nobody), means(user, nobody), means(nobody, item[1:])]
    assert torch.allclose(said, torch.cat(want).detach(), atol=1e-6)


def test_who_was_never_rated_in_training_is_unknown(capsys):
    part = RATINGS.rows(((RATINGS.user != 0) & (RATINGS.item != 0)).nonzero()[:, 0])
    rec = Recommender(MODEL, part)
    assert rec.predict(RATINGS.users[0], RATINGS.items[0]).item() == pytest.approx(Means(part).mean, abs=1e-5)
    assert '1 unknown user' in capsys.readouterr().out
    assert RATINGS.items[0] not in rec.recommend(RATINGS.users[1], 100).index
    assert 'a recommender of 39 items' in repr(rec) and '79 people' in repr(rec)
    assert torch.equal(rec.fold_in({RATINGS.items[0]: 5}).row, rec.fold_in({}).row)
    with pytest.raises(CourseError, match='has no rating to learn from'): rec.similar(RATINGS.items[0])


@pytest.mark.parametrize('users, items, text', [([100, 101], ['i1', 'i2', 'i3'], '2 users and 3 items make no pairs'), (None, 'i1', 'is no user id'),
                                               (100, [''], 'is no item id'), (100, float('nan'), 'is no item id'), (True, 'i1', 'is no user id')])
def test_questions_that_make_no_sense(rec, users, items, text):
    with pytest.raises(CourseError, match=text): rec.predict(users, items)


def test_ratings_of_another_model():
    with pytest.raises(CourseError, match='give the ratings that it was trained on'): Recommender(DotProduct(3, 40), RATINGS)


def test_a_copy_of_the_tables(rec):
    before = rec.predict(100, 'i1')
    with torch.no_grad(): MODEL.users.add_(1)
    try: assert torch.equal(rec.predict(100, 'i1'), before)
    finally:
        with torch.no_grad(): MODEL.users.sub_(1)


@pytest.mark.parametrize('titles', [{7: 'Seven', 'x': 'Ex'}, pd.Series({'7': 'Seven', 'x': 'Ex'}), {7.0: 'Seven', 'x': 'Ex', 'other': '?'}])
def test_titles_by_mixed_ids(titles):
    ratings = Ratings([1, 1, 2], ['7', 'x', 'z'], [1, 5, 3])
    assert Recommender(DotProduct(2, 3), ratings, titles=titles).titles == ['Seven', 'Ex', 'z']


# Recommendations

def test_recommendations_are_the_best_that_were_not_rated(rec):
    got = rec.recommend(100, 5)
    u = RATINGS.find('user', [100]).item()
    with torch.no_grad(): stars = MODEL(torch.full((40,), u), torch.arange(40))
    stars[RATINGS.item[RATINGS.user == u]] = -torch.inf
    assert got.index.tolist() == [RATINGS.items[i] for i in stars.argsort(descending=True)[:5]]
    assert np.allclose(got['rating'], stars.sort(descending=True)[0][:5], atol=0.006)
    assert got['title'].tolist() == [f'Film {i}' for i in got.index]
    assert (got['rated by'] == [int((RATINGS.item == RATINGS.items.index(i)).sum()) for i in got.index]).all()


def test_nothing_left_to_recommend():
    full = drawn(5, 6, share=2)
    rec = Recommender(factorise(full, factors=1, epochs=1, bs=8).model, full)
    got = rec.recommend(100)
    assert got.shape == (0, 3) and len(rec.recommend(rec.fold_in({i: 3 for i in full.items}))) == 0


def test_recommendations_for_a_stranger(rec, capsys):
    got = rec.recommend('Ann', 3)
    assert "unknown user, first 'Ann'" in capsys.readouterr().out
    assert got.index.tolist() == [RATINGS.items[i] for i in Means(RATINGS).item.argsort(descending=True)[:3]]


@pytest.mark.parametrize('n', [0, -3, 1.5, True, '5', None])
def test_how_many_is_a_whole_number(rec, n):
    with pytest.raises(CourseError, match='at least 1'): rec.recommend(100, n)
    with pytest.raises(CourseError, match='at least 1'): rec.similar('i1', n)


# Somebody new

def loss_of(rec, item, value):
    "What `fold_in` minimises, for autograd"
    usual, inverse, noise = rec._crowd()
    q = rec.items[item].double()
    return lambda p: ((rec._stars(p[None], q) - value)**2).sum()/noise + (p - usual) @ inverse @ (p - usual)


def by_autograd(rec, item, value):
    p, loss = rec._crowd()[0].clone().requires_grad_(), loss_of(rec, item, value)
    opt = torch.optim.LBFGS([p], max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn='strong_wolfe')
    def closure():
        opt.zero_grad()
        here = loss(p)
        here.backward()
        return here
    opt.step(closure)
    return p.detach()


@pytest.mark.parametrize('seed', range(8))
def test_fold_in_agrees_with_training_the_row(rec, seed):
    g = torch.Generator().manual_seed(seed)
    item = torch.randperm(40, generator=g)[:(1, 2, 5, 40)[seed % 4]]
    value = torch.randint(1, 6, (len(item),), generator=g).double()
    got = rec.fold_in({RATINGS.items[i]: v for i, v in zip(item.tolist(), value.tolist())})
    want = by_autograd(rec, item, value)
    assert got.row.shape == want.shape and (got.row - want).abs().max() < 1e-4
    assert torch.equal(got.item, item) and torch.equal(got.value.double(), value)


@pytest.mark.parametrize('stars', [lambda n: [5.]*n, lambda n: [1.]*n, lambda n: [1., 5.]*(n//2)], ids=['all five', 'all one', 'in turn'])
def test_fold_in_settles_for_hostile_ratings(rec, stars):
    value = stars(40)
    p = rec.fold_in(dict(zip(RATINGS.items, value))).row.double().requires_grad_()
    loss_of(rec, torch.arange(40), torch.tensor(value).double())(p).backward()
    assert p.grad.abs().max() < 0.01


def test_fold_in_without_a_sigmoid_is_one_set_of_equations():
    model = DotProduct(80, 40, 3, y_range=None, mean=3.2)
    with torch.no_grad(): model.users.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))
    rec = Recommender(model, RATINGS)
    usual, inverse, noise = (np.asarray(t) for t in rec._crowd())
    q, r = rec.items[:5].double().numpy(), np.array([5., 4, 3, 2, 1])
    x = np.c_[q[:, :-1], np.ones(5)]
    want = np.linalg.solve(x.T @ x/noise + inverse, x.T @ (r - q[:, -1])/noise + inverse @ usual)
    assert np.allclose(rec.fold_in(dict(zip(RATINGS.items[:5], r))).row, want, atol=1e-5)


def test_more_ratings_tell_more(rec):
    "People of the training, folded in from some of their own ratings"
    def error(most):
        misses = []
        for u in range(0, 80, 4):
            own = (RATINGS.user == u).nonzero()[:, 0]
            somebody = rec.fold_in({RATINGS.items[RATINGS.item[k]]: RATINGS.value[k].item() for k in own[:most]})
            misses.append(rec.predict(somebody, [RATINGS.items[i] for i in RATINGS.item[own[10:]]]) - RATINGS.value[own[10:]])
        return torch.cat(misses).pow(2).mean().item()
    errors = [error(n) for n in (0, 3, 10)]
    assert errors[2] < errors[1] < errors[0]


def test_a_newcomer_is_not_offered_what_they_rated(rec, capsys):
    somebody = rec.fold_in({'i1': 5, 'i2': 1})
    assert isinstance(somebody, Newcomer) and repr(somebody) == 'somebody new, with 2 ratings'
    assert not {'i1', 'i2'} & set(rec.recommend(somebody, 100).index) and len(rec.recommend(somebody, 100)) == 38
    assert rec.predict(somebody, ['i1', 'i3']).shape == (2,) and capsys.readouterr().out == ''
    assert rec.predict(somebody, 'i99').item() == pytest.approx(Means(RATINGS).mean, abs=1e-5)
    assert "unknown item, first 'i99'" in capsys.readouterr().out


def test_the_later_of_two_ratings_of_an_item():
    ratings = Ratings([1, 1, 2, 2], [7, 8, 7, 9], [1, 5, 3, 2])
    rec = Recommender(DotProduct(2, 3), ratings)
    assert rec.fold_in({7: 1, '7': 5}).value.tolist() == [5.]


@pytest.mark.parametrize('given, text', [({'i1': 9}, 'off the scale 1 to 5'), ({'i1': float('nan')}, 'missing'), ({'i1': None}, 'missing'),
                                        ({'i1': 'good'}, 'a rating is a number'), ({'i99': 3}, "unknown item 'i99'"), ({None: 3}, 'is no item id'),
                                        ([('i1', 3)], 'found a list'), ('i1', 'found a str')])
def test_ratings_of_a_newcomer_that_make_no_sense(rec, given, text):
    with pytest.raises(CourseError, match=text): rec.fold_in(given)


def test_one_person_only():
    ratings = Ratings(['Ann']*4, ['a', 'b', 'c', 'd'], [1, 2, 4, 5], scale=(1, 5))
    rec = Recommender(factorise(ratings, factors=2, epochs=2, bs=2).model, ratings)
    assert rec.predict('Ann', ['a', 'b']).isfinite().all() and len(rec.recommend('Ann')) == 0
    somebody = rec.fold_in({'a': 5})
    assert somebody.row.isfinite().all() and len(rec.recommend(somebody)) == 3
    assert len(rec.similar('a', least=1)) == 3


# Reading

def test_similar_is_the_cosine(rec):
    got, q = rec.similar('i3', 50, least=1), rec.items[:, :-1].numpy()
    here = RATINGS.items.index('i3')
    cosine = q @ q[here]/np.linalg.norm(q, axis=1)/np.linalg.norm(q[here])
    order = [i for i in np.argsort(-cosine) if i != here]
    assert got.index.tolist() == [RATINGS.items[i] for i in order] and np.allclose(got['cosine'], cosine[order], atol=0.006)
    counts = torch.bincount(RATINGS.item)
    assert len(rec.similar('i3', 50, least=40)) == int((counts >= 40).sum()) - int(counts[here] >= 40)


def test_a_title_in_place_of_an_id_is_recognised(rec):
    with pytest.raises(CourseError, match="unknown item 'Film i7': give an id. Perhaps: 'i7' is Film i7"): rec.similar('Film i7')


@pytest.mark.parametrize('shape', [(50, 8), (5, 8), (30, 2), (4, 4)])
def test_pca_against_scikit_learn(shape):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1)) + 3
    place, axes, shares = pca(x, 2)
    judge = PCA(2, svd_solver='full')
    theirs = torch.from_numpy(judge.fit_transform(x.double().numpy())).float()
    assert place.shape == theirs.shape and torch.allclose(place.abs(), theirs.abs(), atol=1e-4)
    assert axes.shape == (2, shape[1]) and torch.allclose(axes.abs(), torch.from_numpy(judge.components_).float().abs(), atol=1e-4)
    assert torch.allclose(shares, torch.from_numpy(judge.explained_variance_ratio_).float(), atol=1e-4)


def test_pca_does_not_depend_on_a_turn_of_the_factors(rec):
    q, turn = rec.items[:, :-1], torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)))[0]
    assert torch.allclose(pca(q @ turn)[0].abs(), pca(q)[0].abs(), atol=1e-4)


@pytest.mark.parametrize('x, k, text', [(torch.zeros(3, 2), 3, '1 to 2 are possible'), (torch.zeros(3, 2), 0, 'are possible'),
                                       (torch.tensor([[1., torch.inf], [0, 0]]), 1, 'infinite')])
def test_pca_of_what_has_no_axes(x, k, text):
    with pytest.raises(CourseError, match=text): pca(x, k)


# Labels

def boxes_of(labels): return np.array([t.get_window_extent().extents for t in labels])


def overlapping(boxes):
    "Pairs of boxes that overlap, one after the other"
    return [(i, j) for i, a in enumerate(boxes) for j, b in enumerate(boxes[:i])
            if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]]


@pytest.mark.parametrize('spread', [0., 0.02, 0.3, 1.])
@pytest.mark.parametrize('dpi', [72, 100, 150])
def test_labels_do_not_overlap(spread, dpi):
    rng = np.random.default_rng(3)
    points = rng.normal(0, spread, (40, 2))
    fig, ax = plt.subplots(figsize=(9, 5), dpi=dpi)
    ax.plot(*points.T, 'o')
    ax.set(xlim=(-3, 3), ylim=(-3, 3))
    labels = spread_labels(ax, points, [f'A title, no. {n}'[:int(rng.integers(3, 16))] for n in range(40)])
    boxes, frame = boxes_of(labels), ax.bbox.extents
    plt.close(fig)
    assert boxes.shape == (40, 4) and overlapping(boxes) == []
    assert (boxes[:, :2] >= frame[:2]).all() and (boxes[:, 2:] <= frame[2:]).all()


def test_lonely_points_keep_their_labels_near():
    fig, ax = plt.subplots(figsize=(6, 4))
    points = np.array([(x, y) for x in (1, 10, 100) for y in (0., 1, 2)])
    ax.plot(*points.T, 'o')
    ax.set(xscale='log', xlim=(0.1, 1000), ylim=(-1, 3))
    boxes, at = boxes_of(spread_labels(ax, points, [str(n) for n in range(9)])), ax.transData.transform(points)
    plt.close(fig)
    away = np.maximum(boxes[:, :2] - at, at - boxes[:, 2:]).max(1)
    assert (away < 12).all()


def test_labels_that_cannot_be_placed():
    fig, ax = plt.subplots(figsize=(2, 1))
    with pytest.raises(CourseError, match='100 labels do not fit'): spread_labels(ax, np.zeros((100, 2)), ['much too long a label']*100)
    with pytest.raises(CourseError, match='1 points and 2 texts'): spread_labels(ax, [(0, 0)], ['a', 'b'])
    assert spread_labels(ax, np.zeros((0, 2)), []) == [] and not ax.texts
    plt.close(fig)


# The sliders

def test_a_slider_changes_the_recommendations(rec):
    box = rate_films(rec, n=3)
    *controls, shown = box.children
    counts = torch.bincount(RATINGS.item)
    assert len(controls) == 10 and {c.description for c in controls} == {f'Film {RATINGS.items[i]}' for i in counts.argsort(descending=True, stable=True)[:10]}
    assert {(c.min, c.max, c.value) for c in controls} == {(0, 5, 0)}
    def titles(table): return [line for line in table.split('<td>') if line.startswith('Film')]
    before = titles(shown.value)
    controls[0].value, controls[1].value = 5, 1
    ids = [c.description.removeprefix('Film ') for c in controls]
    want = rec.recommend(rec.fold_in({ids[0]: 5, ids[1]: 1}), 3)['title'].tolist()
    assert [t.split('<')[0] for t in titles(shown.value)] == want and len(before) == 3
    controls[0].value = controls[1].value = 0
    assert titles(shown.value) == before


def test_without_widgets_there_is_a_table(rec, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ipywidgets', None)
    got = rate_films(rec, n=4)
    assert isinstance(got, pd.DataFrame) and got.equals(rec.recommend(rec.fold_in({}), 4))


def test_sliders_for_items_of_ones_own(rec):
    assert [c.description for c in rate_films(rec, ['i5', 'i6']).children[:-1]] == ['Film i5', 'Film i6']
    with pytest.raises(CourseError, match="unknown item 'x'"): rate_films(rec, ['x'])
    with pytest.raises(CourseError, match='at least one'): rate_films(rec, [])


def test_two_items_of_one_title(rec):
    twins = Recommender(MODEL, RATINGS, titles={'i5': 'Twins', 'i6': 'Twins', 'i7': 'draw'})
    assert len({c.description for c in rate_films(twins, ['i5', 'i6', 'i7']).children[:-1]}) == 3


def test_a_scale_of_half_stars():
    ratings = Ratings([1, 1, 2, 2], ['a', 'b', 'a', 'c'], [0.5, 4.5, 5, 3])
    box = rate_films(Recommender(DotProduct(2, 3, 1), ratings), n=2)
    assert (box.children[0].min, box.children[0].step, box.children[0].max) == (0, 0.5, 5)
    box.children[0].value = 5
    assert '<table' in box.children[-1].value


# Save and load

@pytest.fixture
def saved(rec, tmp_path): return rec.save(tmp_path/'sub'/'films.safetensors')


def test_equal_to_the_last_bit(rec, saved):
    back = load_recommender(saved)
    users, items = zip(*[(u, i) for u in RATINGS.users[:20] + ['Ann'] for i in RATINGS.items + ['i99']])
    assert torch.equal(rec.predict(list(users), list(items)), back.predict(list(users), list(items)))
    assert torch.equal(rec.fold_in({'i1': 5, 'i2': 2}).row, back.fold_in({'i1': 5, 'i2': 2}).row)
    assert back.recommend(100).equals(rec.recommend(100)) and back.similar('i1').equals(rec.similar('i1')) and repr(back) == repr(rec)
    assert repr(back.ratings) == repr(rec.ratings) and back.ratings.rows([0, 1]).value.shape == (2,)


def test_loading_twice_and_saving_again(rec, saved, tmp_path):
    again = load_recommender(load_recommender(saved).save(tmp_path/'again.safetensors'))
    assert torch.equal(again.users, rec.users) and again.titles == rec.titles and again.y_range == rec.y_range


def test_ids_and_titles_of_all_languages(tmp_path):
    ratings = Ratings(['Zoë', 'Ōta', 3], ['é', 'Ж', '日本'], [1, 2, 5], times=[3, 1, 2])
    rec = Recommender(DotProduct(3, 3, y_range=None), ratings, titles={'日本': 'Tōkyō "monogatari" | 1953'})
    back = load_recommender(rec.save(tmp_path/'a.safetensors'))
    assert back.titles == rec.titles and back.ratings.users == ratings.users and torch.equal(back.ratings.time, ratings.time)
    assert back.y_range is None and torch.equal(back.predict('Ōta', 'Ж'), rec.predict('Ōta', 'Ж'))


@pytest.mark.parametrize('where', [0.02, 0.2, 0.5, 0.9, 0.999])
def test_a_damaged_file_is_refused(saved, where):
    data = bytearray(saved.read_bytes())
    data[int(where*len(data))] ^= 4
    saved.write_bytes(data)
    with pytest.raises(CourseError): load_recommender(saved)


@pytest.mark.parametrize('keep', [0, 5, 1000, 0.5, 0.999])
def test_a_file_that_was_cut_is_refused(saved, keep):
    data = saved.read_bytes()
    saved.write_bytes(data[:keep if keep == 0 or keep >= 1 else int(keep*len(data))])
    with pytest.raises(CourseError, match='cut off'): load_recommender(saved)


def test_files_of_another_kind(rec, tmp_path):
    save_state(tmp_path/'other.safetensors', {}, {'step': 3})
    with pytest.raises(CourseError, match='no recommender'): load_recommender(tmp_path/'other.safetensors')
    with pytest.raises(CourseError, match='no checkpoint at'): load_recommender(tmp_path/'none.safetensors')
    with pytest.raises(CourseError, match='pickles'): load_recommender(tmp_path/'model.pkl')
    with pytest.raises(CourseError, match=r'should end in \.safetensors'): rec.save(tmp_path/'model.pkl')
