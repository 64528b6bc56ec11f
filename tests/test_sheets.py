"""Workbooks with live formulas: lesson 3's descent as LibreOffice computes it, and what the module refuses"""
import errno
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import lacking
from offline import can_isolate
from openpyxl import load_workbook

import topdown.store as store
from topdown.settings import CourseError
from topdown.sheets import Workbook

ROOT = Path(__file__).resolve().parent.parent
STEPS = range(4, 65)                                              # the rows of the sheet descent: step 0 to step 60


def recalculate(folder, *files):
    "The files as LibreOffice computes them: workbooks with values instead of formulas"
    program = shutil.which('soffice') or shutil.which('libreoffice')
    if not program: lacking('LibreOffice (the package libreoffice-calc-nogui)')
    alone = ['unshare', '-rn'] if can_isolate() else []
    command = [*alone, program, f'-env:UserInstallation={(folder/"profile").as_uri()}', '--headless', '--convert-to', 'xlsx:Calc MS Excel 2007 XML',
               '--outdir', str(folder/'computed'), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return [load_workbook(folder/'computed'/f.name, data_only=True) for f in files]


def names_until(lesson, text):
    "The names that a lesson has defined after its first cell with `text`, on the sample track"
    import matplotlib
    matplotlib.use('agg')
    names = {'__name__': 'lesson'}
    with pytest.MonkeyPatch.context() as patch:
        for name in ('TOPDOWN_DATA', 'TOPDOWN_TRACK', 'TOPDOWN_RUN_ID'): patch.delenv(name, raising=False)
        for c in json.loads(lesson.read_text(encoding='utf-8'))['cells']:
            source = ''.join(c['source'])
            if c['cell_type'] != 'code' or "find_spec('topdown')" in source: continue
            exec(compile(source, f'cell {c["id"]}', 'exec'), names)
            if text in source: return names
    pytest.fail(f'{lesson.stem} has no cell with {text}')


def cells(page, columns, rows): return np.array([[page[f'{c}{r}'].value for c in columns] for r in rows], dtype=float)


@pytest.fixture(scope='module')
def lesson():
    "The names that lesson 3 has defined when its workbook is saved"
    return names_until(ROOT/'nbs'/'03_how_a_network_learns.ipynb', 'book.save(')


@pytest.fixture(scope='module')
def workbook(lesson): return load_workbook(lesson['file'])


def test_the_lesson_writes_formulas_and_not_values(workbook):
    page = workbook['descent']
    for row in STEPS:
        formulas = 'EFGH' if row == 4 else 'ABCDEFGH'
        for c in formulas: assert page[f'{c}{row}'].data_type == 'f', f'{c}{row} holds {page[f"{c}{row}"].value!r}'
    assert [page[f'{c}4'].value for c in 'ABCD'] == [0, 0, 0, 0]
    assert all(c.data_type == 'n' for row in workbook['film']['A2:B41'] for c in row)
    assert all(c.data_type == 'f' for row in workbook['film']['C2:C41'] for c in row)


def test_names_headings_and_charts(lesson, workbook):
    page = workbook['descent']
    assert [page[f'{c}3'].value for c in 'ABCDEFGH'] == ['step', 'a', 'b', 'c', 'loss', 'slope of a', 'slope of b', 'slope of c']
    assert all(page[f'{c}3'].font.bold for c in 'ABCDEFGH')
    assert [workbook['film'][f'{c}1'].value for c in 'ABC'] == ['seconds', 'height', 'curve after the last step']
    names = {name: cells.attr_text for name, cells in workbook.defined_names.items()}
    assert names == {'seconds': "'film'!$A$2:$A$41", 'height': "'film'!$B$2:$B$41", 'learning_rate': "'descent'!$B$1", 'loss': "'descent'!$E$4:$E$64",
                     'largest_difference': "'notebook'!$B$1"}
    assert page['A1'].value == 'learning rate' and page['B1'].value == 0.5 and page['B1'].fill.fill_type == 'solid'
    with zipfile.ZipFile(lesson['file']) as z: assert sum(n.startswith('xl/charts/chart') for n in z.namelist()) == 2


def test_libreoffice_agrees_with_the_notebook_at_every_learning_rate(lesson, workbook, tmp_path):
    rates, files = [0.5, 0.01, 0.3, 0.9], []
    for rate in rates:
        workbook['descent']['B1'].value = rate                    # what a reader does
        files.append(tmp_path/f'{rate}.xlsx')
        workbook.save(files[-1])
    workbook['descent']['B1'].value = 0.5
    for rate, book in zip(rates, recalculate(tmp_path, *files)):
        got, want = cells(book['descent'], 'BCDEFGH', STEPS), lesson['descend'](rate).to_numpy()
        assert got.shape == want.shape == (61, 7)
        print(f'rate {rate}: largest difference {abs(got - want).max():.1e}, relative to 1 or more {(abs(got - want)/np.maximum(1, abs(want))).max():.1e}')
        assert (abs(got - want) <= 1e-6*np.maximum(1, abs(want))).all()
        if rate < 0.9: assert abs(got - want).max() <= 1e-6
        assert [book['descent'][f'A{r}'].value for r in STEPS] == list(range(61))
        curve = lesson['curve'](want[-1, :3], lesson['x'])
        assert np.allclose(cells(book['film'], 'C', range(2, 42))[:, 0], curve, rtol=1e-6, atol=1e-6)
        difference = book['notebook']['B1'].value
        assert difference < 1e-6 if rate == 0.5 else difference > 0.1


def test_the_workbook_lists_what_the_notebook_says_about_other_rates(lesson, workbook):
    page = workbook['notebook']
    assert np.allclose(cells(page, 'BCDEFGH', STEPS), lesson['walk'].to_numpy(), rtol=1e-12, atol=0)
    assert [page[f'J{r}'].value for r in (4, 5, 6)] == [0.01, 0.5, 0.9]
    small, right, large = (page[f'K{r}'].value for r in (4, 5, 6))
    assert np.allclose([small, right, large], [lesson['descend'](rate)['loss'].iloc[60] for rate in (0.01, 0.5, 0.9)], rtol=1e-12)
    assert right < 0.1 < small < large


def test_the_file_as_it_is_saved_computes_without_a_change(lesson, tmp_path):
    copy = tmp_path/'as it is.xlsx'
    shutil.copy(lesson['file'], copy)
    book, = recalculate(tmp_path, copy)
    assert book['notebook']['B1'].value < 1e-6
    assert not [c.coordinate for page in book for row in page for c in row if c.data_type == 'e']


def test_odd_titles_texts_and_numbers_survive(tmp_path):
    book = Workbook()
    odd, other = book.sheet("it's Ünïcode 🐦 & <b>"), book.sheet('other')
    odd.put('A1', '=1+1')
    odd.put('A2', np.float32(0.25), name='quarter')
    odd.put('A3', torch.tensor(3))
    odd.put('A4', True)
    odd.column('B1', '=heading', ['+1', '-1', '@x'], name='texts')
    other.fill('A1', "='it''s Ünïcode 🐦 & <b>'!A2*4")
    other.fill('A2', '=QUARTER+COUNTA(texts)')
    file = book.save(tmp_path/'deep'/'er'/'odd.xlsx')
    computed, = recalculate(tmp_path, file)
    page = computed.worksheets[0]
    assert [page[f'A{r}'].value for r in (1, 2, 3, 4)] == ['=1+1', 0.25, 3, True]
    assert [page[f'B{r}'].value for r in (1, 2, 3, 4)] == ['=heading', '+1', '-1', '@x']
    assert [computed['other'][f'A{r}'].value for r in (1, 2)] == [1, 3.25]


@pytest.fixture
def sheet(): return Workbook().sheet('one')


@pytest.mark.parametrize('title', ['', 'a'*32, 'a:b', 'a/b', "'a", "a'", 'History', 'a\nb', None, 3])
def test_titles_that_excel_would_not_open(title):
    with pytest.raises(CourseError, match='cannot have the title'): Workbook().sheet(title)


@pytest.mark.parametrize('at', ['', 'A', '1', 'A0', 'a1', 'A1:B2', 'XFE1', 'A1048577', 'AAAA1', None, 5])
def test_addresses_that_are_none(sheet, at):
    with pytest.raises(CourseError, match="an address|address is a text"): sheet.put(at, 1)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf'), 10**400, None, [1], {}, 1j, b'x', np.array([1.0, 2.0]), torch.zeros(2), 'a\x07', 'x'*32_768])
def test_values_that_no_cell_can_hold(sheet, value):
    with pytest.raises(CourseError): sheet.put('A1', value, name='one_name')
    sheet.put('A1', 1, name='one_name')                           # neither the cell nor the name was taken


@pytest.mark.parametrize('name', ['', '1st', 'two words', 'a-b', 'A1', 'xfd9', 'r', 'C', 'R1C1', 'true', 'é', 'x'*256, 7])
def test_names_that_a_spreadsheet_would_take_for_something_else(sheet, name):
    if name == '': return sheet.put('A1', 1, name=name)           # no name
    with pytest.raises(CourseError, match='cannot have the name'): sheet.put('A1', 1, name=name)
    sheet.put('A1', 1)


def test_a_name_is_given_once(sheet):
    sheet.put('A1', 1, name='rate')
    with pytest.raises(CourseError, match="'rate' is taken"): sheet.column('B1', 'more', [1, 2], name='rate')
    with pytest.raises(CourseError, match="'Rate' is taken"): sheet.fill('B2', '=A1', name='Rate')


@pytest.mark.parametrize('formula', ['', '=', 'A1+1', None, 7, '=SUM(A1', '=SUM(A1))', '=)', '="abc', "='a!A1"])
def test_formulas_that_are_none(sheet, formula):
    with pytest.raises(CourseError): sheet.fill('B1', formula)


@pytest.mark.parametrize('formula, says', [('=A1*prise', "the name 'prise'.*did you mean 'price'"), ('=twoo!A1', "the sheet 'twoo'.*did you mean 'two'"),
                                           ('=SUM(A1, nothing)', "the name 'nothing'"), ('=two!nothing', "the name 'nothing'")])
def test_a_slip_in_a_formula_is_found_before_it_is_saved(sheet, formula, says, tmp_path):
    sheet.workbook.sheet('two').put('A1', 2, name='price')
    sheet.fill('B7', formula)
    with pytest.raises(CourseError, match=f"B7 on sheet 'one' uses {says}"): sheet.workbook.save(tmp_path/'x.xlsx')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('rows', [0, -1, 1.5, '3', None])
def test_how_many_rows(sheet, rows):
    with pytest.raises(CourseError, match='1 or more'): sheet.fill('B1', '=A1', rows=rows)


def test_filling_moves_addresses_as_dragging_does(sheet):
    sheet.put('A1', 2, name='k')
    sheet.fill('C2', '=B1+$A$1+B$1+$A1+k*2', rows=3)
    assert [sheet.page[f'C{r}'].value for r in (2, 3, 4)] == [f'=B{r}+$A$1+B$1+$A{r}+k*2' for r in (1, 2, 3)]
    with pytest.raises(CourseError, match='C3 .* is taken'): sheet.fill('C3', '=A1')


def test_charts_take_cells(sheet):
    for x, y in [('nowhere', 'B1:B3'), ('A1:A3', 'loss'), (None, 'B1:B3')]:
        with pytest.raises(CourseError, match="such as 'A5:A64'"): sheet.chart('D1', 'title', x, {'line': y}, ('x', 'y'))


def test_a_chart_on_a_sheet_with_an_apostrophe(tmp_path):
    book = Workbook()
    page = book.sheet("it's")
    for letter in 'AB': page.column(f'{letter}1', letter, [1, 2])
    page.chart('D1', 'title', 'A2:A3', {'line': 'B2:B3'}, ('x', 'y'))
    with zipfile.ZipFile(book.save(tmp_path/'x.xlsx')) as z: drawn = z.read('xl/charts/chart1.xml').decode()
    assert "'it''s'!$A$2:$A$3" in drawn and "'it''s'!$B$2:$B$3" in drawn


def test_an_empty_workbook_and_a_wrong_ending(sheet, tmp_path):
    with pytest.raises(CourseError, match='without a sheet'): Workbook().save(tmp_path/'x.xlsx')
    for name in ('x.xls', 'x.csv', 'x'):
        with pytest.raises(CourseError, match='ends in .xlsx'): sheet.workbook.save(tmp_path/name)


def test_a_full_disk_leaves_the_old_workbook(sheet, tmp_path, monkeypatch):
    sheet.put('A1', 'old')
    file = sheet.workbook.save(tmp_path/'x.xlsx')
    sheet.put('A2', 'new')
    def full(*args): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(store.os, 'fsync', full)
    with pytest.raises(CourseError, match='the disk is full'): sheet.workbook.save(file)
    monkeypatch.undo()
    assert load_workbook(file)['one']['A2'].value is None and [p.name for p in tmp_path.iterdir()] == ['x.xlsx']


def test_import_is_light():
    code = "import sys, topdown.sheets; print([m for m in ('openpyxl', 'numpy', 'torch', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
