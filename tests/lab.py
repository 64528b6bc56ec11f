"""A JupyterLab server on loopback over a folder of notebooks, for tests in a browser"""
import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
from nbformat.v4 import new_code_cell, new_notebook


def write_notebook(path, *cells):
    "A notebook of code cells that opens with the kernel of this Python"
    kernel = {'kernelspec': {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}}
    nbformat.write(new_notebook(cells=[new_code_cell(c) for c in cells], metadata=kernel), path)


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def wait_until_it_answers(server, address, log):
    for _ in range(240):
        try: return urllib.request.urlopen(f'{address}/api/status', timeout=2)
        except OSError:
            assert server.poll() is None, log.read_text(encoding='utf-8')
            time.sleep(0.5)
    raise AssertionError(f'JupyterLab did not answer: {log.read_text(encoding="utf-8")[-2000:]}')


@contextlib.contextmanager
def lab_over(folder):
    "JupyterLab over a folder; its address"
    port, log = free_port(), folder/'.log'
    command = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}', '--ServerApp.port_retries=0',
               '--IdentityProvider.token=', f'--ServerApp.root_dir={folder}', '--LabApp.news_url=', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate']
    env = os.environ | {'JUPYTER_CONFIG_DIR': str(folder/'.config'), 'JUPYTER_DATA_DIR': str(folder/'.data'), 'JUPYTER_RUNTIME_DIR': str(folder/'.run')}
    with open(log, 'wb') as out: server = subprocess.Popen(command, env=env, stdout=out, stderr=out)
    try:
        wait_until_it_answers(server, f'http://127.0.0.1:{port}', log)
        yield f'http://127.0.0.1:{port}'
    finally:
        server.terminate()
        try: server.wait(20)
        except subprocess.TimeoutExpired: server.kill()
