"""Tables that somebody else made, and their preparation: every form of bad input, and the same numbers by other ways"""
import gzip
import json
import random

import numpy as np
import pandas as pd
import pytest
import torch

from topdown.data import get
from topdown.settings import CourseError
from topdown.tabular import Prepared, TablePrep, leaks, read_table, scan_table, split_by_date


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def people(n=60, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({'town': rng.choice(['Rome', 'Oslo', 'Bern'], n), 'age': rng.normal(40, 12, n).round(),
                         'income': rng.lognormal(10, 1, n), 'since': pd.date_range('2020-01-28', periods=n, freq='9h').strftime('%Y-%m-%d'),
                         'bought': rng.integers(0, 2, n)})


# --- read_table

ROWS = [['name', 'price'], ['Käse', '7.25'], ['"a, b; c"', '6.5']]


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'cp1252', 'latin-1'])
@pytest.mark.parametrize('sep', [',', ';', '\t', '|'])
@pytest.mark.parametrize('end', ['\n', '\r\n'])
@pytest.mark.parametrize('packed', [False, True])
def test_forms_of_text(tmp_path, capsys, encoding, sep, end, packed):
    data = end.join(sep.join(row) for row in ROWS).encode(encoding)
    (tmp_path/'t.csv').write_bytes(gzip.compress(data) if packed else data)
    t = read_table(tmp_path/'t.csv')
    assert t.columns.tolist() == ['name', 'price'] and t['name'].tolist() == ['Käse', 'a, b; c'] and t['price'].tolist() == [7.25, 6.5]
    said = capsys.readouterr().out
    assert ('t.csv is not UTF-8 (line 2), so it was read as cp1252' in said) == (encoding in ('cp1252', 'latin-1'))


def test_decimal_commas_only_beside_semicolons(tmp_path):
    (tmp_path/'t.csv').write_text('a;b\n1,5;x\n-2,25;y\n')
    assert read_table(tmp_path/'t.csv')['a'].tolist() == [1.5, -2.25]
    (tmp_path/'t.csv').write_text('a;b\n1.5;x\n')
    assert read_table(tmp_path/'t.csv')['a'].tolist() == [1.5]
    (tmp_path/'t.csv').write_text('a,b\n"1,5",x\n')
    assert read_table(tmp_path/'t.csv')['a'].tolist() == ['1,5']


def test_what_is_given_is_not_guessed(tmp_path):
    (tmp_path/'t.csv').write_bytes('a;b\nЖ;2\n'.encode('cp1251'))
    assert read_table(tmp_path/'t.csv', encoding='cp1251')['a'].tolist() == ['Ж']
    assert read_table(tmp_path/'t.csv', encoding='cp1251', sep=',').columns.tolist() == ['a;b']
    with pytest.raises(CourseError, match="unknown encoding 'klingon'"): read_table(tmp_path/'t.csv', encoding='klingon')
    with pytest.raises(CourseError, match='line 2: a byte that utf-8 does not know'): read_table(tmp_path/'t.csv', encoding='utf-8')


@pytest.mark.parametrize('text, message', [
    ('', 't.csv is empty'), ('\n\n', 'is empty'), ('a,b\n', 'heading of 2 columns but no rows'), ('a,b\n\n', 'no rows'),
    ('a,b\n1,2\n3\n', r"line 3: 1 columns instead of 2: '3'"), ('a,b\n1,2\n3,4,5\n', r"line 3: 3 columns instead of 2"),
    ('a,b\n"x\ny",2\n3\n', 'line 4: 1 columns'),                        # a line break between quotation marks
    ('a,b\n1,"2\n3,4\n', 'line 2: .*quotation mark'), ('a,b\n1,"2"x\n', 'line 2: '), ('a,b,a\n1,2,3\n', "two columns with the heading 'a'"),
])
def test_broken_texts(tmp_path, text, message):
    (tmp_path/'t.csv').write_text(text)
    with pytest.raises(CourseError, match=message): read_table(tmp_path/'t.csv')


def test_other_broken_files(tmp_path):
    with pytest.raises(CourseError, match='there is no file .*none.csv'): read_table(tmp_path/'none.csv')
    (tmp_path/'nine.csv').write_text('a\n1\n')
    with pytest.raises(CourseError, match='its folder has nine.csv'): read_table(tmp_path/'none.csv')
    with pytest.raises(CourseError, match='there is no file'): read_table(tmp_path)
    (tmp_path/'t.csv.gz').write_bytes(gzip.compress(b'a,b\n1,2\n'*1000)[:30])
    with pytest.raises(CourseError, match='cannot be unpacked'): read_table(tmp_path/'t.csv.gz')
    for name, why in (('t.xlsx', 'no Excel workbook'), ('t.parquet', 'cannot be read as Parquet'), ('t.xls', 'save it as .xlsx')):
        (tmp_path/name).write_text('a,b\n1,2\n')
        with pytest.raises(CourseError, match=why): read_table(tmp_path/name)


def test_whatever_bytes_a_file_holds_it_is_read_or_refused(tmp_path, capsys):
    rng = random.Random(0)
    good = 'name;price\n"Käse";7,25\nBrie;6\n'.encode()
    for i in range(200):
        data = bytearray(good if i % 2 else bytes(rng.randrange(256) for _ in range(rng.randrange(80))))
        for _ in range(rng.randrange(4)):
            if data: data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path/'t.csv').write_bytes(bytes(data))
        try: assert len(read_table(tmp_path/'t.csv'))
        except CourseError as e: assert 't.csv' in str(e)
    capsys.readouterr()


def test_excel_sheets(tmp_path, capsys):
    file = tmp_path/'t.xlsx'
    with pd.ExcelWriter(file) as book:
        people().to_excel(book, sheet_name='one', index=False)
        pd.DataFrame({'a': [1]}).to_excel(book, sheet_name='two', index=False)
        pd.DataFrame({'a': []}).to_excel(book, sheet_name='none', index=False)
    assert read_table(file).shape == people().shape and 'has the sheets one, two, none; read: one' in capsys.readouterr().out
    assert read_table(file, sheet='two')['a'].tolist() == [1]
    with pytest.raises(CourseError, match="unknown sheet 'tow'; known: two"): read_table(file, sheet='tow')
    with pytest.raises(CourseError, match='no rows'): read_table(file, sheet='none')


def test_three_forms_give_one_preparation(tmp_path):
    t = people()
    t.loc[3, 'age'] = np.nan
    t.to_csv(tmp_path/'t.csv', index=False); t.to_parquet(tmp_path/'t.parquet'); t.to_excel(tmp_path/'t.xlsx', index=False)
    a, b, c = (read_table(tmp_path/f't.{kind}') for kind in ('csv', 'parquet', 'xlsx'))
    prep = TablePrep('bought', dates=['since']).fit(a)
    for other in (b, c):
        for x, y in zip(vars(prep.transform(a)).values(), vars(prep.transform(other)).values()): assert torch.equal(x, y)


# --- scan_table


@pytest.mark.parametrize('kind', ['csv', 'csv.gz', 'parquet'])
@pytest.mark.parametrize('rows', [1, 7, 1000])
def test_pieces_are_the_whole(tmp_path, kind, rows):
    t, file = people(50), tmp_path/f't.{kind}'
    t.to_parquet(file) if kind == 'parquet' else t.to_csv(file, index=False)
    pieces = list(scan_table(file, rows=rows))
    assert max(map(len, pieces)) <= rows and [i for p in pieces for i in p.index] == list(range(50))
    prep = TablePrep('bought', dates=['since']).fit(t)
    parts = [prep.transform(p) for p in pieces]
    for k in ('cats', 'conts', 'y'): assert torch.equal(torch.cat([getattr(p, k) for p in parts]), getattr(prep.transform(t), k))
    assert [p.columns.tolist() for p in scan_table(file, ['age', 'town'], rows)] == [['age', 'town']]*len(pieces)


def test_a_column_that_is_empty_for_long(tmp_path):
    lines = ['a,b,c'] + [f'{i},,{i}' for i in range(60_000)] + ['1,late,0.5']
    (tmp_path/'t.csv').write_text('\n'.join(lines))
    last = list(scan_table(tmp_path/'t.csv'))[-1].iloc[-1]
    assert last['b'] == 'late' and last['c'] == 0.5
    (tmp_path/'t.csv').write_text('\n'.join(lines + ['word,x,2']))
    with pytest.raises(CourseError, match="t.csv, after .* rows: .*word"): list(scan_table(tmp_path/'t.csv'))


def test_scan_refuses(tmp_path):
    with pytest.raises(CourseError, match='there is no file'): next(scan_table(tmp_path/'t.csv'))
    (tmp_path/'t.csv').write_text('a,b\n1,2\n')
    with pytest.raises(CourseError, match='rows=0'): next(scan_table(tmp_path/'t.csv', rows=0))
    with pytest.raises(CourseError, match="lacks the column 'c'"): next(scan_table(tmp_path/'t.csv', ['c']))
    for text in ('', 'a,b\n', 'a,b\n1,2,3\n'):
        (tmp_path/'t.csv').write_text(text)
        with pytest.raises(CourseError, match='t.csv'): list(scan_table(tmp_path/'t.csv'))
    (tmp_path/'t.parquet').write_text('no')
    with pytest.raises(CourseError, match='t.parquet'): next(scan_table(tmp_path/'t.parquet'))


# --- split_by_date and leaks


def test_split_by_date():
    t = people()
    a, b = split_by_date(t, 'since', 0.25)
    assert sorted(a + b) == list(range(60)) and max(t['since'].iloc[a]) < min(t['since'].iloc[b]) and 15 <= len(b) <= 18
    shuffled = t.sample(frac=1, random_state=0)
    assert set(shuffled.index[split_by_date(shuffled, 'since', 0.25)[1]]) == set(b)
    for form in ('%d.%m.%Y', '%m/%d/%Y %H:%M', '%d %B %Y'):
        other = t.assign(since=pd.to_datetime(t['since']).dt.strftime(form))
        assert split_by_date(other, 'since', 0.25) == (a, b)
    assert split_by_date(t.assign(since=pd.to_datetime(t['since'])), 'since', 0.25) == (a, b)
    assert split_by_date(t.assign(since=pd.to_datetime(t['since']).dt.date), 'since', 0.25) == (a, b)


def test_ambiguous_days_are_said(capsys):
    t = pd.DataFrame({'d': ['1/2/2020', '3/4/2020', '5/6/2020']})
    split_by_date(t, 'd', 0.4)
    assert "month/day and day/month both fit; read as month/day. If that is wrong, give the form '%d/%m/%Y'" in capsys.readouterr().out
    split_by_date(t, 'd', 0.4, format='%d/%m/%Y')
    assert not capsys.readouterr().out


@pytest.mark.parametrize('change, message', [
    (dict(since='2020-02-30'), "'since': '2020-02-30' in row 5 is no date"), (dict(since=None), "'since' is missing in row 5"),
    (dict(since='soon'), "'soon' in row 5 is no date of the form ISO8601"), ])
def test_split_by_date_refuses(change, message):
    t = people()
    t.loc[5, 'since'] = change['since']
    with pytest.raises(CourseError, match=message): split_by_date(t, 'since')


def test_split_by_date_refuses_more():
    t = people()
    with pytest.raises(CourseError, match="unknown column 'sinc'; known: since"): split_by_date(t, 'sinc')
    with pytest.raises(CourseError, match='between 0 and 1; found 20'): split_by_date(t, 'since', 20)
    with pytest.raises(CourseError, match='nothing is earlier'): split_by_date(t.assign(since='2020-01-01'), 'since')
    with pytest.raises(CourseError, match='no date in a form that is known'): split_by_date(t, 'town')
    with pytest.raises(CourseError, match='all values are missing'): split_by_date(t.assign(since=None), 'since')


def test_leaks_finds_planted_columns_and_no_others():
    rng, t = np.random.default_rng(1), people(400)
    t['gap'] = pd.Series(rng.random(400)).where(t['bought'] == 1)              # known only for buyers
    t['copy'], t['words'] = t['bought'].map({0: 'no', 1: 'yes'}), t['bought']*1e6 + rng.normal(0, 1, 400)
    t['id'], t['inf'], t['none'], t['same'] = np.arange(400), np.where(rng.random(400) < .1, np.inf, 1.), None, 7
    found = leaks(t, 'bought')
    assert set(found.index[found['suspect']]) == {'gap', 'copy', 'words'} and (found['explains'].drop(['gap', 'copy', 'words']) < 0.15).all()
    assert found.loc['none', 'missing'] == 1 and found['explains'].between(0, 1).all() and found['explains'].is_monotonic_decreasing


def test_leaks_with_a_number_and_with_classes():
    t = people(400)
    t['euro'] = t['income']*0.9 + 3
    assert leaks(t, 'income')['explains'].idxmax() == 'euro' and leaks(t, 'income').loc['euro', 'suspect']
    t['land'] = t['town'].map({'Rome': 'I', 'Oslo': 'N', 'Bern': 'CH'})
    assert leaks(t, 'town').index[0] == 'land' and leaks(t, 'town').loc['land', 'explains'] > 0.95
    with pytest.raises(CourseError, match='it takes 20 rows'): leaks(t.assign(bought=1), 'bought')


# --- TablePrep: what comes out


def test_against_pandas_by_hand():
    t = people(80)
    t.loc[[3, 9], 'age'], t.loc[4, 'town'] = np.nan, None
    train, rest = t[:60], t[60:]
    prep = TablePrep('bought', cats=['town'], conts=['age', 'income'], dates=[], logs=['income']).fit(train)
    out = prep.transform(rest)
    assert prep.names == ['town', 'age', 'income', 'age_missing'] and prep.cats == {'town': ['Bern', 'Oslo', 'Rome']}
    assert out.cats[:, 0].tolist() == (pd.Categorical(rest['town'], ['Bern', 'Oslo', 'Rome']).codes + 1).tolist()
    age, filled = train['age'].median(), train['age'].fillna(train['age'].median())
    logs = np.log1p(train['income'])
    by_hand = np.stack([(rest['age'].fillna(age) - filled.mean())/filled.std(ddof=0), (np.log1p(rest['income']) - logs.mean())/logs.std(ddof=0),
                        rest['age'].isna()], 1)
    assert out.conts.shape == by_hand.shape and np.allclose(out.conts.numpy(), by_hand, atol=1e-5)
    assert out.conts.dtype == torch.float32 and out.cats.dtype == out.y.dtype == torch.int64 and len(out) == 20
    assert out.y.tolist() == rest['bought'].tolist() and prep.classes == ['0', '1']
    plain = prep.numbers(rest)
    assert plain.dtype == np.float32 and np.allclose(plain, np.column_stack([out.cats.numpy(), rest['age'].fillna(age), rest['income'],
                                                                            rest['age'].isna()]))
    assert prep.frame(out).columns.tolist() == prep.names


def test_scale_off():
    prep = TablePrep(conts=['age'], cats=[], dates=[], scale=False).fit(people())
    assert prep.transform(people()).conts[:, 0].tolist() == people()['age'].astype('float32').tolist()


def test_nothing_is_learned_from_other_rows():
    t = people(100)
    a = TablePrep('bought').fit(t[:50]).transform(t[:50])
    loud = t.copy()
    loud.loc[50:, 'age'] = 1e6
    b = TablePrep('bought').fit(loud[:50]).transform(loud)
    assert torch.equal(a.conts, b.conts[:50])
    prep = TablePrep('bought').fit(t[:50])
    before = json.dumps(vars(prep), default=str)
    prep.transform(loud)
    assert json.dumps(vars(prep), default=str) == before


def test_one_row_at_a_time_gives_the_same():
    t = people(30)
    t.loc[2, 'age'] = np.nan
    prep = TablePrep('bought').fit(t)
    whole = prep.transform(t)
    for i in range(30):
        one = prep.transform(t.iloc[[i]])
        assert torch.equal(one.cats[0], whole.cats[i]) and torch.equal(one.conts[0], whole.conts[i]) and one.y[0] == whole.y[i]


def test_dates_become_numbers():
    t = pd.DataFrame({'d': ['1/1/2012 0:00', '2/29/2012 12:00', None, '12/31/2013 0:00'], 'y': [1., 2, 3, 4]})
    prep = TablePrep('y').fit(t)
    assert prep.dates == {'d': '%m/%d/%Y %H:%M'} and prep.names[-1] == 'd_elapsed_missing'
    x = pd.DataFrame(prep.numbers(t), columns=prep.names)
    assert x['d_year'].tolist() == [2012, 2012, 2012, 2013] and x['d_day_of_year'].tolist()[1] == 60
    assert x['d_month_end'].tolist()[1::2] == [1, 1] and x['d_month_start'][0] == 1 and x['d_hour'][1] == 12 and x['d_day_of_week'][0] == 6
    assert x['d_elapsed'][0] == 15340 and x['d_elapsed'][1] == 15399.5 and x['d_elapsed_missing'].tolist() == [0, 0, 1, 0]
    same = prep.numbers(t.assign(d=pd.to_datetime(t['d'], format='%m/%d/%Y %H:%M')))
    aware = prep.numbers(t.assign(d=pd.to_datetime(t['d'], format='%m/%d/%Y %H:%M', utc=True)))
    assert np.array_equal(same, x) and np.array_equal(aware, x)


def test_a_form_of_dates_can_be_given():
    t = pd.DataFrame({'d': ['1/2/2020', '3/4/2020', '5/6/2020'], 'y': [1., 2, 3]})
    x = TablePrep('y', dates={'d': '%d/%m/%Y'}).fit(t)
    assert x.numbers(t)[:, x.names.index('d_month')].tolist() == [2, 4, 6] and x.dates == {'d': '%d/%m/%Y'}


@pytest.mark.parametrize('values', [['b', 'a', None, 'c'], [3, 1, None, 2], [3.0, 1.0, np.nan, 2.0], [' 3', '1', None, '2 '], [3, '1', None, 2.0]])
@pytest.mark.parametrize('kind', [None, 'category', object])
def test_categories_of_any_form(values, kind):
    t = pd.DataFrame({'c': pd.Series(values, dtype=kind)})
    assert TablePrep(cats=['c'], conts=[]).fit(t).transform(t).cats[:, 0].tolist() in ([2, 1, 0, 3], [3, 1, 0, 2])


def test_true_is_not_one():
    t = pd.DataFrame({'c': pd.Series([True, 1, 'True', 1.0, False], dtype=object)})
    prep = TablePrep(cats=['c']).fit(t)
    assert prep.cats['c'] == ['1', 'False', 'True'] and prep.transform(t).cats[:, 0].tolist() == [3, 1, 3, 1, 2]


def test_many_values(capsys):
    t = pd.DataFrame({'c': list('aaabbbccd') + ['e']})
    prep = TablePrep(cats=['c'], max_card=3).fit(t)
    assert prep.cats == {'c': ['a', 'b', 'c']} and prep.transform(t).cats[-2:].flatten().tolist() == [0, 0]
    assert "'c' has 5 values; the 3 most frequent are told apart" in capsys.readouterr().out


@pytest.mark.parametrize('y, classes', [(['no', 'yes', 'no'], ['no', 'yes']), ([True, False, True], ['False', 'True']), ([0, 1, 0], ['0', '1']),
                                        ([10., 2., 10.], ['2', '10']), (pd.Categorical(['c', 'a', 'b']), ['a', 'b', 'c']), ([1, 2, 3], None)])
def test_targets(y, classes, tmp_path):
    t = pd.DataFrame({'x': [1., 2, 4], 'y': y})
    prep = TablePrep('y').fit(t)
    out = TablePrep.load(prep.save(tmp_path/'p.json')).transform(t)
    assert prep.classes == classes
    if classes: assert [classes[i] for i in out.y] == [str(v) if not isinstance(v, float) else str(int(v)) for v in y]
    else: assert out.y.dtype == torch.float32 and out.y.tolist() == [1, 2, 3]
    assert prep.transform(t.drop(columns='y')).y is None


# --- TablePrep: bad input, as the task lists it


def test_useless_columns_are_left_out_and_said(capsys):
    t = people().assign(nothing=np.nan, same='x', ids=[f'person {i}' for i in range(60)], half=[1.] + [None]*59)
    prep = TablePrep('bought').fit(t)
    said = capsys.readouterr().out
    assert prep.left_out == {'nothing': 'all values are missing', 'same': "all values are 'x'", 'ids': '60 different texts in 60 rows'}
    for name in prep.left_out: assert f"TablePrep: {name!r} is left out: " in said
    assert 'half_missing' in prep.names and torch.isfinite(prep.transform(t).conts).all()
    prep.transform(t)
    assert not capsys.readouterr().out                                      # known columns are no news
    named = TablePrep('bought', conts=['age', 'nothing'], cats=['same']).fit(t)
    assert 'nothing' not in named.names and set(named.left_out) == {'nothing', 'same'}
    with pytest.raises(CourseError, match='no column is left to learn from'): TablePrep('bought', cats=['same'], conts=['nothing'], dates=[]).fit(t)


def test_mixed_types(capsys):
    t = people().assign(mixed=pd.Series([1, 'two', 3.0]*20, dtype=object))
    prep = TablePrep('bought').fit(t)
    assert prep.cats['mixed'] == ['1', '3', 'two'] and "'mixed' mixes numbers and texts" in capsys.readouterr().out
    with pytest.raises(CourseError, match="'mixed': 'two' in row 1 is no number; 20 of 60 rows: mend it"): TablePrep('bought', conts=['mixed']).fit(t)
    assert TablePrep('bought').fit(t.assign(mixed=[str(i) for i in range(60)])).conts['mixed']['median'] == 29.5   # numbers written as texts
    with pytest.raises(CourseError, match="'age': 'old' in row 7 is no number"):
        prep.transform(t.assign(age=t['age'].astype(object).where(t.index != 7, 'old')))


def test_unseen_categories_and_gaps(capsys):
    prep = TablePrep('bought').fit(people())
    out = prep.transform(people().assign(town='Paris', age=None))
    assert (out.cats[:, 0] == 0).all() and "'age' has gaps, and had none in training: filled with" in capsys.readouterr().out
    assert torch.isfinite(out.conts).all() and len(prep.conts) == out.conts.shape[1]


def test_dates_that_do_not_parse():
    t = people()
    t.loc[[7, 9], 'since'] = 'next year'
    with pytest.raises(CourseError, match="'since': 'next year' in row 7 is no date of the form ISO8601"): TablePrep('bought').fit(t)
    prep = TablePrep('bought').fit(people())
    with pytest.raises(CourseError, match="'next year' in row 7"): prep.transform(t)
    with pytest.raises(CourseError, match="'31.12.2020' in row 0"): prep.transform(people()[:1].assign(since='31.12.2020'))   # another form than in training


@pytest.mark.parametrize('bad', [np.inf, -np.inf, '1e999'])
def test_infinite_values(bad):
    t = people().astype({'income': object})
    t.loc[11, 'income'] = bad
    with pytest.raises(CourseError, match=r"'income': '?-?(inf|1e999)'? in row 11 is no finite number; 1 of 60"): TablePrep('bought').fit(t)
    with pytest.raises(CourseError, match='in row 11 is no finite number'): TablePrep('bought').fit(people()).transform(t)
    if bad != '1e999':                                                      # a text makes classes of the target
        with pytest.raises(CourseError, match='in row 11 is no finite number'): TablePrep('income').fit(t)


@pytest.mark.parametrize('target', ['bought', 'income'])
def test_numbers_that_are_too_large(target):
    t = people()
    t.loc[11, 'income'] = -1e39
    with pytest.raises(CourseError, match="'income': -1e\\+39 in row 11 is too large"): TablePrep(target).fit(t)


def test_a_target_with_gaps():
    t = people().astype({'bought': float})
    t.loc[[4, 6], 'bought'] = np.nan
    with pytest.raises(CourseError, match=r"the target 'bought' is missing in 2 of 60 rows, .* row 4: .*df.dropna\(subset=\['bought'\]\)"):
        TablePrep('bought').fit(t)
    prep = TablePrep('bought').fit(t.dropna(subset=['bought']))
    with pytest.raises(CourseError, match="the target 'bought' is missing in row 4"): prep.transform(t)
    assert prep.transform(t.drop(columns='bought')).y is None
    with pytest.raises(CourseError, match="'maybe' in row 0 is no class of 'bought'; known: 0, 1"): prep.transform(people()[:1].assign(bought='maybe'))
    with pytest.raises(CourseError, match="teaches nothing: all values are 1"): TablePrep('bought').fit(people().assign(bought=1))


def test_columns_in_another_order_missing_and_extra(capsys):
    t = people()
    prep = TablePrep('bought').fit(t)
    a, b = prep.transform(t), prep.transform(t.iloc[:, ::-1])
    assert torch.equal(a.cats, b.cats) and torch.equal(a.conts, b.conts) and torch.equal(a.y, b.y)
    with pytest.raises(CourseError, match="lacks the columns 'town', 'age'; nearest to 'town': "): prep.transform(t.drop(columns=['town', 'age']))
    with pytest.raises(CourseError, match="lacks the column 'since'"): prep.transform(t.drop(columns='since'))
    capsys.readouterr()
    assert torch.equal(prep.transform(t.assign(shoes=39, hat=None)).conts, a.conts)
    assert 'ignored, because the training rows had no such column: shoes, hat' in capsys.readouterr().out
    prep.transform(t.assign(shoes=39, hat=None))
    assert not capsys.readouterr().out                                      # said once
    assert torch.equal(prep.transform(t.assign(since_year=7)).conts, a.conts)   # an extra column with the name of a part


def test_zero_rows_and_no_table():
    prep = TablePrep('bought').fit(people())
    with pytest.raises(CourseError, match='0 rows and 5 columns'): TablePrep('bought').fit(people()[:0])
    none = prep.transform(people()[:0])
    assert none.cats.shape == (0, 1) and none.conts.shape[0] == 0 and len(none) == 0
    with pytest.raises(CourseError, match='found list'): prep.transform([1, 2])
    with pytest.raises(CourseError, match='call fit'): TablePrep().transform(people())
    with pytest.raises(CourseError, match="two columns with the heading 'age'"): prep.transform(pd.concat([people(), people()[['age']]], axis=1))


@pytest.mark.parametrize('how, message', [
    (dict(target='buy'), "lacks the column 'buy'; nearest to 'buy': bought"), (dict(cats=['city']), "lacks the column 'city'"),
    (dict(conts=['town']), "'town': '.*' in row 0 is no number"), (dict(dates=['town']), "'town' holds no date"),
    (dict(cats=['age'], conts=['age']), 'named twice'), (dict(target='age', conts=['age']), 'named twice'),
    (dict(logs=['wage']), "lacks the column 'wage'"), (dict(dates={'since': '%d.%m.%Y'}), r"'2020-01-28' in row 0 is no date of the form %d.%m.%Y")])
def test_wrong_names(how, message):
    with pytest.raises(CourseError, match=message): TablePrep(**{'target': 'bought'} | how).fit(people())


def test_logarithms_need_more_than_minus_one():
    t = people()
    t.loc[5, 'income'] = -1
    with pytest.raises(CourseError, match=r"'income' is -1 in row 5: log\(1 \+ value\)"): TablePrep('bought', logs=['income']).fit(t)
    with pytest.raises(CourseError, match='row 5'): TablePrep('bought', logs=['income']).fit(people()).transform(t)


def test_names_that_would_clash():
    t = people().assign(age_missing=1.5)
    t.loc[3, ['age', 'age_missing']] = [np.nan, 2]
    with pytest.raises(CourseError, match="two columns with the heading 'age_missing'"): TablePrep('bought').fit(t)


def test_an_error_in_fit_changes_nothing():
    prep = TablePrep('bought').fit(people())
    before = {k: v for k, v in vars(prep).items() if k != 'said'}
    with pytest.raises(CourseError): prep.fit(people().assign(income=[np.inf] + [1.]*59))
    assert {k: v for k, v in vars(prep).items() if k != 'said'} == before


@pytest.mark.parametrize('index', [[5]*60, [f'r{i % 7}' for i in range(60)], range(59, -1, -1)])
def test_the_index_makes_no_difference(index):
    t = people()
    t.loc[[3, 8], 'age'], t.loc[4, 'since'] = np.nan, None
    other = t.set_axis(pd.Index(index))
    a, b = TablePrep('bought').fit(t), TablePrep('bought').fit(other)
    assert a.conts == b.conts and np.array_equal(a.numbers(t), b.numbers(other))
    for x, y in zip(vars(a.transform(t)).values(), vars(b.transform(other)).values()): assert torch.equal(x, y)


def test_pandas_own_types_with_gaps(tmp_path):
    t = people(40)
    t['young'], t['pets'] = t['age'] < 40, np.arange(40) % 4
    gaps = t.astype({'town': 'string', 'young': 'boolean', 'pets': 'Int64', 'age': 'Float64'})
    gaps.loc[2, ['town', 'young', 'pets', 'age']] = pd.NA
    gaps.to_parquet(tmp_path/'t.parquet')
    prep = TablePrep('bought').fit(read_table(tmp_path/'t.parquet'))
    assert prep.cats['young'] == ['False', 'True'] and 'pets_missing' in prep.names and 'age_missing' in prep.names
    out = prep.transform(gaps)
    assert torch.isfinite(out.conts).all() and (out.cats[2] == 0).all()
    assert torch.equal(prep.transform(t).cats[3:], out.cats[3:]) and torch.equal(prep.transform(t).conts[3:], out.conts[3:])


def test_columns_of_lists_and_names_that_are_no_texts():
    t = people().assign(lists=[[1, 2]]*30 + [[3]]*30)
    assert TablePrep('bought').fit(t).cats['lists'] == ['[1, 2]', '[3]']
    with pytest.raises(CourseError, match=r'names of columns are texts; found 0: df.columns = df.columns.astype\(str\)'):
        TablePrep().fit(pd.DataFrame(np.eye(3)))


def test_all_dates_missing_later():
    prep = TablePrep('bought').fit(people())
    out = prep.transform(people().assign(since=None))
    assert torch.isfinite(out.conts).all() and (out.conts[0] == out.conts[1])[prep.cont_names.index('since_elapsed')]


# --- save and load


def test_save_and_load(tmp_path):
    t = people()
    t.loc[4, ['age', 'town']] = [np.nan, 'Straße "x"\n']
    prep = TablePrep('bought', logs=['income']).fit(t)
    file = prep.save(tmp_path/'p.json')
    again, text = TablePrep.load(file), file.read_text(encoding='utf-8')
    for x, y in zip(vars(prep.transform(t)).values(), vars(again.transform(t)).values()): assert torch.equal(x, y)
    assert np.array_equal(prep.numbers(t), again.numbers(t)) and again.names == prep.names and again.cat_sizes == prep.cat_sizes
    assert again.save(tmp_path/'q.json').read_text(encoding='utf-8') == text and '"version": 1' in text and 'Straße' in text
    with pytest.raises(CourseError, match='call fit'): TablePrep().save(tmp_path/'r.json')


def test_damaged_files(tmp_path):
    good = json.loads(TablePrep('bought').fit(people()).save(tmp_path/'p.json').read_text())
    bad = tmp_path/'bad.json'
    def load(text):
        bad.write_text(text if isinstance(text, str) else json.dumps(text))
        return TablePrep.load(bad)
    for text, why in (('', 'not a JSON file'), ('[1]', 'no table preparation'), ('{}', 'no table preparation'),
                      (good | {'version': 2}, 'version 2'), ({k: v for k, v in good.items() if k != 'conts'}, 'lacks conts'),
                      (good | {'conts': {'age': {'median': 1}}}, 'damaged'), (good | {'cats': 7}, 'damaged'), (good | {'dates': 'x'}, 'damaged'),
                      (good | {'conts': {'age': {'median': 'x', 'mean': 1, 'std': 1, 'flag': False, 'log': False}}}, 'damaged')):
        with pytest.raises(CourseError, match=why): load(text)
    assert load(good).rows == 60
    with pytest.raises(CourseError, match='no file'): TablePrep.load(tmp_path/'none.json')


def test_a_saved_file_runs_no_code(tmp_path):
    text = TablePrep('bought').fit(people()).save(tmp_path/'p.json').read_text()
    assert isinstance(json.loads(text), dict)                               # plain JSON, nothing else


# --- the course's tables


@pytest.mark.parametrize('name, file, target', [('titanic', 'train.csv', 'Survived'), ('bulldozers', 'bulldozers.csv.gz', 'SalePrice'),
                                                ('adult', 'adult.csv.gz', 'salary')])
def test_the_courses_tables(name, file, target, tmp_path):
    t = read_table(get(name).path/file)
    learn, judge = t[:len(t)*4//5], t[len(t)*4//5:]
    prep = TablePrep(target).fit(learn)
    again = TablePrep.load(prep.save(tmp_path/'p.json'))
    out = again.transform(judge)
    assert isinstance(out, Prepared) and len(out) == len(judge) and torch.isfinite(out.conts).all() and np.isfinite(again.numbers(t)).all()
    assert (out.cats.max(0).values < torch.tensor(prep.cat_sizes)).all() and out.cats.min() >= 0
    assert prep.transform(learn).conts.mean(0).abs().max() < 0.7            # scaled columns have a mean of 0, flags a share
    assert not leaks(t, target)['suspect'].any()
