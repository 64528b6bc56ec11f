"""The static page beside a model that needs no training, and a browser to open it with"""
import base64
import contextlib
import functools
import http.server
import io
import json
import shutil
import tarfile
import threading
from pathlib import Path

import numpy as np
from conftest import lacking
from models import tiny_model
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = ROOT/'.venv'/'onnxruntime-web-1.30.0.tgz'
RUNTIME_FILES = ('ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm')


def saved(im, fmt='PNG', **how):
    "A picture as the bytes of a file"
    file = io.BytesIO()
    im.save(file, fmt, **how)
    return file.getvalue()


def noise(width, height, channels=3):
    "A picture of random pixels, as an array"
    return np.random.default_rng(width*height).integers(0, 256, (height, width, channels), dtype='uint8')


BRIGHT, DARK = (saved(Image.new('RGB', (90, 60), c)) for c in ('white', 'black'))
BLOB = 'new Blob([Uint8Array.from(atob(data), c => c.charCodeAt(0))])' # JavaScript that takes bytes from what follows


def base64_of(data): return base64.b64encode(data).decode()


def build(folder):
    "A page as `topdown app build` lays it out, with a model that only knows how bright a photo is"
    if not RUNTIME.is_file(): lacking(f'{RUNTIME.name} in .venv (make test fetches it with npm)')
    shutil.copytree(ROOT/'apps'/'page', folder, ignore=shutil.ignore_patterns('node_modules'))
    for name in ('ort', 'examples'): (folder/name).mkdir()
    with tarfile.open(RUNTIME) as tar:
        for name in RUNTIME_FILES: (folder/'ort'/name).write_bytes(tar.extractfile(f'package/dist/{name}').read())
    (folder/'examples'/'a.png').write_bytes(BRIGHT)
    (folder/'examples'/'b.png').write_bytes(DARK)
    examples = [{'file': 'examples/a.png', 'label': 'bird', 'alt': 'Snow'}, {'file': 'examples/b.png', 'label': 'other', 'alt': 'Night'}]
    about = {'title': 'Is it a bird?', 'intro': 'Show it a photo.', 'examples': examples}
    (folder/'page.json').write_text(json.dumps(about), encoding='utf-8')
    return tiny_model(folder)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


@contextlib.contextmanager
def chromium(*args):
    "Headless Chromium"
    try: from playwright import sync_api
    except ImportError: lacking('playwright, which comes with the extra dev')
    program = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if not program: lacking('chromium')
    with sync_api.sync_playwright() as p:
        quiet = ['--no-sandbox', '--disable-gpu', '--disable-background-networking']
        browser = p.chromium.launch(executable_path=program, args=[*quiet, *args])
        try: yield browser
        finally: browser.close()


@contextlib.contextmanager
def opened(folder):
    "A page in Chromium, ready to answer: the browser's page, with `topdown` in it, and the seconds until it was ready"
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with chromium() as browser:
            page = browser.new_page()
            page.goto(f'http://127.0.0.1:{server.server_port}/')
            page.evaluate('() => topdown.ready')
            yield page
    finally:
        server.shutdown()
        server.server_close()


def answers_in_browser(page, files):
    "Class → probability for each photo, from its bytes, as a visitor gets it"
    return [page.evaluate(f'data => topdown.predict({BLOB})', base64_of(Path(f).read_bytes())) for f in files]


def runs_in_browser(page, pixels):
    "Probabilities for each square of pixels, as the network in the browser gives them"
    code = 'async data => Array.from(await topdown.run(Uint8Array.from(atob(data), c => c.charCodeAt(0))))'
    return np.array([page.evaluate(code, base64_of(p.tobytes())) for p in pixels], 'float32')
