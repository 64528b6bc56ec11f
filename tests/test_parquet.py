"""Ratings streamed from Parquet: each comes once, in an order that can be repeated; damaged and wrong files are refused by name"""
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional as F

from topdown.collab import DotProduct, Means, ParquetRatings, RatingDecay, Ratings, factor_match, write_low_rank
from topdown.learner import Adam, Callback, Checkpoint, Learner
from topdown.settings import CourseError


def table(n=1000, users=30, items=20, seed=0):
    "Random ratings of pairs that are all different if n allows"
    g = np.random.default_rng(seed)
    pairs = g.permutation(users*items)[:n] if n <= users*items else g.integers(0, users*items, n)
    return pd.DataFrame({'user': pairs//items, 'item': pairs % items, 'rating': g.integers(1, 6, len(pairs)).astype('float32')})


def write(t, path, group=100):
    pq.write_table(pa.Table.from_pandas(t, preserve_index=False), path, row_group_size=group, write_page_checksum=True)
    return path


def rows(stream):
    "All ratings of one epoch, as sorted (user, item, rating) with ids"
    batches = list(stream)
    assert len(batches) == len(stream) and all(len(b[0]) == stream.bs for b in batches[:-1])
    return sorted((stream.users[u], stream.items[i], v) for b in batches for u, i, v in zip(*(c.tolist() for c in b)))


def refused(text, *args, **kw):
    with pytest.raises(CourseError) as e: ParquetRatings(*args, **kw)
    assert text in str(e.value), str(e.value)
    return str(e.value)


@pytest.mark.parametrize('bs, buffer, group', [(64, 64, 100), (64, 300, 100), (7, 50, 1000), (1000, 5000, 10), (50, 100, 50), (1, 1, 300)])
@pytest.mark.parametrize('shuffle', [True, False])
def test_each_rating_comes_once(tmp_path, bs, buffer, group, shuffle):
    parts = [table(600, seed=1), table(1, seed=2), table(333, seed=3)]
    for i, t in enumerate(parts): write(t, tmp_path/f'{i}.parquet', group)
    stream = ParquetRatings(tmp_path, bs=bs, buffer=buffer, shuffle=shuffle)
    wanted = sorted((str(u), str(i), v) for t in parts for u, i, v in t.itertuples(index=False))
    for _ in range(2): assert rows(stream) == wanted
    assert stream.n == 934 and stream.scale == (1, 5) and stream.unknown == 0
    assert stream.mean == pytest.approx(np.mean([v for _, _, v in wanted]))


def test_order_follows_from_seed_and_epoch(tmp_path):
    write(table(600), tmp_path/'a.parquet')
    def epoch(number, **kw):
        stream = ParquetRatings(tmp_path/'a.parquet', bs=50, buffer=200, **kw)
        stream.epoch = number
        return torch.cat([torch.stack([u, i]) for u, i, _ in stream], 1)
    assert torch.equal(epoch(1), epoch(1))
    assert not torch.equal(epoch(0), epoch(1)) and not torch.equal(epoch(0), epoch(0, seed=7))
    assert torch.equal(epoch(0, shuffle=False), epoch(3, shuffle=False))
    stream = ParquetRatings(tmp_path/'a.parquet', bs=50, buffer=200)
    assert stream.order(0) != stream.order(1) and sorted(stream.order(0)) == stream.groups == [(0, g) for g in range(6)]
    first, second = list(stream), list(stream)
    assert stream.epoch == 2 and torch.equal(torch.cat([b[0] for b in second]), epoch(1)[0]) and len(first) == 12


def test_rows_of_one_person_are_spread(tmp_path):
    t = table(600).sort_values('user')
    stream = ParquetRatings(write(t, tmp_path/'sorted.parquet', 60), bs=60, buffer=600)
    assert min(len(set(b[0].tolist())) for b in stream) > 15


def test_mixed_ids_are_those_of_ratings(tmp_path):
    t = table(600)
    third = len(t)//3
    a, b, c = t[:third], t[third:2*third].astype({'user': 'float64'}), t[2*third:].astype({'user': str, 'item': str})
    c = c.assign(user=' ' + c['user'], item=c['item'].astype('category'))
    c = pd.concat([c, pd.DataFrame({'user': ['anna', '07'], 'item': ['x', '3'], 'rating': np.array([4, 2], 'float32')})], ignore_index=True)
    for name, part in zip('zyx', (a, b, c)): write(part, tmp_path/f'{name}.parquet')
    stream = ParquetRatings(tmp_path, bs=600, buffer=600)
    whole = pd.concat([a.astype(object), b.astype(object), c.astype(object)])
    r = Ratings(whole['user'], whole['item'], whole['rating'])
    assert stream.users == r.users and stream.items == r.items and len(r) == stream.n
    assert stream.users[:3] == ['0', '1', '2'] and stream.users[-1] == 'anna'
    assert rows(stream) == sorted((r.users[u], r.items[i], v) for u, i, v in zip(r.user.tolist(), r.item.tolist(), r.value.tolist()))
    assert stream.user_count.tolist() == torch.bincount(r.user).tolist() and stream.item_count.tolist() == torch.bincount(r.item).tolist()
    for damping in (0, 5.):
        ours, theirs = stream.means(damping), Means(r, damping)
        assert ours.mean == pytest.approx(theirs.mean) and ours.user.shape == theirs.user.shape
        assert torch.allclose(ours.user, theirs.user) and torch.allclose(ours.item, theirs.item)
        assert torch.allclose(ours(r.user, r.item), theirs(r.user, r.item))


def test_other_column_names_and_types(tmp_path):
    t = table(100).rename(columns={'user': 'who', 'item': 'what', 'rating': 'stars'}).assign(more='x')
    t = t.astype({'who': 'uint16', 'stars': 'int8'})
    stream = ParquetRatings(str(write(t, tmp_path/'a.parquet')), 'who', 'what', 'stars', bs=10, buffer=10)
    assert [c.dtype for c in next(iter(stream))] == [torch.int64, torch.int64, torch.float32] and stream.n == 100
    assert 'who' in refused("unknown column 'user'", tmp_path/'a.parquet')


@pytest.mark.parametrize('column, value, text', [
    ('rating', float('nan'), '1 of 100 ratings are missing'), ('rating', None, '1 of 100 ratings are missing'),
    ('rating', float('inf'), '1 of 100 ratings are missing'), ('rating', 9., 'rating 9 is off the scale 1 to 5; 1 of 100'),
    ('user', None, '1 of 100 user ids are missing'), ('item', None, '1 of 100 item ids are missing'),
    ('user', 7.5, '7.5 is no user id'), ('item', '', "'' is no item id"), ('user', True, 'True is no user id')])
def test_a_wrong_value_is_named_with_its_file_and_row_group(tmp_path, column, value, text):
    t = table(300)
    write(t, tmp_path/'good.parquet')
    values = t[column].tolist()
    if isinstance(value, str): values = list(map(str, values))
    if isinstance(value, bool): values = [True]*300
    else: values[150] = value
    arrays = {c: pa.array(values if c == column else t[c].tolist()) for c in t}
    if value is not None and value != value: arrays[column] = pa.array(np.array(values, dtype=float)) # nan, not empty
    pq.write_table(pa.table(arrays), tmp_path/'wrong.parquet', row_group_size=100)
    said = refused(text, [tmp_path/'good.parquet', tmp_path/'wrong.parquet'], scale=(1, 5))
    assert f'wrong.parquet, row group {0 if value is True else 1}' in said


def test_wrong_kinds_of_columns(tmp_path):
    t = table(50)
    refused('ratings are of type', write(t.assign(rating='good'), tmp_path/'a.parquet'))
    refused('user ids are of type', write(t.assign(user=[[1]]*50), tmp_path/'b.parquet'))
    refused('a scale needs two ends', write(t.assign(rating=3.), tmp_path/'c.parquet'))
    assert ParquetRatings(tmp_path/'c.parquet', scale=(1, 5), bs=10).scale == (1, 5)
    said = refused('stars', write(t, tmp_path/'d.parquet'), rating='stars')
    assert 'rating' in said and 'd.parquet' in said


def test_files_that_are_not_there_or_not_whole(tmp_path):
    whole = write(table(600), tmp_path/'whole.parquet').read_bytes()
    refused('there is no file', tmp_path/'none.parquet')
    (tmp_path/'folder').mkdir()
    refused('there are no Parquet files', tmp_path/'folder')
    refused('there are no Parquet files', [])
    (tmp_path/'empty.parquet').write_bytes(b'')
    assert 'empty.parquet' in refused('is empty: 0 bytes', tmp_path/'empty.parquet')
    for share in (0.1, 0.5, 0.99):
        (tmp_path/'cut.parquet').write_bytes(whole[:int(share*len(whole))])
        assert 'cut off' in refused('cut.parquet', [tmp_path/'whole.parquet', tmp_path/'cut.parquet'])
    (tmp_path/'text.parquet').write_text('user,item,rating\n1,2,3\n')
    refused('text.parquet', tmp_path/'text.parquet')
    write(table(600).iloc[:0], tmp_path/'no_rows.parquet')
    refused('0 rows', tmp_path/'no_rows.parquet')
    both = ParquetRatings([tmp_path/'no_rows.parquet', tmp_path/'whole.parquet'], bs=100)
    assert both.n == 600


def test_damage_in_the_middle(tmp_path):
    t = table(600)
    path = write(t, tmp_path/'a.parquet')
    data, meta = bytearray(path.read_bytes()), pq.read_metadata(path)
    column = meta.row_group(3).column(2)
    data[column.data_page_offset + column.total_compressed_size//2] ^= 0xff
    path.write_bytes(data)
    assert 'row group 3' in refused('cannot be read as Parquet', path)


def test_a_file_that_changes_during_a_training(tmp_path):
    path = write(table(600), tmp_path/'a.parquet')
    stream = ParquetRatings(path, bs=100)
    write(table(500, users=40, seed=5), path)
    with pytest.raises(CourseError, match='has changed since'): list(stream)
    path.unlink()
    with pytest.raises(CourseError, match='there is no file'): list(stream)


def test_like_takes_the_ids_of_the_training(tmp_path):
    train = ParquetRatings(write(table(400, users=30), tmp_path/'t.parquet'), bs=100)
    more = table(800, users=40, items=25, seed=3)
    valid = ParquetRatings(write(more, tmp_path/'v.parquet'), bs=100, like=train, shuffle=False)
    known = more[more['user'].astype(str).isin(train.users) & more['item'].astype(str).isin(train.items)]
    assert valid.users is train.users and valid.n == len(known) and valid.unknown == 800 - len(known) > 0
    assert rows(valid) == sorted((str(u), str(i), v) for u, i, v in known.itertuples(index=False))
    assert max(b[0].max() for b in valid) < len(train.users) == 30
    refused('0 rows of known ids', write(more.assign(user='nobody'), tmp_path/'n.parquet'), like=train)


def test_repeats_are_counted_within_a_piece(tmp_path):
    t = table(100)
    stream = ParquetRatings(write(pd.concat([t, t[:7]]), tmp_path/'a.parquet', 200), bs=10)
    assert stream.repeats == 7 and stream.n == 107


@pytest.mark.parametrize('bs, buffer', [(0, 10), (20, 10)])
def test_sizes(tmp_path, bs, buffer): refused(f'batch size {bs}', write(table(), tmp_path/'a.parquet'), bs=bs, buffer=buffer)


class Stop(Callback):
    def __init__(self, step): self.step = step
    def after_step(self, learn):
        if learn.step == self.step: raise KeyboardInterrupt


@pytest.mark.parametrize('at', [3, 17])
def test_an_interrupted_training_goes_on_exactly(tmp_path, at):
    truth = write_low_rank(tmp_path/'t.parquet', 60, 40, 2000, rank=2)
    assert truth.users.shape == (60, 3)
    def learner():
        stream = ParquetRatings(tmp_path/'t.parquet', bs=200, buffer=600)
        return Learner(DotProduct(60, 40, 2), (stream, None), F.mse_loss, Adam, cbs=[RatingDecay(0.01)], device='cpu', progress=False)
    def fit(learn, keep, stop): learn.fit_one_cycle(3, 0.05, keep=Checkpoint(tmp_path/keep, every=1), cbs=[Stop(stop)])
    straight, broken, resumed = learner(), learner(), learner()
    fit(straight, 'one', -1)
    with pytest.raises(KeyboardInterrupt): fit(broken, 'two', at)
    fit(resumed, 'two', -1)
    assert resumed.losses == straight.losses
    for a, b in zip(resumed.model.parameters(), straight.model.parameters()): assert torch.equal(a, b)


def test_lr_find_leaves_the_stream_as_it_was(tmp_path):
    write_low_rank(tmp_path/'t.parquet', 60, 40, 2000)
    stream = ParquetRatings(tmp_path/'t.parquet', bs=100, buffer=300)
    learn = Learner(DotProduct(60, 40, 2), stream, F.mse_loss, Adam, device='cpu', progress=False)
    learn.lr_find(steps=30)
    assert stream.epoch == 0


def test_known_factors(tmp_path):
    truth = write_low_rank(tmp_path/'a.parquet', 100, 50, 20_000, rank=3, noise=0.5)
    again = write_low_rank(tmp_path/'b.parquet', 100, 50, 20_000, rank=3, noise=0.5)
    other = write_low_rank(tmp_path/'c.parquet', 100, 50, 20_000, rank=3, noise=0.5, part=1)
    a, b, c = (pd.read_parquet(tmp_path/f'{n}.parquet') for n in 'abc')
    assert a.equals(b) and not a.equals(c) and torch.equal(truth.users, again.users) and torch.equal(truth.items, other.items)
    for t in (a, c):
        error = t['rating'].to_numpy() - truth(*(torch.tensor(t[n].to_numpy()).long() for n in ('user', 'item'))).detach().numpy()
        assert abs(error.mean()) < 0.02 and abs(error.std() - 0.5) < 0.02
    with pytest.raises(CourseError, match='at least 1'): write_low_rank(tmp_path/'d.parquet', 0, 1, 1)
    with pytest.raises(CourseError, match='cannot be written'): write_low_rank(tmp_path/'a.parquet'/'d.parquet', 5, 5, 5)
    write_low_rank(tmp_path/'new'/'folder'/'d.parquet', 5, 5, 5)
    assert [p.name for p in (tmp_path/'new'/'folder').iterdir()] == ['d.parquet']
    mixed = truth.users[:, :3] @ torch.tensor([[1., 2, 0], [0, 1, 3], [1, 0, 1]]) + 5
    assert factor_match(mixed, truth.users[:, :3]).shape == (3,) and factor_match(mixed, truth.users[:, :3]).min() > 0.9999
    assert factor_match(mixed[:, :1], truth.users[:, :3]).shape == (1,)
    assert factor_match(truth.users[:50, :3], truth.items[:, :3]).max() < 0.6
    with pytest.raises(CourseError, match='rows'): factor_match(mixed, truth.items)
    with pytest.raises(CourseError, match='too few'): factor_match(mixed[:3], mixed[:3])


@pytest.mark.parametrize('groups', [1, 20])
def test_memory_does_not_grow_with_the_file(tmp_path, groups):
    "Ten times the rows, 200 MB as tensors and 100 MB on the disk, add little to the peak, even in a single row group"
    g = np.random.default_rng(0)
    for n in (1_000_000, 10_000_000):
        t = {c: g.integers(0, 1000, n)*1_000_003 for c in ('user', 'item')} | {'rating': g.random(n, 'float32')}
        t = pa.table({c: pa.array(values) for c, values in t.items()})
        pq.write_table(t, tmp_path/f'{n}.parquet', row_group_size=n//groups, use_dictionary=False)
    code = '''
import sys
import torch
torch.set_num_threads(1)
from topdown.collab import ParquetRatings
from topdown.ledger import peak_memory
peaks = []
for n in (1_000_000, 10_000_000):
    assert sum(len(b[0]) for b in ParquetRatings(f'{sys.argv[1]}/{n}.parquet', bs=8192, buffer=2**17)) == n
    peaks.append(peak_memory())
print(peaks[1] - peaks[0])
'''
    out = subprocess.run([sys.executable, '-c', code, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert float(out) < 40


def test_writing_does_not_grow_with_the_file(tmp_path):
    code = '''
import sys
from topdown.collab import write_low_rank
from topdown.ledger import peak_memory
peaks = []
for n in (1_000_000, 5_000_000):
    write_low_rank(f'{sys.argv[1]}/{n}.parquet', 1000, 1000, n)
    peaks.append(peak_memory())
print(peaks[1] - peaks[0])
'''
    out = subprocess.run([sys.executable, '-c', code, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert float(out) < 40
