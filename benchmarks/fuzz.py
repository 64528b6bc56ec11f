"""Ten thousand damaged and hostile uploads against a server process on this machine: no crash, no hang, no status over 499, bounded memory

python benchmarks/fuzz.py [--n 10000] [--clients 16] [--seed 0] [--minutes 20] [--megabytes 2000] [--show 40]

The uploads come from tests/hostile.py; the same seed gives the same ones. The exit code is 1 if anything went wrong.
"""
import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

from common import heading

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'tests'))
import hostile

PROGRAM = """import sys
from topdown.infer import OnnxModel, tiny_model
from topdown.serve import make_app, run_server
run_server(make_app(OnnxModel(tiny_model(sys.argv[1])), seconds=5), port=int(sys.argv[2]))"""


def options():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--n', type=int, default=10_000, help='how many uploads')
    p.add_argument('--clients', type=int, default=16, help='how many connections at the same time')
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--minutes', type=float, default=20, help='stop after so many, which counts as a failure')
    p.add_argument('--megabytes', type=float, default=2000, help='what the server may use at most')
    p.add_argument('--show', type=int, default=40, help='how many of the messages to print')
    return p.parse_args()


def start(folder):
    "A server process: process, port, log file"
    from topdown.serve import free_port
    port, log = free_port(8700), Path(folder)/'log.txt'
    command = [sys.executable, '-c', PROGRAM, str(Path(folder)/'model'), str(port)]
    with open(log, 'w') as f: process = subprocess.Popen(command, stderr=f, cwd=folder)
    whole = next(u for u in hostile.uploads(1))
    for _ in range(300):
        try: hostile.send(port, whole); return process, port, log
        except OSError: time.sleep(.1)
    process.kill()
    raise SystemExit(f'the server did not start: {log.read_text()}')


class Watch(threading.Thread):
    "Looks at the server's memory, fifty times a second"
    def __init__(self, pid):
        import psutil
        super().__init__(daemon=True)
        self.process, self.peak, self.now = psutil.Process(pid), 0, 0
        self.start()

    def run(self):
        import psutil
        while True:
            try: self.now = self.process.memory_info().rss/1e6
            except psutil.Error: return
            self.peak = max(self.peak, self.now)
            time.sleep(.02)


def attack(port, args, end):
    "Send all uploads over so many connections at a time; what came back, and what went wrong"
    todo, turn, found, wrong = hostile.uploads(args.n, args.seed), threading.Lock(), [], []
    def client():
        while time.monotonic() < end:
            with turn: u = next(todo, None)
            if u is None: return
            try: status, message, seconds = hostile.send(port, u)
            except TimeoutError: status, message, seconds = 0, 'HANGS', 60
            except OSError as e: status, message, seconds = 0, f'NO CONNECTION ({type(e).__name__})', 0
            why = hostile.wrong(u, status)
            with turn:
                found.append((u.kind, status, message, seconds))
                if why: wrong.append(f'{why}: {message}; {hostile.as_request(u)[:80]!r}')
    clients = [threading.Thread(target=client) for _ in range(args.clients)]
    for c in clients: c.start()
    for c in clients: c.join()
    return found, wrong


def log_faults(log):
    "What should not be in the server's log"
    faults = []
    for line in log.read_text(encoding='utf-8').splitlines():
        try: said = json.loads(line)
        except ValueError: faults.append(f'a line of the log is no JSON: {line[:200]}'); continue
        if said['level'] == 'error' or said.get('status', 0) >= 500: faults.append(f'in the log: {line[:300]}')
        if re.search('passwd|win.ini|reboot|shadow|127\\.0\\.0\\.1', line): faults.append(f'the log knows too much: {line[:300]}')
    return faults


def report(found, show):
    kinds = defaultdict(list)
    for kind, status, _, seconds in found: kinds[kind].append((status, seconds))
    statuses = sorted({status for _, status, _, _ in found})
    print(f'{"kind":<20}{"uploads":>8}' + ''.join(f'{s or "none":>7}' for s in statuses) + '   slowest')
    for kind, of in sorted(kinds.items()):
        counts = Counter(s for s, _ in of)
        print(f'{kind:<20}{len(of):>8}' + ''.join(f'{counts[s] or "":>7}' for s in statuses) + f'{max(t for _, t in of):>8.2f} s')
    counts = Counter(status for _, status, _, _ in found)
    print(f'{"all":<20}{len(found):>8}' + ''.join(f'{counts[s]:>7}' for s in statuses) + f'{max(t for *_, t in found):>8.2f} s')
    def plain(message): return ' '.join(re.sub(r'\d[\d,]*', 'N', re.sub(r"b'.*'", '…', message)).split())
    alike = Counter((status, plain(message)) for _, status, message, _ in found)
    print(f'{len(alike)} messages, numbers apart' + f'; the {show} most frequent:'*(len(alike) > show))
    for (status, message), n in alike.most_common(show): print(f'{n:>8}  {status or "none"}  {message}')


def main():
    args = options()
    heading('Hostile uploads', 'topdown-course', 'pillow', 'starlette', 'uvicorn', 'h11')
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process, port, log = start(folder)
        try:
            watch, begin = Watch(process.pid), time.monotonic()
            time.sleep(.2)
            first = watch.now
            found, wrong = attack(port, args, begin + 60*args.minutes)
            seconds = time.monotonic() - begin
            report(found, args.show)
            alive = process.poll() is None and hostile.send(port, next(hostile.uploads(1)))[0] == 200
            print(f'{len(found):,} uploads in {seconds:.0f} s over {args.clients} connections, seed {args.seed}; '
                  f'memory {first:.0f} MB at first, {watch.now:.0f} MB at the end, {watch.peak:.0f} MB at most')
            process.terminate()
            code = process.wait(60)
        finally: process.kill()
        wrong += log_faults(log)
        here = sorted(p.name for p in Path(folder).iterdir())
        if here != ['log.txt', 'model']: wrong.append(f'files were written: {here}')
    if len(found) < args.n: wrong.append(f'only {len(found):,} of {args.n:,} uploads were sent within {args.minutes:g} minutes')
    if not alive: wrong.append('at the end, the server did not answer a photo')
    if code not in (0, 1 if sys.platform == 'win32' else 0): wrong.append(f'the server ended with the exit code {code}')
    if watch.peak > args.megabytes: wrong.append(f'{watch.peak:.0f} MB of memory, over {args.megabytes:.0f}')
    print(f'crashes, hangs, statuses over 499, other faults: {len(wrong)}')
    for line in wrong[:20]: print(f'  {line}')
    sys.exit(bool(wrong))


if __name__ == '__main__': main()
