"""The Gradio app as visitors meet it: a built folder, started as a program, in a real browser; and what hostile programs get from it"""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests
from conftest import lacking
from models import tiny_model
from pages import chromium, noise, saved
from PIL import Image

from topdown.infer import OnnxModel
from topdown.store import read_lines

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ('__init__', 'settings', 'store', 'photos', 'infer', 'serve') # what a built folder carries of the course
SPOKEN = 'p[role=status]:has-text("{}")'


def picture(colour, **kw): return saved(Image.new('RGB', (900, 600), colour), 'JPEG', **kw)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "An app as it is built, with a model that only knows bright from dark"
    try: import gradio # noqa: F401
    except ImportError: lacking('gradio, which comes with the extra dev')
    to = tiny_model(tmp_path_factory.mktemp('app'))
    for name in ('examples', 'topdown'): (to/name).mkdir()
    for name in NEEDED: shutil.copy(ROOT/'topdown'/f'{name}.py', to/'topdown')
    with open(to/'topdown'/'infer.py', 'a', encoding='utf-8') as f: f.write('\nimport sys; print("this is the copy", file=sys.stderr)\n')
    shutil.copy(ROOT/'apps'/'bird'/'app.py', to)
    for name, colour in (('snow', 'white'), ('night', 'black')): (to/'examples'/f'{name}.jpg').write_bytes(picture(colour))
    examples = [{'file': f'examples/{n}.jpg', 'label': n, 'alt': f'A picture of {n}'} for n in ('snow', 'night')]
    (to/'app.json').write_text(json.dumps({'title': 'Is it a bird?', 'intro': 'Show it a photo.', 'examples': examples}), encoding='utf-8')
    return to


class App:
    "The app, started as a program in a folder that is not its own"

    def __init__(self, folder, elsewhere, *words, **env):
        self.log, self.temp = elsewhere/'log', elsewhere/'temp'
        self.temp.mkdir(parents=True)
        with open(self.log, 'wb') as log:
            self.process = subprocess.Popen([sys.executable, str(folder/'app.py'), *map(str, words)], cwd=elsewhere, stdout=log, stderr=log,
                                            env=os.environ | {'TMPDIR': str(self.temp)} | env)
        try:
            while not (found := re.search(r'open (http://\S+:(\d+)) ', self.said())) or not self.answers(found[1]):
                assert self.process.poll() is None, self.said()
                time.sleep(.1)
        except BaseException: self.process.kill(); raise
        self.url, self.port = found[1], int(found[2])

    def said(self): return self.log.read_text(encoding='utf-8')

    def answers(self, url):
        try: return requests.get(f'{url}/healthz', timeout=5).ok
        except requests.ConnectionError: return False

    def stop(self):
        "SIGTERM; the exit code"
        self.process.send_signal(signal.SIGTERM)
        try: return self.process.wait(20)
        finally: self.process.kill()

    def post(self, path, **kw): return requests.post(f'{self.url}/{path}', timeout=20, **kw)

    def ask(self, path):
        "Name a file as a program does, through Gradio's own queue; the events that come back"
        event = self.post('gradio_api/call/predict', json={'data': [{'path': str(path), 'meta': {'_type': 'gradio.FileData'}}]}).json()['event_id']
        return requests.get(f'{self.url}/gradio_api/call/predict/{event}', timeout=20).text


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as s: return s.getsockname()[1]


@pytest.fixture(scope='module')
def app(folder, tmp_path_factory):
    base = tmp_path_factory.mktemp('run')
    app = App(folder, base/'elsewhere', '--port', free_port(), '--keep', '../kept')
    app.kept = base/'kept'
    yield app
    app.stop()


@pytest.fixture(scope='module')
def browser():
    with chromium() as b: yield b


@pytest.fixture
def visit(browser):
    "Opens pages; in the end the console must be clean, and nobody but the app may have been asked"
    contexts, wrong = [], []

    def visit(app, **kw):
        contexts.append(browser.new_context(**{'viewport': {'width': 1200, 'height': 900}} | kw))
        contexts[-1].set_default_timeout(60_000)
        page = contexts[-1].new_page()
        page.on('request', lambda r: r.url.startswith((app.url, 'data:', 'blob:')) or wrong.append(f'asks {r.url}'))
        page.on('console', lambda m: m.type == 'error' and wrong.append(m.text))
        page.on('pageerror', lambda e: wrong.append(str(e)))
        page.goto(app.url)
        page.wait_for_selector('button:has-text("A picture of snow")')
        page.wait_for_timeout(500) # the page listens a moment after it shows
        return page
    yield visit
    for c in contexts: c.close()
    assert not wrong


def give(page, name, data, kind='image/jpeg'): page.locator('input[type=file]').first.set_input_files({'name': name, 'mimeType': kind, 'buffer': data})
def said(page, start): return page.wait_for_selector(SPOKEN.format(start)).inner_text()


def take_away(page):
    "Remove the photo; the answer must go with it"
    page.click('[aria-label="Remove Image"]')
    page.wait_for_function('document.querySelector("p[role=status]").innerText === ""') # a next photo must not overtake it
    assert 'bird' not in page.locator('[data-testid=label]').inner_text() and not page.locator('text=Not right?').is_visible()


def test_app_py_is_what_nb_export_writes(tmp_path):
    from nbdev.export import nb_export
    nb_export(ROOT/'nbs'/'workshop'/'bird_app.ipynb', lib_path=tmp_path/'bird', name='app')
    def text(path): return re.sub(r'\S*/nbs/workshop', 'nbs/workshop', path.read_text(encoding='utf-8'))
    assert text(ROOT/'apps'/'bird'/'app.py') == text(tmp_path/'bird'/'app.py'), \
        "run: nb_export('nbs/workshop/bird_app.ipynb', lib_path='apps/bird', name='app')"


def test_check_answers_the_examples_with_the_copied_modules_alone(folder, tmp_path):
    def check(app): return subprocess.run([sys.executable, app/'app.py', '--check'], cwd=tmp_path, capture_output=True, text=True, encoding='utf-8')
    done, model = check(folder), OnnxModel(folder)
    assert done.returncode == 0 and 'this is the copy' in done.stderr and not list(tmp_path.iterdir()), done.stderr
    answers = {f'examples/{n}.jpg': model.predict(folder/'examples'/f'{n}.jpg') for n in ('snow', 'night')}
    assert json.loads(done.stdout) == {'modules': {'torch': False, 'fastai': False}, 'answers': answers}
    shutil.copytree(folder, tmp_path/'broken')
    (tmp_path/'broken'/'model.onnx').write_bytes(b'half')
    done = check(tmp_path/'broken')
    assert done.returncode == 1 and 'SHA-256 expected' in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.browser
def test_a_photo_gets_an_answer_and_an_example_too(app, visit):
    page = visit(app)
    give(page, 'my holiday.jpg', picture('white'))
    assert said(page, 'The model says') == 'The model says bird, and is 100% sure.' and 'my holiday' not in app.said()
    assert all(word in page.locator('[data-testid=label]').inner_text() for word in ('bird', 'other', '100%', '0%'))
    take_away(page)
    page.click('button:has-text("A picture of night")')
    assert 'other' in said(page, 'The model says')
    page.click('button:has-text("About this model")')
    for text in ('sorts photos into 2 kinds: bird, other', 'CC BY 4.0', 'This was not measured', 'is deleted there'): page.wait_for_selector(f'text={text}')


BAD = {'text.jpg': (b'no photo at all', 'not an image'), 'empty.jpg': (b'', 'not an image'), 'cut.png': (saved(Image.fromarray(noise(99, 99)))[:9000], 'truncated'),
       'drawn.svg': (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', 'not an image'),
       '<img src=x onerror=alert(1)>.jpg': (b'GIF89a', 'image')}


@pytest.mark.browser
def test_a_bad_file_gets_a_sentence_and_no_old_answer(app, visit):
    page = visit(app)
    for name, (data, why) in BAD.items():
        page.click('button:has-text("A picture of snow")')
        said(page, 'The model says')
        take_away(page)
        give(page, name, data, 'image/svg+xml' if name.endswith('svg') else 'image/jpeg')
        text = said(page, 'No answer')
        assert why in text and name not in text and str(app.temp) not in text and not page.locator('.toast-wrap').inner_text()
        take_away(page)
    give(page, 'notes.txt', b'notes', 'text/plain')
    page.wait_for_selector('.toast-wrap:has-text("Only image/* allowed")')


@pytest.mark.browser
def test_a_photo_given_while_another_is_answered_gets_its_own_answer(app, visit):
    page = visit(app)
    for _ in range(3):
        give(page, 'large.png', saved(Image.new('RGB', (7000, 7000), 'white')), 'image/png') # takes the server a moment
        page.wait_for_selector('[aria-label="Remove Image"]')
        page.click('button:has-text("A picture of night")')
        page.wait_for_selector(SPOKEN.format('The model says other'))
        page.wait_for_timeout(1500)
        assert 'other' in said(page, 'The model says')
        take_away(page)


@pytest.mark.browser
def test_on_a_phone(app, visit):
    page = visit(app, viewport={'width': 360, 'height': 740}, has_touch=True, is_mobile=True)
    page.tap('button:has-text("A picture of snow")')
    said(page, 'The model says')
    page.wait_for_function('[...document.querySelectorAll("p[role=status]")].some(p => p.innerText && p.getBoundingClientRect().top > 0 '
                           '&& p.getBoundingClientRect().bottom < innerHeight)') # the page scrolls to the answer
    assert page.evaluate('document.documentElement.scrollWidth') <= 360


@pytest.mark.browser
def test_by_keyboard_alone(app, visit):
    page = visit(app)
    page.on('filechooser', lambda c: c.set_files({'name': 'a.jpg', 'mimeType': 'image/jpeg', 'buffer': picture('gray')}))
    def tab_to(what):
        for _ in range(40):
            page.keyboard.press('Tab')
            if page.evaluate('(e => e.innerText + " " + e.ariaLabel)(document.activeElement)').strip().startswith(what): return page.wait_for_timeout(300)
        raise AssertionError(f'the Tab key never came to {what!r}')
    tab_to('Drop a photo')
    page.keyboard.press('Enter')
    said(page, 'The model says')
    tab_to('What does it show?')
    page.keyboard.press('ArrowDown')
    page.wait_for_selector('[role=option].active')
    page.keyboard.press('Enter')
    page.wait_for_function('document.querySelector("[role=combobox]").value == "bird"')
    tab_to('Send this photo')
    page.keyboard.press('Enter')
    said(page, 'Thank you')
    tab_to('A picture of night')
    page.keyboard.press('Enter')
    said(page, 'The model says other')
    page.wait_for_selector(SPOKEN.format('Thank you'), state='detached')


@pytest.mark.browser
def test_corrections_are_kept(app, visit):
    page, exif = visit(app), Image.Exif()
    exif[0x010e] = 'my garden'
    for _ in range(2):
        give(page, 'x.jpg', picture('navy', exif=exif, comment=b'secret'))
        said(page, 'The model says other')
        page.click('button:has-text("Send this photo")')
        assert said(page, 'Not sent') == 'Not sent: choose one of the kinds in the list.'
        page.click('input[aria-label="What does it show?"]')
        page.click('[role=option]:has-text("bird")')
        page.click('button:has-text("Send this photo")')
        assert said(page, 'Thank you') == 'Thank you. The photo is kept as bird.'
        take_away(page)
    record, = (o for o in read_lines(app.kept/'corrections.jsonl')[0] if o['answer'] == 'other') # the same photo twice is kept once
    kept = app.kept/'bird'/f"{record['sha256'][:12]}.jpg"
    assert record['photo'] == f'bird/{kept.name}' and set(record) == {'time', 'photo', 'sha256', 'answer', 'probability', 'correct'}
    assert b'my garden' not in kept.read_bytes() and b'secret' not in kept.read_bytes() and max(Image.open(kept).size) == 640


def test_gradios_own_doors_are_bounded(app):
    def upload(body): return app.post('gradio_api/upload', data=body, headers={'content-type': 'multipart/form-data; boundary=x'})
    for size in (10_500_000, 60_000_000): assert app.post('gradio_api/upload', files={'files': ('big.jpg', bytes(size))}).status_code == 413
    assert upload(iter([b'x']*9)).status_code == 413 # does not say how long it is
    for name in (b'../../evil', b'/etc/evil', b'..', b'evil\x00', b'\xff\xfe', b'a'*3000, b'CON', b'~root', b'$(touch evil)', b'<script>.jpg'):
        r = upload(b'--x\r\nContent-Disposition: form-data; name="files"; filename="' + name + b'"\r\n\r\ndata\r\n--x--\r\n')
        assert r.status_code in (200, 400) and all(app.temp in Path(path).resolve().parents for path in (r.json() if r.ok else ()))
    for body in (b'', os.urandom(999), b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\ndata\r\n--x--\r\n'): assert upload(body).status_code < 500
    for path in ('call/nowhere', 'queue/join', 'call/v2/predict', 'run/predict', 'api/predict', 'component_server'):
        for data in ({}, {'data': []}, {'data': [1], 'fn_index': 99, 'session_hash': 'x'}, [1], None):
            assert app.post(f'gradio_api/{path}', json=data).status_code < 500, (path, data)
    assert app.post('predict', data=picture('black')).json()['answer'] == 'other'


def test_no_file_of_the_server_and_no_address_in_place_of_a_photo(app, folder):
    assert 'The model says' in app.ask('examples/snow.jpg')
    (folder/'secret.jpg').write_bytes(picture('white'))
    for path in (folder/'secret.jpg', 'model.json', 'examples/../secret.jpg', '/etc/hostname', 'http://example.com/a.jpg', f'{app.url}/healthz'):
        start, answer = time.monotonic(), app.ask(path)
        assert 'event: error' in answer and 'Traceback' not in answer and time.monotonic() - start < 3, path
        assert requests.get(f'{app.url}/gradio_api/file={path}', timeout=20).status_code in (403, 404), path
    assert not {'secret.jpg', 'hostname', 'model.json'} & {p.name for p in app.temp.rglob('*')}


@pytest.mark.browser
def test_on_a_host_without_keep_with_the_port_in_use_and_a_polite_end(folder, tmp_path, visit):
    def files(): return sorted(p for p in folder.rglob('*') if '__pycache__' not in p.parts)
    before = files()
    with socket.create_server(('0.0.0.0', 0)) as taken:
        port = taken.getsockname()[1]
        app = App(folder, tmp_path/'elsewhere', '--port', port, SPACE_ID='someone/bird')
        try:
            assert f'port {port} is in use; the next free one is {app.port}' in app.said() and app.port != port
            assert [c.laddr.ip for c in psutil.Process(app.process.pid).net_connections() if c.status == psutil.CONN_LISTEN] == ['0.0.0.0']
            page = visit(app)
            give(page, 'x.jpg', picture('white'))
            said(page, 'The model says bird')
            assert not page.locator('text=Not right?').is_visible() and list(app.temp.rglob('*.jpg'))
        finally: code = app.stop()
    assert code == 0 and not list(app.temp.iterdir()), 'a stop leaves nothing of what visitors sent'
    assert files() == before and sorted(p.name for p in (tmp_path/'elsewhere').iterdir()) == ['log', 'temp']
