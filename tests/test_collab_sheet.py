"""Lesson 5's workbook: LibreOffice computes every cell as the notebook and NumPy do, also after a change, and what `factor_sheet` refuses"""
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from openpyxl import load_workbook
from test_sheets import names_until, recalculate

from topdown.collab import factor_sheet
from topdown.settings import CourseError

LESSON = Path(__file__).resolve().parent.parent/'nbs'/'05_collaborative_filtering.ipynb'


@pytest.fixture(scope='module')
def lesson():
    "The names that lesson 5 has defined when its workbook is written"
    return names_until(LESSON, 'file = factor_sheet(')


def descend(stars, users, items, rate, steps):
    "Gradient descent in NumPy: a row a step of loss, people's factors, films' factors, errors (0 where there is no rating)"
    rated, path = ~np.isnan(stars), []
    for _ in range(steps + 1):
        e = np.where(rated, users @ items.T - stars, 0)
        path.append([(e**2).sum()/rated.sum(), *users.T.ravel(), *items.T.ravel(), *e.ravel()])
        users, items = users - rate*2/rated.sum()*e @ items, items - rate*2/rated.sum()*e.T @ users
    return np.array(path)


def table(page, row, column, rows, columns):
    "A block of cells as numbers; nan for a cell that is empty or holds an empty text"
    values = [[page.cell(row + r, column + c).value for c in range(columns)] for r in range(rows)]
    return np.array([[np.nan if v in (None, '') else v for v in line] for line in values], dtype=float)


def agree(got, want, bound=1e-6):
    assert got.shape == want.shape and np.array_equal(np.isnan(got), np.isnan(want))
    assert np.nanmax(abs(got - want)/np.maximum(1, abs(want))) <= bound


def check(book, stars, users, items, rate, steps):
    "All cells of both sheets against NumPy"
    (n, m), k, page, path = stars.shape, users.shape[1], book['one_step'], descend(stars, users, items, rate, steps)
    rated = ~np.isnan(stars)
    e = users @ items.T - stars
    slope_p, slope_q = 2/rated.sum()*np.nan_to_num(e) @ items, 2/rated.sum()*np.nan_to_num(e).T @ users
    P, Q = users - rate*slope_p, items - rate*slope_q
    tops = np.cumsum([6, n + 2, n + k + 2, n + 2, n + k + 2, n + k + 2])
    middle = lambda top, above: table(page, top + 1 + above, 2 + k, n, m)
    beside, over = (lambda top: table(page, top + 1 + k, 2, n, k)), (lambda top: table(page, top + 1, 2 + k, k, m))
    agree(np.array([page[f'B{r}'].value for r in (1, 2, 3, 4)], dtype=float), np.array([rate, rated.sum(), path[0, 0], path[1, 0]]))
    for block, want in ((middle(tops[0], 0), stars), (beside(tops[1]), users), (over(tops[1]), items.T), (middle(tops[1], k), users @ items.T),
                        (middle(tops[2], 0), e), (beside(tops[3]), slope_p), (over(tops[3]), slope_q.T), (beside(tops[4]), P), (over(tops[4]), Q.T),
                        (middle(tops[4], k), P @ Q.T), (middle(tops[5], 0), P @ Q.T - stars)): agree(block, want)
    agree(table(book['descent'], 22, 2, steps + 1, path.shape[1]), path)
    assert [book['descent'][f'A{22 + s}'].value for s in range(steps + 1)] == list(range(steps + 1))
    return path


def test_the_lesson_writes_formulas_and_a_chart(lesson):
    book = load_workbook(lesson['file'])
    assert book.sheetnames == ['one_step', 'descent', 'notebook']
    page = book['one_step']
    assert page['B1'].value == 0.3 and page['B1'].fill.fill_type == 'solid'
    assert all(page[c].data_type == 'f' for c in ('B2', 'B3', 'B4', 'D16', 'E23', 'B32', 'D30', 'B41', 'H45', 'D48'))
    assert all(c.data_type == 'f' for row in book['descent']['A23:AU82'] for c in row) and book['descent']['AV22'].value is None
    assert {c.value for c in book['notebook'][21] if c.value} == {c.value for c in book['descent'][21] if c.value and c.column <= 22 and c.value != 'step'}
    with zipfile.ZipFile(lesson['file']) as z: assert sum(n.startswith('xl/charts/chart') for n in z.namelist()) == 1


def test_libreoffice_agrees_with_the_notebook_in_every_cell_and_at_every_rate(lesson, tmp_path):
    given = [lesson[name].numpy() for name in ('stars', 'P0', 'Q0')]
    book, rates, files = load_workbook(lesson['file']), [0.3, 0.05, 0.6], [tmp_path/'as it is.xlsx']
    shutil.copy(lesson['file'], files[0])
    for rate in rates[1:]:
        book['one_step']['B1'].value = rate                       # what a reader does
        files.append(tmp_path/f'{rate}.xlsx')
        book.save(files[-1])
    for rate, computed in zip(rates, recalculate(tmp_path, *files)):
        path = check(computed, *given, rate, 60)
        agree(lesson['descend'](rate), path[:, :21])
        difference = computed['notebook']['B1'].value
        assert difference < 1e-6 if rate == 0.3 else difference > 0.1
        assert not [c.coordinate for page in computed for row in page for c in row if c.data_type == 'e']


def test_a_new_rating_and_another_start_change_everything_that_follows(lesson, tmp_path):
    stars, users, items = (lesson[name].numpy().copy() for name in ('stars', 'P0', 'Q0'))
    book = load_workbook(lesson['file'])
    page = book['one_step']
    assert page['D7'].value is None
    page['D7'].value, page['E8'].value, page['B16'].value, page['E15'].value, page['H9'].value = 2, 4, 1.75, 0.5, None
    stars[0, 0], stars[1, 1], users[0, 0], items[1, 1], stars[2, 4] = 2, 4, 1.75, 0.5, np.nan
    book.save(tmp_path/'changed.xlsx')
    check(recalculate(tmp_path, tmp_path/'changed.xlsx')[0], stars, users, items, 0.3, 60)


@pytest.mark.parametrize('n, m, k', [(1, 1, 1), (2, 7, 3), (12, 3, 2)])
def test_other_shapes(n, m, k, tmp_path):
    rng = np.random.default_rng(n)
    stars, users, items = rng.integers(1, 6, (n, m)).astype(float), rng.uniform(0.3, 1, (n, k)), rng.uniform(0.3, 1, (m, k))
    stars[rng.random((n, m)) < 0.3] = np.nan
    stars[0, 0] = 4
    want = descend(stars, users, items, 0.1, 5)[:, :1 + (n + m)*k]
    file = factor_sheet(tmp_path/'deep'/'er'/'any.xlsx', stars.tolist(), torch.tensor(users), items, [f'person {i}' for i in range(n)],
                        ["it's", '=A1', 'Ünïcode 🐦', *'abcdefghij'][:m], rate=0.1, steps=5, check=want)
    computed, = recalculate(tmp_path, file)
    check(computed, stars, users, items, 0.1, 5)
    assert computed['notebook']['B1'].value < 1e-6


def call(tmp_path, **changes):
    given = dict(stars=[[1, 2], [3, float('nan')]], users=[[1.], [2.]], items=[[1.], [2.]], people=['a', 'b'], films=['c', 'd'], steps=3) | changes
    return factor_sheet(tmp_path/'x.xlsx', **given)


@pytest.mark.parametrize('changes, says', [
    (dict(people=['a']), r'expected \(people, films\)'), (dict(films=list('abc')), r'expected \(people, films\)'),
    (dict(users=[[1., 2.], [3., 4.]]), r'expected \(people, films\)'), (dict(stars=[1, 2]), r'expected \(people, films\)'),
    (dict(stars=[[1]*13], users=[[1.]], items=[[1.]]*13, people=['a'], films=list('abcdefghijklm')), 'with 1 to 12 people and films'),
    (dict(stars=[[float('nan')]*2]*2), 'no pair is rated'), (dict(stars=[[float('inf'), 1], [2, 3]]), 'finite'), (dict(users=[[float('nan')], [1.]]), 'finite'),
    (dict(steps=0), 'steps is a whole number from 1 to 1000'), (dict(steps=2.5), 'steps is a whole number from 1 to 1000'), (dict(steps=True), 'steps is a whole number from 1 to 1000'),
    (dict(rate=float('nan')), 'finite'), (dict(rate='fast'), 'rate'), (dict(check=np.zeros((4, 3))), 'check has the shape'), (dict(stars=[['a', 1], [2, 3]]), 'numbers')])
def test_what_it_refuses(tmp_path, changes, says):
    with pytest.raises(CourseError, match=says): call(tmp_path, **changes)
    assert not (tmp_path/'x.xlsx').exists()


def test_what_it_accepts(tmp_path):
    assert call(tmp_path) == tmp_path/'x.xlsx'
    with pytest.raises(CourseError, match='ends in .xlsx'): factor_sheet(tmp_path/'x.csv', [[1]], [[1.]], [[1.]], ['a'], ['b'])
