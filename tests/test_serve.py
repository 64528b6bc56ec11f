"""What the notebook `serve` cannot show about itself: a real server process, visitors who misbehave, a stop under load"""
import asyncio
import io
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection

import hostile
import numpy as np
import psutil
import pytest
import requests
from conftest import lacking
from models import tiny_model
from PIL import Image

from topdown import serve
from topdown.infer import OnnxModel
from topdown.photos import BrokenPhoto
from topdown.serve import Batcher, Busy, free_port, make_app, run_server
from topdown.settings import CourseError

posix = pytest.mark.skipif(os.name == 'nt', reason='signals of POSIX systems')
PROGRAM = """import sys, time
from topdown.infer import OnnxModel
from topdown.serve import make_app, run_server
model = OnnxModel(sys.argv[1])
fast, pause = model.probabilities, float(sys.argv[3])
def slow(x):
    if pause: time.sleep(pause)
    return fast(x)
model.probabilities = slow
run_server(make_app(model, seconds=float(sys.argv[4])), port=int(sys.argv[2]))"""


def jpeg(grey=255, side=60):
    out = io.BytesIO()
    Image.new('RGB', (side, side), (grey,)*3).save(out, 'JPEG')
    return out.getvalue()


class Process:
    "A server in a process of its own"

    def __init__(self, folder, pause=0, seconds=5):
        self.log_file = folder/f'log-{time.monotonic_ns()}.txt'
        self.port = free_port(random.randrange(20_000, 30_000))
        command = [sys.executable, '-c', PROGRAM, str(tiny_model(folder/'model')), str(self.port), str(pause), str(seconds)]
        with open(self.log_file, 'w') as log: self.process = subprocess.Popen(command, stderr=log, cwd=folder)
        self.url, end = f'http://127.0.0.1:{self.port}', time.monotonic() + 30
        while not self.up():
            assert self.process.poll() is None and time.monotonic() < end, self.log_file.read_text()
            time.sleep(.05)

    def up(self):
        try: return requests.get(f'{self.url}/healthz', timeout=5).ok
        except requests.ConnectionError: return False

    def health(self): return requests.get(f'{self.url}/healthz').json()
    def post(self, **kw): return requests.post(f'{self.url}/predict', **kw)
    def lines(self): return [json.loads(line) for line in self.log_file.read_text(encoding='utf-8').splitlines()] # each must be JSON
    def requests(self): return [line for line in self.lines() if line.get('path') == '/predict']
    def rss(self): return psutil.Process(self.process.pid).memory_info().rss/1e6

    def stop(self):
        self.process.terminate()
        try: return self.process.wait(30)
        finally: self.process.kill()


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    s = Process(tmp_path_factory.mktemp('server'))
    try: yield s
    finally: s.stop()


@contextmanager
def serving(app):
    "An app in a thread of this process"
    door = serve._listen('127.0.0.1', 0)
    server = serve._uvicorn(app, notice=0)
    thread = threading.Thread(target=server.run, kwargs={'sockets': [door]}, daemon=True)
    thread.start()
    while not server.started: time.sleep(.01)
    try: yield f'http://127.0.0.1:{door.getsockname()[1]}'
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


class Brightness:
    "A slow model; its second class is as probable as the photo is bright"
    classes, size, manifest = ['dark', 'bright'], 8, {'name': 'brightness', 'sha256': 'abc'}

    def __init__(self, pause=.1, warm=False): self.pause, self.sizes, self.warm, self.broken = pause, [], warm, False

    def probabilities(self, x):
        if not self.warm: self.warm = True
        else:
            self.sizes.append(len(x))
            time.sleep(self.pause)
        if self.broken: raise RuntimeError('the model fell over')
        bright = x.mean((1, 2, 3))/255
        return np.stack([1 - bright, bright], 1).astype('float32')


def at_once(n, f):
    with ThreadPoolExecutor(n) as pool: return list(pool.map(f, range(n)))


# ---- answers

def test_both_forms_of_upload(server):
    for kw in (dict(data=jpeg()), dict(files={'file': jpeg()}), dict(files={'other': b'1', 'file': ('bird.jpg', jpeg(), 'image/jpeg')}),
               dict(data=iter([jpeg()[:100], jpeg()[100:]]))): # the last one in chunks, without a length
        reply = server.post(**kw)
        assert reply.status_code == 200 and reply.headers['content-type'].startswith('application/json')
        said = reply.json()
        assert said['answer'] == 'bird' and list(said['probabilities']) == ['bird', 'other'] and 0 < said['ms'] < 5000
        assert sum(said['probabilities'].values()) == pytest.approx(1) and all(type(p) is float for p in said['probabilities'].values())
    assert server.post(data=jpeg(0)).json()['answer'] == 'other'


def test_the_same_answer_as_without_a_server(server, tmp_path):
    model = OnnxModel(tiny_model(tmp_path))
    for name, photo in hostile.photos().items():
        expected, said = model.predict(photo), server.post(data=photo).json()['probabilities']
        assert said == pytest.approx(expected, abs=1e-6), name


def test_healthz_page_and_other_addresses(server):
    health = server.health()
    assert health['status'] == 'ok' and len(health['model']) == 64 and health['classes'] == ['bird', 'other']
    assert {type(health[k]) for k in ('waiting', 'answered', 'refused')} == {int}
    page = requests.get(server.url)
    assert page.status_code == 200 and '<form' in page.text and 'bird, other' in page.text
    for method, path, status in (('GET', '/predict', 405), ('PUT', '/predict', 405), ('POST', '/healthz', 405), ('GET', '/nowhere', 404),
                                 ('POST', '/', 405), ('GET', '/../../etc/passwd', 404), ('POST', '/predict/', 404)):
        reply = requests.request(method, server.url + path)
        assert reply.status_code == status and len(reply.json()['error']) > 20, (method, path)
    assert requests.get(f'{server.url}/predict').headers['allow'] == 'POST'


def test_names_are_escaped_on_the_page():
    class Evil(Brightness): classes, manifest = ['<script>', 'b&w'], {}
    with serving(make_app(Evil(), '<img src=x>')) as url: page = requests.get(url).text
    assert '<script>' not in page and '<img' not in page and '&lt;script&gt;, b&amp;w' in page


def test_small_answers_come_at_once(server):
    "Forty milliseconds a request would mean that the system waits for more to send"
    with requests.Session() as s:
        s.get(f'{server.url}/healthz')
        start = time.monotonic()
        for _ in range(20): s.get(f'{server.url}/healthz')
        assert time.monotonic() - start < .6


def test_serving_needs_no_training_code(tmp_path):
    heavy = "('numpy', 'PIL', 'starlette', 'uvicorn', 'torch', 'fastai', 'gradio', 'fastapi', 'onnxruntime', 'pandas', 'matplotlib')"
    code = f"""import sys, threading, time, urllib.request
import topdown.serve as serve
print([m for m in {heavy} if m in sys.modules])
from topdown.infer import OnnxModel
app, door = serve.make_app(OnnxModel(sys.argv[1])), serve._listen('127.0.0.1', 0)
server = serve._uvicorn(app)
threading.Thread(target=server.run, kwargs=dict(sockets=[door]), daemon=True).start()
while not server.started: time.sleep(.01)
url = f'http://127.0.0.1:{{door.getsockname()[1]}}/predict'
print(urllib.request.urlopen(url, open(sys.argv[2], 'rb').read()).status)
print([m for m in ('torch', 'fastai', 'gradio', 'fastapi', 'pandas', 'matplotlib', 'fastcore') if m in sys.modules])"""
    (tmp_path/'a.jpg').write_bytes(jpeg())
    command = [sys.executable, '-c', code, str(tiny_model(tmp_path/'m')), str(tmp_path/'a.jpg')]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines() == ['[]', '200', '[]'], done.stderr


# ---- batches and the queue

@pytest.mark.parametrize('workers', [1, 2])
def test_requests_are_grouped_and_each_gets_its_own_answer(workers):
    model = Brightness()
    with serving(make_app(model, workers=workers, max_batch=8)) as url:
        said = at_once(24, lambda i: requests.post(f'{url}/predict', data=jpeg(10*i)).json()['probabilities']['bright'])
    assert np.allclose(said, [10*i/255 for i in range(24)], atol=.01)
    assert sum(model.sizes) == 24 and len(model.sizes) <= 12 and 1 < max(model.sizes) <= 8


def test_a_full_queue_is_said_at_once():
    model = Brightness(pause=.6)
    with serving(make_app(model, max_waiting=4, workers=1)) as url:
        def ask(i):
            start = time.monotonic()
            reply = requests.post(f'{url}/predict', data=jpeg())
            return reply, time.monotonic() - start
        replies = at_once(16, ask)
        health = requests.get(f'{url}/healthz').json()
    refused = [(r, seconds) for r, seconds in replies if r.status_code == 429]
    assert {r.status_code for r, _ in replies} == {200, 429} and 4 <= 16 - len(refused) <= 8
    for r, seconds in refused:
        assert r.headers['retry-after'] == '1' and 'try again in a moment' in r.json()['error']
    assert min(seconds for _, seconds in refused) < .5
    assert (health['answered'], health['refused'], health['waiting']) == (16 - len(refused), len(refused), 0)


def test_photos_that_are_being_decoded_count_too(monkeypatch):
    def slow(*args):
        time.sleep(.4)
        return np.zeros((8, 8, 3), 'uint8')
    monkeypatch.setattr(serve, 'photo_pixels', slow)
    with serving(make_app(Brightness(pause=0), max_waiting=3)) as url:
        statuses = at_once(12, lambda i: requests.post(f'{url}/predict', data=jpeg()).status_code)
    assert statuses.count(200) == 3 and statuses.count(429) == 9


def test_an_error_of_the_model_is_ours_and_does_not_last(caplog):
    model = Brightness(pause=0)
    with serving(make_app(model)) as url:
        model.broken = True
        reply = requests.post(f'{url}/predict', data=jpeg())
        assert reply.status_code == 500 and 'not the photo' in reply.json()['error']
        model.broken = False
        assert requests.post(f'{url}/predict', data=jpeg()).status_code == 200
    assert 'the model fell over' in caplog.text


def test_batcher_by_itself():
    async def scenario():
        calls = []
        def run(x):
            calls.append(len(x))
            time.sleep(.05)
            if x.max() > 50: raise ValueError('too bright')
            return x if x.max() < 40 else x[:1]
        desk = Batcher(run, max_batch=4)
        one = lambda v: asyncio.ensure_future(desk.submit(np.array([v])))
        tasks = [one(i) for i in range(6)]
        await asyncio.sleep(.01)
        tasks[2].cancel() # somebody goes away
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [int(o[0]) for i, o in enumerate(found) if i != 2] == [0, 1, 3, 4, 5] and isinstance(found[2], asyncio.CancelledError)
        found = await asyncio.gather(one(1), one(60), one(61), return_exceptions=True) # an error goes to its group, and no further
        assert int(found[0][0]) == 1 and [str(o) for o in found[1:]] == ['too bright']*2
        found = await asyncio.gather(one(1), one(40), one(41), return_exceptions=True)
        assert '1 rows for 2 inputs' in str(found[1])
        last = [one(1), one(2)]
        await asyncio.sleep(0)
        last[1].cancel()
        await desk.close()
        assert int(last[0].result()[0]) == 1 and sum(desk.sizes[n]*n for n in desk.sizes) == sum(calls)
        with pytest.raises(Busy): await desk.submit(np.array([1]))
    asyncio.run(scenario())


# ---- what visitors send

def raw(server, request, patience=20):
    "Send some bytes and read the reply, while the connection stays open"
    with socket.create_connection(('127.0.0.1', server.port), timeout=patience) as s:
        s.sendall(request)
        return hostile.reply(s, patience)


def test_too_large_is_refused_before_it_is_read(server):
    start = time.monotonic()
    status, head, content = raw(server, b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 200000000\r\n\r\n' + bytes(1000))
    assert status == 413 and head['connection'] == 'close' and b'at most 10 MB' in content and time.monotonic() - start < 1.5
    chunked = b'POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n9fffff\r\n'
    status, head, content = raw(server, chunked + bytes(0x9fffff))
    assert status == 413 and head['connection'] == 'close'
    assert max(line['bytes'] for line in server.requests()) <= 10_000_000 + (1 << 20)


@pytest.mark.parametrize('kw', [dict(data=bytes(30_000_000)), dict(files={'file': bytes(30_000_000)}), dict(data=iter([bytes(10**6)]*30))])
def test_who_sends_too_much_still_reads_the_reason(server, kw):
    reply = server.post(**kw)
    assert reply.status_code == 413 and 'too large' in reply.json()['error']


def test_who_reads_only_after_sending_everything_gets_the_reason(server):
    "Python's own client and browsers give up if the server hangs up while they are sending"
    client = HTTPConnection('127.0.0.1', server.port, timeout=20)
    client.request('POST', '/predict', bytes(25_000_000))
    assert client.getresponse().status == 413
    client.close()


def test_200_megabytes_are_not_held(server):
    server.post(data=jpeg())
    before = server.rss()
    status, message, _ = hostile.send(server.port, hostile.Upload('huge', b'', huge=hostile.HUGE,
                                      raw=b'POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n'))
    assert status == 413 and server.rss() - before < 60


def test_endless_head_is_not_held(server):
    before = server.rss()
    with socket.create_connection(('127.0.0.1', server.port), timeout=10) as s:
        with pytest.raises(OSError):
            s.sendall(b'POST /predict HTTP/1.1\r\n')
            for _ in range(2000): s.sendall(b'a: b\r\n'*10_000)
    assert server.rss() - before < 60 and server.up()


def test_uploads_that_are_held_together_are_limited():
    app = make_app(Brightness(), max_bytes=10_000_000, seconds=5)
    app.state.desk.max_held = 3_000_000
    with serving(app) as url:
        port = int(url.rpartition(':')[2])
        head = b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n'
        with socket.create_connection(('127.0.0.1', port)) as first, socket.create_connection(('127.0.0.1', port)) as second:
            first.sendall(head + bytes(1_900_000))
            end = time.monotonic() + 5
            while app.state.desk.held < 1_900_000 and time.monotonic() < end: time.sleep(.01)
            second.sendall(head + bytes(1_900_000))
            status, headers, content = hostile.reply(second, 10)
            assert status == 429 and 'retry-after' in headers and b'too many large photos' in content
            first.sendall(bytes(100_000))
            assert hostile.reply(first, 10)[0] == 400 # zeros are no photo; but it was let in
        while app.state.desk.held: assert time.monotonic() < end + 10; time.sleep(.01)


def test_slow_visitor(tmp_path):
    with serving(make_app(Brightness(), seconds=.4)) as url:
        with socket.create_connection(('127.0.0.1', int(url.rpartition(':')[2]))) as s:
            s.sendall(b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc')
            start = time.monotonic()
            status, head, content = hostile.reply(s, 10)
            assert status == 408 and head['connection'] == 'close' and b'within 0.4 seconds' in content
            assert .3 < time.monotonic() - start < 2


def test_connections_that_ask_nothing_are_closed(tmp_path):
    with serving(make_app(Brightness(pause=1.5), seconds=.6)) as url:
        port = int(url.rpartition(':')[2])
        def connect(): return socket.create_connection(('127.0.0.1', port), timeout=5)
        with connect() as silent, connect() as half:
            half.sendall(hostile.as_request(hostile.Upload('nothing', b'')))
            assert hostile.reply(half)[0] == 400
            half.sendall(b'POST /predict HTTP/1.1\r\nHo')
            assert requests.post(f'{url}/predict', data=jpeg()).ok, 'a slow answer is no silence'
            assert silent.recv(10) == b'' and half.recv(10) == b''


BAD = {'empty': b'', 'text': b'not a photo', 'cut': jpeg()[:400], 'svg': hostile.other_files()[0], 'pdf': hostile.other_files()[2],
       'png bomb': hostile.png(60_000, 60_000, hostile.bomb(10)),
       'zip bomb': hostile.png(9, 9, b'', hostile.chunk(b'zTXt', b'n\0\0' + hostile.bomb(200))),
       'pickle': hostile.other_files()[7], 'tiff': hostile.saved(Image.new('RGB', (9, 9)), 'TIFF')}


@pytest.mark.parametrize('name', BAD)
def test_what_is_no_photo_gets_a_plain_sentence(server, name):
    for kw in (dict(data=BAD[name]), dict(files={'file': BAD[name]})):
        reply = server.post(**kw)
        assert reply.status_code == 400
        why = reply.json()['error']
        assert 10 < len(why) < 200 and 'Traceback' not in why and '<' not in why and 'this image' not in why, why
    assert server.rss() < 700


def test_a_photo_that_is_something_else_too(server):
    for tail in (hostile.SCRIPT, b'<?php system($_GET[0]); ?>', b'PK\x03\x04'):
        assert server.post(data=jpeg() + tail).json()['answer'] == 'bird'


@pytest.mark.parametrize('name', hostile.NAMES, ids=range(len(hostile.NAMES)))
def test_what_a_file_was_called_does_not_matter(server, name):
    u = hostile.form_upload('bad name', hostile.form(jpeg(), name.encode('utf-8')))
    assert hostile.send(server.port, u)[0] == 200 or '\r' in name
    work = server.log_file.parent
    assert sorted(p.name for p in work.iterdir()) == sorted({server.log_file.name, 'model'}), 'a file was written'
    text = server.log_file.read_text(encoding='utf-8')
    assert not [part for part in ('passwd', 'win.ini', 'reboot', 'gpj', 'Evil', 'xxxxx') if part in text]


def test_forms_that_break_the_rules(server):
    good, form = hostile.form(jpeg()), 'multipart/form-data; boundary=edge'
    for body, kind, why in ((good, 'multipart/form-data', 'no boundary'), (good, 'multipart/form-data; boundary=other', 'ends too early'),
                            (good[:-12], form, 'ends too early'), (b'--edge\r\n'*50, form, 'more than 16 fields'),
                            (hostile.form(jpeg(), field=b'photo'), form, 'no field named file'),
                            (hostile.form(b''), form, 'field file is empty'),
                            (b'--edge\r\nX: ' + b'y'*20_000 + good[6:], form, 'no proper head')):
        reply = server.post(data=body, headers={'Content-Type': kind})
        assert reply.status_code == 400 and why in reply.json()['error'], (why, reply.text)


def test_very_large_pictures_wait_in_single_file_and_do_not_hold_up_the_others(server):
    picture = hostile.saved(Image.new('RGBA', (4000, 4000), (9, 9, 9, 9)), 'PNG')
    with ThreadPoolExecutor(12) as pool:
        large = [pool.submit(server.post, data=picture) for _ in range(8)]
        time.sleep(.2)
        start = time.monotonic()
        assert server.post(data=jpeg()).status_code == 200
        seconds = time.monotonic() - start
        statuses = [f.result().status_code for f in large]
    assert set(statuses) == {200, 429} and statuses.count(200) >= 4
    assert seconds < 5


@pytest.mark.skipif(sys.platform != 'linux', reason='other systems keep or return memory in their own ways')
def test_memory_of_a_large_picture_goes_back_to_the_system(server):
    picture = hostile.saved(Image.new('RGBA', (5000, 5000), (9, 9, 9, 9)), 'WEBP', lossless=True, method=0)
    before = server.rss()
    assert server.post(data=picture).status_code == 200 and server.rss() - before < 60


def test_visitor_who_hangs_up_half_way(server):
    n, head = len(server.requests()), b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n'
    for _ in range(5):
        with socket.create_connection(('127.0.0.1', server.port)) as s: s.sendall(head + jpeg()[:300])
    end = time.monotonic() + 10
    while len(server.requests()) < n + 5: assert time.monotonic() < end; time.sleep(.05)
    assert [line['status'] for line in server.requests()[n:]] == [499]*5 and server.health()['waiting'] == 0


def test_visitor_who_leaves_while_waiting():
    model = Brightness(pause=.3)
    with serving(make_app(model, workers=1)) as url:
        request = hostile.as_request(hostile.Upload('whole', jpeg()))
        for _ in range(3):
            with socket.create_connection(('127.0.0.1', int(url.rpartition(':')[2]))) as s: s.sendall(request)
        assert requests.post(f'{url}/predict', data=jpeg()).status_code == 200
        assert requests.get(f'{url}/healthz').json()['waiting'] == 0


def test_log_is_json_and_knows_no_visitors(server):
    time.sleep(.3) # a line is written just after its reply is sent
    n = len(server.lines())
    server.post(files={'file': ('grandmother.jpg', jpeg())}, headers={'User-Agent': 'Nosy/1.0', 'Referer': 'http://secret.example'})
    server.post(data=b'nothing', headers={'X-Forwarded-For': '203.0.113.9'})
    requests.get(f'{server.url}/grandmother.jpg?token=secret')
    time.sleep(.3)
    good, bad, other = server.lines()[n:]
    assert [good[k] for k in ('level', 'method', 'path', 'status', 'batch')] == ['info', 'POST', '/predict', 200, 1]
    assert good['bytes'] > 500 and good['ms'] > 0 and good['time'].endswith('+00:00')
    assert (bad['status'], bad['batch'], other['path'], other['status']) == (400, 0, '(other)', 404)
    text = server.log_file.read_text(encoding='utf-8')
    assert not [part for part in ('grandmother', 'Nosy', 'secret', '203.0.113.9', '127.0.0.1') if part in text]


def test_a_new_kind_of_damage_is_the_visitors_and_is_logged(monkeypatch, caplog):
    def stumble(*args): raise ZeroDivisionError('deep inside')
    monkeypatch.setattr(serve, 'photo_pixels', stumble)
    with serving(make_app(Brightness())) as url: reply = requests.post(f'{url}/predict', data=jpeg())
    assert reply.status_code == 400 and reply.json()['error'] == 'damaged image (ZeroDivisionError)'
    assert any(r.levelno == logging.WARNING and r.exc_info for r in caplog.records)


def test_no_memory_for_a_picture(monkeypatch):
    def full(*args): raise MemoryError
    monkeypatch.setattr(serve, 'photo_pixels', full)
    with serving(make_app(Brightness())) as url: assert requests.post(f'{url}/predict', data=jpeg()).status_code == 413


# ---- the inner door

def test_predict_from_threads_goes_through_the_same_queue(tmp_path):
    model, photo = Brightness(), tmp_path/'a.jpg'
    photo.write_bytes(jpeg())
    app = make_app(model, workers=1, max_bytes=100_000)
    with pytest.raises(CourseError, match='does not run'): app.state.predict(jpeg())
    with serving(app):
        said = at_once(12, lambda i: app.state.predict(jpeg(20*i) if i else photo))
        assert np.allclose([s['probabilities']['bright'] for s in said], [1, *(20*i/255 for i in range(1, 12))], atol=.01)
        assert max(model.sizes) > 1
        with pytest.raises(BrokenPhoto) as e: app.state.predict(b'nothing')
        assert 'not an image' in e.value.why
        with pytest.raises(CourseError, match='no such photo'): app.state.predict(tmp_path/'missing.jpg')
        photo.write_bytes(bytes(100_001))
        with pytest.raises(CourseError, match='at most 0.1 MB'): app.state.predict(str(photo))
        async def from_the_loop():
            with pytest.raises(CourseError, match='await app.state.answer'): app.state.predict(jpeg())
            return await app.state.answer(jpeg())
        assert asyncio.run_coroutine_threadsafe(from_the_loop(), app.state.desk.loop).result(10)['answer'] == 'bright'
    with pytest.raises(CourseError, match='does not run'): app.state.predict(jpeg())


def test_full_queue_at_the_inner_door():
    app = make_app(Brightness(.5), max_waiting=2, workers=1)
    with serving(app):
        def ask(i):
            try: return app.state.predict(jpeg())['answer']
            except Busy: return 'busy'
        assert sorted(set(at_once(8, ask))) == ['bright', 'busy']


# ---- ports and stopping

def test_taken_port_gives_the_next_one():
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        assert port < free_port(port) <= port + 100
        with pytest.raises(CourseError, match=rf'port {port} .* free_port\({port}\)'): run_server(make_app(Brightness()), port=port)
    assert free_port(port) == port and free_port(0) > 0
    for bad in (-1, 65_536):
        with pytest.raises(CourseError, match='1 to 65535'): free_port(bad)
    with pytest.raises(CourseError, match='no address of this machine'): free_port(8000, 'no.such.host.invalid')
    with pytest.raises(CourseError, match='can be used at 203.0.113.1'): free_port(8000, '203.0.113.1')


def test_accepted_connections_send_small_answers_at_once():
    with serve._listen('127.0.0.1', 0) as s: assert s.proto == socket.IPPROTO_TCP # where it is 0, asyncio leaves Nagle's algorithm on


@posix
def test_stop_under_load_loses_nothing(tmp_path):
    server = Process(tmp_path, pause=.03)
    stop, done, failed = threading.Event(), [], []
    def visitor(i):
        while not stop.is_set():
            try: done.append(server.post(data=jpeg(10*i), headers={'Connection': 'close'} if i % 2 else {}))
            except requests.ConnectionError: failed.append(time.monotonic()); return
    with ThreadPoolExecutor(16) as visitors:
        for i in range(16): visitors.submit(visitor, i)
        time.sleep(1)
        asked = time.monotonic()
        code = server.stop()
        seconds = time.monotonic() - asked
        stop.set()
    assert code == 0 and seconds < 5 and len(done) > 50
    assert {r.status_code for r in done} == {200} and all(r.json()['answer'] in ('bird', 'other') for r in done)
    assert not failed or min(failed) > asked, 'somebody was turned away before the stop'
    statuses = [line['status'] for line in server.requests()]
    assert statuses == [200]*len(done), 'all that the server let in were answered, and all answers arrived'


@posix
def test_stop_waits_for_a_photo_that_is_on_its_way(tmp_path):
    server = Process(tmp_path, seconds=10)
    request = hostile.as_request(hostile.Upload('whole', jpeg()))
    with socket.create_connection(('127.0.0.1', server.port)) as s, socket.create_connection(('127.0.0.1', server.port)) as idle:
        s.sendall(request[:300])
        time.sleep(.2)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(.05)
        said = requests.get(f'{server.url}/healthz')
        assert (said.status_code, said.json()['status'], said.headers['connection']) == (503, 'stopping', 'close')
        time.sleep(.8)
        with pytest.raises(requests.ConnectionError): server.health()
        s.sendall(request[300:])
        status, head, content = hostile.reply(s, 10)
        assert status == 200 and json.loads(content)['answer'] == 'bird' and head['connection'] == 'close'
        assert idle.recv(10) == b''
    assert server.process.wait(10) == 0


@posix
def test_ctrl_c_is_a_polite_end_too(tmp_path):
    server = Process(tmp_path)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(10) == 0 and 'Traceback' not in server.log_file.read_text()


def test_stop_ends_the_streams_of_what_is_mounted(caplog):
    from starlette.applications import Starlette
    from starlette.responses import StreamingResponse
    from starlette.routing import Route
    async def ticks():
        while True: yield b'tick\n'; await asyncio.sleep(.1)
    async def stream(request): return StreamingResponse(ticks())
    app = make_app(Brightness(), page=False)
    app.mount('/', Starlette(routes=[Route('/stream', stream)]))
    with serving(app) as url:
        reply = requests.get(f'{url}/stream', stream=True)
        lines = reply.iter_lines()
        assert next(lines) == b'tick'
        assert requests.get(f'{url}/predict').status_code == 405 and requests.post(f'{url}/predict', data=jpeg()).ok
        start = time.monotonic()
    assert time.monotonic() - start < 5 and set(lines) <= {b'tick'} and 'Exception' not in caplog.text


def test_gradio_can_be_mounted(tmp_path, monkeypatch):
    monkeypatch.setenv('GRADIO_ANALYTICS_ENABLED', 'False')
    try:
        import gradio
        from gradio_client import Client, handle_file
        if int(gradio.__version__.split('.')[0]) < 6: raise ImportError
    except ImportError: lacking('gradio 6')
    app = make_app(OnnxModel(tiny_model(tmp_path)), page=False)
    with gradio.Blocks() as demo:
        photo, label = gradio.Image(type='filepath'), gradio.Textbox()
        gradio.Button().click(lambda path: app.state.predict(path)['answer'], photo, label, api_name='say')
    app = gradio.mount_gradio_app(app, demo, path='/')
    (tmp_path/'white.jpg').write_bytes(jpeg())
    with serving(app) as url:
        assert 'gradio' in requests.get(url).text.lower() and requests.post(f'{url}/predict', data=jpeg()).json()['answer'] == 'bird'
        assert Client(url, verbose=False).predict(handle_file(tmp_path/'white.jpg'), api_name='/say') == 'bird'
        assert requests.get(f'{url}/healthz').json()['answered'] == 2


# ---- everything at once

def test_three_hundred_hostile_uploads(server):
    "The long form is benchmarks/fuzz.py"
    before = server.health()['answered']
    def go(u):
        status, message, seconds = hostile.send(server.port, u, patience=30)
        return u, status, message, hostile.wrong(u, status)
    with ThreadPoolExecutor(8) as pool: found = list(pool.map(go, hostile.uploads(308, seed=5, rare=0)))
    assert not [f for f in found if f[3]], 'a wrong status'
    assert all(10 < len(message) < 300 for _, status, message, _ in found if status >= 400)
    assert server.up() and server.health()['waiting'] == 0 and server.health()['answered'] >= before + 28
    assert not [line for line in server.lines() if line['level'] == 'error' or line.get('status', 0) >= 500]
    assert server.rss() < 1500
