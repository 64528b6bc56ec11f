"""The static page: its size, its first answer, and whether PyTorch, ONNX Runtime and the browser agree

python benchmarks/page.py [--runs 3] [--data FOLDER]

Builds both apps from lesson 2's model and opens the page in headless Chromium. The package onnxruntime-web must lie in .venv (`make test` puts it there).
"""
import gzip
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import heading, options, spread, verdict

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'tests'))


def sizes(folder):
    "Bytes of a folder on disk, and as a web server with gzip sends them"
    files = [f.read_bytes() for f in folder.rglob('*') if f.is_file()]
    return sum(map(len, files)), sum(len(gzip.compress(f, 6)) for f in files)


def visit(folder, photo):
    "Seconds until the page is ready, and milliseconds of the first and of later answers"
    from pages import answers_in_browser, opened
    start = time.perf_counter()
    with opened(folder) as tab:
        ready = time.perf_counter() - start
        ms = []
        for _ in range(6):
            answers_in_browser(tab, [photo])
            ms.append(tab.evaluate('topdown.ms'))
    return ready, ms[0], statistics.median(ms[1:])


def main():
    args = options(__doc__.splitlines()[0], 3)
    from agreement import agree
    from topdown.data import get
    from topdown.publish import lesson_model
    heading('The static page', 'topdown-course', 'torch', 'onnxruntime', 'playwright')
    folder, birds = lesson_model('2'), get('birds')
    with tempfile.TemporaryDirectory() as d:
        far, changed = agree(folder, birds.files, Path(d))
        print(f'{len(birds.files)} photos; largest difference in probability from PyTorch, and answers that differ:')
        for k, v in far.items(): print(f'  {k:<15} {v:.1e}  {changed[k]}')
        page = Path(d)/'app'/'page'
        disk, sent = sizes(page)
        print(f'page: {disk/1e6:.2f} MB on disk, {sent/1e6:.2f} MB with gzip')
        seen = [visit(page, birds.files[0]) for _ in range(args.runs)]
    for name, values in zip(('seconds until ready (browser started anew)', 'first answer, ms', 'later answers, ms'), zip(*seen)): print(f'{name}: {spread(values, 1)}')
    track = birds.track
    verdict('02', 'onnx_difference', track, max(far['onnx'], far['browser']))
    verdict('02', 'bytes_difference', track, max(far['onnx, bytes'], far['browser, bytes']))
    verdict('02', 'page_difference', track, far['page'])
    verdict('02', 'page_changed_answers', track, changed['page'])
    verdict('02', 'page_mb', track, disk/1e6)
    verdict('02', 'page_gzip_mb', track, sent/1e6)
    verdict('02', 'first_answer_seconds', track, statistics.median(o[1] for o in seen)/1000)


if __name__ == '__main__': main()
