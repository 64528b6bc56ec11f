"""What all tests share: a home folder of their own, and a small course to run commands on"""
import os
import signal
import subprocess
import sys

import nbformat
import pytest
from loopback import Server
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from topdown import fetch

SETTINGS = """[course]
title = Tiny
subtitle = A course of two small lessons
repository = https://github.com/someone/tiny
branch = main
tracks = sample, real, full

[lesson 00]
name = 00_small
title = Small
minutes_sample = 1
minutes_real = 1
memory_gb = 0.1

[lesson 01]
name = 01_smaller
title = Smaller
minutes_sample = 2
minutes_real = 4
memory_gb = 0.1
"""


def lacking(what):
    "What a test needs and the machine lacks: a visible skip for a learner, a failure in CI"
    if os.environ.get('CI'): pytest.fail(f'CI lacks {what}')
    pytest.skip(f'{what} is missing here')


@pytest.fixture(autouse=True, scope='session')
def signals_are_heard():
    "A job that a shell started in the background ignores SIGINT, one of nohup SIGHUP, and so would every program that a test starts"
    for name, usual in (('SIGINT', signal.default_int_handler), ('SIGHUP', signal.SIG_DFL)):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is signal.SIG_IGN: signal.signal(number, usual)


@pytest.fixture(autouse=True, scope='session')
def own_home(tmp_path_factory):
    "Every test writes into a home folder of its own"
    os.environ['TOPDOWN_HOME'] = str(tmp_path_factory.mktemp('home'))


@pytest.fixture(scope='module')
def one_thread():
    "For small models and tables: a second thread would only wait for the first"
    import torch
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def sample_track(request, monkeypatch):
    "Tests run on the sample track, except those marked `real`"
    if request.node.get_closest_marker('real'): return
    for name in ('TOPDOWN_DATA', 'TOPDOWN_TRACK', 'TOPDOWN_RUN_ID'): monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path, monkeypatch):
    "A new, empty home folder for one test"
    monkeypatch.setenv('TOPDOWN_HOME', str(tmp_path/'home'))
    return tmp_path/'home'


@pytest.fixture
def server(monkeypatch):
    "A file server on loopback, and short waits between attempts"
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    monkeypatch.setattr(fetch, '_waits', (.01, .02, .03))
    s = Server()
    yield s
    s.stop()


def notebook(*cells):
    "A notebook: strings that begin with '# ' become text, the others code"
    return new_notebook(cells=[new_markdown_cell(o) if o.startswith('# ') else new_code_cell(o) for o in cells])


def write(path, *cells):
    "Write such a notebook and return its path"
    nbformat.write(notebook(*cells), path)
    return path


class TinyCourse:
    "A course folder with two lessons, and the command `topdown` on it"

    def __init__(self, root):
        self.root = root
        (root/'nbs').mkdir(parents=True)
        (root/'settings.ini').write_text(SETTINGS, encoding='utf-8')
        (root/'pyproject.toml').write_text('', encoding='utf-8')
        self.lesson('00_small', '# Small', 'print("hello")')
        self.lesson('01_smaller', '# Smaller', '1 + 1')

    def lesson(self, name, *cells): return write(self.root/'nbs'/f'{name}.ipynb', *cells)

    def start(self, *args, **kw):
        "Start `topdown args` in a process of its own"
        code = f'from pathlib import Path; import topdown.settings as s; s.course_root = lambda: Path({str(self.root)!r})\n'
        code += f'from topdown.cli import main; main({list(map(str, args))!r})'
        kw = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding='utf-8') | kw
        return subprocess.Popen([sys.executable, '-c', code], **kw)

    def call(self, *args, **kw):
        "Run `topdown args` to its end: exit code, stdout, stderr"
        process = self.start(*args, **kw)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture
def tiny(tmp_path, home):
    "A tiny course with a home folder of its own"
    return TinyCourse(tmp_path/'tiny course')
