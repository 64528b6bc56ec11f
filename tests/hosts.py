"""Imitations of Colab, Kaggle and Paperspace: their marks, their folders at their real places, and what Colab has installed

A host's folder, such as /content, is made in a mount namespace of its own, so the machine itself keeps no trace of it.
"""
import dataclasses
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
MARKS = {'colab': {'COLAB_RELEASE_TAG': 'release-colab', 'COLAB_GPU': ''}, 'kaggle': {'KAGGLE_KERNEL_RUN_TYPE': 'Interactive'},
         'paperspace': {'PAPERSPACE_FQDN': 'n0.clg07azjl.paperspacegradient.com', 'PAPERSPACE_NOTEBOOK_REPO_ID': 'r0'}}
COLAB = ['torch', 'torchvision', 'fastai', 'ipython', 'ipykernel', 'ipywidgets', 'numpy', 'pandas', 'matplotlib', 'scikit-learn', 'pillow', 'requests', 'psutil',
         'rich', 'typer', 'platformdirs', 'safetensors', 'pooch', 'pyarrow', 'openpyxl', 'numba', 'lightgbm', 'transformers', 'tokenizers', 'gradio', 'nbformat',
         'nbclient', 'setuptools']
OLDER = {'torch': '2.11.0+cu128', 'torchvision': '0.26.0+cu128', 'pandas': '2.2.2', 'openpyxl': '3.1.2'}
FOLDERS = {'colab': '/content', 'kaggle': '/kaggle/working', 'paperspace': '/notebooks'}

# Inside a mount namespace: a root that shows this machine's folders and, beside them, the host's own.
INSIDE = '''set -e
mount -t tmpfs host "$NEW_ROOT"
for d in /*; do
    if [ -L "$d" ]; then cp -a "$d" "$NEW_ROOT$d"
    elif [ -d "$d" ]; then mkdir "$NEW_ROOT$d"; mount --rbind "$d" "$NEW_ROOT$d"; fi
done
mkdir -p "$NEW_ROOT$HERE"
if [ -n "$INPUT" ]; then
    mkdir -p "$NEW_ROOT/kaggle/input/photos"
    mount --bind "$INPUT" "$NEW_ROOT/kaggle/input/photos"
    mount -o remount,bind,ro "$NEW_ROOT/kaggle/input/photos"
fi
exec chroot "$NEW_ROOT" sh -c 'cd "$HERE" && exec "$@"' sh "$@"
'''

# Runs cells as a notebook does, and stops at the first error.
CELLS = '''import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for source in json.load(open(sys.argv[1])):
    if not shell.run_cell(source).success: sys.exit(1)
'''


def can_mount():
    "Whether this system lets us make a mount namespace"
    if not sys.platform.startswith('linux') or not shutil.which('unshare'): return False
    return subprocess.run(['unshare', '-rm', 'sh', '-c', 'mount -t tmpfs x /mnt'], capture_output=True).returncode == 0


class Host:
    "A machine like one of the three, with a Python environment of its own"

    def __init__(self, name, folder, sees=(), pip=False):
        if not can_mount(): pytest.skip('this system allows no mount namespace')
        self.name, self.folder = name, folder
        subprocess.run([sys.executable, '-m', 'venv', *([] if pip else ['--without-pip']), folder/'env'], check=True)
        site, = (folder/'env').glob('lib/python*/site-packages')
        (site/'seen.pth').write_text(''.join(f'{o}\n' for o in sees), encoding='utf-8')
        for o in ('root', 'user'): (folder/o).mkdir()

    def call(self, *command, inputs='', seconds=300, **env):
        "Run a command there; its exit code and all that it printed"
        plain = {k: v for k, v in os.environ.items() if not k.startswith(('TOPDOWN_', 'PYTHON', 'VIRTUAL_ENV')) and k not in ('CI', 'GITHUB_ACTIONS')}
        env = plain | MARKS[self.name] | {'HOME': str(self.folder/'user'), 'HERE': FOLDERS[self.name], 'NEW_ROOT': str(self.folder/'root'), 'INPUT': str(inputs)} | env
        done = subprocess.run(['unshare', '-rm', 'sh', '-c', INSIDE, 'sh', *map(str, command)], env=env, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, encoding='utf-8', timeout=seconds)
        return done.returncode, re.sub(r'\x1b\[[0-9;]*m', '', done.stdout)

    def cells(self, *sources, **more):
        "Run cells in one notebook session there"
        import json
        (self.folder/'run.py').write_text(CELLS, encoding='utf-8')
        (self.folder/'cells.json').write_text(json.dumps(sources), encoding='utf-8')
        return self.call(self.folder/'env'/'bin'/'python', self.folder/'run.py', self.folder/'cells.json', **more)


def closure(names):
    "Installed packages, and the installed ones that they need"
    todo, found = list(names), {}
    while todo:
        try: dist = importlib.metadata.distribution(todo.pop())
        except importlib.metadata.PackageNotFoundError: continue
        if dist.name in found: continue
        found[dist.name] = dist
        needs = map(Requirement, dist.requires or [])
        todo += [o.name for o in needs if not o.marker or o.marker.evaluate({'extra': ''})]
    return found


def colab_site(folder, names, older, pins):
    "A folder of packages as Colab has them: some of ours, some under an `older` version, and google-colab, which `pins` exact versions"
    folder.mkdir()
    for name, dist in closure(names).items():
        notes = Path(dist._path)
        for top in {o.parts[0] for o in dist.files or [] if o.parts[0] not in ('..', '__pycache__', notes.name)}:
            if not (folder/top).exists() and (notes.parent/top).exists(): (folder/top).symlink_to(notes.parent/top)
        if name in older: write_notes(folder, name, older[name], [o for o in dist.requires or [] if not o.startswith('torch==')])
        else: (folder/notes.name).symlink_to(notes)
    write_notes(folder, 'google-colab', '1.0.0', [f'{k}=={v}' for k, v in pins.items()])
    return folder


def write_notes(folder, name, version, needs):
    "What pip reads about a package"
    notes = folder/f'{name.replace("-", "_")}-{version}.dist-info'
    notes.mkdir()
    text = f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n' + ''.join(f'Requires-Dist: {o}\n' for o in needs)
    (notes/'METADATA').write_text(text, encoding='utf-8')
    for file, text in {'INSTALLER': 'pip\n', 'RECORD': ''}.items(): (notes/file).write_text(text, encoding='utf-8')


def colab(folder):
    "A machine like Colab: PyTorch, fastai and many more are there, some of them older than the course asks for, and the course is not"
    folder.mkdir()
    return Host('colab', folder, [colab_site(folder/'dist-packages', COLAB, OLDER, {'pandas': '2.2.2'})], pip=True)


def install_from_here():
    "A lesson's install cell, which takes the course from the last commit of this clone"
    from topdown.settings import course, install_cell
    head = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    cell = install_cell(dataclasses.replace(course(), repository=ROOT.as_uri(), branch=head))
    return cell.replace('topdown-course @ git', 'git') # pip takes a name only with an address on the web
