"""Lesson 2's predictions: one at a time against fastai's `learn.predict`, then a server with one client and with 32, then Gradio's queue

python benchmarks/serve.py [--runs 5] [--data FOLDER]

One model is trained, on the real track MobileNetV2 at 192 pixels, on the sample track the course's small body at 128. Everything below
uses it, and the validation photos. The clients are a process of their own (load.py), which shares the machine's cores with the server.
"""
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import heading, options, spread, verdict

CLIENTS, REQUESTS, BY_GRADIO = 32, 1000, 200
BLOCK = 25 # photos that one way gets in a row
SERVER = """import sys
from topdown.infer import OnnxModel
from topdown.serve import make_app, run_server
run_server(make_app(OnnxModel(sys.argv[1], threads=int(sys.argv[2]))), port=int(sys.argv[3]))"""
THREADS = {'one thread a call': 1, 'two threads a call': 2}
SHIPPED = 'one thread a call' # as apps/bird/app.py serves it


def train(folder):
    "Train a model and save it, also as ONNX"
    import numpy as np

    from topdown.app import export_onnx, load_model, save_model
    from topdown.core import split
    from topdown.data import get
    from topdown.vision import PhotoClassifier, bird_or_other
    birds = get('birds')
    labels = np.array([bird_or_other(f) for f in birds.files])
    train, valid = split(birds.files)
    classifier = PhotoClassifier().fit([birds.files[i] for i in train], labels[train])
    photos = [birds.files[i] for i in valid]
    save_model(classifier, folder/'saved', birds, {'error_rate': classifier.error_rate(photos, labels[valid]), 'n_valid': len(valid)})
    export_onnx(load_model(folder/'saved'), folder/'onnx')


def trained(folder, birds):
    "The model and the validation photos; trained in a process of its own, because what training leaves behind slows PyTorch down here"
    from multiprocessing import get_context

    from topdown.app import load_model
    from topdown.core import split
    trainer = get_context('spawn').Process(target=train, args=(folder,))
    trainer.start()
    trainer.join()
    if trainer.exitcode: raise SystemExit('training failed')
    return load_model(folder/'saved'), [birds.files[i] for i in split(birds.files)[1]]


# ---- one prediction

def fastai_learner(birds, model):
    "The same body and size as a fastai learner; its head is fastai's own, untrained, which takes as long"
    from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, Resize, vision_learner

    from topdown.vision import bird_or_other, network
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=lambda _: birds.files, get_y=bird_or_other,
                      item_tfms=Resize(model.size, method='squish'))
    return vision_learner(block.dataloaders('.', bs=64, num_workers=0), network(model.manifest['architecture']))


def seconds(f, photo):
    start = time.perf_counter()
    f(photo)
    return time.perf_counter() - start


def one_run(ways, bodies, seed):
    """Milliseconds of each way, the median over all photos

    The ways take turns in blocks, with a pause before each: the threads of PyTorch and of ONNX Runtime wait for more work for a moment,
    on the cores that the next way needs, and would make fastai look slower than it is.
    """
    order, took = random.Random(seed), {name: [] for name in ways}
    for at in range(0, len(bodies), BLOCK):
        for name in order.sample(list(ways), len(ways)):
            time.sleep(.2)
            took[name] += [1000*seconds(ways[name], b) for b in bodies[at:at + BLOCK]]
    return {name: statistics.median(found) for name, found in took.items()}


def one_at_a_time(birds, model, folder, photos, runs):
    "Milliseconds from a photo's bytes to an answer"
    from fastai.vision.all import PILImage

    from topdown.infer import OnnxModel
    learn, bodies = fastai_learner(birds, model), [f.read_bytes() for f in photos[:4*BLOCK]]
    def from_image(b): return learn.predict(PILImage.create(io.BytesIO(b)))
    ways = {'fastai, bytes': learn.predict, 'fastai, PIL image': from_image, 'PyTorch': model.predict}
    ways |= {'ONNX, as it is': OnnxModel(folder/'onnx').predict}
    ways |= {f'ONNX, {name}': OnnxModel(folder/'onnx', threads=n).predict for name, n in THREADS.items()}
    with learn.no_bar(), learn.no_logging():
        for f in ways.values():
            for b in bodies[:10]: f(b)
        found = [one_run(ways, bodies, seed) for seed in range(runs)]
    best = min(('fastai, bytes', 'fastai, PIL image'), key=lambda name: statistics.median(f[name] for f in found))
    print(f'one prediction, {len(bodies)} photos, {runs} runs; the share is of the time of {best}:')
    for name in ways:
        shares = [f[name]/f[best] for f in found]
        print(f'  {name:<25} {spread([f[name] for f in found])} ms, share {spread(shares)}', flush=True)
        if name == 'ONNX, as it is': share = statistics.median(shares)
    return {'predict_time_share': share}


# ---- a server

class Server:
    "A server process"
    def __init__(self, command, folder, health='/healthz'):
        import requests

        from topdown.serve import free_port
        self.port = free_port(8800)
        command = [sys.executable, *command, str(self.port)]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            if self.process.poll() is not None: raise SystemExit('the server did not start')
            try: self.health = requests.get(f'http://127.0.0.1:{self.port}{health}', timeout=5).json(); return
            except requests.RequestException: time.sleep(.1)

    def stop(self):
        self.process.terminate()
        try: return self.process.wait(30)
        finally: self.process.kill()


def load(server, clients, n, photos):
    "Requests a second, and milliseconds of each"
    command = [sys.executable, str(Path(__file__).with_name('load.py')), str(server.port), str(clients), str(n), *map(str, photos)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode: raise SystemExit(done.stderr)
    found = json.loads(done.stdout)
    if found['statuses'] != {'200': n}: raise SystemExit(f'not all of the {n} requests were answered: {found["statuses"]}')
    return n/found['seconds'], found['ms']


def many_at_once(folder, photos, runs):
    "Requests a second with one client and with 32, run by run; from a server with one thread a call, as the app has it, and from one with two"
    servers, speed, ms = {}, {}, {}
    try:
        for name, threads in THREADS.items(): servers[name] = Server(['-c', SERVER, str(folder/'onnx'), str(threads)], folder)
        for s in servers.values(): load(s, CLIENTS, 100, photos)
        arms = [(name, clients) for name in servers for clients in (1, CLIENTS)]
        for run in range(runs):
            for name, clients in random.Random(run).sample(arms, len(arms)):
                found, each = load(servers[name], clients, REQUESTS, photos)
                speed.setdefault((name, clients), []).append(found)
                ms.setdefault((name, clients), []).append(statistics.median(each))
    finally: ended = [s.stop() for s in servers.values()]
    print(f'{REQUESTS:,} requests to /predict, {runs} runs, none failed; exit codes of the servers {ended}')
    for name, clients in arms:
        what = f'{name}, {clients} client{"s"*(clients > 1)}'
        print(f'  {what:<30} {spread(speed[name, clients], 0)} a second, {spread(ms[name, clients], 1)} ms each')
    for name in servers:
        ratios = [b/a for a, b in zip(speed[name, 1], speed[name, CLIENTS])]
        print(f'  {CLIENTS} clients against one, {name}: {spread(ratios)} times')
        if name == SHIPPED: shipped = statistics.median(ratios)
    fastest = max(servers, key=lambda name: statistics.median(speed[name, 1]))
    ratios = [b/a for a, b in zip(speed[fastest, 1], speed[SHIPPED, CLIENTS])]
    print(f'  {CLIENTS} clients, {SHIPPED}, against the fastest way for one client ({fastest}): {spread(ratios)} times', flush=True)
    return {'throughput_ratio': shipped}


# ---- Gradio

def by_gradio(server, photo, i):
    "One visitor of the page: upload a photo, join the queue, wait for the answer"
    import requests
    at, session = f'http://127.0.0.1:{server.port}/gradio_api', f'visitor{i}'
    path = requests.post(f'{at}/upload', files={'files': ('photo.jpg', photo, 'image/jpeg')}).json()[0]
    data = {'path': path, 'meta': {'_type': 'gradio.FileData'}}
    joined = requests.post(f'{at}/queue/join', json={'data': [data], 'fn_index': server.fn, 'session_hash': session})
    joined.raise_for_status()
    with requests.get(f'{at}/queue/data', params={'session_hash': session}, stream=True) as events:
        for line in events.iter_lines():
            said = json.loads(line[6:]) if line.startswith(b'data: ') else {}
            if said.get('msg') == 'process_completed':
                if not said['success'] or not said['output']['data'][0]: raise SystemExit(f'Gradio failed: {said}')
                return


def gradio_queue(folder, model, photos, runs):
    "Visitors a second through the page of the built app"
    from topdown.publish import build
    build(model, folder/'built', network=False)
    server = Server(['app.py', '--port'], folder/'built'/'gradio', '/config')
    server.fn = next(d['id'] for d in server.health['dependencies'] if d.get('api_name') == 'predict')
    bodies, found = [f.read_bytes() for f in photos], {1: [], CLIENTS: []}
    try:
        by_gradio(server, bodies[0], 'first')
        for run in range(runs):
            for clients in random.Random(run).sample([1, CLIENTS], 2):
                start = time.perf_counter()
                with ThreadPoolExecutor(clients) as pool:
                    list(pool.map(lambda i: by_gradio(server, bodies[i % len(bodies)], f'{run}-{clients}-{i}'), range(BY_GRADIO)))
                found[clients].append(BY_GRADIO/(time.perf_counter() - start))
    finally: server.stop()
    print(f'{BY_GRADIO} visitors of the page (upload, queue, answer):')
    for clients, speeds in found.items(): print(f'  {clients:>2} at a time: {spread(speeds, 1)} a second')
    return {}


def used_by_others():
    "Seconds of processor time that went to other programs so far, and the time now"
    import psutil
    t, own = psutil.cpu_times(), os.times()
    return sum(t) - t.idle - getattr(t, 'iowait', 0) - sum(own[:4]), time.monotonic()


def measured(track, f, *args):
    """Run one part, and say what other programs used meanwhile

    They slow down what uses two cores more than what uses one, so that ratios are wrong too, and in either direction. So there is a verdict
    only if the machine was ours.
    """
    before, start = used_by_others()
    found = f(*args)
    after, end = used_by_others()
    cores = max(0, after - before)/(end - start)
    busy = ' (too much for a verdict: run this again when nothing else runs)' if cores > .1 else ''
    print(f'  meanwhile, other programs used {cores:.2f} cores{busy}', flush=True)
    if cores <= .1:
        for metric, value in found.items(): verdict('02', metric, track, value)


def main():
    args = options(__doc__.splitlines()[0], 5)
    from topdown.data import get
    heading('Predictions and a server for them', 'topdown-course', 'fastai', 'torch', 'onnxruntime', 'starlette', 'uvicorn', 'gradio')
    birds = get('birds')
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        model, photos = trained(Path(folder), birds)
        measured(birds.track, one_at_a_time, birds, model, Path(folder), photos, args.runs)
        measured(birds.track, many_at_once, Path(folder), photos, args.runs)
        measured(birds.track, gradio_queue, Path(folder), model, photos, args.runs)


if __name__ == '__main__': main()
