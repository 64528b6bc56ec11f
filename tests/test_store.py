"""What the notebook `store` cannot show about itself: several processes, signals, a disk that fails"""
import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save

import topdown.store as store
from topdown.settings import CourseError
from topdown.store import (append_line, atomic, atomic_folder, disk_errors, load_tensors, locked, moved_files, put_back, read_lines,
                           save_tensors, set_aside, sha256, tree_sha256, write_json)

posix = pytest.mark.skipif(os.name == 'nt', reason='signals of POSIX systems')


def start(code, *args):
    "Start a Python process that runs `code`"
    return subprocess.Popen([sys.executable, '-c', code, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(*processes):
    "Wait for processes, which must all end well"
    for p in processes:
        out, err = p.communicate(timeout=60)
        assert p.returncode == 0, err


def wait_for(path, seconds=20):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f'{path} never came'
        time.sleep(.02)


def no_space(*args, **kw): raise OSError(errno.ENOSPC, 'No space left on device')


def temps(folder): return [p.name for p in folder.rglob('*.tmp')]


def test_a_reader_never_sees_half_a_file(tmp_path):
    code = """import sys; from topdown.store import atomic
for i in range(150):
    with atomic(sys.argv[1], 'w') as f:
        for part in range(20): f.write(str(i % 10) * 5000); f.flush()"""
    path = tmp_path/'busy.txt'
    path.write_text('0' * 100_000)
    writer = start(code, path)
    seen = set()
    while writer.poll() is None:
        text = path.read_text()
        assert len(text) == 100_000 and len(set(text)) == 1
        seen.add(text[0])
    finish(writer)
    assert len(seen) > 2 and temps(tmp_path) == []


@posix
@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL])
def test_interrupted_write_leaves_the_old_file(tmp_path, how):
    code = """import sys, time; from pathlib import Path; from topdown.store import atomic
with atomic(sys.argv[1]) as f:
    f.write(b'new' * 1000); f.flush(); Path(sys.argv[2]).touch(); time.sleep(30)"""
    path, ready = tmp_path/'model.bin', tmp_path/'ready'
    path.write_bytes(b'old')
    p = start(code, path, ready)
    wait_for(ready)
    p.send_signal(how)
    p.communicate(timeout=60)
    assert p.returncode != 0 and path.read_bytes() == b'old'
    assert how == signal.SIGKILL or temps(tmp_path) == [] # nobody can tidy up after a SIGKILL


@pytest.mark.parametrize('what', ['fsync', 'replace'])
def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch, what):
    path = tmp_path/'model.bin'
    path.write_bytes(b'old')
    monkeypatch.setattr(store.os, what, no_space)
    with pytest.raises(CourseError, match=r'model\.bin cannot be written: the disk is full \([\d,]+ bytes free there\); make room'):
        with atomic(path) as f: f.write(b'new')
    assert path.read_bytes() == b'old' and temps(tmp_path) == []


def test_full_disk_in_write_json_and_tensors(tmp_path, monkeypatch):
    save_tensors(tmp_path/'w.safetensors', {'a': torch.ones(2)}, {'arch': 'x'})
    monkeypatch.setattr(store.os, 'fsync', no_space)
    with pytest.raises(CourseError, match='disk is full'): write_json(tmp_path/'x.json', {})
    with pytest.raises(CourseError, match='disk is full'): save_tensors(tmp_path/'w.safetensors', {'a': torch.zeros(2)}, {'arch': 'x'})
    monkeypatch.undo()
    assert load_tensors(tmp_path/'w.safetensors')[0]['a'].sum() == 2 and temps(tmp_path) == []


def test_read_only_folder(tmp_path, monkeypatch):
    def refuse(path, *args, **kw): raise OSError(errno.EROFS, 'Read-only file system', str(path))
    monkeypatch.setattr('builtins.open', refuse) # root may write into a read-only folder, so the refusal is played
    with pytest.raises(CourseError, match='is read-only'):
        with atomic(tmp_path/'a'): pass


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='/sys of Linux')
def test_a_folder_where_nobody_may_write():
    with pytest.raises((CourseError, FileNotFoundError)):
        with atomic('/sys/topdown-test.txt'): pass


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path/'file').write_text('x')
    with pytest.raises(CourseError, match='in the way'):
        with atomic(tmp_path/'file'/'a.txt'): pass
    (tmp_path/'folder').mkdir()
    (tmp_path/'folder'/'a').touch()
    with pytest.raises(CourseError, match='a folder of that name is in the way'):
        with atomic(tmp_path/'folder'): pass
    assert temps(tmp_path) == []


def test_an_error_of_another_file_is_not_explained_away(tmp_path):
    with pytest.raises(FileNotFoundError):
        with atomic(tmp_path/'a') as f: f.write((tmp_path/'elsewhere'/'b').read_bytes())
    with pytest.raises(OSError) as e:
        with disk_errors(tmp_path/'a'): raise OSError(errno.EIO, 'Input/output error')
    assert not isinstance(e.value, CourseError) and temps(tmp_path) == []


def test_many_programs_append_and_lose_nothing(tmp_path):
    code = """import sys; from topdown.store import append_line
for i in range(100): append_line(sys.argv[1], {'who': sys.argv[2], 'i': i, 'long': 'x' * 3000})"""
    path = tmp_path/'list.jsonl'
    finish(*[start(code, path, who) for who in 'abcd'])
    records, torn = read_lines(path)
    assert torn == [] and {(r['who'], r['i']) for r in records} == {(w, i) for w in 'abcd' for i in range(100)}
    assert [r['i'] for r in records if r['who'] == 'a'] == list(range(100))


def test_full_disk_in_the_middle_of_a_line(tmp_path, monkeypatch):
    path, write = tmp_path/'list.jsonl', os.write
    append_line(path, {'i': 1})
    monkeypatch.setattr(store.os, 'write', lambda fd, data: write(fd, data[:5]))
    with pytest.raises(CourseError, match='disk is full'): append_line(path, {'i': 2})
    monkeypatch.undo()
    append_line(path, {'i': 3})
    assert path.read_text() == '{"i": 1}\n{"i": 3}\n'


def test_lists_with_all_kinds_of_damage(tmp_path):
    path = tmp_path/'list.jsonl'
    path.write_bytes(b'{"i": 1}\n\xff\xfe\n[1]\n\n{"i": 2, "line": "a\xe2\x80\xa8b"}\r\n{"i": 3')
    records, torn = read_lines(path)
    assert [r['i'] for r in records] == [1, 2] and torn == [2, 3, 6]


@posix
def test_a_dead_program_holds_no_lock(tmp_path):
    code = """import sys, time; from pathlib import Path; from topdown.store import locked
with locked(sys.argv[1]): Path(sys.argv[2]).touch(); time.sleep(30)"""
    p = start(code, tmp_path/'x', tmp_path/'ready')
    wait_for(tmp_path/'ready')
    p.kill()
    p.communicate()
    begin = time.monotonic()
    with locked(tmp_path/'x'): assert time.monotonic() < begin + 5


def test_locked_takes_turns(tmp_path):
    code = """import sys, time; from pathlib import Path; from topdown.store import locked
path = Path(sys.argv[1])
for i in range(30):
    with locked(path): n = int(path.read_text()); time.sleep(.002); path.write_text(str(n + 1))"""
    (tmp_path/'n').write_text('0')
    finish(*[start(code, tmp_path/'n') for _ in range(3)])
    assert (tmp_path/'n').read_text() == '90'


def test_two_programs_make_one_folder(tmp_path):
    code = """import sys, time; from topdown.store import atomic_folder
with atomic_folder(sys.argv[1]) as t:
    for i in range(20): (t/f'{i}.txt').write_text(sys.argv[2]); time.sleep(.005)"""
    finish(*[start(code, tmp_path/'set', who) for who in 'abc'])
    assert len(list((tmp_path/'set').iterdir())) == 20
    assert len({p.read_text() for p in (tmp_path/'set').iterdir()}) == 1 and temps(tmp_path) == []


def test_atomic_folder_goes_away_on_error(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with atomic_folder(tmp_path/'set') as t:
            (t/'a').touch()
            raise KeyboardInterrupt
    with pytest.raises(CourseError, match='disk is full'):
        with atomic_folder(tmp_path/'set'): no_space()
    assert list(tmp_path.iterdir()) == []


def test_names_of_all_kinds(tmp_path):
    for name in ('a b.txt', 'Zaunkönig.txt', '🐦.txt', 'ひよこ.txt', "it's.txt"):
        with atomic(tmp_path/'Märchen 🐦'/name, 'w') as f: f.write('ä\n')
        assert (tmp_path/'Märchen 🐦'/name).read_bytes() == 'ä\n'.encode() # the same bytes on every system
    assert len(tree_sha256(tmp_path)) == 64 and tree_sha256(tmp_path) == tree_sha256(tmp_path/'.')


def test_two_programs_set_aside_files_of_one_name(tmp_path):
    code = """import sys; from pathlib import Path; from topdown.store import set_aside
set_aside(sorted(Path(sys.argv[1]).glob('*/*.jpg')), sys.argv[2], 'test')"""
    for who in 'ab':
        for i in range(20):
            (tmp_path/who/f'{i}').mkdir(parents=True)
            (tmp_path/who/f'{i}'/'photo.jpg').write_text(f'{who}{i}')
    finish(*[start(code, tmp_path/who, tmp_path/'aside') for who in 'ab'])
    assert {p.read_text() for p in (tmp_path/'aside').glob('*.jpg')} == {f'{w}{i}' for w in 'ab' for i in range(20)}
    assert len(put_back(tmp_path/'aside'/'moved.jsonl')) == 40
    assert all((tmp_path/w/f'{i}'/'photo.jpg').read_text() == f'{w}{i}' for w in 'ab' for i in range(20))


def test_set_aside_interrupted_before_the_move_loses_nothing(tmp_path, monkeypatch):
    (tmp_path/'a.jpg').write_text('photo')
    def stop(*args): raise KeyboardInterrupt
    monkeypatch.setattr(store, '_move', stop)
    with pytest.raises(KeyboardInterrupt): set_aside([tmp_path/'a.jpg'], tmp_path/'aside', 'test')
    monkeypatch.undo()
    assert (tmp_path/'a.jpg').read_text() == 'photo'
    assert put_back(tmp_path/'aside') == [] and (tmp_path/'a.jpg').read_text() == 'photo'


def test_an_interrupted_move_is_begun_anew(tmp_path, monkeypatch):
    (tmp_path/'a.jpg').write_text('photo')
    def stop(*args): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(store, '_move', stop)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt): set_aside([tmp_path/'a.jpg'], tmp_path/'aside', 'test', tmp_path/'list.jsonl')
    assert moved_files(tmp_path/'list.jsonl') == {}
    set_aside([tmp_path/'a.jpg'], tmp_path/'aside', 'test', tmp_path/'list.jsonl')
    assert [p.name for p in (tmp_path/'aside').iterdir()] == ['a.jpg'] and len(read_lines(tmp_path/'list.jsonl')[0]) == 1
    assert moved_files(tmp_path/'list.jsonl') == {tmp_path/'a.jpg': tmp_path/'aside'/'a.jpg'}


def test_old_places_stay_free_and_moves_are_undone_from_the_last(tmp_path):
    for who in 'ab':
        (tmp_path/who).mkdir()
        (tmp_path/who/'1.jpg').write_text(who)
    listed = tmp_path/'list.jsonl'
    set_aside([tmp_path/'a'/'1.jpg'], tmp_path/'c', 'test', listed)
    set_aside([tmp_path/'b'/'1.jpg'], tmp_path/'a', 'test', listed)
    assert (tmp_path/'a'/'1-2.jpg').read_text() == 'b' and not (tmp_path/'a'/'1.jpg').exists()
    set_aside([tmp_path/'a'/'1-2.jpg'], tmp_path/'c', 'test', listed)
    assert put_back(listed) == [tmp_path/'a'/'1-2.jpg', tmp_path/'b'/'1.jpg', tmp_path/'a'/'1.jpg']
    assert [(tmp_path/who/'1.jpg').read_text() for who in 'ab'] == ['a', 'b'] and read_lines(listed) == ([], [])


def test_set_aside_to_another_disk(tmp_path, monkeypatch):
    (tmp_path/'a.jpg').write_text('photo')
    real, calls = store._replace, []
    def other_disk(src, dst):
        calls.append(src)
        if len(calls) == 1: raise OSError(errno.EXDEV, 'Invalid cross-device link')
        return real(src, dst)
    monkeypatch.setattr(store, '_replace', other_disk)
    moved = set_aside([tmp_path/'a.jpg'], tmp_path/'aside', {tmp_path/'a.jpg': 'test'})
    assert (tmp_path/'aside'/'a.jpg').read_text() == 'photo' and not (tmp_path/'a.jpg').exists()
    assert json.loads((tmp_path/'aside'/'moved.jsonl').read_text()) == moved[0]


def test_set_aside_from_a_read_only_folder(tmp_path, monkeypatch):
    (tmp_path/'a.txt').write_text('a')
    replace = os.replace
    def forbidden(src, dst):
        if str(src).endswith('a.txt'): raise PermissionError(errno.EACCES, 'Permission denied', str(src), None, str(dst))
        replace(src, dst)
    monkeypatch.setattr(store.os, 'replace', forbidden)
    with pytest.raises(CourseError, match='a.txt cannot be moved to .*Permission denied'): set_aside([tmp_path/'a.txt'], tmp_path/'away', 'bad')
    monkeypatch.undo()
    assert (tmp_path/'a.txt').read_text() == 'a' and not (tmp_path/'away'/'a.txt').exists() and read_lines(tmp_path/'away'/'moved.jsonl') == ([], [])
    (tmp_path/'b.txt').write_text('b')
    assert len(set_aside([tmp_path/'b.txt'], tmp_path/'away', 'bad')) == 1 and put_back(tmp_path/'away') == [tmp_path/'b.txt']
    monkeypatch.setattr(store.os, 'access', lambda *args: False)
    with pytest.raises(CourseError, match='nothing was moved: the folder .* is read-only'): set_aside([tmp_path/'a.txt'], tmp_path/'b', 'bad')
    assert not (tmp_path/'b').exists()


def test_set_aside_wants_a_reason_for_each(tmp_path):
    (tmp_path/'a.jpg').touch()
    with pytest.raises(CourseError, match='1 files to set aside, and 2 reasons'): set_aside([tmp_path/'a.jpg'], tmp_path/'aside', ['x', 'y'])
    with pytest.raises(CourseError, match='no list'): put_back(tmp_path/'nowhere')


class Evil:
    def __reduce__(self): return (os.system, ('touch ' + os.environ.get('EVIL', 'evil'),))


@pytest.mark.parametrize('ending', ['.safetensors', '.pkl', '.pth', '.pt'])
def test_no_pickle_is_opened_under_any_name(tmp_path, monkeypatch, ending):
    monkeypatch.setenv('EVIL', str(tmp_path/'evil'))
    path = tmp_path/f'w{ending}'
    path.write_bytes(pickle.dumps(Evil()))
    write_json(tmp_path/'w.json', {'sha256': sha256(path)}) # even with a manifest that vouches for it
    words = 'is not a safetensors file' if ending == '.safetensors' else 'can run any program'
    with pytest.raises(CourseError, match=words): load_tensors(path)
    assert not (tmp_path/'evil').exists()


def test_damaged_tensors(tmp_path):
    path, data = tmp_path/'w.safetensors', save({'a': torch.ones(1000)})
    with pytest.raises(CourseError, match='no weights at'): load_tensors(path)
    for bad in (b'', data[:4], data[:100], data[:-1], b'\xff' * 8 + data[8:]):
        path.write_bytes(bad)
        write_json(tmp_path/'w.json', {'sha256': sha256(path)})
        with pytest.raises(CourseError, match='is not a safetensors file'): load_tensors(path)
    for manifest in ({}, [], {'sha256': None}):
        write_json(tmp_path/'w.json', manifest)
        with pytest.raises(CourseError, match='SHA-256 expected None'): load_tensors(path)
    (tmp_path/'w.json').write_text('{')
    with pytest.raises(CourseError, match='is not a JSON file'): load_tensors(path)


def test_tensors_that_share_memory_or_are_not_contiguous(tmp_path):
    a = torch.arange(6.).reshape(2, 3)
    save_tensors(tmp_path/'w.safetensors', {'a': a, 'b': a, 'c': a.T, 'd': torch.nn.Parameter(a)}, {})
    tensors, about = load_tensors(tmp_path/'w.safetensors')
    assert torch.equal(tensors['c'], a.T) and torch.equal(tensors['d'], a) and about['file'] == 'w.safetensors'
