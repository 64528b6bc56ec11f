"""A lesson keeps what results/contracts.toml promises: it runs from first to last, and its records stay within their bounds

The real track runs the lessons that changed since the last release tag; ALL=1 runs every lesson that has a contract there.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from topdown.ledger import check, contracts
from topdown.settings import course, find_lesson, mirror

ROOT = Path(__file__).resolve().parent.parent
FIELDS = ['time', 'run_id', 'version', 'lesson', 'metric', 'value', 'baseline', 'better', 'track', 'source', 'seed', 'seconds', 'peak_rss_mb', 'device', 'platform']


def git(*args):
    done = subprocess.run(['git', *args], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def changed_since_release(lesson):
    "Whether the lesson, or a lesson or module that it may stand on, changed since the last release tag (or there is none yet)"
    tag = git('describe', '--tags', '--abbrev=0', '--match', 'v*')
    if not tag: return True
    below = [f'nbs/{o.name}.ipynb' for o in course().lessons if o.number <= lesson.number]
    names = git('diff', '--name-only', tag, '--', *below, 'nbs/workshop', 'settings.ini', 'constraints.txt', 'results/contracts.toml')
    return names is None or bool(names)


def run(lesson, track, tmp_path, *more):
    "Run a lesson through the command line and return its records"
    out = tmp_path/'records.json'
    code = 'from topdown.cli import main; main()'
    done = subprocess.run([sys.executable, '-c', code, 'run', lesson.name, '--track', track, '--out', str(tmp_path/'run'), '--json', str(out), *more],
                          capture_output=True, text=True, encoding='utf-8')
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text(encoding='utf-8'))


def hold(found, lesson, track):
    "Every contract of that lesson and track is kept"
    assert all(list(r) == FIELDS for r in found)
    assert all(r['lesson'] == lesson.number and r['track'] == track for r in found)
    wanted = [c for c in contracts() if c['lesson'] == lesson.number and c['track'] == track]
    for contract, value, ok in check(found, wanted): assert ok, f'{contract["metric"]} on the {track} track is {value}, the bound is {contract["bound"]}'
    return wanted


@pytest.mark.parametrize('lesson', course().lessons, ids=lambda o: o.number)
def test_sample_track(lesson, tmp_path):
    found = run(lesson, 'sample', tmp_path)
    assert found, 'the lesson recorded nothing'
    hold(found, lesson, 'sample')


@pytest.mark.real
@pytest.mark.parametrize('lesson', course().lessons, ids=lambda o: o.number)
def test_real_track(lesson, tmp_path):
    if not os.environ.get('ALL') and not changed_since_release(find_lesson(lesson.number)): pytest.skip('unchanged since the last release; ALL=1 runs it')
    if mirror() is None: pytest.skip('TOPDOWN_DATA is not set: no real data here')
    found = run(lesson, 'real', tmp_path)
    hold(found, lesson, 'real')
