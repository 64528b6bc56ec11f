"""Data under bad conditions: a mirror with wrong files, a network that breaks, a damaged cache, two programs at once"""
import dataclasses
import errno
import gzip
import hashlib
import io
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save

import topdown.data as data
from topdown.data import DATASETS, WEIGHTS, get, last_used, weights
from topdown.settings import CourseError, course_root, places
from topdown.store import read_json, sha256

PHOTO = b'not looked at here'


def cache(*parts): return places()['cache'].joinpath(*parts)


def archive(path, files, top='birds'):
    "Write a .tar.gz with these files in folder `top`"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w:gz') as t:
        for name, content in files.items():
            info = tarfile.TarInfo(f'{top}/{name}' if top else name)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
    return path


def birds(n=3): return {f'{kind}/{i}.jpg': PHOTO + bytes([i]) for kind in ('bird', 'forest') for i in range(n)}


def listed(folder):
    "Write SHA256SUMS for all files of a mirror"
    files = sorted(p for p in folder.rglob('*') if p.is_file() and p.name != 'SHA256SUMS')
    (folder/'SHA256SUMS').write_text(''.join(f'{sha256(p)}  {p.relative_to(folder).as_posix()}\n' for p in files), encoding='utf-8')
    return folder


@pytest.fixture
def mirror(tmp_path, home, monkeypatch):
    "A mirror with six photos of birds and forests, named by TOPDOWN_DATA"
    archive(tmp_path/'mirror'/'birds.tar.gz', birds())
    monkeypatch.setenv('TOPDOWN_DATA', str(tmp_path/'mirror'))
    return listed(tmp_path/'mirror')


def serve_all(server, monkeypatch, name, files, right=None):
    "Let the registry's entry `name` point to our server, which serves these files"
    origin = tuple((server.url(file, body), right or hashlib.sha256(body).hexdigest()) for file, body in files.items())
    monkeypatch.setitem(DATASETS, name, dataclasses.replace(DATASETS[name], origin=origin))


def serve(server, monkeypatch, name, file, body, right=None): serve_all(server, monkeypatch, name, {file: body}, right)


def temps(): return [str(p) for p in cache().rglob('*.tmp')] if cache().exists() else []


# The sample track

def test_the_sample_track_touches_neither_network_nor_mirror(home, monkeypatch):
    monkeypatch.setenv('TOPDOWN_DATA', '/no/such/folder')
    monkeypatch.setenv('TOPDOWN_TRACK', 'sample')
    def never(*args, **kw): raise AssertionError('the network was touched')
    for name in ('connect', 'connect_ex'): monkeypatch.setattr(socket.socket, name, never)
    monkeypatch.setattr(socket, 'getaddrinfo', never)
    for name in ('adult', 'ml-100k'): assert get(name).source == 'drawn by the course'


@pytest.mark.parametrize('name, n', [('pets', 240), ('camvid', 48), ('adult', 2000), ('titanic', 900), ('bulldozers', 3000), ('sounds', 160), ('mnist', 1797),
                                     ('imdb', 1500), ('rt-polarity', 2000), ('sts-captions', 1000), ('human_numbers', 9998)])
def test_samples(home, capsys, name, n):
    d = get(name)
    assert d.n == n and d.path.name == name and d.files == sorted(d.files, key=lambda p: p.relative_to(d.path).as_posix())
    assert capsys.readouterr().out == str(d) + '\n' and f'{name}: {n:,} ' in str(d) and 'SAMPLE DATA' in str(d)
    if name == 'pets': assert {d.label(p)[0].isupper() for p in d.files} == {True, False}
    if name == 'camvid': assert all(d.label(p).is_file() for p in d.files)
    if name == 'mnist':
        with pytest.raises(CourseError, match='mnist keeps its labels in files of their own, train-images'): d.label(d.files[0])
    if name == 'adult':
        with pytest.raises(CourseError, match='adult is a table: its labels are a column'): d.label(d.files[0])
        with gzip.open(d.files[0], 'rt', encoding='utf-8') as f: assert f.readline().startswith('age,workclass')


def test_the_sample_of_digits_says_that_it_is_not_drawn(home):
    d = get('mnist')
    assert str(d) == ('mnist: 1,797 real handwritten digits of 8 × 8 pixels · SAMPLE DATA, shipped with scikit-learn, not drawn by the course · '
                      'licence: CC BY 4.0 (Alpaydin and Kaynak 1998, UCI)')
    assert (d.source, d.track) == ('shipped with scikit-learn', 'sample') and read_json(d.path.parent/'manifest.json')['origin'] == d.source
    assert [p.name for p in d.files] == ['t10k-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte.gz',
                                         'train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz']


def test_what_was_used_last(home):
    get('adult', track='sample')
    assert (last_used().name, last_used().track, last_used().source) == ('adult', 'sample', 'drawn by the course')


def test_two_programs_draw_one_set(home):
    code = "from topdown.data import get; d = get('ml-100k'); print(d.sha256)"
    both = [subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [p.communicate(timeout=60) for p in both]
    assert len({out for out, _ in answers}) == 1 and all(p.returncode == 0 for p in both), answers
    assert len([p for p in cache('sample').iterdir() if p.is_dir()]) == 1 and temps() == []


@pytest.mark.parametrize('damage', ['a file is missing', 'a file too many', 'another size', 'no manifest', 'no JSON', 'another shape'])
def test_a_damaged_cache_is_set_aside_and_made_anew(home, capsys, damage):
    d = get('ml-100k')
    manifest = d.path.parent/'manifest.json'
    if damage == 'a file is missing': (d.path/'u.genre').unlink()
    if damage == 'a file too many': (d.path/'x.txt').touch()
    if damage == 'another size': (d.path/'u.genre').write_bytes(b'x')
    if damage == 'no manifest': manifest.unlink()
    if damage == 'no JSON': manifest.write_text('{')
    if damage == 'another shape': manifest.write_text('[]')
    assert get('ml-100k').sha256 == d.sha256
    assert 'was damaged (' in capsys.readouterr().out and len(list(cache('sample', 'damaged').iterdir())) == 1
    get('ml-100k')
    assert 'damaged' not in capsys.readouterr().out


def test_a_changed_byte_is_found_by_verify(home, capsys):
    d = get('ml-100k')
    content = (d.path/'u.genre').read_bytes()
    (d.path/'u.genre').write_bytes(b'X' + content[1:])
    get('ml-100k')
    assert 'damaged' not in capsys.readouterr().out # names and sizes are right
    assert get('ml-100k', verify=True).sha256 == d.sha256
    assert 'was damaged (a file has another content)' in capsys.readouterr().out and (d.path/'u.genre').read_bytes() == content


@pytest.mark.skipif(os.name == 'nt', reason='signals of POSIX systems')
def test_ctrl_c_while_drawing(home):
    code = "from topdown.data import get; get('birds')"
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 30
    while not list(cache('sample').glob('.*.tmp/birds/*/*.jpg')):
        assert time.monotonic() < end and p.poll() is None
        time.sleep(.01)
    p.send_signal(signal.SIGINT)
    assert p.wait(20) != 0 and temps() == [] and not list(cache('sample').glob('birds-*'))


def test_a_full_disk(home, monkeypatch):
    def full(*args, **kw): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr('topdown.sample.SAMPLES', {'adult': full})
    with pytest.raises(CourseError, match='adult-.* cannot be written: the disk is full'): get('adult')
    assert temps() == []


def test_a_read_only_cache(home, monkeypatch):
    get('adult')
    def refuse(path, *args, **kw): raise OSError(errno.EROFS, 'Read-only file system', str(path))
    monkeypatch.setattr(Path, 'mkdir', refuse)
    monkeypatch.setattr(os, 'open', refuse)
    assert get('adult').n == 2000 # what is there can be read
    with pytest.raises(CourseError, match='is read-only'): get('ml-100k')


def test_new_drawing_code_makes_a_new_sample(home, monkeypatch):
    a = get('adult')
    monkeypatch.setattr(data, '_drawing_code', lambda: 'another')
    assert get('adult').path != a.path


# Names and tracks

@pytest.mark.parametrize('name, words', [('brids', "unknown data set 'brids'; known: birds"), ('', "unknown data set ''"),
                                         ('movies', 'give a folder of your own photos'), (None, 'unknown data set None')])
def test_unknown_sets(home, name, words):
    with pytest.raises(CourseError, match=words): get(name)


def test_unknown_track(home):
    with pytest.raises(CourseError, match="unknown track 'reel'; known: real"): get('birds', track='reel')


# The mirror

def test_the_mirror_is_used_and_copied(mirror, capsys):
    d = get('birds')
    assert (d.n, d.source, d.track, d.path.name) == (6, 'TOPDOWN_DATA', 'real', 'birds') and d.path.is_relative_to(cache('real'))
    assert capsys.readouterr().out == 'birds: 6 photos · real, from TOPDOWN_DATA · licence: research and education only, do not pass on\n'
    assert sorted(p.name for p in mirror.iterdir()) == ['SHA256SUMS', 'birds.tar.gz'] # nothing is written there
    assert {d.label(p) for p in d.files} == {'bird', 'forest'}
    assert list(d.path.parent.iterdir()) and sorted(p.name for p in d.path.parent.iterdir()) == ['birds', 'manifest.json']


def test_an_explicit_sample_wins_over_the_mirror(mirror):
    assert get('adult', track='sample').track == 'sample'


def test_the_full_track_looks_in_the_same_places(mirror): assert get('birds', track='full').track == 'full'


def test_a_mirror_that_is_not_there(home, monkeypatch):
    monkeypatch.setenv('TOPDOWN_DATA', '/no/such/folder')
    with pytest.raises(CourseError, match='there is no such folder'): get('birds')


def test_a_wrong_hash(mirror):
    (mirror/'birds.tar.gz').write_bytes(b'altered')
    words = r'birds\.tar\.gz is not the file that .* expected \w{64}, found \w{64}; copy the file again'
    with pytest.raises(CourseError, match=words): get('birds')
    assert temps() == [] and not list(cache('real').glob('birds*'))


@pytest.mark.parametrize('sums', [None, '', 'abc  birds.tar.gz\n', f'{"0" * 64}  other.tar.gz\n'])
def test_a_file_that_the_list_does_not_name(mirror, sums):
    (mirror/'SHA256SUMS').unlink()
    if sums is not None: (mirror/'SHA256SUMS').write_text(sums)
    line = f'{sha256(mirror/"birds.tar.gz")}  birds.tar.gz'
    with pytest.raises(CourseError, match=f'is refused: .*SHA256SUMS does not list it.*add this line there:\n{line}'): get('birds')


@pytest.mark.parametrize('form', ['{} *birds.tar.gz\r\n', '{}  ./birds.tar.gz\n', '# a comment\n\n{}  birds.tar.gz'])
def test_forms_of_the_list(mirror, form):
    (mirror/'SHA256SUMS').write_bytes(form.format(sha256(mirror/'birds.tar.gz').upper()).encode())
    assert get('birds').n == 6


@pytest.mark.parametrize('files, top, words', [({'../../evil.txt': b''}, 'birds', 'leads out'), ({'x/../../../evil': b''}, '', 'leads out'),
                                               (birds(), 'pets', 'holds no folder birds/'), ({'readme.txt': b''}, 'birds', r'has no \*/\*')])
def test_hostile_and_strange_archives_with_the_right_hash(mirror, tmp_path, files, top, words):
    archive(mirror/'birds.tar.gz', files, top)
    listed(mirror)
    with pytest.raises(CourseError, match=words) as e: get('birds')
    assert '.tmp' not in str(e.value) and ('leads out' not in words or str(mirror/'birds.tar.gz') in str(e.value))
    assert temps() == [] and not list(tmp_path.rglob('evil*')) and not list(cache('real').glob('birds-*'))


def test_a_truncated_archive_with_the_right_hash(mirror):
    (mirror/'birds.tar.gz').write_bytes((mirror/'birds.tar.gz').read_bytes()[:-20])
    listed(mirror)
    with pytest.raises(CourseError, match='truncated'): get('birds')


def test_a_part_of_a_set(mirror):
    (mirror/'ml-100k').mkdir()
    (mirror/'ml-100k'/'u.data.gz').touch()
    with pytest.raises(CourseError, match=r'holds only a part of ml-100k: ml-100k/u\.item\.gz, .* is missing'): get('ml-100k')


def test_a_changed_mirror_is_read_again(mirror):
    assert get('birds').n == 6
    archive(mirror/'birds.tar.gz', birds(5))
    listed(mirror)
    assert get('birds').n == 10


def test_a_damaged_copy_is_made_anew_from_the_mirror(mirror, capsys):
    d = get('birds')
    d.files[0].unlink()
    assert get('birds').n == 6 and '0.jpg is missing' in capsys.readouterr().out


# The cache, the network

def test_the_cache_serves_without_the_mirror(mirror, monkeypatch):
    first = get('birds')
    monkeypatch.delenv('TOPDOWN_DATA')
    again = get('birds', track='real')
    assert (again.source, again.sha256, again.n) == ('cache', first.sha256, 6)
    again.files[0].unlink()
    with pytest.raises(CourseError, match='birds has no public origin'): get('birds', track='real')
    assert len(list(cache('real', 'damaged').iterdir())) == 1


def test_a_mirror_without_the_set_does_not_open_the_network(mirror, server, monkeypatch):
    serve(server, monkeypatch, 'adult', 'adult.data', b'')
    with pytest.raises(CourseError, match='the network is used only if you ask for it'): get('adult')
    assert server.asked == []


def test_sets_without_an_origin(home):
    for name, words in (('birds', 'birds.tar.gz'), ('camvid', 'camvid.tar.gz')):
        with pytest.raises(CourseError, match=f'{name} has no public origin .* What would serve: .*{words}'): get(name, track='real')
    assert get('sounds', track='real').track == 'sample' # nothing real exists, and it says so


def movies():
    "A zip like MovieLens'"
    f = io.BytesIO()
    with zipfile.ZipFile(f, 'w') as z:
        files = {'u.data': '1\t2\t3\t4\n' * 7, 'u.item': '1|Café (1995)\n'.encode('latin-1'),
                 'u.user': '1|24|M\n', 'u.genre': 'x|0\n', 'u.occupation': 'none\n'}
        for name, content in files.items(): z.writestr(f'ml-100k/{name}', content)
        z.writestr('ml-100k/README', os.urandom(100_000))
    return f.getvalue()


@pytest.mark.parametrize('choice', ['argument', 'variable'])
def test_movies_from_the_network(home, server, monkeypatch, choice):
    serve(server, monkeypatch, 'ml-100k', 'ml-100k.zip', movies())
    server.breaks = [30_000, 20_000]
    if choice == 'variable': monkeypatch.setenv('TOPDOWN_TRACK', 'real')
    d = get('ml-100k', track='real' if choice == 'argument' else None)
    assert (d.n, d.source, d.track) == (7, 'network', 'real') and 'bytes=30000-' in server.ranges_asked
    assert sorted(p.name for p in d.path.iterdir()) == ['u.data.gz', 'u.genre', 'u.item.gz', 'u.occupation', 'u.user.gz']
    with gzip.open(d.path/'u.item.gz', 'rt', encoding='latin-1') as f: assert 'Café' in f.read()
    server.asked.clear()
    assert get('ml-100k', track='real').source == 'cache' and server.asked == []


def test_adult_from_the_network(home, server, monkeypatch):
    row = '39, State-gov, 77516, Bachelors, 13, ?, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, United-States, <=50K\n'
    serve(server, monkeypatch, 'adult', 'adult.data', (row * 5 + '\n').encode())
    d = get('adult', track='real')
    with gzip.open(d.path/'adult.csv.gz', 'rt', encoding='utf-8') as f: lines = f.read().splitlines()
    assert d.n == 5 and len(lines) == 6 and lines[0].endswith('native-country,salary') and lines[1] == row.strip().replace(', ', ',')


def digits(n=3, magic=0x803):
    "Four files like MNIST's: n images of 2 x 2 pixels and their labels, twice"
    images = struct.pack('>4I', magic, n, 2, 2) + bytes(4*n)
    labels = struct.pack('>2I', 0x801, n) + bytes(n)
    return {f'{part}-{kind}-ubyte.gz': gzip.compress(raw)
            for part in ('train', 't10k') for kind, raw in (('images-idx3', images), ('labels-idx1', labels))}


def test_digits_from_the_network(home, server, monkeypatch):
    serve_all(server, monkeypatch, 'mnist', files := digits())
    d = get('mnist', track='real')
    assert (d.n, d.source, d.track) == (6, 'network', 'real') and len(server.asked) == 4
    assert {p.name: p.read_bytes() for p in d.files} == files
    assert str(d) == 'mnist: 6 handwritten digits · real, from the network · licence: CC BY-SA 3.0'
    server.asked.clear()
    assert get('mnist', track='real').source == 'cache' and server.asked == []


def test_one_of_four_files_is_wrong(home, server, monkeypatch):
    files = digits()
    serve_all(server, monkeypatch, 'mnist', files)
    origin = DATASETS['mnist'].origin
    wrong = (*origin[:2], (origin[2][0], '0'*64), origin[3])
    monkeypatch.setitem(DATASETS, 'mnist', dataclasses.replace(DATASETS['mnist'], origin=wrong))
    with pytest.raises(CourseError, match='t10k-images-idx3-ubyte.gz is not the file .* SHA-256 expected 0000'): get('mnist', track='real')
    assert temps() == [] and not list(cache('real').glob('mnist*'))
    server.asked.clear()
    monkeypatch.setitem(DATASETS, 'mnist', dataclasses.replace(DATASETS['mnist'], origin=origin))
    assert get('mnist', track='real').n == 6 and len(server.asked) == 2 # what was right the first time is kept


@pytest.mark.parametrize('body, words', [(digits(magic=0x801)['t10k-images-idx3-ubyte.gz'], 'begins with 0x801; a file of digits begins with 0x803'),
                                         (b'<html>', 'cannot be read as compressed images'), (gzip.compress(b'abc'), 'cannot be read as'),
                                         (digits()['t10k-images-idx3-ubyte.gz'][:12], 'cannot be read as'),
                                         (gzip.compress(b'')[:10] + b'\xff'*40, 'cannot be read as')],
                         ids=['another kind', 'a page', 'too short', 'cut', 'damaged']) # gzip writes the time, which has no place in a name
def test_digits_of_a_mirror_that_are_none(mirror, body, words):
    (mirror/'mnist').mkdir()
    for name, content in (digits() | {'t10k-images-idx3-ubyte.gz': body}).items(): (mirror/'mnist'/name).write_bytes(content)
    listed(mirror)
    with pytest.raises(CourseError, match=words): get('mnist')
    assert temps() == []


def test_pets_from_the_network(home, server, monkeypatch, tmp_path):
    files = {'Abyssinian_1.jpg': b'1', 'beagle_2.jpg': b'2', 'Abyssinian_100.mat': b'', '._beagle_2.jpg': b''}
    body = archive(tmp_path/'x.tar.gz', files, 'images').read_bytes()
    serve(server, monkeypatch, 'pets', 'images.tar.gz', body)
    d = get('pets', track='real')
    assert [p.relative_to(d.path).as_posix() for p in d.files] == ['images/Abyssinian_1.jpg', 'images/beagle_2.jpg']
    assert [d.label(p) for p in d.files] == ['Abyssinian', 'beagle']


def test_the_network_is_gone_in_the_middle(home, server, monkeypatch):
    serve(server, monkeypatch, 'ml-100k', 'ml-100k.zip', movies())
    server.breaks = [50_000, 0, 0, 0]
    with pytest.raises(CourseError, match='the 50,000 bytes that arrived are kept'): get('ml-100k', track='real')
    assert temps() == []
    server.asked.clear()
    assert get('ml-100k', track='real').n == 7 and server.ranges_asked == ['bytes=50000-']


def test_a_wrong_file_from_the_network(home, server, monkeypatch):
    serve(server, monkeypatch, 'ml-100k', 'ml-100k.zip', movies(), right='0' * 64)
    with pytest.raises(CourseError, match='SHA-256 expected 0000'): get('ml-100k', track='real')
    assert not list(cache('real').glob('ml-100k*'))


def test_no_network_at_all(home, monkeypatch):
    monkeypatch.setitem(DATASETS, 'adult', dataclasses.replace(DATASETS['adult'], origin=(('http://127.0.0.1:9/adult.data', '0'*64),)))
    with pytest.raises(CourseError, match='cannot be reached: .* `--track sample`'): get('adult', track='real')


def test_a_damaged_network_copy_is_made_again_without_the_network(home, server, monkeypatch, capsys):
    serve(server, monkeypatch, 'ml-100k', 'ml-100k.zip', movies())
    d = get('ml-100k', track='real')
    (d.path/'u.genre').unlink()
    server.asked.clear()
    assert get('ml-100k', track='real').n == 7 and server.asked == [] # the archive itself is still in the cache


def test_two_programs_download_one_set(home, server):
    server.step, server.pause, body = 20_000, .02, movies()
    where = ((server.url('m.zip', body), hashlib.sha256(body).hexdigest()),)
    code = f"""import dataclasses, topdown.data as d
d.DATASETS['ml-100k'] = dataclasses.replace(d.DATASETS['ml-100k'], origin={where})
print(d.get('ml-100k', track='real').sha256)"""
    both = [subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [p.communicate(timeout=60) for p in both]
    assert all(p.returncode == 0 for p in both), answers
    assert len(server.asked) == 1 and len({out.splitlines()[-1] for out, _ in answers}) == 1


# Own folders

def photos(folder, **classes):
    for name, n in classes.items():
        (folder/name).mkdir(parents=True)
        for i in range(n): (folder/name/f'{i}.jpg').write_bytes(PHOTO)
    return folder


def test_own_folders(home, tmp_path, capsys):
    folder = photos(tmp_path/'my photos 🐦', Zaunkönig=3, hund=4)
    (folder/'hund'/'Bello im Garten.WEBP').write_bytes(PHOTO)
    (folder/'hund'/'sub').mkdir()
    (folder/'hund'/'sub'/'x.Tiff').write_bytes(PHOTO)
    (folder/'hund'/'.DS_Store').touch()
    (folder/'.ipynb_checkpoints').mkdir()
    (folder/'.ipynb_checkpoints'/'a.jpg').touch()
    (folder/'notes.txt').touch()
    d = get(folder)
    assert (d.n, d.source, d.track, d.path) == (9, 'own folder', 'sample', folder.resolve()) and len(d.sha256) == 64
    assert {d.label(p) for p in d.files} == {'Zaunkönig', 'hund'}
    assert capsys.readouterr().out == 'my photos 🐦: 9 photos · your own folder · licence: yours\n'
    assert get(str(folder)).n == 9


def test_own_folder_by_relative_path_and_named_like_a_set(home, tmp_path, monkeypatch):
    photos(tmp_path/'birds', a=3, b=3)
    photos(tmp_path/'pictures', a=3, b=3)
    monkeypatch.chdir(tmp_path)
    assert get('./birds').n == get(Path('birds')).n == get('pictures').n == 6


@pytest.mark.parametrize('classes, words', [
    (dict(cat=5), "one class only, 'cat'; it takes at least two"), (dict(cat=5, dog=2), "'dog' has 2"),
    (dict(cat=1, dog=5, emu=2), "'cat' has 1, 'emu' has 2"), (dict(cat=5, notes=0), "one class only, 'cat'"), (dict(cat=0, dog=0), 'holds no photos')])
def test_own_folders_with_too_little_in_them(home, tmp_path, classes, words):
    with pytest.raises(CourseError, match=words): get(photos(tmp_path/'mine', **classes))


def test_own_folders_with_something_else_in_them(home, tmp_path, capsys):
    mine = get(photos(tmp_path/'mine', cat=3, dog=3, __MACOSX=3, notes=0))
    assert mine.n == 6 and {mine.label(f) for f in mine.files} == {'cat', 'dog'}
    assert 'no photos in notes' in capsys.readouterr().out


def test_own_folders_of_the_wrong_shape(home, tmp_path):
    (tmp_path/'mine').mkdir()
    with pytest.raises(CourseError, match='holds no photos; expected mine/<class>/<photo>'): get(tmp_path/'mine')
    for i in range(4): (tmp_path/'mine'/f'{i}.JPG').touch()
    with pytest.raises(CourseError, match='holds 4 photos but no class folders'): get(tmp_path/'mine')
    with pytest.raises(CourseError, match='no folder'): get(tmp_path/'nowhere')
    with pytest.raises(CourseError, match='no folder'): get('data/nowhere')
    with pytest.raises(CourseError, match='is a file'): get(tmp_path/'mine'/'0.JPG')


# Weights

def test_weights_from_the_mirror(mirror, monkeypatch, capsys):
    path = mirror/'weights'/'mobilenet_v2.fp16.safetensors'
    path.parent.mkdir()
    path.write_bytes(save({'a': torch.ones(2, dtype=torch.float16), 'n': torch.tensor(3)}))
    listed(mirror)
    w = weights('mobilenet_v2')
    assert (w.name, w.arch, w.source, w.track, w.sha256) == ('mobilenet_v2', 'mobilenet_v2', 'TOPDOWN_DATA', 'real', sha256(path))
    assert {k: v.dtype for k, v in w.load().items()} == {'a': torch.float32, 'n': torch.int64}
    monkeypatch.delenv('TOPDOWN_DATA')
    assert weights('mobilenet_v2', track='real').source == 'cache'
    assert capsys.readouterr().out.splitlines()[-1].startswith('mobilenet_v2: weights · real, from the cache · licence: Apache')


def test_weights_that_are_altered(mirror):
    path = mirror/'weights'/'squeezenet1_1.safetensors'
    path.parent.mkdir()
    path.write_bytes(save({'a': torch.ones(2)}))
    listed(mirror)
    path.write_bytes(save({'a': torch.zeros(2)}))
    with pytest.raises(CourseError, match='is not the file that'): weights('squeezenet1_1')
    listed(mirror)
    w = weights('squeezenet1_1')
    w.path.write_bytes(save({'a': torch.ones(2)}))
    with pytest.raises(CourseError, match='is not the file that its manifest describes'): w.load()


def test_weights_without_a_network(home, monkeypatch):
    def fail(name): raise OSError('no network here')
    monkeypatch.setattr(data, '_torchvision', fail)
    with pytest.raises(CourseError, match='squeezenet1_1 cannot be fetched .*OSError: no network here.*timm has no squeezenet1_1.*connect'):
        weights('squeezenet1_1', track='real')
    def _timm(name): return {'a': torch.ones(2)}
    monkeypatch.setattr(data, '_timm', _timm)
    w = weights('mobilenet_v2', track='real')
    assert w.source == 'network' and w.path.suffix == '.safetensors' and read_json(w.path.with_suffix('.json'))['origin'] == 'timm'


def test_weights_from_the_network_are_torchvisions(home, server, monkeypatch):
    import torchvision
    buffer = io.BytesIO()
    torch.save(torchvision.models.get_model('squeezenet1_1', weights=None).state_dict(), buffer)
    name = f'squeezenet1_1-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth'
    server.breaks = [1_000_000]
    published = SimpleNamespace(DEFAULT=SimpleNamespace(url=server.url(name, buffer.getvalue())))
    monkeypatch.setattr(torchvision.models, 'get_model_weights', lambda of: published)
    w = weights('squeezenet1_1', track='real')
    torchvision.models.squeezenet1_1(weights=None).load_state_dict(w.load())
    assert server.ranges_asked == [None, 'bytes=1000000-']


class Spy:
    "Pickles to a call that leaves a trace"
    def __init__(self, trace): self.trace = trace
    def __reduce__(self): return Path.touch, (self.trace,)


@pytest.mark.parametrize('wrong', ['another file', 'a program'])
def test_weights_from_the_network_that_are_altered(home, server, monkeypatch, tmp_path, wrong):
    import torchvision
    buffer = io.BytesIO()
    torch.save({'a': Spy(tmp_path/'ran')}, buffer)
    digits = '0'*8 if wrong == 'another file' else hashlib.sha256(buffer.getvalue()).hexdigest()[:8]
    name = f'squeezenet1_1-{digits}.pth'
    published = SimpleNamespace(DEFAULT=SimpleNamespace(url=server.url(name, buffer.getvalue())))
    monkeypatch.setattr(torchvision.models, 'get_model_weights', lambda of: published)
    with pytest.raises(CourseError, match='SHA-256 expected 00000000' if wrong == 'another file' else 'UnpicklingError'): weights('squeezenet1_1', track='real')
    assert not (tmp_path/'ran').exists()


def test_unknown_weights_and_an_implicit_network(mirror):
    with pytest.raises(CourseError, match="unknown network 'resnet'"): weights('resnet')
    with pytest.raises(CourseError, match='the network is used only if you ask for it'): weights('squeezenet1_1')


@pytest.mark.skipif(not (course_root()/'nbs'/'workshop'/'small_body.safetensors').is_file(), reason='small_body is not trained yet')
def test_the_sample_track_has_one_network(home, capsys):
    w = weights('mobilenet_v2')
    assert (w.name, w.source, w.track) == ('small_body', 'trained by the course', 'sample')
    assert 'small_body instead' in capsys.readouterr().out
    assert w.path.stat().st_size < 2_000_000 and w.load()
    assert weights('small_body', track='real').arch == 'small_body'


def test_registries_are_complete():
    for name, entry in DATASETS.items():
        assert entry.name == name and entry.licence and entry.citation
        assert not entry.mirror or bool(entry.bring) == bool(entry.origin) == (not entry.instead)
        assert all(url.startswith('https://') and len(sha) == 64 for url, sha in entry.origin)
    assert all(w.mirror and w.bring for w in WEIGHTS.values())


def test_importing_is_light():
    heavy = ('torch', 'fastai', 'pandas', 'matplotlib', 'numpy', 'PIL', 'pooch', 'requests')
    code = f'import sys, topdown.data, topdown.ledger; print([m for m in {heavy} if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout == '[]\n'


# The real track

REAL = {'birds': (1005, 'bird'), 'pets': (296, 'Abyssinian'), 'camvid': (60, None), 'adult': (26049, None), 'titanic': (891, None),
        'bulldozers': (9730, None), 'ml-100k': (80000, None), 'mnist': (65000, None), 'imdb': (3998, None), 'rt-polarity': (8530, None),
        'sts-captions': (1375, None), 'tinyshakespeare': (892118, None)}
needs_data = pytest.mark.skipif(not os.environ.get('TOPDOWN_DATA'), reason='TOPDOWN_DATA names no folder of real data')


@pytest.mark.real
@needs_data
@pytest.mark.parametrize('name', REAL)
def test_real_sets(home, name):
    d, (n, label) = get(name), REAL[name]
    assert (d.n, d.source, d.track) == (n, 'TOPDOWN_DATA', 'real') and len(d.sha256) == 64
    if label: assert label in {d.label(p) for p in d.files}
    if name == 'camvid': assert all(d.label(p).is_file() for p in d.files) and (d.path/'codes.txt').is_file()
    assert get(name, verify=True).sha256 == d.sha256


@pytest.mark.real
@needs_data
@pytest.mark.parametrize('name', [name for name in WEIGHTS if name != 'minilm'])
def test_real_weights_fit_torchvisions_networks(home, name):
    from torchvision.models import get_model
    get_model(name, weights=None).load_state_dict(weights(name).load())


@pytest.mark.real
@needs_data
def test_a_real_archive_cut_short(home, tmp_path, monkeypatch):
    source = Path(os.environ['TOPDOWN_DATA'])
    (tmp_path/'mirror').mkdir()
    (tmp_path/'mirror'/'birds.tar.gz').write_bytes((source/'birds.tar.gz').read_bytes()[:3_000_000])
    shutil.copy(source/'SHA256SUMS', tmp_path/'mirror')
    monkeypatch.setenv('TOPDOWN_DATA', str(tmp_path/'mirror'))
    with pytest.raises(CourseError, match='is not the file that'): get('birds')
