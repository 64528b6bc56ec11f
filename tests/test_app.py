"""Saved models and the apps made of them: agreement, refusals, and what happens when something is in the way"""
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from agreement import agree, matrix
from pages import RUNTIME
from PIL import Image

from topdown import publish
from topdown.app import PhotoModel, PhotoNet, corrections, load_model, save_model
from topdown.core import split
from topdown.data import get
from topdown.infer import sealed
from topdown.settings import CourseError, places
from topdown.store import read_json, write_json
from topdown.vision import PhotoClassifier


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "The birds, a classifier of six classes, and the folder it was saved to"
    os.environ.pop('TOPDOWN_DATA', None)
    birds = get('birds')
    train, valid = split(birds.files)
    c = PhotoClassifier().fit([birds.files[i] for i in train], [birds.label(birds.files[i]) for i in train])
    error = c.error_rate([birds.files[i] for i in valid], [birds.label(birds.files[i]) for i in valid])
    return birds, c, save_model(c, tmp_path_factory.mktemp('saved'), birds, {'error_rate': error, 'n_valid': len(valid)})


@pytest.fixture(scope='module')
def app(trained, tmp_path_factory):
    "Both apps, built"
    return publish.build(trained[2], tmp_path_factory.mktemp('built')/'app', runtime=RUNTIME if RUNTIME.is_file() else None, network=False)


def check_agreement(far, changed):
    assert max(far['onnx'], far['browser']) < 1e-4 and max(far['onnx, bytes'], far['browser, bytes']) < 1e-3 and far['page'] < 1e-2, far
    assert not any(changed.values()), changed


@pytest.mark.browser
def test_torch_onnx_and_browser_agree_on_200_pictures(trained, tmp_path):
    birds, _, home = trained
    check_agreement(*agree(home, birds.files[::3], tmp_path))
    assert len(birds.files[::3]) >= 200


@pytest.mark.real
@pytest.mark.browser
def test_torch_onnx_and_browser_agree_on_200_real_photos(tmp_path, home):
    folder = publish.lesson_model('2')
    files = get('birds').files[::5]
    far, changed = agree(folder, files, tmp_path)
    print(len(files), far, changed)
    check_agreement(far, changed)
    assert len(files) >= 200 and load_model(folder).manifest['data']['track'] == 'real'


def test_saved_model_answers_as_the_classifier(trained):
    birds, c, home = trained
    model, files = load_model(home), birds.files[:40]
    assert abs(matrix([model.predict(f) for f in files], c.classes) - c.probabilities(files)).max() < 0.02 # Pillow's filter and PyTorch's differ by a level
    about = read_json(home/'model.json')
    assert about['data']['licence'] == 'CC BY 4.0' and about['classes'] == c.classes and about['versions']['torch'] == torch.__version__


def test_two_classes_share_one_sum(tmp_path):
    birds = get('birds')
    some = birds.files[::10]
    c = PhotoClassifier().fit(some, ['bird' if birds.label(f) == 'bird' else 'other' for f in some])
    model = load_model(save_model(c, tmp_path, birds, {}))
    assert abs(matrix([model.predict(f) for f in some], c.classes) - c.probabilities(some)).max() < 0.02


def test_an_untrained_classifier_is_not_saved(tmp_path):
    with pytest.raises(CourseError, match='has not been trained'): save_model(PhotoClassifier(), tmp_path/'m', get('birds'), {})
    assert not (tmp_path/'m').exists()


@pytest.mark.parametrize('ending', ['.pkl', '.pth', '.pt'])
def test_pickles_are_refused_unread(tmp_path, ending):
    class Trap:
        def __reduce__(self): return Path.touch, (tmp_path/'it ran',)
    (tmp_path/f'model{ending}').write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CourseError, match='can run any program'): load_model(tmp_path/f'model{ending}')
    (tmp_path/'model.safetensors').write_bytes(pickle.dumps(Trap()))
    write_json(tmp_path/'model.json', sealed({'format': 'topdown-photo-model'}))
    with pytest.raises(CourseError, match='SHA-256'): load_model(tmp_path)
    assert not (tmp_path/'it ran').exists()


def damaged(home, tmp_path, **manifest):
    "A copy of a model with another manifest, properly sealed"
    folder = Path(shutil.copytree(home, tmp_path/'copy', dirs_exist_ok=True))
    write_json(folder/'model.json', sealed(read_json(home/'model.json') | manifest))
    return folder


def test_loading_refuses_each_with_its_own_message(trained, tmp_path):
    home = trained[2]
    for change, said in [({'architecture': 'resnet50'}, 'unknown architecture'), ({'classes': ['a', 'b']}, 'head.bias should be'), ({'architecture': 'squeezenet1_1'}, 'should be'),
                         ({'format_version': 7}, 'version 7'), ({'size': 'big'}, 'size should be')]:
        with pytest.raises(CourseError, match=said): load_model(damaged(home, tmp_path, **change))
    folder = damaged(home, tmp_path)
    os.truncate(folder/'model.safetensors', 500)
    with pytest.raises(CourseError, match='SHA-256'): load_model(folder)
    with pytest.raises(CourseError, match='no weights at'): load_model(tmp_path)
    text = (folder/'model.json').read_text(encoding='utf-8')
    shutil.copy(home/'model.safetensors', folder)
    (folder/'model.json').write_text(text.replace('"forest"', '"meadow"'), encoding='utf-8')
    with pytest.raises(CourseError, match='edited after'): load_model(folder)


def test_a_save_that_breaks_off_leaves_the_old_model(trained, tmp_path, monkeypatch):
    birds, c, _ = trained
    save_model(c, tmp_path, birds, {})
    before = load_model(tmp_path).predict(birds.files[0])
    monkeypatch.setattr(os, 'fsync', lambda fd: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    with pytest.raises(CourseError, match='disk is full'): save_model(c, tmp_path, birds, {'error_rate': 1})
    monkeypatch.undo()
    assert load_model(tmp_path).predict(birds.files[0]) == before and {f.name for f in tmp_path.iterdir()} == {'model.safetensors', 'model.json'}


def test_predictions_are_plain(trained, tmp_path):
    model = load_model(trained[2])
    Image.new('L', (30, 500), 90).save(tmp_path/'tall.png')
    answer = model.predict(tmp_path/'tall.png')
    assert all(type(v) is float for v in answer.values()) and abs(sum(answer.values()) - 1) < 1e-5 and list(answer.values()) == sorted(answer.values(), reverse=True)
    assert model.predict((tmp_path/'tall.png').read_bytes()) == model.predict(Image.open(tmp_path/'tall.png')) == answer
    with pytest.raises(CourseError, match='not an image'): model.predict(b'no photo')


def test_app_needs_no_training_code(trained):
    code = f"import sys; from topdown.app import load_model; print(load_model({str(trained[2])!r}).predict({str(trained[0].files[0])!r}))"
    code += "; print([m for m in ('fastai', 'topdown.vision', 'sklearn') if m in sys.modules])"
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert out[-1] == '[]' and 'bird' in out[0]


# ---- building

def test_what_is_built(app):
    g, p = app.path/'gradio', app.path/'page'
    lines = (g/'requirements.txt').read_text(encoding='utf-8').split()
    assert all('==' in o for o in lines) and not any(o.startswith(('torch', 'fastai')) for o in lines)
    readme = (g/'README.md').read_text(encoding='utf-8')
    assert readme.startswith('---\n') and 'sdk: "gradio"' in readme and 'app_file: "app.py"' in readme and 'Not for' in readme and 'CC BY 4.0' in readme
    assert (g/'examples'/'bird.jpg').read_bytes() == (p/'examples'/'bird.jpg').read_bytes()
    assert read_json(p/'model.json')['onnx']['weights'] == 'float16' and read_json(g/'model.json')['onnx']['weights'] == 'float32'
    assert 'CC BY 4.0' in str(app) and str(Path.home()) not in readme


def test_check_finds_what_changed(app, tmp_path):
    assert publish.check_app(app.path)['gradio'][0]
    copy = Path(shutil.copytree(app.path, tmp_path/'copy'))
    expected = read_json(copy/'expected.json')
    next(iter(expected['answers'].values()))['bird'] += 0.5
    write_json(copy/'expected.json', expected)
    ok, said = publish.check_app(copy)['gradio']
    assert not ok and '5e-01' in said
    (copy/'gradio'/'topdown'/'infer.py').unlink()
    assert not publish.check_app(copy)['gradio'][0]
    with pytest.raises(CourseError, match='expected.json is missing'): publish.check_app(tmp_path)


def test_target_that_is_taken(trained, tmp_path):
    to = tmp_path/'app'
    to.mkdir(); (to/'mine.txt').write_text('mine', encoding='utf-8')
    with pytest.raises(CourseError, match='not empty.*--force'): publish.build(trained[2], to, network=False)
    assert [f.name for f in tmp_path.iterdir()] == ['app'] and (to/'mine.txt').is_file()
    built = publish.build(trained[2], to, network=False, force=True)
    assert (built.kept/'mine.txt').read_text(encoding='utf-8') == 'mine' and str(built.kept) in str(built)
    (tmp_path/'file').write_text('x', encoding='utf-8')
    with pytest.raises(CourseError, match='is a file'): publish.build(trained[2], tmp_path/'file', network=False)
    with pytest.raises(CourseError, match='where you are'): publish.build(trained[2], Path.cwd().parent, network=False, force=True)


def test_a_build_that_breaks_off_leaves_nothing(trained, tmp_path, monkeypatch):
    (tmp_path/'app').mkdir(); (tmp_path/'app'/'old.txt').write_text('old', encoding='utf-8')
    def full(*args): raise CourseError('the disk is full')
    monkeypatch.setattr(publish, '_build_page', full)
    with pytest.raises(CourseError, match='disk is full'): publish.build(trained[2], tmp_path/'app', network=False, force=True)
    assert [f.name for f in tmp_path.rglob('*')] == ['app', 'old.txt']


def test_without_npm_what_is_missing_is_named(trained, tmp_path, home, monkeypatch):
    monkeypatch.setattr(publish.shutil, 'which', lambda name: None)
    built = publish.build(trained[2], tmp_path/'app', network=True)
    assert 'page/ort/ is missing' in built.missing and 'npm, which fetches it, is not installed' in built.missing and '--runtime' in built.missing
    assert publish.check_app(built.path)['gradio'][0] and 'is missing' in publish.check_app(built.path)['page'][1]


def test_npm_without_a_network(trained, tmp_path, home, monkeypatch):
    fake = tmp_path/'bin'/'npm'
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "network request failed" >&2\nexit 1\n', encoding='utf-8')
    fake.chmod(0o755)
    monkeypatch.setattr(publish.shutil, 'which', lambda name: str(fake))
    with pytest.raises(CourseError, match='network request failed'): publish.find_package()


def test_a_runtime_that_is_not_the_pinned_one(tmp_path, home):
    (tmp_path/'x.tgz').write_bytes(b'x')
    with pytest.raises(CourseError, match='SHA-512 expected'): publish.find_package(tmp_path/'x.tgz')
    kept = places()['cache']/'page'/f'{publish.page_package()[0]}.tgz'
    kept.parent.mkdir(parents=True); kept.write_bytes(b'half of it')
    with pytest.raises(CourseError, match='not asked'): publish.find_package(network=False)
    assert not kept.exists()


def test_own_examples(trained, tmp_path):
    (tmp_path/'photos').mkdir()
    Image.new('RGB', (900, 300), 'green').save(tmp_path/'photos'/'meadow.png')
    built = publish.build(trained[2], tmp_path/'app', 'Mine', 'A sentence.', tmp_path/'photos', network=False)
    texts = read_json(built.path/'gradio'/'app.json')
    assert (texts['title'], texts['intro']) == ('Mine', 'A sentence.') and [e['label'] for e in texts['examples']] == ['meadow']
    assert Image.open(built.path/'page'/'examples'/'meadow.jpg').size == (512, 171)


def test_classes_that_the_course_cannot_draw(tmp_path):
    about = sealed({'format': 'topdown-photo-model', 'format_version': 1, 'architecture': 'small_body', 'classes': ['<b>x</b>', 'ärger'], 'size': 64,
                    'data': {'name': 'mine', 'licence': 'yours'}, 'metrics': {}})
    built = publish.build(PhotoModel(PhotoNet('small_body', 2).eval(), about), tmp_path/'app', network=False)
    assert publish.check_app(built.path)['gradio'][0] and len(read_json(built.path/'expected.json')['answers']) == 3


# ---- the command

def topdown(*args, **kw): return subprocess.run([sys.executable, '-m', 'topdown.cli', *map(str, args)], capture_output=True, text=True, timeout=300, **kw)


def test_build_and_check_by_command(trained, tmp_path):
    done = topdown('app', 'build', trained[2], '--to', tmp_path/'app', '--offline', *(['--runtime', RUNTIME] if RUNTIME.is_file() else []))
    assert done.returncode == (0 if RUNTIME.is_file() else 1) and 'Licence: CC BY 4.0' in done.stdout, done.stderr
    again = topdown('app', 'build', trained[2], '--to', tmp_path/'app', '--offline')
    assert again.returncode == 2 and '--force' in again.stderr
    assert 'gradio: good' in topdown('app', 'check', tmp_path/'app').stdout
    for wrong, said in [('12', 'unknown lesson'), (tmp_path/'no model', 'no model at'), ('0', 'makes no model that could become an app')]:
        assert said in topdown('app', 'build', wrong, '--to', tmp_path/'other').stderr
    assert 'holds no gradio app' in topdown('app', 'serve', tmp_path).stderr


@pytest.mark.parametrize('page', [False, True])
def test_serve_takes_the_next_port_and_says_so(app, page, tmp_path):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0)); taken.listen()
        port = taken.getsockname()[1]
        call = [sys.executable, '-m', 'topdown.cli', 'app', 'serve', str(app.path), f'--port={port}'] + ['--page']*page
        with open(tmp_path/'log', 'w+', encoding='utf-8') as log:
            server = subprocess.Popen(call, stdout=log, stderr=log, env=os.environ | {'PYTHONUNBUFFERED': '1'})
            try:
                for _ in range(300):
                    text = (tmp_path/'log').read_text(encoding='utf-8')
                    if found := [o for o in text.split() if o.startswith('http://127.0.0.1:')]: break
                    assert server.poll() is None, text
                    time.sleep(0.2)
                assert f'{port} is in use' in text and f':{port}' not in found[0]
                for _ in range(100):
                    try: body = urllib.request.urlopen(found[0].rstrip('/') + ('/model.json' if page else '/healthz'), timeout=5).read(); break
                    except OSError: time.sleep(0.2)
                assert json.loads(body)
            finally:
                server.terminate()
                server.wait(30)


# ---- corrections

def test_corrections_from_both_apps(tmp_path):
    (tmp_path/'kept'/'bird').mkdir(parents=True)
    Image.new('RGB', (40, 40), 'red').save(tmp_path/'kept'/'bird'/'a.jpg')
    (tmp_path/'kept'/'bird'/'b.jpg').write_bytes(b'half')
    files, labels = corrections(tmp_path/'kept', ['bird', 'other'])
    assert [f.name for f in files] == ['a.jpg'] and labels == ['bird']
    for bad in ({}, {'format': 'topdown-corrections', 'corrections': [{'photo': 'data:,x'}]}, {'format': 'topdown-corrections', 'corrections': [{'photo': 'x,%%', 'correct': 'bird'}]}):
        write_json(tmp_path/'corrections.json', bad)
        with pytest.raises(CourseError, match='corrections.json'): corrections(tmp_path/'corrections.json', ['bird'])
