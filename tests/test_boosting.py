"""Boosted trees against scikit-learn, LightGBM and the formulas; what is refused"""
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

from topdown.settings import CourseError
from topdown.trees import BoostedTrees, DecisionTree


def table(seed, n=400, columns=6):
    "Columns, a target that depends on four of them, and classes"
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, columns))
    y = np.sin(2*x[:, 0]) + x[:, 1]*(x[:, 2] > 0) + 0.5*x[:, 3] + rng.normal(0, 0.3, n)
    return x, y, np.where(y + rng.normal(0, 0.5, n) > np.median(y), 'yes', 'no')


SETTINGS = [dict(n=30, rate=0.1, max_depth=3, min_leaf=1), dict(n=20, rate=0.5, max_depth=2, min_leaf=5),
            dict(n=50, rate=0.05, max_depth=1, min_leaf=1), dict(n=10, rate=1., max_depth=3, min_leaf=20)]


def like_one_of_theirs(kind, settings, ours, x, y, say):
    "Does scikit-learn find our trees with one of many seeds? It breaks ties by chance and by rounding"
    s = dict(n_estimators=settings['n'], learning_rate=settings['rate'], max_depth=settings['max_depth'], min_samples_leaf=settings['min_leaf'])
    said = say(ours, x)
    return any(np.allclose(said, say(kind(**s, random_state=seed).fit(x, y), x), atol=1e-6) for seed in range(40))


@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize('seed', range(3))
def test_numbers_as_scikit_learn(seed, settings):
    x, y, _ = table(seed)
    ours = BoostedTrees('regress', **settings).fit(x, y)
    assert ours.predict(x).shape == y.shape
    assert like_one_of_theirs(GradientBoostingRegressor, settings, ours, x, y, lambda m, x: m.predict(x))


@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize('seed', range(3))
def test_classes_as_scikit_learn(seed, settings):
    x, _, y = table(seed)
    ours = BoostedTrees('classify', **settings).fit(x, y)
    assert ours.predict_proba(x).shape == (len(y), 2) and list(ours.classes) == ['no', 'yes']
    assert like_one_of_theirs(GradientBoostingClassifier, settings, ours, x, y, lambda m, x: m.predict_proba(x))


def test_about_as_lightgbm():
    lightgbm = pytest.importorskip('lightgbm')
    x, y, _ = table(0, n=2000)
    new, truth, _ = table(1, n=2000)
    light = lightgbm.LGBMRegressor(n_estimators=100, learning_rate=0.1, max_depth=3, num_leaves=8, n_jobs=1, verbose=-1).fit(x, y)
    ours = BoostedTrees('regress', n=100, rate=0.1, max_depth=3, min_leaf=20).fit(x, y)
    errors = [((np.asarray(m.predict(new)) - truth)**2).mean() for m in (ours, light)]
    assert errors[0] == pytest.approx(errors[1], rel=0.1) and errors[0] < 0.4*truth.var()


def test_one_whole_step_is_a_tree():
    x, y, _ = table(4)
    assert np.allclose(BoostedTrees('regress', n=1, rate=1.).fit(x, y).predict(x), DecisionTree('regress', max_depth=3).fit(x, y).predict(x))


def test_the_value_of_a_leaf_is_a_newton_step():
    x, _, y = table(5)
    model, yes = BoostedTrees(n=1, rate=1., max_depth=1).fit(x, y), (y == 'yes')*1.
    p, side = yes.mean(), next(model.stages(x))
    assert model.start == pytest.approx(np.log(p/(1 - p))) and len(np.unique(side)) == 2
    for score in np.unique(side):
        rows = yes[side == score]
        assert score - model.start == pytest.approx((rows - p).sum()/(len(rows)*p*(1 - p)))


@pytest.mark.parametrize('task', ['regress', 'classify'])
def test_stages_end_in_the_prediction_and_the_training_loss_falls(task):
    x, numbers, classes = table(6)
    y = numbers if task == 'regress' else classes
    model = BoostedTrees(task, n=25, rate=0.3).fit(x, y)
    stages = list(model.stages(x))
    assert len(stages) == 25 and all(s.shape == (len(x),) for s in stages)
    if task == 'regress':
        assert np.array_equal(stages[-1], model.predict(x))
        losses = [((y - s)**2).mean() for s in stages]
    else:
        assert np.allclose(1/(1 + np.exp(-stages[-1])), model.predict_proba(x)[:, 1])
        losses = [np.logaddexp(0, np.where(y == 'yes', -s, s)).mean() for s in stages]
    assert all(b < a for a, b in zip(losses, losses[1:]))


@pytest.mark.parametrize('names', [('no', 'yes'), (0, 1), (-1, 1), (False, True), (0., 2.)])
def test_the_names_of_the_classes_make_no_difference(names):
    x, _, y = table(7)
    named = np.array(names)[(y == 'yes')*1]
    model = BoostedTrees(n=10).fit(x, named)
    assert list(model.classes) == list(names) and set(model.predict(x)) <= set(names)
    assert np.array_equal(model.predict_proba(x), BoostedTrees(n=10).fit(x, y).predict_proba(x))
    assert np.allclose(model.predict_proba(x).sum(1), 1)


def test_only_the_order_of_a_column_counts():
    x, y, _ = table(8)
    assert np.allclose(*(BoostedTrees('regress', n=20).fit(t, y).predict(t) for t in (x, np.exp(x))), atol=1e-6)


def test_the_same_again_and_the_data_are_left_alone():
    x, y, _ = table(9)
    before = x.copy(), y.copy()
    one, other = (BoostedTrees('regress', n=10).fit(x, y).predict(x) for _ in range(2))
    assert np.array_equal(one, other) and np.array_equal(x, before[0]) and np.array_equal(y, before[1])


def test_nothing_to_learn():
    x, y, _ = table(10)
    assert np.allclose(BoostedTrees('regress', n=5).fit(x, np.full(len(x), 7.)).predict(x), 7)               # a constant target
    assert np.allclose(BoostedTrees('regress', n=5).fit(np.ones((len(x), 2)), y).predict(np.ones((3, 2))), y.mean()) # columns that say nothing
    assert BoostedTrees('regress', n=3).fit(x[:1], y[:1]).predict(x[:1]) == pytest.approx(y[:1])              # a single row


def test_classes_told_apart_completely():
    x = np.arange(20.)[:, None]
    p = BoostedTrees(n=400, rate=0.5).fit(x, x[:, 0] > 9).predict_proba(x)
    assert np.isfinite(p).all() and (p[:10, 0] > 0.99).all() and (p[10:, 1] > 0.99).all()


def test_the_numpy_form_and_the_compiled_one():
    pytest.importorskip('numba')
    x, y, classes = table(13)
    for task, target in (('regress', y), ('classify', classes)):
        fast, slow = (BoostedTrees(task, n=15, fast=fast).fit(x, target) for fast in (True, False))
        assert np.allclose(list(fast.stages(x)), list(slow.stages(x)))


def test_a_table_with_names():
    x, y, _ = table(14)
    df = pd.DataFrame(x, columns=list('abcdef'))
    model = BoostedTrees('regress', n=10).fit(df, pd.Series(y))
    assert np.array_equal(model.predict(df), BoostedTrees('regress', n=10).fit(x, y).predict(x))
    assert np.array_equal(model.predict(df[list('fedcba')].assign(extra=1)), model.predict(df))    # another order, one column more
    with pytest.raises(CourseError, match="missing.*'c'"): model.predict(df.drop(columns='c'))
    with pytest.raises(CourseError, match="'a' holds no numbers"): BoostedTrees('regress').fit(df.assign(a='x'), y)


@pytest.mark.parametrize('settings, message', [
    (dict(task='clasify'), "unknown task 'clasify'"), (dict(n=0), '0 trees'), (dict(rate=0), 'a rate of 0'), (dict(rate=-0.1), 'a rate of -0.1'),
    (dict(rate=float('nan')), 'a rate of nan'), (dict(rate=float('inf')), 'a rate of inf'), (dict(min_leaf=0), 'min_leaf'),
    (dict(max_depth=-1), 'max_depth')])
def test_settings_that_are_refused(settings, message):
    with pytest.raises(CourseError, match=message): BoostedTrees(**settings)


@pytest.mark.parametrize('task, y, message', [
    ('regress', [1., None, 3.], 'missing in 1 of 3 rows, the first is row 1'), ('regress', [1., np.nan, np.nan], 'missing in 2 of 3 rows'),
    ('regress', [1., np.inf, 2.], 'infinite in row 1'), ('regress', ['a', 'b', 'a'], "'a'"), ('regress', [1., 2.], '3 rows'),
    ('regress', [], '3 rows'), ('regress', [[1.], [2.], [3.]], r'the shape \(3, 1\)'),
    ('classify', ['a', 'b', 'c'], 'y has 3: a, b, c'), ('classify', ['a', 'a', 'a'], 'y has 1: a'), ('classify', [0.5, 1, 0], 'no class'),
    ('classify', ['a', None, 'b'], 'missing in 1 of 3 rows')])
def test_targets_that_are_refused(task, y, message):
    with pytest.raises(CourseError, match=message): BoostedTrees(task, n=2).fit(np.arange(3.)[:, None], y)


def test_values_that_are_refused():
    x, y, _ = table(11, n=20)
    model = BoostedTrees('regress', n=2).fit(x, y)
    for bad in (np.nan, np.inf):
        wrong = x.copy()
        wrong[3, 2] = bad
        with pytest.raises(CourseError, match='row 3'): BoostedTrees('regress', n=2).fit(wrong, y)
        with pytest.raises(CourseError, match='row 3'): model.predict(wrong)
    with pytest.raises(CourseError, match='3 columns'): model.predict(x[:, :3])
    with pytest.raises(CourseError, match='0 rows'): BoostedTrees('regress').fit(x[:0], y[:0])


def test_what_boosted_trees_cannot_say():
    x, y, classes = table(12, n=30)
    for task in ('regress', 'classify'):
        with pytest.raises(CourseError, match='not fitted'): BoostedTrees(task).predict(x)
        with pytest.raises(CourseError, match='not fitted'): BoostedTrees(task).stages(x)
    with pytest.raises(CourseError, match='probabilities are for classes'): BoostedTrees('regress', n=2).fit(x, y).predict_proba(x)
    with pytest.raises(CourseError, match='no such bill'): BoostedTrees(n=2).fit(x, classes).contributions(x)
