"""Lesson 6's workbook: LibreOffice computes every cell as the notebook and NumPy do, also after a change, and what `titanic_sheet` refuses"""
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from openpyxl import load_workbook
from openpyxl.utils import get_column_letter
from test_sheets import names_until, recalculate

from topdown.settings import CourseError
from topdown.tabular import titanic_sheet

LESSON = Path(__file__).resolve().parent.parent/'nbs'/'06a_tables.ipynb'


@pytest.fixture(scope='module')
def lesson():
    "The names that the lesson has defined when its workbook is written"
    return names_until(LESSON, 'file = titanic_sheet(')


def numbers(people, age):
    "The nine numbers of each passenger"
    t = people
    columns = [t.Sex == 'male', t.Pclass == 1, t.Pclass == 2, t.Embarked == 'C', t.Embarked == 'Q', t.Age.fillna(age), t.SibSp, t.Parch, np.log(1 + t.Fare)]
    return np.array(columns, dtype=float).T


def spread_of(x):
    "Standard deviations; 1 for a column that never changes"
    spread = x.std(0, ddof=1)
    return np.where(spread < 1e-9, 1, spread)


def descend(x, y, start, rate, steps):
    "Gradient descent in NumPy: a row a step of loss, bias, weights"
    b, w, path = start[0], start[1:].copy(), []
    for _ in range(steps + 1):
        z = x @ w + b
        path.append([np.mean(np.log1p(np.exp(-abs(z))) + np.maximum(z, 0) - y*z), b, *w])
        miss = 1/(1 + np.exp(-z)) - y
        b, w = b - rate*miss.mean(), w - rate*x.T @ miss/len(y)
    return np.array(path)


def block(page, corner, rows, columns):
    "Cells as numbers"
    first = page[corner]
    values = [[page.cell(first.row + r, first.column + c).value for c in range(columns)] for r in range(rows)]
    return np.array(values, dtype=float)


def agree(got, want, bound=1e-6):
    want = np.asarray(want, dtype=float)
    assert got.shape == want.shape
    assert np.max(abs(got - want)/np.maximum(1, abs(want))) <= bound


def check(book, train, valid, rate=1., steps=60, use=None, start=None):
    "All cells of the first three sheets against NumPy; the path of the descent"
    start, use, n, m = np.zeros(10) if start is None else start, steps if use is None else use, len(train), len(valid)
    age, (y, yv) = train.Age.median(), (t.Survived.to_numpy(dtype=float) for t in (train, valid))
    x, xv = (numbers(t, age) for t in (train, valid))
    mean, spread = x.mean(0), spread_of(x)
    page = book['passengers']
    agree(block(page, 'I2', 2, 9), [mean, spread])
    agree(block(page, 'I6', n + m, 9), np.vstack([x, xv]))
    x, xv = (x - mean)/spread, (xv - mean)/spread
    agree(block(page, 'R6', n + m, 9), np.vstack([x, xv]))
    path = descend(x, y, start, rate, steps)
    agree(block(book['descent'], 'B22', steps + 1, 11), path)
    assert [book['descent'][f'A{22 + s}'].value for s in range(steps + 1)] == list(range(steps + 1))
    scores, truth = np.concatenate([x, xv]) @ path[use, 2:] + path[use, 1], np.concatenate([y, yv])
    correct = (scores > 0) == (truth == 1)
    agree(block(page, 'AA6', n + m, 3), np.array([scores, 1/(1 + np.exp(-scores)), correct]).T)
    women = (valid.Sex == 'male').to_numpy() + yv == 1
    agree(block(book['model'], 'B1', 9, 1)[:, 0],
          [rate, use, n, age, path[use, 0], correct[:n].mean(), correct[n:].mean(), 1 - yv.mean(), women.mean()])
    agree(block(book['model'], 'B12', 2, 10), [start, path[use, 1:]])
    assert not [c.coordinate for page in book for row in page for c in row if c.data_type == 'e']
    return path


def test_the_lesson_writes_formulas_and_a_chart(lesson):
    book = load_workbook(lesson['file'])
    assert book.sheetnames == ['passengers', 'model', 'descent', 'notebook']
    assert all(book['model'][c].fill.fill_type == 'solid' for c in ('B1', 'B2', 'B12', 'K12'))
    assert all(c.data_type == 'f' for row in book['descent']['A23:L82'] for c in row) and book['descent']['M22'].value is None
    last = 5 + len(lesson['train']) + len(lesson['valid'])
    assert all(c.data_type == 'f' for r in (6, last) for c in book['passengers'][r][8:29]) and book['passengers'][f'A{last + 1}'].value is None
    assert [c.value for c in book['notebook'][21] if c.value] == [c.value for c in book['descent'][21] if c.value][1:]
    with zipfile.ZipFile(lesson['file']) as z: assert sum(n.startswith('xl/charts/chart') for n in z.namelist()) == 1


def test_libreoffice_agrees_with_the_notebook_in_every_cell_at_every_rate_and_step(lesson, tmp_path):
    train, valid = lesson['train'], lesson['valid']
    tries, files = [(1., 60), (0.1, 60), (3., 7)], [tmp_path/'as it is.xlsx']
    shutil.copy(lesson['file'], files[0])
    for rate, step in tries[1:]:
        book = load_workbook(lesson['file'])
        book['model']['B1'].value, book['model']['B2'].value = rate, step            # what a reader does
        files.append(tmp_path/f'{rate}.xlsx')
        book.save(files[-1])
    for (rate, step), computed in zip(tries, recalculate(tmp_path, *files)):
        path, difference = check(computed, train, valid, rate, use=step), computed['notebook']['B1'].value
        agree(lesson['descend'](lesson['x_train'], lesson['y_train'], rate), path)
        assert difference < 1e-6 if rate == 1 else difference > 0.1
    right = check_accuracy(lesson)
    assert abs(load_workbook(tmp_path/'computed'/'as it is.xlsx', data_only=True)['model']['B7'].value - right) < 1e-6


def check_accuracy(lesson): return lesson['linear_right'](lesson['walk'], lesson['x_valid'], lesson['y_valid'])


def test_another_passenger_and_another_start_change_everything_that_follows(lesson, tmp_path):
    train, valid = lesson['train'].copy(), lesson['valid']
    start, book = np.zeros(10), load_workbook(lesson['file'])
    page, model = book['passengers'], book['model']
    gap = int(np.flatnonzero(train.Age.isna())[0])
    for at, column, value in ((gap, 'Age', 33.), (3, 'Sex', 'female'), (4, 'Fare', 512.), (5, 'Survived', 1 - train.Survived.iloc[5]), (6, 'Embarked', 'Q')):
        train.iloc[at, train.columns.get_loc(column)] = value
        page.cell(6 + at, 1 + ['Survived', 'Pclass', 'Sex', 'Age', 'SibSp', 'Parch', 'Fare', 'Embarked'].index(column)).value = value
    start[[0, 3, 9]] = 0.5, -1, 2
    for i, value in enumerate(start): model[f'{get_column_letter(2 + i)}12'].value = value
    book.save(tmp_path/'changed.xlsx')
    check(recalculate(tmp_path, tmp_path/'changed.xlsx')[0], train, valid, start=start)


def invented(n, seed=0):
    "Passengers by a die"
    rng = np.random.default_rng(seed)
    some = lambda values: rng.choice(values, n)
    t = pd.DataFrame({'Survived': some([0, 1]), 'Pclass': some([1, 2, 3]), 'Sex': some(['male', 'female']), 'Age': some([np.nan, 0.5, 30, 71]),
                      'SibSp': some([0, 1, 5]), 'Parch': some([0, 2]), 'Fare': rng.gamma(1, 30, n), 'Embarked': some(['S', 'C', 'Q', None])})
    return t


@pytest.mark.parametrize('n, m, steps', [(12, 1, 1), (40, 9, 500)])
def test_other_sizes(n, m, steps, tmp_path):
    train, valid = invented(n), invented(m, 1)
    x = numbers(train, train.Age.median())
    want = descend((x - x.mean(0))/spread_of(x), train.Survived.to_numpy(dtype=float), np.zeros(10), 0.5, steps)
    file = titanic_sheet(tmp_path/'deep'/'er'/'any.xlsx', train, valid, rate=0.5, steps=steps, check=want)
    computed, = recalculate(tmp_path, file)
    check(computed, train, valid, 0.5, steps)
    assert computed['notebook']['B1'].value < 1e-6


def test_columns_that_never_change_speak_for_nobody(tmp_path):
    train = invented(12).assign(Sex='male', SibSp=3, Embarked=None)
    computed, = recalculate(tmp_path, titanic_sheet(tmp_path/'same.xlsx', train, invented(4, 1), steps=5))
    weights = block(computed['descent'], 'C22', 6, 10)
    assert np.isfinite(weights).all() and not weights[:, [1, 4, 5, 7]].any() and weights[5, 2]
    assert not [c.coordinate for page in computed for row in page for c in row if c.data_type == 'e']


def changed(**columns): return invented(12).assign(**columns)


@pytest.mark.parametrize('changes, says', [
    (dict(train=invented(12).drop(columns='Sex')), "lacks the column 'Sex'"), (dict(valid=invented(3).drop(columns='Fare')), "lacks the column 'Fare'"),
    (dict(train=invented(0)), 'train has 0 rows'), (dict(valid=invented(3)[:0]), 'valid has 0 rows'), (dict(train=changed(Fare=np.nan)), "'Fare' is missing in row 0 of train"),
    (dict(valid=changed(Fare=np.inf)), 'inf in row 0 is no finite number'), (dict(train=changed(SibSp='two')), "'SibSp': 'two' in row 0 is no number"),
    (dict(train=changed(Survived=2)), "'Survived' is 2 in row 0 of train"), (dict(valid=changed(Sex='Male')), "'Sex' is Male in row 0 of valid"),
    (dict(train=changed(Pclass=4)), "'Pclass' is 4 in row 0"), (dict(train=changed(Age='old')), "'Age': 'old' in row 0 is no number"), (dict(train=changed(Fare=-1.)), 'a fare below 0'), (dict(train=invented(1)), 'at least 2 rows'),
    (dict(train=changed(Age=np.nan)), 'an age for the median'), (dict(steps=0), 'from 1 to 500'), (dict(steps=2.5), 'from 1 to 500'), (dict(steps=True), 'from 1 to 500'),
    (dict(rate='fast'), 'rate is a number above 0'), (dict(rate=float('nan')), 'rate is a number above 0'), (dict(rate=0), 'rate is a number above 0'),
    (dict(check=np.zeros((3, 2))), 'check has the shape')])
def test_what_it_refuses(tmp_path, changes, says):
    with pytest.raises(CourseError, match=says): titanic_sheet(tmp_path/'x.xlsx', **(dict(train=invented(12), valid=invented(3, 1), steps=3) | changes))
    assert not (tmp_path/'x.xlsx').exists()


def test_what_it_accepts(tmp_path):
    train = invented(12).rename(index=lambda i: f'passenger {i}')
    assert titanic_sheet(str(tmp_path/'x.xlsx'), train.assign(extra=1)[::-1], invented(2, 1), steps=2) == tmp_path/'x.xlsx'
    with pytest.raises(CourseError, match='ends in .xlsx'): titanic_sheet(tmp_path/'x.csv', train, invented(2, 1), steps=2)
