"""Trees and forests against scikit-learn, on generated tables; the NumPy form against the compiled one; explanations; bad input"""
import sys
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from topdown.settings import CourseError
from topdown.trees import (DecisionTree, RandomForest, _auc, _shuffled, best_split, draw_tree, partial_dependence, permutation_importance,
                           waterfall, which_set)

needs_numba = pytest.mark.skipif(not find_spec('numba'), reason='needs numba')
FAST = [False, pytest.param(True, marks=needs_numba)]


def make(seed, rows=200):
    "A generated table, targets, and the task: numbers, two classes or more; values with and without many repetitions"
    rng = np.random.default_rng(seed)
    columns = int(rng.integers(2, 9))
    x = rng.normal(size=(rows, columns))
    for j in range(columns):
        if rng.random() < 0.5: x[:, j] = np.round(2*x[:, j])                     # few different values
        if rng.random() < 0.1: x[:, j] = 3                                       # a constant column
    x = x.astype(np.float32).astype(float)                                       # scikit-learn keeps 32 bits
    score = x[:, 0] + np.sin(2*x[:, 1]) + x[:, -1]*(x[:, 0] > 0) + rng.normal(0, 0.5, rows)
    kind = seed % 3
    if kind == 0: return x, score, 'regress'
    return x, np.digitize(score, np.quantile(score, np.arange(1, kind + 1)/(kind + 1))), 'classify'


def targets(y, task):
    if task == 'regress': return y[:, None]
    classes, number = np.unique(y, return_inverse=True)
    return np.eye(len(classes))[number]


def gains(x, Y, w, min_leaf):
    "All splits, straight from the definition: {(column, threshold): gain}"
    def errors(rows): return (w[rows, None]*(Y[rows] - np.average(Y[rows], axis=0, weights=w[rows]))**2).sum()
    found, everyone = {}, np.ones(len(x), bool)
    for j in range(x.shape[1]):
        values = np.unique(x[:, j])
        for cut in (values[1:] + values[:-1])/2:
            left = x[:, j] <= cut
            if min(left.sum(), (~left).sum()) >= min_leaf: found[j, cut] = errors(everyone) - errors(left) - errors(~left)
    return found


def same_up_to_ties(ours, theirs, x, Y, w, min_leaf, fresh):
    """Walk down both trees together. Where one split is best, both must have it; where several are equally good, theirs must be one of
    them, and what follows is theirs to choose. Gives which of the fresh rows met no tie, and the number of nodes compared"""
    n, t, compared = ours.nodes, theirs.tree_, 0
    untied, todo = np.ones(len(fresh), bool), [(0, 0, np.flatnonzero(w), np.arange(len(fresh)))]
    while todo:
        a, b, rows, there = todo.pop()
        compared += 1
        assert n.count[a] == len(rows) == t.n_node_samples[b]
        if n.feature[a] < 0 and t.children_left[b] < 0:
            mean = np.average(Y[rows], axis=0, weights=w[rows])
            assert np.allclose(n.value[a], mean[-1:] if n.value.shape[1] == 1 else mean)
            assert np.allclose(t.value[b].ravel(), mean)
            continue
        assert n.feature[a] >= 0 and t.children_left[b] >= 0, 'one goes on where the other ends'
        all_gains = gains(x[rows], Y[rows], w[rows], min_leaf)
        best = max(all_gains.values())
        near = {s for s, g in all_gains.items() if g > best - 1e-7*(abs(best) + 1)}
        def is_one_of_them(column, cut): return any(j == column and abs(c - cut) < 1e-5*(1 + abs(c)) for j, c in near)
        assert is_one_of_them(n.feature[a], n.threshold[a]) and is_one_of_them(t.feature[b], t.threshold[b])
        if len(near) > 1:
            untied[there] = False
            continue
        for child_a, child_b, side in ((n.left[a], t.children_left[b], True), (n.right[a], t.children_right[b], False)):
            def part(table, which): return which[(table[which, n.feature[a]] <= n.threshold[a]) == side]
            todo.append((child_a, child_b, part(x, rows), part(fresh, there)))
    return untied, compared


@pytest.mark.parametrize('seed', range(20))
def test_a_tree_is_that_of_scikit_learn(seed):
    x, y, task = make(seed)
    fresh, min_leaf = make(seed + 1000)[0], 1 + seed % 4*3
    if fresh.shape[1] != x.shape[1]: fresh = x + np.float32(0.01)*np.random.default_rng(seed).normal(size=x.shape)
    fresh = fresh.astype(np.float32).astype(float)
    kind = DecisionTreeRegressor if task == 'regress' else DecisionTreeClassifier
    theirs = kind(min_samples_leaf=min_leaf, random_state=seed).fit(x, y)
    ours = DecisionTree(task, min_leaf=min_leaf).fit(x, y)
    untied, compared = same_up_to_ties(ours, theirs, x, targets(y, task), np.ones(len(x)), min_leaf, fresh)
    assert compared > 10
    assert np.allclose(ours.predict(fresh)[untied], theirs.predict(fresh)[untied])
    if task == 'classify': assert np.allclose(ours.predict_proba(fresh)[untied], theirs.predict_proba(fresh)[untied])
    if min_leaf >= 7: assert untied.mean() > 0.5                                  # else ties are everywhere, and little is compared


@pytest.mark.parametrize('seed', range(20))
def test_a_forest_is_that_of_scikit_learn_on_the_same_samples(seed):
    x, y, task = make(seed)
    fresh = (x + 0.01*np.random.default_rng(seed).normal(size=x.shape)).astype(np.float32).astype(float)
    kind = RandomForestRegressor if task == 'regress' else RandomForestClassifier
    theirs = kind(5, max_features=None, min_samples_leaf=8, random_state=seed).fit(x, y)
    ours = RandomForest(task, 5, min_leaf=8, max_features=None).fit(x, y, samples=theirs.estimators_samples_)
    untied = np.ones(len(fresh), bool)
    for a, b, rows in zip(ours.trees, theirs.estimators_, theirs.estimators_samples_):
        w = np.bincount(rows, minlength=len(x)).astype(float)
        untied &= same_up_to_ties(a, b, x, targets(y, task), w, 8, fresh)[0]
    assert untied.mean() > 0.2
    same = ours.predict if task == 'regress' else ours.predict_proba
    assert np.allclose(same(fresh)[untied], (theirs.predict if task == 'regress' else theirs.predict_proba)(fresh)[untied])


@needs_numba
@pytest.mark.parametrize('seed', range(20))
def test_compiled_loops_find_the_same(seed):
    x, y, task = make(seed)
    rng = np.random.default_rng(seed)
    settings = dict(max_depth=[None, 3, 6][seed % 3], min_leaf=1 + seed % 5, max_features=[None, 'sqrt', 0.5, 1][seed % 4], seed=seed)
    weights = [None, rng.integers(0, 3, len(x)), rng.random(len(x))][seed % 3]
    a, b = (DecisionTree(task, **settings, fast=fast).fit(x, y, weights) for fast in (False, True))
    for name in ('feature', 'threshold', 'left', 'right', 'count'): assert np.array_equal(getattr(a.nodes, name), getattr(b.nodes, name)), name
    for name in ('value', 'weight', 'errors'): assert np.allclose(getattr(a.nodes, name), getattr(b.nodes, name)), name
    assert a.leaf(x).tolist() == b.leaf(x).tolist()
    forests = [RandomForest(task, 4, **settings | {'max_features': 'sqrt'}, fast=fast).fit(x, y) for fast in (False, True)]
    assert np.allclose(*(f._means(x) for f in forests)) and np.allclose(*(f.oob_mean for f in forests), equal_nan=True)


@needs_numba
def test_large_nodes_are_sorted_digit_by_digit():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 3))                                                # more different values than four for each row of a node
    y = (x[:, 0] + x[:, 1]*x[:, 2] + rng.normal(0, 0.5, 3000) > 0).astype(int)
    a, b = (DecisionTree(min_leaf=20, fast=fast).fit(x, y) for fast in (False, True))
    assert all(np.allclose(p, q) for p, q in zip(a.nodes, b.nodes)) and ((a.nodes.count > 50) & (a.nodes.count < 750)).sum() > 20


@needs_numba
def test_random_columns_are_the_same_in_both_forms():
    from topdown.loops import _shuffle
    a, b = np.arange(50), np.arange(50)
    for state in (1, 42, 2147483646): assert _shuffled(a, state) == _shuffle(b, state) and a.tolist() == b.tolist()


def test_best_split_from_the_definition():
    for seed in range(20):
        x, y, task = make(seed, 40)
        w, Y = np.random.default_rng(seed).integers(1, 4, 40).astype(float), targets(y, task)
        for min_leaf in (1, 5):
            every, found = gains(x, Y, w, min_leaf), best_split(x, Y, w, min_leaf)
            assert np.isclose(found.gain, max(every.values())) and np.isclose(every[found.column, found.threshold], found.gain)


def test_weights_are_repetitions():
    x, y, _ = make(0)
    w = np.random.default_rng(0).integers(0, 4, len(x))
    a = DecisionTree('regress', max_depth=4).fit(x, y, w)
    b = DecisionTree('regress', max_depth=4).fit(np.repeat(x, w, 0), np.repeat(y, w))
    assert np.allclose(a.predict(x), b.predict(x))


@pytest.mark.parametrize('fast', FAST)
def test_extremes(fast):
    one = DecisionTree('regress', fast=fast).fit([[1.]], [5])
    assert one.predict([[0.], [9]]).tolist() == [5, 5] and len(one.nodes.feature) == 1
    alike = DecisionTree(fast=fast).fit(np.ones((6, 2)), [0, 1, 0, 1, 1, 1])      # no column tells them apart
    assert alike.predict([[1., 1]]).tolist() == [1] and alike.text().endswith('6 rows')
    single = DecisionTree(fast=fast).fit([[1.], [2]], ['a', 'a'])
    assert single.predict([[3.]]).tolist() == ['a'] and single.predict_proba([[3.]]).tolist() == [[1]]
    near = np.array([[1.], [np.nextafter(1, 2)]])                                 # no number lies between these two
    assert DecisionTree(fast=fast).fit(near, [0, 1]).predict(near).tolist() == [0, 1]
    xor = np.array([[0., 0], [0, 1], [1, 0], [1, 1]])                             # the first question gains nothing
    assert DecisionTree(fast=fast).fit(xor, [0, 1, 1, 0]).predict(xor).tolist() == [0, 1, 1, 0]
    huge = np.array([1e9, 1e9 + 1, 1e9 + 2, 1e9 + 3])                             # far from 0: precision
    assert DecisionTree('regress', fast=fast).fit(np.arange(4.)[:, None], huge).predict(np.arange(4.)[:, None]).tolist() == huge.tolist()
    assert DecisionTree('regress', max_depth=0, fast=fast).fit(np.arange(4.)[:, None], huge).predict([[0.]])[0] == huge.mean()


def test_classes_may_be_texts_or_numbers():
    x = np.arange(9.)[:, None]
    for y in (['a', 'b', 'c']*3, [3, 5, 9]*3, [True, False, True]*3, [1., 2., 3.]*3):
        for model in (DecisionTree(), RandomForest(n=30, max_features=None)):
            model.fit(x, y)
            assert set(model.predict(x).tolist()) <= set(y) and np.allclose(model.predict_proba(x).sum(1), 1)
        assert DecisionTree().fit(x, y).predict(x).tolist() == list(y)


TABLE = pd.DataFrame({'a': [1., 2, 3, 4], 'b': [4., 3, 1, 2]})


@pytest.mark.parametrize('x, y, message', [
    (TABLE.assign(b=['x', 'y', 'z', 'x']), [0, 1, 0, 1], "column 'b' holds no numbers"),
    (TABLE.assign(b=[1, 2, np.nan, 3]), [0, 1, 0, 1], "column 'b', row 2: nan is no finite number"),
    (TABLE.assign(a=[1, np.inf, 2, 3]), [0, 1, 0, 1], "column 'a', row 1: inf"),
    (TABLE, [0, 1, 0], r'4 rows, and targets of the shape \(3,\)'),
    (TABLE, [0, 1, None, 1], 'missing in 1 of 4 rows, the first is row 2'),
    (TABLE, [0.5, 1, 0, 1], '0.5 is no class'),
    (TABLE[:0], [], '0 rows'),
    ([1., 2, 3], [1, 2, 3], 'the shape'),
    ([['a'], ['b']], [0, 1], 'a table of numbers'),
    (TABLE[[]], [0, 1, 0, 1], 'the shape'),
    (TABLE.set_axis(['a', 'a'], axis=1), [0, 1, 0, 1], "two columns are called 'a'"),
    (TABLE, pd.Series([0, 'x', 0, 1]), 'some classes are texts'),
])
def test_bad_tables(x, y, message):
    for model in (DecisionTree(), RandomForest(n=2)):
        with pytest.raises(CourseError, match=message): model.fit(x, y)


def test_bad_settings():
    for settings, message in (({'task': 'guess'}, 'guess'), ({'max_depth': -1}, 'max_depth'), ({'min_leaf': 0}, 'min_leaf')):
        with pytest.raises(CourseError, match=message): DecisionTree(**settings)
    for f in (0, 3, 1.5, 'all'):
        with pytest.raises(CourseError, match='max_features'): DecisionTree(max_features=f).fit(TABLE, [0, 1, 0, 1])
    with pytest.raises(CourseError, match='at least 1'): RandomForest(n=0)
    with pytest.raises(CourseError, match='samples for 1 trees, but n is 2'): RandomForest(n=2).fit(TABLE, [0, 1, 0, 1], samples=[[0, 1]])
    with pytest.raises(CourseError, match='weights'): DecisionTree().fit(TABLE, [0, 1, 0, 1], [0, 0, 0, 0])
    with pytest.raises(CourseError, match='weights'): DecisionTree().fit(TABLE, [0, 1, 0, 1], [1, -1, 1, 1])
    with pytest.raises(CourseError, match='to regress takes numbers'): DecisionTree('regress').fit(TABLE, ['a', 'b', 'c', 'd'])
    with pytest.raises(CourseError, match='fit'): RandomForest().predict(TABLE)
    with pytest.raises(CourseError, match='predicts numbers'): DecisionTree('regress').fit(TABLE, [1, 2, 3, 4]).predict_proba(TABLE)


def test_columns_at_predict():
    tree = DecisionTree().fit(TABLE, [0, 0, 1, 1])
    assert tree.predict(TABLE[:0]).shape == (0,)
    assert tree.predict(TABLE[['b', 'a']]).tolist() == tree.predict(TABLE.assign(c=1.)).tolist() == tree.predict(TABLE.to_numpy()).tolist()
    with pytest.raises(CourseError, match=r"missing: \['b'\]"): tree.predict(TABLE[['a']])
    with pytest.raises(CourseError, match='3 columns, expected 2'): tree.predict(np.ones((1, 3)))


def test_without_numba(monkeypatch):
    monkeypatch.setitem(sys.modules, 'topdown.loops', None)
    import topdown
    monkeypatch.delattr(topdown, 'loops', raising=False)
    assert DecisionTree().fit(TABLE, [0, 0, 1, 1]).predict(TABLE).tolist() == [0, 0, 1, 1]
    with pytest.raises(CourseError, match='pip install numba'): DecisionTree(fast=True).fit(TABLE, [0, 0, 1, 1])


def test_out_of_bag_is_what_unseen_trees_say():
    x, y, task = make(3)
    forest = RandomForest(task, 20, min_leaf=3, seed=5).fit(x, y)
    known = np.isfinite(forest.oob_mean[:, 0])
    seen = np.stack([np.bincount(np.random.default_rng([5, i]).integers(0, len(x), len(x)), minlength=len(x)) > 0 for i in range(20)])
    said = np.stack([t.predict(x) for t in forest.trees])
    mean = np.where(~seen, said, 0).sum(0)[known]/(~seen).sum(0)[known]
    assert np.allclose(forest.oob_mean[known, 0], mean) and known.mean() > 0.99
    assert np.isclose(forest.oob_score, 1 - ((y[known] - mean)**2).sum()/((y[known] - y[known].mean())**2).sum())


def test_out_of_bag_score_is_near_that_of_scikit_learn():
    x, y, _ = make(4, 1000)
    ours = RandomForest(n=100, seed=1).fit(x, y).oob_score
    theirs = RandomForestClassifier(100, oob_score=True, random_state=1).fit(x, y).oob_score_
    assert abs(ours - theirs) < 0.04


@pytest.mark.parametrize('fast', FAST)
def test_a_node_looks_further_only_past_constant_columns(fast):
    x = np.zeros((40, 3))
    x[0, 1], x[:, 2] = 1, np.arange(40)                                           # constant; one row apart; all different
    y = (np.arange(40) >= 20).astype(int)
    roots = [DecisionTree(min_leaf=5, max_features=1, max_depth=1, seed=s, fast=fast).fit(x, y).nodes.feature[0] for s in range(60)]
    assert set(roots) == {-1, 2} and 20 <= roots.count(-1) <= 40                   # -1: column 1 came before column 2, and allows no cut


def test_same_seed_same_forest():
    x, y, task = make(4)
    a, b, c = (RandomForest(task, 5, seed=s).fit(x, y)._means(x) for s in (1, 1, 2))
    assert (a == b).all() and (a != c).any()


def test_importance_is_that_of_scikit_learn():
    for seed in range(6):
        x, y, task = make(seed)
        kind = DecisionTreeRegressor if task == 'regress' else DecisionTreeClassifier
        theirs = kind(max_depth=3, min_samples_leaf=20, random_state=0).fit(x, y)
        ours = DecisionTree(task, max_depth=3, min_leaf=20).fit(x, y)
        assert np.allclose(ours.importance, theirs.feature_importances_, atol=1e-6) and np.isclose(ours.importance.sum(), 1)


@pytest.mark.parametrize('seed', range(6))
def test_contributions_add_up(seed):
    x, y, task = make(seed)
    for model in (DecisionTree(task, seed=seed), RandomForest(task, 7, seed=seed)):
        model.fit(x, y)
        for k, label in enumerate([None] if task == 'regress' else model.classes):
            start, parts = model.contributions(x, label)
            assert parts.shape == x.shape
            assert np.allclose(start + parts.sum(1), model.predict(x) if label is None else model.predict_proba(x)[:, k])
    constant = np.ptp(x, axis=0) == 0
    assert (parts[:, constant] == 0).all()


def test_permutation_importance_near_scikit_learn():
    from sklearn.inspection import permutation_importance as reference
    x, y, task = make(3, 600)
    frame = pd.DataFrame(x, columns=[f'c{j}' for j in range(x.shape[1])])
    model = RandomForestRegressor(20, random_state=0).fit(frame, y)
    ours = permutation_importance(model, frame, y, measure=lambda p, t: ((p - t)**2).mean(), repeats=20)
    theirs = reference(model, frame, y, scoring='neg_mean_squared_error', n_repeats=20, random_state=0)
    assert np.allclose(ours.loc[frame.columns, 'rise'], theirs.importances_mean, atol=0.1*theirs.importances_mean.max())
    assert ours['rise'].is_monotonic_decreasing


def test_partial_dependence_is_that_of_scikit_learn():
    from sklearn.inspection import partial_dependence as reference
    x, y, _ = make(3)
    frame = pd.DataFrame(x, columns=[f'c{j}' for j in range(x.shape[1])])
    model = RandomForestRegressor(10, random_state=0).fit(frame, y)
    theirs = reference(model, frame, ['c0'], method='brute', grid_resolution=15)
    ours = partial_dependence(model, frame, 'c0', values=theirs['grid_values'][0], rows=len(frame))
    assert np.allclose(ours.mean(axis=1), theirs['average'][0])
    with pytest.raises(CourseError, match='c99'): partial_dependence(model, frame, 'c99')


def test_auc_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score
    rng = np.random.default_rng(0)
    for _ in range(20):
        y, score = rng.integers(0, 2, 50), rng.integers(0, 9, 50)
        assert np.isclose(_auc(score, y), roc_auc_score(y, score))


def test_which_set():
    rng = np.random.default_rng(0)
    old, new = (pd.DataFrame(rng.normal(size=(400, 3)), columns=list('abc')) for _ in range(2))
    assert abs(which_set(old, new)[0] - 0.5) < 0.1
    auc, tells = which_set(old, new.assign(b=new['b'] + 3))
    assert auc > 0.95 and tells.index[0] == 'b'
    with pytest.raises(CourseError, match='same columns'): which_set(old, new[['a', 'b']])


def test_a_forest_stays_within_what_it_has_seen():
    x, y, _ = make(3)
    said = RandomForest('regress', 20).fit(x, y).predict(100*x)
    assert y.min() <= said.min() and said.max() <= y.max()


def test_pictures_have_alt_text():
    x, y, task = make(3)
    tree = DecisionTree(task, max_depth=4).fit(x, y)
    start, parts = tree.contributions(x)
    picture = waterfall(start, pd.Series(parts[0], tree.names), top=2)
    assert f'to the prediction, {tree.predict(x)[0]:.2f}' in picture.alt and len(draw_tree(tree).alt) > 30
    draw_tree(DecisionTree().fit([[1.]], [1]))
    lines = tree.text().splitlines()
    assert len(lines) == len(tree.nodes.feature) - 1 and sum('rows' in line for line in lines) == (tree.nodes.feature < 0).sum()
