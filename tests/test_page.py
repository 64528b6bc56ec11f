"""The static page: a model run in the visitor's browser, as visitors meet it"""
import base64
import functools
import hashlib
import http.server
import io
import json
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import lacking
from pages import BLOB, BRIGHT, DARK, ROOT, RUNTIME_FILES, Quiet, base64_of, build, chromium, noise, saved
from PIL import Image

from topdown.infer import FORMATS, UPLOAD_PIXELS, OnnxModel, photo_pixels

pytestmark = pytest.mark.browser


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The page below a sub-path of a server on loopback: its folder and its address"
    root = tmp_path_factory.mktemp('host')
    folder = build(root/'someone'/'bird')
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield folder, f'http://127.0.0.1:{server.server_port}/someone/bird/'
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope='module')
def browser():
    "It has a camera that shows a test picture; permission to use it is another matter"
    with chromium('--use-fake-device-for-media-stream', '--deny-permission-prompts') as b: yield b


@pytest.fixture
def visit(browser, site):
    "Open the page in a new window. Whatever the test does, the page must ask for nothing outside its folder and meet no uncaught error"
    contexts, wrong = [], []
    def visit(instead=None, **how): # `instead`: the name of a file and what the server is to answer when asked for it
        contexts.append(browser.new_context(**how))
        contexts[-1].set_default_timeout(60_000)
        page = contexts[-1].new_page()
        page.on('request', lambda r: r.url.startswith((site[1], 'blob:', 'data:')) or wrong.append(r.url))
        page.on('console', lambda m: m.type in ('error', 'warning') and not (instead and ' 404 ' in m.text) and wrong.append(m.text))
        page.on('pageerror', lambda e: wrong.append(str(e)))
        if instead: page.route(f'**/{instead[0]}', lambda route: route.fulfill(**instead[1]))
        page.goto(site[1])
        if not instead: page.evaluate('() => topdown.ready')
        return page
    yield visit
    for c in contexts: c.close()
    assert not wrong


def text(page, selector): return page.wait_for_selector(f'{selector}:not(:empty)').inner_text()
def give(page, data, name='a photo.png'): page.set_input_files('#file', {'name': name, 'mimeType': 'image/png', 'buffer': data})
def answered(page, data): give(page, data); return text(page, '#answer')


def hand_over(page, kind, data, name='b.png'):
    "Drop or paste a file"
    page.evaluate("""([kind, data, name]) => {
        const given = new DataTransfer()
        if (name) given.items.add(new File([%s], name)); else given.setData('text/plain', 'hello')
        const how = {bubbles: true, cancelable: true, dataTransfer: given, clipboardData: given}
        document.getElementById('drop').dispatchEvent(kind == 'drop' ? new DragEvent('drop', how) : new ClipboardEvent('paste', how))
    }""" % BLOB, [kind, base64_of(data), name])


def test_a_photo_is_answered(visit, site):
    page = visit()
    assert page.title() == 'Is it a bird?' and 'CC BY 4.0' in page.inner_text('#about')
    assert answered(page, BRIGHT) == 'Most likely: bird (over 99.9%)'
    assert page.locator('#bars li').all_inner_texts() == ['bird\nover 99.9%', 'other\nunder 0.1%']
    assert 'trained on' in page.inner_text('#how-sure') and page.get_attribute('#shown', 'alt')
    photo = saved(Image.fromarray(noise(640, 480)), 'JPEG')
    answer = page.evaluate(f'data => topdown.predict({BLOB})', base64_of(photo))
    expected = OnnxModel(site[0]).predict(photo)
    assert list(answer) == list(expected) and all(abs(answer[c] - p) < 1e-5 for c, p in expected.items())
    assert 0 < page.evaluate('topdown.ms') < 2000


def test_example_drop_and_paste(visit):
    page = visit()
    page.get_by_role('button', name='Night').click()
    assert 'other' in text(page, '#answer')
    for kind in ('drop', 'paste'):
        hand_over(page, kind, BRIGHT)
        page.wait_for_selector('#answer:has-text("bird")')
        hand_over(page, kind, b'', None)
        assert 'JPEG, PNG, WebP, GIF and BMP' in text(page, '#error')
        assert page.inner_text('#answer') == '', 'no old answer beside a new error'


JPEG, PNG, GIF, WEBP, BMP = (saved(Image.fromarray(noise(99, 77)), f) for f in ('JPEG', 'PNG', 'GIF', 'WEBP', 'BMP'))
FLIPPED, BOMB = PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:], PNG[:16] + (60_000).to_bytes(4)*2 + PNG[24:]
BAD = [('empty.jpg', b'', 'an empty file'), ('text.jpg', b'hello', 'not a picture'), ('bomb.png', BOMB, '60,000 × 60,000 pixels'),
       ('large.bmp', BMP + bytes(30_000_000), '31 MB'), ('a.svg', b'<svg onload="alert()"/>', 'an SVG drawing'),
       ('svg.png', b'<?xml version="1.0"?>\n<!-- a --><svg/>', 'an SVG drawing'), ('a.heic', b'\0\0\0\x18ftypheic', 'a HEIC photo'),
       ('a.pdf', b'%PDF-1.7', 'a PDF'), ('a.zip', b'PK\3\4', 'a ZIP'), ('cut.jpg', JPEG[:-50], 'a damaged JPEG'),
       ('cut.gif', GIF[:-50], 'a damaged GIF'), ('cut.webp', WEBP[:-9], 'a damaged WebP'), ('cut.bmp', BMP[:-50], 'a damaged BMP'),
       ('start.png', PNG[:8], 'a damaged PNG'), ('cut.png', PNG[:-50], 'a damaged PNG'), ('flipped.png', FLIPPED, 'a damaged PNG')]


def test_bad_files_are_refused_in_words(visit, tmp_path):
    page = visit()
    for name, data, why in BAD:
        (tmp_path/name).write_bytes(data)
        assert answered(page, BRIGHT) and page.inner_text('#error') == ''
        page.set_input_files('#file', tmp_path/name)
        said = text(page, '#error')
        assert why in said and f'“{name}”' in said and 'WebP, GIF and BMP photos work' in said, (name, said)
        assert page.inner_text('#answer') == '' and not page.is_visible('#details') and not page.is_visible('#figure'), name


def test_newest_photo_wins(visit):
    page = visit()
    give(page, saved(Image.new('RGB', (7000, 7000), 'black'), compress_level=1))
    page.wait_for_selector('#figure:visible')
    give(page, BRIGHT)
    text(page, '#answer')
    page.wait_for_timeout(1500)
    assert 'bird' in page.inner_text('#answer')


@pytest.mark.parametrize('width,height', [(360, 740), (740, 360)])
def test_on_a_phone(visit, width, height):
    page = visit(viewport={'width': width, 'height': height}, has_touch=True, is_mobile=True)
    page.get_by_role('button', name='Snow').tap()
    text(page, '#answer')
    page.locator('#wrong summary').tap()
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    for e in page.locator('button:visible, select:visible, summary:visible, .check:visible').all():
        e.scroll_into_view_if_needed()
        box = e.bounding_box()
        assert box['height'] >= 44 and box['width'] >= 44 and box['x'] >= 0 and box['x'] + box['width'] <= width, e.inner_text()


def test_keyboard_only(visit):
    page = visit()
    page.on('filechooser', lambda chooser: None) # From here on the browser tells of each, in place of showing it
    def tab_to(js):
        for _ in range(20):
            page.keyboard.press('Tab')
            if page.evaluate(f'document.activeElement.matches({js!r})'): return
        pytest.fail(f'Tab does not reach {js}')
    tab_to('#drop')
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == 'solid', 'focus is seen'
    for key, photo, answer in (('Enter', DARK, 'other'), ('Space', BRIGHT, 'bird')):
        with page.expect_file_chooser() as chooser: page.keyboard.press(key)
        chooser.value.set_files({'name': 'a.png', 'mimeType': 'image/png', 'buffer': photo})
        page.wait_for_selector(f'#answer:has-text("{answer}")')
    tab_to('#examples button:last-child')
    page.keyboard.press('Enter')
    page.wait_for_selector('#answer:has-text("other")')


def test_camera(visit):
    page = visit(permissions=['camera'])
    page.click('#use-camera')
    page.wait_for_selector('#shoot:focus')
    page.evaluate("() => { window.track = document.getElementById('video').srcObject.getTracks()[0] }")
    page.click('#shoot')
    assert text(page, '#answer') and page.get_attribute('#shown', 'alt') == 'The photo that you took'
    assert page.evaluate('track.readyState') == 'ended' and not page.is_visible('#video')
    for error, said in [('NotAllowedError', 'permission was denied'), ('NotFoundError', 'No camera was found'), ('Odd', 'does not start')]:
        page.evaluate(f"() => {{ navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('why', '{error}') }} }}")
        page.click('#use-camera')
        assert said in text(page, '#error') and page.inner_text('#answer') == ''
    denied = visit()
    denied.click('#use-camera')
    assert 'permission was denied' in text(denied, '#error')


def test_corrections_are_kept_downloaded_and_forgotten(visit):
    page = visit()
    answered(page, BRIGHT)
    page.locator('#wrong summary').click()
    assert page.is_disabled('#keep'), 'nothing is kept before the visitor asks for it'
    page.check('#remember')
    page.click('#keep')
    assert 'corrected to other' in text(page, '#kept-status')
    page.reload()
    assert '1 correction is kept' in text(page, '#kept-count') and page.is_checked('#remember')
    with page.expect_download() as download: page.click('#download')
    assert download.value.suggested_filename == 'corrections.json'
    told = json.loads(Path(download.value.path()).read_text(encoding='utf-8'))
    one, = told['corrections']
    assert told['format'] == 'topdown-corrections' and (one['answer'], one['correct']) == ('bird', 'other') and one['probability'] > .99
    photo = base64.b64decode(one['photo'].removeprefix('data:image/jpeg;base64,'))
    assert one['sha256'] == hashlib.sha256(BRIGHT).hexdigest() and Image.open(io.BytesIO(photo)).size == (90, 60)
    page.click('#forget')
    assert not page.is_visible('#kept') and page.evaluate("Object.keys(localStorage).filter(k => k.includes('correction')).length") == 0
    answered(page, BRIGHT)
    page.locator('#wrong summary').click()
    page.evaluate("localStorage.setItem('full', 'x'.repeat(5*1024*1024 - 200))")
    page.click('#keep')
    assert 'no room left' in text(page, '#error')


SHAPES = [(64, 64), (640, 480), (31, 200), (1, 1), (1, 999), (999, 1), (65, 63), (5000, 3), (200, 128)]
SQUEEZE = """shapes => Promise.all(shapes.map(async ([w, h, size, data]) => {
    const { squeeze } = await import(%s)
    const all = Uint8Array.from(atob(data), c => c.charCodeAt(0))
    return [...await squeeze(w, h, size, async (y, n) => all.subarray(y*w*4, (y + n)*w*4))].join()
}))"""


@pytest.mark.parametrize('where', ['node', 'chromium'])
def test_squeezing_is_pillows_to_the_last_bit(where, request):
    cases = [(w, h, size, noise(w, h, 4)) for w, h in SHAPES for size in (64, 7, 224)]
    given = [(w, h, size, base64_of(a.tobytes())) for w, h, size, a in cases]
    if where == 'chromium': results = request.getfixturevalue('visit')().evaluate(SQUEEZE % "'./pillow.js'", given)
    else:
        if not shutil.which('node'): lacking('node')
        code = SQUEEZE % json.dumps((ROOT/'apps'/'page'/'pillow.js').as_uri())
        code = f"let s = ''; for await (const part of process.stdin) s += part; console.log(JSON.stringify(await ({code})(JSON.parse(s))))"
        command = ['node', '--input-type=module', '-e', code]
        results = json.loads(subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=True).stdout)
    for (w, h, size, a), result in zip(cases, results, strict=True):
        expected = np.asarray(Image.fromarray(a[..., :3]).resize((size, size), Image.Resampling.BILINEAR))
        assert (np.array(result.split(','), dtype='uint8').reshape(size, size, 3) == expected).all(), (w, h, size)


def photos():
    "Photos in each format, of 64 × 64 pixels so that no squeezing hides a difference; and others, held in all eight ways"
    im, clear, wide = (Image.fromarray(noise(*size)) for size in ((64, 64), (64, 64, 4), (90, 70)))
    yield from {'png': saved(im), 'alpha': saved(clear), 'palette': saved(im.quantize(16), transparency=3), 'grey': saved(im.convert('L')),
                'grey alpha': saved(clear.convert('LA')), 'bmp': saved(im, 'BMP'), 'gif': saved(im, 'GIF'), 'webp': saved(im, 'WEBP'),
                'clear webp': saved(clear, 'WEBP', lossless=True)}.items()
    yield 'animated gif', saved(im.quantize(), 'GIF', save_all=True, append_images=[Image.new('P', im.size, 7)], transparency=5)
    yield from {f'jpeg {s} {p}': saved(im, 'JPEG', subsampling=s, progressive=p) for s in (0, 1, 2) for p in (False, True)}.items()
    yield from {f'{mode} jpeg': saved(im.convert(mode), 'JPEG') for mode in ('L', 'CMYK')}.items()
    for held in range(10):
        exif = Image.Exif()
        exif[0x0112] = held
        yield from {f'{f} held {held}': saved(wide, f, exif=exif) for f in ('JPEG', 'PNG', 'WEBP')}.items()


def test_photos_open_as_in_python(visit):
    page = visit()
    for name, data in photos():
        found = page.evaluate(f'async data => [...await topdown.pixels({BLOB})].join()', base64_of(data))
        found = np.array(found.split(','), dtype='uint8').reshape(64, 64, 3)
        assert (found == photo_pixels(data, 64, FORMATS, UPLOAD_PIXELS)).all(), name


@pytest.mark.parametrize('file', ['model.onnx', 'model.json', 'page.json', *(f'ort/{name}' for name in RUNTIME_FILES)])
def test_a_missing_file_is_named_with_the_remedy(visit, file):
    page = visit((file, {'status': 404}))
    said = text(page, '#error')
    assert said.startswith(f'{file} is missing on the server') and 'topdown app build' in said and not page.is_visible('#loading')


def test_another_model_than_described_is_refused(visit, site):
    changed = bytearray((site[0]/'model.onnx').read_bytes())
    changed[-1] ^= 1
    for body, why in ((bytes(changed), 'its SHA-256 differs'), (bytes(changed[:-9]), 'bytes instead of')):
        assert why in text(visit(('model.onnx', {'body': body})), '#error')


def test_opened_as_a_file_it_says_what_to_do(browser, site):
    page = browser.new_page()
    page.goto((site[0]/'index.html').as_uri())
    page.get_by_text('topdown app serve DIR').wait_for(state='visible', timeout=10_000)
    assert not page.is_visible('main')
    page.close()


def test_the_runtime_is_pinned_without_an_address(site):
    lock = (ROOT/'apps'/'page'/'package-lock.json').read_text(encoding='utf-8')
    assert json.loads(lock)['packages']['node_modules/onnxruntime-web']['version'] == '1.30.0' and 'resolved' not in lock and '://' not in lock
    size = (site[0]/'ort'/RUNTIME_FILES[1]).stat().st_size
    assert f'WASM_BYTES = {size:_}' in (ROOT/'apps'/'page'/'model.js').read_text(encoding='utf-8'), 'the progress bar knows how much there is'


def test_what_nobody_expected_is_said_too(visit):
    page = visit()
    page.evaluate("() => { setTimeout(() => { throw new Error('odd') }) }")
    assert 'did not expect: odd' in text(page, '#error')
    page.evaluate("() => { document.getElementById('error').textContent = ''; setTimeout(() => Promise.reject(new Error('strange'))) }")
    assert 'did not expect: strange' in text(page, '#error')
