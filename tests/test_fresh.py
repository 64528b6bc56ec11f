"""A newcomer's first minutes: clone, `make run`; and the course as an installed wheel, without a clone"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import lacking

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.fresh


def call(*args, cwd, **env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(('TOPDOWN_', 'VIRTUAL_ENV', 'PYTHON', 'MAKE'))}
    done = subprocess.run(list(map(str, args)), cwd=cwd, env=clean | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding='utf-8')
    assert done.returncode == 0, f'{args} ended with {done.returncode}:\n{done.stdout[-4000:]}'
    return done.stdout


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    "A clone in an empty folder, with `make run` done in it"
    for tool in ('git', 'make'):
        if not shutil.which(tool): lacking(tool)
    if not (ROOT/'.git').exists(): lacking('a git clone')
    if subprocess.run([sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '-d', str(tmp_path_factory.mktemp('index')), 'fastcore'], capture_output=True).returncode:
        lacking('a package index')
    folder = tmp_path_factory.mktemp('fresh')/'a new clone'
    call('git', 'clone', '-q', ROOT, folder, cwd=ROOT)
    home = folder.parent/'home'
    said = call('make', 'run', f'PYTHON={sys.executable}', cwd=folder, TOPDOWN_HOME=str(home))
    yield folder, home, said
    shutil.rmtree(folder.parent, ignore_errors=True)


def test_make_run(clone):
    folder, home, said = clone
    assert 'error_rate' in said and '01_is_it_a_bird.ipynb' in said and 'topdown lab' in said
    assert list(home.glob('runs/*/01_is_it_a_bird.ipynb'))
    assert subprocess.run(['git', 'status', '--porcelain'], cwd=folder, capture_output=True, text=True).stdout == '', 'running a lesson dirtied the repository'


def test_a_second_run_does_not_reinstall(clone):
    folder, home, _ = clone
    assert 'pip' not in call('make', '-n', 'run', cwd=folder)


def test_wheel_carries_the_course(clone, tmp_path):
    folder, home, _ = clone
    python = folder/'.venv'/'bin'/'python'
    call(python, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', tmp_path/'wheel', folder, cwd=tmp_path)
    wheel, = (tmp_path/'wheel').glob('*.whl')
    assert wheel.stat().st_size < 12_000_000
    site = tmp_path/'site'
    call(python, '-m', 'pip', 'install', '-q', '--no-deps', '--target', site, wheel, cwd=tmp_path)
    code = 'import topdown; assert "site" in topdown.__file__, topdown.__file__; from topdown.cli import main; main()'
    said = call(python, '-c', code, 'run', '0', cwd=tmp_path, PYTHONPATH=str(site), TOPDOWN_HOME=str(tmp_path/'home'))
    assert 'billion_operations_a_second' in said and list((tmp_path/'home').glob('runs/*/00_start_here.ipynb'))
