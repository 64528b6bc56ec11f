"""Checkpoints under attack: kills in the middle of a write, full disks, damage at every place, pickles"""
import errno
import os
import pickle
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from topdown import checkpoint, store
from topdown.checkpoint import load_state, random_state, save_state, set_random_state
from topdown.settings import CourseError


def same(a, b):
    "Equal in kind and to the last bit"
    if isinstance(a, torch.Tensor): return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict): return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a and b != b)


STATES = [
    {}, {'a': {}, 'b': [], 'c': (), 'd': ''}, {'x': torch.tensor(2.), 'y': torch.zeros(0, 3), 'z': torch.tensor([True, False])},
    {'a.b': torch.ones(1), 'a': {'b': torch.zeros(1)}}, {0: {'step': torch.tensor(3.)}, 1: [torch.ones(2), (1, None)]}, {(1, 'a'): 1, 'b': 2},
    {'$tensor': 'a', '$float': [1]}, {'n': float('nan'), 'p': float('inf'), 'm': float('-inf'), 'tiny': 5e-324, 'third': 1/3},
    {'big': 10**30, 'yes': True, 'one': 1, 'none': None, 'bird': 'Zaunkönig 🐦\n"'},
    {'k': [torch.ones(3, dtype=t) for t in (torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int64)]}]


@pytest.mark.parametrize('state', STATES, ids=range(len(STATES)))
def test_everything_comes_back(tmp_path, state):
    back, about = load_state(save_state(tmp_path/'x.safetensors', state, {'n': 1, 'who': 'Zoë'}))
    assert same(state, back) and about == {'n': 1, 'who': 'Zoë'}


def test_optimisers_of_pytorch_come_back(tmp_path):
    p = torch.nn.Parameter(torch.ones(3))
    opt = torch.optim.Adam([p])
    p.grad = torch.ones(3)
    opt.step()
    back, _ = load_state(save_state(tmp_path/'x.safetensors', opt.state_dict(), {}))
    assert same(opt.state_dict(), back)
    torch.optim.Adam([p]).load_state_dict(back)


def test_tensors_are_copies_of_their_own(tmp_path):
    a = torch.arange(6.).reshape(2, 3)
    path = save_state(tmp_path/'x.safetensors', {'a': a, 'view': a.T, 'row': a[0], 'p': torch.nn.Parameter(a)}, {})
    a.zero_()
    back, _ = load_state(path)
    assert back['view'].tolist() == [[0, 3], [1, 4], [2, 5]] and not back['p'].requires_grad
    back['row'].fill_(9)
    assert back['a'].sum() == 15


@pytest.mark.parametrize('thing, name', [({1}, 'set'), (object(), 'object'), (np.float64(1), 'float64'), (np.ones(2), 'ndarray'), (b'x', 'bytes')])
def test_what_has_no_place(tmp_path, thing, name):
    with pytest.raises(CourseError, match=f'net.0: a {name} has no place'): save_state(tmp_path/'x.safetensors', {'net': [thing]}, {})
    assert list(tmp_path.iterdir()) == []


def test_damage_at_every_place_is_refused(tmp_path):
    path = save_state(tmp_path/'x.safetensors', {'w': torch.arange(20.), 'n': [1, .5, 'text']}, {'epochs': 3})
    data = path.read_bytes()
    for i in range(len(data)):
        for bit in (1, 0x40):
            path.write_bytes(data[:i] + bytes([data[i] ^ bit]) + data[i + 1:])
            try: state, about = load_state(path)
            except CourseError: continue
            assert same(state, {'w': torch.arange(20.), 'n': [1, .5, 'text']}) and about == {'epochs': 3}, i # padding only
    for n in range(len(data)):
        path.write_bytes(data[:n])
        with pytest.raises(CourseError): load_state(path)


class Evil:
    def __reduce__(self): return os.system, ('touch ' + os.environ['EVIL'],)


@pytest.mark.parametrize('ending', ['.safetensors', '.pkl', '.pth', '.pt', '.ckpt'])
def test_no_pickle_is_opened_under_any_name(tmp_path, monkeypatch, ending):
    monkeypatch.setenv('EVIL', str(tmp_path/'evil'))
    path = tmp_path/f'x{ending}'
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CourseError): load_state(path)
    torch.save({'a': torch.ones(1)}, path)
    with pytest.raises(CourseError): load_state(path)
    assert not (tmp_path/'evil').exists()


@pytest.mark.parametrize('what', ['fsync', 'replace'])
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch, what):
    def no_space(*args, **kw): raise OSError(errno.ENOSPC, 'No space left on device')
    path = save_state(tmp_path/'x.safetensors', {'a': torch.ones(2)}, {})
    monkeypatch.setattr(store.os, what, no_space)
    with pytest.raises(CourseError, match='the disk is full'): save_state(path, {'a': torch.zeros(2)}, {})
    monkeypatch.undo()
    assert load_state(path)[0]['a'].sum() == 2 and [p.name for p in tmp_path.iterdir()] == ['x.safetensors']


@pytest.mark.skipif(os.name == 'nt', reason='signals of POSIX systems')
def test_killed_in_the_middle_of_writing(tmp_path):
    code = """import sys, torch; from pathlib import Path; from topdown.checkpoint import save_state
for i in range(100000): save_state(sys.argv[1], {'a': torch.full((300000,), float(i)), 'i': i}, {}); print(i, flush=True)"""
    moments = random.Random(1)
    for _ in range(4):
        path = tmp_path/'x.safetensors'
        p = subprocess.Popen([sys.executable, '-c', code, str(path)], stdout=subprocess.PIPE, text=True)
        p.stdout.readline()
        time.sleep(moments.uniform(0, .05))
        p.send_signal(signal.SIGKILL)
        last = [0, *map(int, p.communicate()[0].split())][-1]
        state, _ = load_state(path)
        assert (state['a'] == state['i']).all() and state['i'] >= last


def test_another_format_and_another_kind(tmp_path, monkeypatch):
    path = tmp_path/'x.safetensors'
    monkeypatch.setattr(checkpoint, '_format', 7)
    save_state(path, {}, {})
    monkeypatch.undo()
    with pytest.raises(CourseError, match='is of format 7, this version of the course reads format 1'): load_state(path)
    store.save_tensors(path, {'a': torch.ones(1)}, {'arch': 'x'})
    with pytest.raises(CourseError, match='is no checkpoint'): load_state(path)


def test_random_numbers_go_on(tmp_path):
    def draws(): return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.randn(3).tolist(), torch.rand(1).item()]
    for odd in range(3): # gauss, randn and torch's randn make numbers in pairs
        for _ in range(odd): random.gauss(0, 1); np.random.randn(); torch.randn(1)
        path = save_state(tmp_path/'x.safetensors', random_state(), {})
        first = [draws() for _ in range(3)]
        set_random_state(load_state(path)[0])
        assert [draws() for _ in range(3)] == first


def test_importing_it_needs_no_torch():
    code = "import sys, topdown.checkpoint; print([m for m in ('torch', 'numpy', 'safetensors') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
