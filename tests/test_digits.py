"""Reading handwritten digits: whole files, and every kind of file that is not whole"""
import gzip
import os
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from topdown.data import get
from topdown.learner import accuracy, digits, read_idx
from topdown.settings import CourseError


def idx(values, mark=None):
    "An array as the bytes of an idx file"
    head = mark or bytes([0, 0, 8, values.ndim])
    return head + struct.pack(f'>{values.ndim}I', *values.shape) + values.astype('uint8').tobytes()


def write(path, raw): path.write_bytes(gzip.compress(raw)); return path


@pytest.fixture
def values(): return np.random.default_rng(0).integers(0, 256, (5, 4, 3))


@pytest.mark.parametrize('shape', [(7,), (5, 4, 3), (2, 3, 4, 5), (0,), (0, 28, 28)])
def test_any_shape_comes_back(tmp_path, shape):
    a = np.random.default_rng(1).integers(0, 256, shape)
    b = read_idx(write(tmp_path/'x.gz', idx(a)))
    assert b.shape == shape and b.dtype == np.uint8 and (a == b).all()
    assert b.flags.writeable # so that PyTorch takes it without a warning


def test_a_path_may_be_text(tmp_path, values): assert read_idx(str(write(tmp_path/'x.gz', idx(values)))).shape == (5, 4, 3)


@pytest.mark.parametrize('name, raw, words', [
    ('a web page', b'<!DOCTYPE html>', r'is no idx file: it begins with 3c 21 44 4f, not with two zero bytes'),
    ('nothing', b'', 'is no idx file: it begins with '),
    ('two bytes', b'\0\0', 'is no idx file'),
    ('floats', b'\0\0\x0d\x01\0\0\0\x01abcd', 'holds values of kind 0x0d; only bytes, 0x08, are read here'),
    ('no axes', b'\0\0\x08\0', 'ends within its header'),
    ('half a header', b'\0\0\x08\x03\0\0\0\x05\0\0', 'ends within its header, which should give the length of 3 axes'),
    ('too few values', b'\0\0\x08\x01\0\0\0\x05ab', r'has the shape \(5,\), 5 bytes, and holds 2'),
    ('too many values', b'\0\0\x08\x01\0\0\0\x02abc', r'has the shape \(2,\), 2 bytes, and holds more'),
    ('a boast', b'\0\0\x08\x03' + b'\xff'*12, r'claims the shape \(4294967295, 4294967295, 4294967295\), more than a gigabyte'),
    ('a boast of 255 axes', b'\0\0\x08\xff' + b'\xff'*1020, 'more than a gigabyte'),
])
def test_files_that_are_something_else(tmp_path, name, raw, words):
    with pytest.raises(CourseError, match=words) as e: read_idx(write(tmp_path/'x.gz', raw))
    assert str(tmp_path/'x.gz') in str(e.value) and 'get the file again' in str(e.value)


def test_every_cut_is_noticed(tmp_path, values):
    whole = gzip.compress(idx(values))
    for n in range(len(whole)):
        (tmp_path/'x.gz').write_bytes(whole[:n])
        with pytest.raises(CourseError): read_idx(tmp_path/'x.gz')


def test_every_changed_byte_is_noticed_or_harmless(tmp_path, values):
    whole = gzip.compress(idx(values), mtime=0)
    for i in range(len(whole)):
        (tmp_path/'x.gz').write_bytes(whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i+1:])
        try: assert (read_idx(tmp_path/'x.gz') == values).all() # a byte of gzip's header, such as the time
        except CourseError: pass


def test_files_that_cannot_be_read(tmp_path, values):
    with pytest.raises(CourseError, match=r"there is no file .*; the four files lie in get\('mnist'\)\.path"): read_idx(tmp_path/'none.gz')
    with pytest.raises(CourseError, match='cannot be unpacked'): read_idx(tmp_path)
    (tmp_path/'plain').write_bytes(idx(values))
    with pytest.raises(CourseError, match='cannot be unpacked: Not a gzipped file'): read_idx(tmp_path/'plain')


def folder(path, **other):
    "A folder of four small files; `other` replaces some"
    files = dict(train_images=np.zeros((6, 2, 2)), train_labels=np.arange(6), t10k_images=np.zeros((3, 2, 2)), t10k_labels=np.arange(3)) | other
    for name, values in files.items():
        part, kind = name.split('_')
        write(path/f'{part}-{kind}-idx{3 if kind == "images" else 1}-ubyte.gz', idx(values))
    return SimpleNamespace(path=path)


def test_four_files(tmp_path):
    images = np.arange(24).reshape(6, 2, 2)*10
    x, y, xv, yv = digits(folder(tmp_path, train_images=images))
    assert [t.shape for t in (x, y, xv, yv)] == [(6, 4), (6,), (3, 4), (3,)]
    assert x.dtype == xv.dtype == torch.float32 and y.dtype == yv.dtype == torch.int64
    assert torch.allclose(x[1]*255, torch.tensor([40., 50., 60., 70.])) and y.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize('other, words', [
    (dict(train_labels=np.arange(5)), r'the train images have the shape \(6, 2, 2\) and the labels \(5,\)'),
    (dict(t10k_labels=np.zeros((3, 1))), r'the t10k images have the shape \(3, 2, 2\) and the labels \(3, 1\)'),
    (dict(train_images=np.zeros((6, 4))), r'have the shape \(6, 4\)'),
    (dict(train_images=np.zeros((0, 2, 2)), train_labels=np.zeros(0)), r'have the shape \(0, 2, 2\)'),
    (dict(train_labels=np.arange(5, 11)), 'label 10 among the train labels; a digit is 0 to 9'),
    (dict(t10k_images=np.zeros((3, 3, 2))), 'training images of 4 pixels and test images of 6')])
def test_files_that_do_not_belong_together(tmp_path, other, words):
    with pytest.raises(CourseError, match=words): digits(folder(tmp_path, **other))


def test_the_sample(home):
    d = get('mnist')
    x, y, xv, yv = digits(d)
    assert [tuple(t.shape) for t in (x, y, xv, yv)] == [(1297, 64), (1297,), (500, 64), (500,)] and d.n == 1797
    assert x.min() == 0 and x.max() == 1 and (torch.bincount(y) > 100).all() and (torch.bincount(yv) > 30).all()
    together = {tuple(row.tolist()) for row in x} & {tuple(row.tolist()) for row in xv}
    assert not together # no image is on both sides


def test_the_sample_is_what_scikit_learn_ships(home):
    from sklearn.datasets import load_digits
    theirs = load_digits()
    x, y, xv, yv = digits(get('mnist'))
    ours = sorted(zip((torch.cat([x, xv])*16).round().int().tolist(), torch.cat([y, yv]).tolist()))
    assert ours == sorted(zip(theirs.data.astype(int).tolist(), theirs.target.tolist()))


@pytest.mark.parametrize('scores, targets', [((4, 10), (4, 1)), ((4, 10), (10,)), ((10,), (1,)), ((2, 3, 10), (3,))])
def test_accuracy_refuses_shapes_that_would_only_broadcast(scores, targets):
    with pytest.raises(CourseError, match='need targets of shape'): accuracy(torch.zeros(scores), torch.zeros(targets))


def test_accuracy():
    assert accuracy(torch.eye(4), torch.tensor([0, 1, 2, 0])) == 0.75
    assert accuracy(torch.tensor([0., 2., 1.]), torch.tensor(1)) == 1
    assert accuracy(torch.zeros(2, 3, 5), torch.zeros(2, 3)).shape == ()


@pytest.mark.real
@pytest.mark.skipif(not os.environ.get('TOPDOWN_DATA'), reason='TOPDOWN_DATA names no folder of real data')
def test_the_real_digits(home):
    x, y, xv, yv = digits(get('mnist'))
    assert x.shape == (60_000, 784) and xv.shape == (len(yv), 784) and len(yv) in (5000, 10_000)
    assert torch.bincount(y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert y[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3] and abs(x.mean() - 0.1307) < 1e-3
