"""The ledger under bad conditions: several programs at once, torn lines, a full disk, contracts with mistakes"""
import errno
import json
import os
import subprocess
import sys

import pytest
import torch

import topdown.store as store
from topdown.data import get
from topdown.ledger import check, contracts, measured, record, records, run_id, table
from topdown.settings import CourseError, course_root, places

FIELDS = ['time', 'run_id', 'version', 'lesson', 'metric', 'value', 'baseline', 'better', 'track', 'source', 'seed',
          'seconds', 'peak_rss_mb', 'device', 'platform']


def start(code, **env):
    return subprocess.Popen([sys.executable, '-c', code], env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_fields_of_a_record(home):
    r = record('01_is_it_a_bird', 'error_rate', .02, baseline=.4, seconds=3.5, seed=42, track='real', source='TOPDOWN_DATA')
    assert list(r) == FIELDS and r['lesson'] == '01' and r['time'].endswith('+00:00') and r['peak_rss_mb'] > 5
    assert json.loads(places()['ledger'].read_text(encoding='utf-8')) == r and records() == [r]


def test_two_notebooks_at_once_lose_nothing(home):
    code = "from topdown.ledger import record\nfor i in range(60): record(1, f'metric {i}', i, track='sample')"
    both = [start(code, TOPDOWN_RUN_ID=f'run {i}') for i in range(3)]
    for p in both: assert p.communicate(timeout=60) == ('', '')
    found = records(1)
    assert len(found) == 180
    for i in range(3): assert [r['value'] for r in records(run_id=f'run {i}')] == list(range(60))


def test_a_run_id_for_each_program(home, monkeypatch):
    code = "from topdown.ledger import run_id; print(run_id(), run_id())"
    a, b = (start(code).communicate(timeout=60)[0].split() for _ in range(2))
    assert a[0] == a[1] != b[0]
    monkeypatch.setenv('TOPDOWN_RUN_ID', 'mine')
    assert run_id() == 'mine' == record(1, 'x', 1, track='sample')['run_id']


def test_track_and_source_are_those_of_the_data(home):
    get('adult')
    r = record(1, 'error_rate', .1)
    assert (r['track'], r['source']) == ('sample', 'drawn by the course')
    assert record(1, 'error_rate', .1, track='real', source='elsewhere')['source'] == 'elsewhere'


def test_before_any_data_the_track_is_the_resolved_one(home):
    code = "from topdown.ledger import record; r = record(0, 'ready', 1); print(r['track'], r['source'])"
    assert start(code).communicate(timeout=60)[0] == 'sample None\n'
    assert start(code, TOPDOWN_TRACK='real').communicate(timeout=60)[0] == 'real None\n'


@pytest.mark.parametrize('value', [float('nan'), float('inf'), None, 'good', True, [1], torch.ones(2), torch.tensor(float('nan')), 1j])
def test_values_that_are_no_numbers(home, value):
    with pytest.raises(CourseError, match="value of 'error_rate' should be a finite number, found"): record(1, 'error_rate', value)
    assert not places()['ledger'].exists()


def test_other_bad_arguments(home):
    for kw, words in ((dict(metric=''), 'metric should be a text'), (dict(better='less'), "unknown direction 'less'; known: lower"),
                      (dict(lesson='1a'), "unknown lesson '1a'"), (dict(track='reel'), "unknown track 'reel'; known: real"),
                      (dict(seconds=-1), 'seconds should be'), (dict(baseline=float('nan')), "baseline of 'm' should be"),
                      (dict(seed='x'), 'seed should be')):
        with pytest.raises(CourseError, match=words): record(**(dict(lesson=1, metric='m', value=1) | kw))
    assert not places()['ledger'].exists()


def test_numbers_of_pytorch(home):
    r = record(1, 'error_rate', torch.tensor(.25), baseline=torch.tensor(1), track='sample')
    assert (r['value'], r['baseline']) == (.25, 1) and records() == [r]


def test_a_full_disk(home, monkeypatch):
    record(1, 'a', 1, track='sample')
    def full(*args): raise OSError(errno.ENOSPC, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(store.os, 'write', full)
        with pytest.raises(CourseError, match='ledger.jsonl cannot be written: the disk is full'): record(1, 'b', 2, track='sample')
    record(1, 'c', 3, track='sample')
    assert [r['metric'] for r in records(path=home/'ledger.jsonl')] == ['a', 'c']


def test_a_torn_line_is_reported_and_costs_nothing_else(home):
    record(1, 'a', 1, track='sample')
    with open(places()['ledger'], 'a', encoding='utf-8') as f: f.write('{"time": "2026')
    with pytest.warns(UserWarning, match='line 2 cannot be read'): assert len(records()) == 1
    record(1, 'b', 2, track='sample')
    with pytest.warns(UserWarning, match='line 2 cannot be read'): assert [r['metric'] for r in records()] == ['a', 'b']


def test_no_ledger_yet(home):
    assert records() == [] and table([]).splitlines()[0].startswith('lesson')


def test_a_list_of_records_in_a_json_file(home, tmp_path):
    r = record(1, 'a', 1, track='sample')
    (tmp_path/'01_real.json').write_text(json.dumps([r]), encoding='utf-8')
    assert records(path=tmp_path/'01_real.json') == measured('1', 'real', tmp_path) == [r]
    with pytest.raises(CourseError, match='no file'): records(path=tmp_path/'none.json')


def test_the_table_says_whether_the_baseline_is_beaten():
    r = dict(lesson='01', metric='Fehler ä', value=.5, baseline=.4, better='lower', track='sample', seconds=None, device='cpu')
    rows = table([r, r | dict(better='higher', seconds=1.), {}]).splitlines()
    assert ' NO ' in rows[2] and ' yes ' in rows[3] and '–' in rows[4]


GOOD = dict(lesson='"01"', metric='"error_rate"', track='"real"', bound='0.02', better='"lower"')


def toml(path, **changes):
    path.write_text('[[contract]]\n' + ''.join(f'{k} = {v}\n' for k, v in (GOOD | changes).items() if v), encoding='utf-8')
    return path


@pytest.mark.parametrize('changes, words', [
    (dict(bound=None), 'lacks bound'), (dict(bounds='1'), "unknown key 'bounds'; known: bound"), (dict(bound='"x"'), 'bound should be'),
    (dict(better='"less"'), "unknown direction 'less'"), (dict(lesson='"99"'), "unknown lesson '99'"), (dict(bound='nan'), 'bound should be'),
    (dict(track='"reel"'), "unknown track 'reel'"), (dict(bound='='), 'cannot be read as a TOML file')])
def test_contracts_with_mistakes(tmp_path, changes, words):
    with pytest.raises(CourseError, match=words): contracts(toml(tmp_path/'c.toml', **changes))


def test_contract_files_with_mistakes(tmp_path):
    with pytest.raises(CourseError, match='no contracts at'): contracts(tmp_path/'none.toml')
    (tmp_path/'c.toml').write_text('[[contracts]]\n')
    with pytest.raises(CourseError, match="unknown section 'contracts'; known: contract"): contracts(tmp_path/'c.toml')
    (tmp_path/'c.toml').write_text('')
    assert contracts(tmp_path/'c.toml') == []


def test_contracts_are_kept_or_not(tmp_path):
    c = contracts(toml(tmp_path/'c.toml', published='0.04', where='"here"'))
    def result(value, **kw): return dict(lesson='01', metric='error_rate', track='real', value=value) | kw
    def ok(*rs): return [(v, kept) for _, v, kept in check(list(rs), c)]
    assert ok() == [(None, False)] and ok(result(.02)) == [(.02, True)] and ok(result(.021)) == [(.021, False)]
    assert ok(result(.01), result(.5)) == [(.5, False)] # the last one counts
    assert ok(result(.01, track='sample'), result(.01, lesson='02'), result(.01, metric='x')) == [(None, False)]
    up = contracts(toml(tmp_path/'c.toml', better='"higher"'))
    assert [kept for _, _, kept in check([result(.5)], up)] == [True] and up[0]['published'] is None


@pytest.mark.skipif(not (course_root()/'results'/'contracts.toml').is_file(), reason='results/contracts.toml is not there')
def test_the_courses_own_contracts_can_be_read():
    assert {c['lesson'] for c in contracts()} and all(c['where'] or c['published'] is None for c in contracts())
