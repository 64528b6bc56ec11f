"""Small data sets cut from large ones: shares by hand, damaged files, whole users, and a bound on the memory"""
import csv
import gzip
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import topdown.subset as module
from topdown.data import DATASETS, get
from topdown.settings import CourseError
from topdown.store import read_json
from topdown.subset import apportion, subset


def table(path, kinds, header='id,kind', sep=','):
    "A table with one row for each kind, in that order"
    lines = [header.replace(',', sep), *(f'{i}{sep}{k}' for i, k in enumerate(kinds))]
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return path


def kinds(path, column='kind', sep=','):
    with (gzip.open if path.suffix == '.gz' else open)(path, 'rt', encoding='utf-8', newline='') as f:
        return Counter(r[column] for r in csv.DictReader(f, delimiter=sep))


@pytest.mark.parametrize('counts, n, least, expected', [
    ((60, 33, 7), 10, 1, (6, 3, 1)), ((50, 50), 3, 1, (2, 1)), ((98, 1, 1), 10, 1, (8, 1, 1)), ((98, 1, 1), 10, 0, (10, 0, 0)),
    ((98, 1, 1), 3, 1, (1, 1, 1)), ((5, 5), 10, 1, (5, 5)), ((7,), 3, 1, (3,)), ((96, 2, 2), 12, 3, (8, 2, 2)), ((1,)*7, 7, 1, (1,)*7)])
def test_shares_worked_out_by_hand(counts, n, least, expected):
    names = 'abcdefg'[:len(counts)]
    assert tuple(apportion(dict(zip(names, counts)), n, least).values()) == expected


def test_shares_add_up_and_never_exceed_what_is_there():
    rng = random.Random(1)
    for _ in range(300):
        counts = {i: rng.randint(1, rng.choice([2, 50, 5000])) for i in range(rng.randint(1, 12))}
        total, least = sum(counts.values()), rng.choice([0, 1, 3])
        n = rng.randint(max(1, sum(min(least, c) for c in counts.values())), total)
        give = apportion(counts, n, least)
        assert sum(give.values()) == n
        assert all(min(least, c) <= give[k] <= c for k, c in counts.items())
        if least == 0: assert all(abs(give[k] - n*c/total) < 1 for k, c in counts.items())


@pytest.mark.parametrize('n, least', [(0, 1), (101, 1), (2, 1), (8, 3)])
def test_shares_that_cannot_be(n, least):
    with pytest.raises(CourseError, match='cannot be shared out: there are 100 in 3 classes'): apportion(dict(a=90, b=5, c=5), n, least)


def test_a_table_keeps_shares_order_and_a_manifest(tmp_path):
    file = table(tmp_path/'t.csv', ['cat']*70 + ['dog']*29 + ['newt'])
    made = subset(file, 10, tmp_path/'small', label='kind')
    assert kinds(made.path/'t.csv') == dict(cat=7, dog=2, newt=1)
    ids = [int(line.split(',')[0]) for line in (made.path/'t.csv').read_text().splitlines()[1:]]
    assert ids == sorted(ids)
    m = read_json(made.path/'subset.json')
    assert m == made.manifest and (m['rows_before'], m['rows'], m['seed'], m['by']) == (100, 10, 42, 'kind')
    assert m['before'] == dict(cat=70, dog=29, newt=1) and m['after'] == dict(cat=7, dog=2, newt=1)
    assert m['source'] == str(file.resolve()) and len(m['source_sha256']) == 64 and 'cat' in str(made)


def test_the_seed_decides(tmp_path):
    file = table(tmp_path/'t.csv', ['cat', 'dog']*50)
    a, b, c = (subset(file, 10, tmp_path/name, seed, label='kind') for name, seed in (('a', 1), ('b', 1), ('c', 2)))
    assert a.manifest == b.manifest and a.manifest['sha256'] != c.manifest['sha256']
    assert (a.path/'t.csv').read_bytes() == (b.path/'t.csv').read_bytes() != (c.path/'t.csv').read_bytes()


def test_all_rows_may_stay(tmp_path):
    file = table(tmp_path/'t.csv', ['cat', 'dog'])
    assert (subset(file, 2, tmp_path/'s', label='kind').path/'t.csv').read_bytes() == file.read_bytes()


def test_quotes_line_breaks_umlauts_tabs_and_gz(tmp_path):
    rows = [['kind', 'text'], *([k, f'"{i}", ä\nnext'] for i, k in enumerate(['x', 'y']*20))]
    with gzip.open(tmp_path/'t.tsv.gz', 'wt', encoding='utf-8-sig', newline='') as f: csv.writer(f, delimiter='\t').writerows(rows)
    made = subset(tmp_path/'t.tsv.gz', 10, tmp_path/'s', label='kind')
    with gzip.open(made.path/'t.tsv.gz', 'rt', encoding='utf-8', newline='') as f: kept = list(csv.reader(f, delimiter='\t'))
    assert kept[0] == rows[0] and len(kept) == 11 and all(r in rows for r in kept)
    assert made.manifest['name'] == 't' and kinds(made.path/'t.tsv.gz', sep='\t') == dict(x=5, y=5)


def test_several_columns_are_one_class_each_combination(tmp_path):
    (tmp_path/'t.csv').write_text('a,b\n' + '1,x\n'*60 + '1,y\n'*20 + '2,\n'*20, encoding='utf-8')
    assert subset(tmp_path/'t.csv', 10, tmp_path/'s', label='a, b').manifest['after'] == {'1 · x': 6, '1 · y': 2, '2 · (empty)': 2}


def test_without_an_option_label_is_used_or_nothing(tmp_path):
    file = table(tmp_path/'t.csv', ['x', 'y']*10, 'id,label')
    assert subset(file, 4, tmp_path/'s').manifest['after'] == dict(x=2, y=2)
    made = subset(table(tmp_path/'u.csv', ['x', 'y']*10), 4, tmp_path/'s2')
    assert made.manifest['by'] == '' and made.manifest['after'] == {'all rows': 4}


@pytest.mark.parametrize('form', ['%Y-%m-%d', '%m/%d/%Y', '%d.%m.%Y', '%m/%d/%Y 0:00', '%Y-%m-%dT10:00:00Z'])
def test_months_keep_their_shares_and_rows_their_order(tmp_path, form):
    from datetime import date
    days = [date(2011, m, d).strftime(form) for m, n in ((1, 20), (2, 10), (3, 10)) for d in range(1, n + 1)]
    made = subset(table(tmp_path/'t.csv', days, 'id,day'), 8, tmp_path/'s', date='day')
    assert made.manifest['after'] == {'2011-01': 4, '2011-02': 2, '2011-03': 2}
    ids = [int(line.split(',')[0]) for line in (made.path/'t.csv').read_text().splitlines()[1:]]
    assert ids == sorted(ids)


def test_a_date_that_is_none_is_named_with_its_line(tmp_path):
    file = table(tmp_path/'t.csv', ['2011-01-01', 'soon'], 'id,day')
    with pytest.raises(CourseError, match=r"t.csv, line 3: 'soon' in column day is no date"): subset(file, 1, tmp_path/'s', date='day')


def test_whole_users_stay(tmp_path):
    users = [f'u{i:02}' for i in range(40) for _ in range(3 + i)]
    random.Random(0).shuffle(users)
    had, made = Counter(users), subset(table(tmp_path/'t.csv', users, 'id,user'), 200, tmp_path/'s', user='user')
    kept = kinds(made.path/'t.csv', 'user')
    assert 180 <= kept.total() <= 200 and all(kept[u] == had[u] for u in kept)
    assert sum(made.manifest['after'].values()) == kept.total() and len(made.manifest['before']) == 5
    assert all(n > 0 for n in made.manifest['after'].values())
    with pytest.raises(CourseError, match='2 rows are fewer than those of any user; the one with the fewest has 3'):
        subset(tmp_path/'t.csv', 2, tmp_path/'s2', user='user')


def test_json_lines_are_kept_byte_by_byte(tmp_path):
    lines = [json.dumps(dict(kind=k, n=i)) + ('  ' if i % 2 else '') for i, k in enumerate('aab'*10)]
    (tmp_path/'t.jsonl').write_text('\n'.join(lines) + '\n\n', encoding='utf-8')
    made = subset(tmp_path/'t.jsonl', 6, tmp_path/'s', label='kind')
    kept = (made.path/'t.jsonl').read_text().splitlines()
    assert len(kept) == 6 and set(kept) <= set(lines) and made.manifest['after'] == dict(a=4, b=2)


@pytest.mark.parametrize('bad, words', [('{"kind": ', 'line 2: this is no JSON'), ('[1]', 'line 2: expected an object'),
                                        ('{"kin": 1}', "line 2: there is no 'kind'; the line has kin")])
def test_json_lines_with_a_mistake(tmp_path, bad, words):
    (tmp_path/'t.jsonl').write_text(f'{{"kind": "a"}}\n{bad}\n', encoding='utf-8')
    with pytest.raises(CourseError, match=words): subset(tmp_path/'t.jsonl', 1, tmp_path/'s', label='kind')


def test_parquet_keeps_columns_types_and_shares(tmp_path):
    pa, pq = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')
    whole = pa.table({'kind': ['a', 'b', 'b', None]*5000, 'n': pa.array(range(20_000), pa.int16()), 'x': [[1., 2.]]*20_000})
    pq.write_table(whole, tmp_path/'t.parquet')
    made = subset(tmp_path/'t.parquet', 100, tmp_path/'s', label='kind')
    small = pq.read_table(made.path/'t.parquet')
    assert small.schema.equals(whole.schema) and len(small) == 100 and made.manifest['after'] == {'b': 50, 'a': 25, '(empty)': 25}
    n = small['n'].to_pylist()
    assert n == sorted(n) and all(whole['kind'][i].as_py() == k for i, k in zip(n, small['kind'].to_pylist()))
    assert subset(tmp_path/'t.parquet', 7, tmp_path/'s2').manifest['after'] == {'all rows': 7}
    (tmp_path/'bad.parquet').write_bytes(b'PAR1 and no more')
    with pytest.raises(CourseError, match='bad.parquet cannot be read as a Parquet file'): subset(tmp_path/'bad.parquet', 1, tmp_path/'s3')


@pytest.mark.parametrize('data, words', [
    (b'', 'is empty'), (b'id,kind\n', 'has no rows'), (b'id,kind\n1,a\n2,b,c\n', 'line 3: 3 cells in a table of 2 columns'),
    (b'id,kind\n1,a\n2,\xff\n', 'line 3: no text in UTF-8'), (b'id,kind\n1,"a\n2,b\n', 'line 3: unexpected end of data'),
    (b'id,kind\n1,"a"b\n', "line 2: ',' expected after")])
def test_a_table_that_cannot_be_read(tmp_path, data, words):
    (tmp_path/'t.csv').write_bytes(data)
    with pytest.raises(CourseError, match=words): subset(tmp_path/'t.csv', 1, tmp_path/'s', label='kind')
    assert not (tmp_path/'s').exists() and sorted(o.name for o in tmp_path.iterdir()) == ['t.csv']


def test_a_damaged_archive_names_how_far_it_came(tmp_path):
    data = gzip.compress(('id,kind\n' + ''.join(f'{i},{random.Random(i).random()}\n' for i in range(5000))).encode())
    (tmp_path/'t.csv.gz').write_bytes(data[:len(data)//2])
    with pytest.raises(CourseError, match=r'after line \d+: the compressed file is damaged'): subset(tmp_path/'t.csv.gz', 1, tmp_path/'s')


@pytest.mark.parametrize('call, words', [
    (dict(rows=5), '5 rows are more than the 4 there are'), (dict(rows=1), '1 rows are fewer than the 2 classes'),
    (dict(rows=0), 'rows should be a whole number from 1 up, found 0'), (dict(rows=True), 'found True'), (dict(rows=2.), 'found 2.0'),
    (dict(rows=2, label='kid'), "unknown column 'kid'; known: kind, id"), (dict(rows=2, date='kind'), 'choose one of label, date and user'),
    (dict(rows=2, label=None, date='id,kind'), "date is one column, found 'id,kind'"), (dict(rows=2, label=None, user='who'), "unknown column 'who'")])
def test_mistakes_in_the_call(tmp_path, call, words):
    file = table(tmp_path/'t.csv', ['a', 'b', 'a', 'b'])
    with pytest.raises(CourseError, match=words): subset(file, out=tmp_path/'s', **(dict(label='kind') | call))
    assert not (tmp_path/'s').exists()


def test_sources_that_are_none(tmp_path):
    with pytest.raises(CourseError, match="unknown data set 'brids'; known: birds"): subset('brids', 5, tmp_path/'s')
    with pytest.raises(CourseError, match='there is no file or folder .*none.csv'): subset(tmp_path/'none.csv', 5, tmp_path/'s')
    (tmp_path/'t.xls').write_text('x')
    with pytest.raises(CourseError, match='an ending that is not known; known: .csv'): subset(tmp_path/'t.xls', 5, tmp_path/'s')
    table(tmp_path/'n.csv', range(3000))
    with pytest.raises(CourseError, match='kind has over 2,000 different values'): subset(tmp_path/'n.csv', 5, tmp_path/'s', label='kind')


def test_nothing_is_written_over_and_nothing_into_the_source(tmp_path):
    file = table(tmp_path/'t.csv', ['a', 'b'])
    (tmp_path/'full').mkdir()
    (tmp_path/'full'/'mine.txt').write_text('mine')
    with pytest.raises(CourseError, match='full is there already'): subset(file, 2, tmp_path/'full')
    with pytest.raises(CourseError, match='t.csv is there already'): subset(file, 2, file)
    (tmp_path/'empty').mkdir()
    assert subset(file, 2, tmp_path/'empty').path.is_dir()
    folder = subset('birds', 30, tmp_path/'birds').path
    with pytest.raises(CourseError, match='lies inside'): subset(folder, 20, folder/'less')
    assert [o.name for o in (tmp_path/'full').iterdir()] == ['mine.txt']


def test_a_file_that_grows_meanwhile_is_noticed(tmp_path, monkeypatch):
    file, count = table(tmp_path/'t.csv', ['a', 'b']*5), module._count
    def then_shrink(t, by):
        found = count(t, by)
        table(file, ['a'])
        return found
    monkeypatch.setattr(module, '_count', then_shrink)
    with pytest.raises(CourseError, match='t.csv changed while it was read'): subset(file, 10, tmp_path/'s', label='kind')
    assert not (tmp_path/'s').exists()


def test_photos_become_a_folder_of_your_own(tmp_path):
    made = subset('birds', 20, tmp_path/'b')
    data = get(made.path)
    assert (data.n, data.source) == (20, 'own folder') and min(made.manifest['after'].values()) == 3
    again = subset(made.path, 18, tmp_path/'b2', seed=1)
    assert get(again.path).n == 18 and again.manifest['licence'] == 'yours'
    with pytest.raises(CourseError, match='5 photos are fewer than the 6 classes'): subset('birds', 5, tmp_path/'b3')
    with pytest.raises(CourseError, match='birds is no table, so there is no column for label'): subset('birds', 50, tmp_path/'b3', label='x')


@pytest.mark.parametrize('name', DATASETS)
def test_each_set_of_the_course_can_be_cut(tmp_path, name):
    rows = {'pets': 60, 'ml-100k': 2000, 'sts-captions': 20, 'camvid': 5}.get(name, 100)
    made = subset(name, rows, tmp_path/'s')
    m = made.manifest
    assert m['rows'] == rows or (name == 'ml-100k' and .9*rows <= m['rows'] <= rows)
    assert m['track'] == 'sample' and m['rows'] == sum(m['after'].values()) < m['rows_before']
    entry = DATASETS[name]
    for part in (entry.pattern, *entry.needs):
        if entry.labels not in ('breed',): assert any(made.path.glob(part)), part
    if entry.labels not in ('breed', 'folder', 'text'): assert entry.count(made.path) == m['rows']


def test_digits_keep_image_and_label_together(tmp_path):
    import struct
    def read(folder):
        found = []
        for part in ('train', 't10k'):
            images, labels = (gzip.decompress((folder/f'{part}-{o}-ubyte.gz').read_bytes()) for o in ('images-idx3', 'labels-idx1'))
            n, h, w = struct.unpack('>III', images[4:16])
            assert struct.unpack('>I', labels[4:8])[0] == n == len(labels) - 8 and len(images) == 16 + n*h*w
            found += [(images[16 + i*h*w:16 + (i + 1)*h*w], labels[8 + i]) for i in range(n)]
        return found
    whole, small = set(read(get('mnist').path)), read(subset('mnist', 100, tmp_path/'s').path)
    assert len(small) == 100 and set(small) <= whole


def test_a_table_of_many_megabytes_takes_few_of_memory(tmp_path):
    "Each run in a process of its own; what may grow is measured against the imports alone"
    file = tmp_path/'large.csv'
    with open(file, 'w', encoding='utf-8') as f:
        f.write('id,kind,text\n')
        for i in range(400_000): f.write(f'{i},{"rare" if i % 1000 == 999 else "common"},{"word "*18}\n')
    assert file.stat().st_size > 35e6
    code = 'import sys; from topdown.subset import subset; from topdown.ledger import peak_memory; {}; print(peak_memory())'
    cut = 'subset(sys.argv[1], 1000, sys.argv[2], label="kind")'
    base, used = (float(subprocess.run([sys.executable, '-c', code.format(do), str(file), str(tmp_path/'s')], capture_output=True, text=True,
                                       check=True, env=os.environ).stdout.split()[-1]) for do in ('pass', cut))
    assert used < base + 15, f'{used} MB, and {base} MB for the imports'
    assert kinds(tmp_path/'s'/'large.csv') == dict(common=999, rare=1)


def test_what_a_broken_run_leaves_is_nothing(tmp_path, monkeypatch):
    file = table(tmp_path/'t.csv', ['a', 'b']*5)
    def broken(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(module, 'write_json', broken)
    with pytest.raises((CourseError, OSError)): subset(file, 4, tmp_path/'s')
    assert sorted(o.name for o in tmp_path.iterdir()) == ['t.csv']


def test_the_folder_has_a_name_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = table(tmp_path/'my.data.csv', ['a', 'b']*5)
    assert subset(file, 4).path == Path.cwd()/'my-4'
