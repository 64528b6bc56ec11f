"""The command `topdown`: what it says, what it changes, and what it refuses"""
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import typer

from topdown.cli import commands
from topdown.settings import places

HEAVY = {'torch', 'fastai', 'pandas', 'matplotlib', 'nbclient', 'numpy', 'rich', 'PIL', 'psutil', 'requests', 'pooch', 'jupyter_client'}
FIELDS = {'time', 'run_id', 'version', 'lesson', 'metric', 'value', 'baseline', 'better', 'track', 'source', 'seed', 'seconds', 'peak_rss_mb',
          'device', 'platform'}
RECORDS = "from topdown.ledger import record\nrecord('01', 'error_rate', 0.03, baseline=.4, seed=42)"


def test_import_is_light():
    code = 'import sys, topdown.cli; print(" ".join(sys.modules))'
    loaded = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & {o.split('.')[0] for o in loaded}


def every_command(): return typer.main.get_command(commands).commands


def test_help_names_every_command():
    done = subprocess.run([sys.executable, '-m', 'topdown.cli', '--help'], capture_output=True, text=True, encoding='utf-8')
    assert done.returncode == 0
    assert set(every_command()) == {'list', 'results', 'where', 'doctor', 'copy', 'lab', 'run', 'quiz', 'check', 'exercises', 'progress', 'cost', 'subset', 'app', 'slides', 'site', 'clean', 'sync', 'kaggle'}
    assert all(name in done.stdout for name in every_command())


@pytest.mark.parametrize('name', every_command())
def test_every_command_and_option_has_a_help_text(name):
    command = every_command()[name]
    assert command.help
    for option in command.params: assert getattr(option, 'help', None), f'{name} {option.name}'


@pytest.mark.parametrize('args, says', [
    (['run', '01_smallr'], "unknown lesson '01_smallr'; known: 01_smaller, 00_small"),
    (['run', '7'], "unknown lesson '7'; known: "),
    (['run', '1', '--track', 'smaple'], "unknown track 'smaple'; known: sample"),
    (['run', '1', '--data', 'no/folder'], "--data names 'no/folder', and there is no such folder"),
    (['run', '1', '--json', 'no/folder/r.json'], 'there is no folder no/folder'),
    (['run', '1', '--save', '--track', 'real'], '--save stores outputs of the sample track only'),
    (['copy', 'one'], "unknown lesson 'one'"),
    (['lab', 'none.ipynb'], 'no notebook at'),
    (['results', '--lesson', '9'], "unknown lesson '9'"),
    (['rum'], "No such command 'rum'"),
    (['run', '1', '--trak', 'real'], 'No such option'),
    (['run'], "Missing argument 'LESSON'"),
])
def test_a_wrong_call_gets_one_clear_message(tiny, args, says):
    code, out, err = tiny.call(*args)
    assert code == 2 and says in err.replace('\n', ' ') and 'Traceback' not in err and not out
    assert not (Path(os.environ['TOPDOWN_HOME'])/'runs').exists()


def test_a_data_variable_that_points_nowhere(tiny):
    code, _, err = tiny.call('run', '1', env=os.environ | {'TOPDOWN_DATA': '/no/such'})
    assert code == 2 and "TOPDOWN_DATA names '/no/such'" in err


def test_a_home_that_cannot_be_written(tiny, tmp_path):
    (tmp_path/'file').write_text('x')
    for call in (['run', '1'], ['copy', '1']):
        code, _, err = tiny.call(*call, env=os.environ | {'TOPDOWN_HOME': str(tmp_path/'file'/'home')})
        assert code == 2 and 'TOPDOWN_HOME' in err and 'Traceback' not in err


def test_list(tiny):
    code, out, _ = tiny.call('list')
    line = next(o for o in out.splitlines() if 'Smaller' in o)
    assert code == 0 and line.split() == ['01', 'Smaller', '2', 'min', '4', 'min', '-', '0.1', 'GB', '01_smaller']


def test_run_shows_results_and_writes_json(tiny, tmp_path):
    tiny.lesson('01_smaller', '# Smaller', RECORDS, '#| slow\n1/0')
    code, out, err = tiny.call('run', '1', '--json', tmp_path/'r.json', '--out', tmp_path/'out')
    assert code == 0, err
    assert 'error_rate' in out and '0.03' in out and 'not run: 1 × slow' in out and str(tmp_path/'out'/'01_smaller.ipynb') in out
    assert '01_smaller: cell 1 of 1' in err
    record, = json.loads((tmp_path/'r.json').read_text(encoding='utf-8'))
    assert set(record) == FIELDS and (record['lesson'], record['metric'], record['value'], record['track']) == ('01', 'error_rate', .03, 'sample')
    code, out, _ = tiny.call('results', '--lesson', '1')
    assert code == 0 and 'error_rate' in out
    assert 'no results yet' in tiny.call('results', '--lesson', '0')[1]


def test_a_failing_lesson_is_shown_and_its_records_are_kept(tiny, tmp_path):
    tiny.lesson('01_smaller', '# Smaller', RECORDS, '# A trap', 'x = 1\nx/0')
    code, out, err = tiny.call('run', '01', '--json', tmp_path/'r.json', '--out', tmp_path/'out')
    assert code == 1
    assert '01_smaller failed in cell [2], under the heading "A trap"' in err and '->   2  x/0' in err
    assert 'ZeroDivisionError: division by zero' in err and str(tmp_path/'out'/'01_smaller.ipynb') in err and 'Traceback' not in err
    assert 'error_rate' in out and len(json.loads((tmp_path/'r.json').read_text())) == 1


def test_a_run_never_changes_the_course(tiny):
    before = {o: o.read_bytes() for o in tiny.root.rglob('*') if o.is_file()}
    assert tiny.call('run', '0')[0] == 0
    assert {o: o.read_bytes() for o in tiny.root.rglob('*') if o.is_file()} == before


def test_out_may_not_be_the_course_or_your_copies(tiny):
    assert tiny.call('copy', '1')[0] == 0
    for folder in (tiny.root/'nbs', places()['lessons']):
        code, _, err = tiny.call('run', '1', '--out', folder)
        assert code == 2 and 'no run made it' in err


def test_out_under_a_file(tiny, tmp_path):
    (tmp_path/'file').write_text('x')
    code, _, err = tiny.call('run', '1', '--out', tmp_path/'file'/'out')
    assert code == 2 and str(tmp_path/'file') in err and 'Traceback' not in err


def test_the_timeout_option(tiny):
    tiny.lesson('01_smaller', 'import time; time.sleep(60)')
    code, _, err = tiny.call('run', '1', '--timeout', '1')
    assert code == 1 and 'gave up in cell [1]' in err and 'longer than 1 seconds' in err


def test_save_stores_clean_outputs_and_is_idempotent(tiny, tmp_path):
    path = tiny.lesson('01_smaller', '# Smaller', 'import os; print(os.getcwd())', 'object()', '#| slow\n2')
    nb = nbformat.read(path, 4)
    nb.cells[3].outputs = [nbformat.v4.new_output('stream', text='from before')]
    nbformat.write(nb, path)
    assert tiny.call('run', '1', '--save')[0] == 0
    first = path.read_bytes()
    cells = json.loads(first)['cells']
    assert [o['outputs'][0].get('text') for o in cells[1::2]] == [['.\n'], ['from before']]
    assert cells[2]['outputs'][0]['data']['text/plain'] == ['<object>']
    assert all(o['execution_count'] is None for o in cells[1:])
    assert 'were the same already' in tiny.call('run', '1', '--save')[1] and path.read_bytes() == first


def test_save_leaves_the_lesson_alone_when_a_cell_failed(tiny):
    path = tiny.lesson('01_smaller', 'print(1)', '1/0')
    before = path.read_bytes()
    assert tiny.call('run', '1', '--save')[0] == 1
    assert path.read_bytes() == before


def test_save_ignores_a_data_variable(tiny, tmp_path):
    path = tiny.lesson('01_smaller', "import os; os.environ['TOPDOWN_TRACK']")
    code, _, err = tiny.call('run', '1', '--save', '--track', 'sample', env=os.environ | {'TOPDOWN_DATA': str(tmp_path)})
    assert code == 0, err
    assert 'sample' in path.read_text()


def test_copies_that_you_changed_are_kept(tiny):
    assert 'copied to' in tiny.call('copy', '1')[1]
    mine = places()['lessons']/'01_smaller.ipynb'
    assert mine.read_bytes() == (tiny.root/'nbs'/'01_smaller.ipynb').read_bytes()
    tiny.lesson('01_smaller', '# A newer version')
    assert 'untouched copy was renewed' in tiny.call('copy', '1')[1] and 'newer' in mine.read_text()
    mine.write_text('my notes')
    assert 'you changed your copy, so it was kept' in tiny.call('copy', 'all')[1] and mine.read_text() == 'my notes'
    assert (places()['lessons']/'00_small.ipynb').is_file()
    assert 'set aside' in tiny.call('copy', '1', '--fresh')[1] and 'newer' in mine.read_text()
    assert [o.read_text() for o in mine.parent.glob('01_smaller-*.ipynb')] == ['my notes']


def test_pictures_beside_a_lesson_go_along(tiny, tmp_path):
    (tiny.root/'nbs'/'images').mkdir()
    (tiny.root/'nbs'/'images'/'loop.svg').write_text('<svg/>')
    (tiny.root/'secret.svg').write_text('<svg/>')
    tiny.lesson('01_smaller', '# ![The loop](images/loop.svg) ![no](../secret.svg) ![far](https://x.org/a.png)')
    assert tiny.call('copy', '1', '--to', tmp_path/'out of the way')[0] == 0
    assert sorted(o.name for o in (tmp_path/'out of the way').rglob('*') if o.is_file()) == ['.copies.json', '01_smaller.ipynb', 'loop.svg']


def test_where_names_every_place(tiny):
    (places()['cache']).mkdir(parents=True)
    (places()['cache']/'birds.bin').write_bytes(b'x'*2000)
    code, out, _ = tiny.call('where')
    assert code == 0 and all(name in out for name in places()) and '2.0 kB in 1 file' in out and 'not made yet' in out


def fill(home):
    for name in ('cache/real', 'runs/old', 'lessons', 'photos', 'quarantine'):
        (home/name).mkdir(parents=True)
        (home/name/'a.txt').write_text(name)
    (home/'ledger.jsonl').write_text('{}\n')
    (home/'my own file.txt').write_text('keep me')


def test_clean_asks_and_then_empties_only_what_can_be_made_again(tiny, home):
    fill(home)
    code, out, _ = tiny.call('clean', stdin=subprocess.DEVNULL)
    assert code == 1 and (home/'cache'/'real'/'a.txt').is_file()
    code, out, _ = tiny.call('clean', '--yes')
    assert code == 0 and str(home/'cache') in out and '10 bytes in 1 file)' in out
    assert not any((home/'cache').iterdir()) and not any((home/'runs').iterdir())
    assert all((home/o/'a.txt').is_file() for o in ('lessons', 'photos', 'quarantine')) and (home/'ledger.jsonl').is_file()
    assert 'nothing to do' in tiny.call('clean')[1]


@pytest.mark.parametrize('what', ['nothing', 'an empty notebook', 'no JSON object', 'notes beside it'])
def test_clean_keeps_a_run_into_which_you_wrote(tiny, what):
    assert tiny.call('run', '1')[0] == 0
    run = next(places()['runs'].iterdir())
    if what == 'an empty notebook': (run/'mine.ipynb').touch()
    if what == 'no JSON object': (run/'mine.ipynb').write_text('[]')
    if what == 'notes beside it':
        (run/'notes.md').write_text('mine')
        os.utime(run/'notes.md', (2e9, 2e9))
    code, out, err = tiny.call('clean', '--yes')
    assert code == 0 and run.exists() == (what != 'nothing') and ('you changed something in it' in out) == run.exists(), err


def test_clean_all_moves_what_you_made(tiny, home):
    fill(home)
    code, out, _ = tiny.call('clean', '--all', '-y')
    aside, = home.parent.glob('home-set-aside-*')
    assert code == 0 and str(aside) in out
    assert sorted(o.name for o in aside.iterdir()) == ['ledger.jsonl', 'lessons', 'photos', 'quarantine']
    assert (aside/'photos'/'a.txt').read_text() == 'photos' and (home/'my own file.txt').is_file()
    fill_again = home/'photos'
    fill_again.mkdir()
    (fill_again/'b.txt').write_text('b')
    assert tiny.call('clean', '--all', '-y')[0] == 0
    assert len(list(home.parent.glob('home-set-aside-*'))) == 2


@pytest.mark.skipif(os.name == 'nt', reason='links need a right on Windows')
def test_clean_does_not_follow_links(tiny, home, tmp_path):
    (tmp_path/'precious').mkdir()
    (tmp_path/'precious'/'a.txt').write_text('a')
    (home/'cache').mkdir(parents=True)
    (home/'cache'/'link').symlink_to(tmp_path/'precious', target_is_directory=True)
    (home/'cache'/'b.txt').write_text('b')
    assert tiny.call('clean', '-y')[0] == 0
    assert (tmp_path/'precious'/'a.txt').is_file() and not any((home/'cache').iterdir())


def test_sync_writes_second_and_third_cell(tiny):
    assert tiny.call('sync', '--check')[0] == 1
    code, out, _ = tiny.call('sync')
    assert code == 0 and '01_smaller.ipynb' in out
    cells = nbformat.read(tiny.root/'nbs'/'01_smaller.ipynb', 4).cells
    assert cells[0].source == '# Smaller' and 'github/someone/tiny/blob/main/nbs/01_smaller.ipynb' in cells[1].source
    assert 'git+https://github.com/someone/tiny@main' in cells[2].source and cells[3].source == '1 + 1'
    assert tiny.call('sync', '--check') == (0, 'everything agrees with settings.ini\n', '')
    settings = tiny.root/'settings.ini'
    settings.write_text(settings.read_text().replace('someone/tiny', 'else/big'))
    assert tiny.call('sync')[0] == 0
    cells = nbformat.read(tiny.root/'nbs'/'01_smaller.ipynb', 4).cells
    assert len(cells) == 4 and 'else/big' in cells[1].source and 'else/big' in cells[2].source


def test_sync_and_save_refuse_an_installed_package(tiny):
    (tiny.root/'pyproject.toml').unlink()
    code, _, err = tiny.call('sync')
    assert code == 2 and 'not a clone' in err


def test_a_lesson_that_is_missing_or_broken(tiny):
    (tiny.root/'nbs'/'01_smaller.ipynb').write_text('{')
    for call in (['sync'], ['run', '1']):
        code, _, err = tiny.call(*call)
        assert code == 2 and '01_smaller.ipynb' in err
    (tiny.root/'nbs'/'01_smaller.ipynb').unlink()
    for call in (['sync'], ['run', '1'], ['copy', '1']): assert tiny.call(*call)[0] == 2


def test_doctor_as_json(tiny):
    code, out, err = tiny.call('doctor', '--json')
    findings = json.loads(out)
    assert code == (1 if any(o['state'] == 'problem' for o in findings) else 0), err
    assert {'Python', 'memory', 'loopback', 'kernel', 'network', 'data', 'writing to home'} <= {o['name'] for o in findings}
    assert all(o['remedy'] for o in findings if o['state'] == 'problem')


def test_doctor_names_a_problem_its_remedy_and_exits_1(tiny):
    code, out, _ = tiny.call('doctor', env=os.environ | {'TOPDOWN_DATA': '/no/such'})
    assert code == 1 and 'PROBLEM' in out and "TOPDOWN_DATA names '/no/such'" in out and 'correct or unset' in out


def test_lab_lets_a_cell_call_the_command(monkeypatch, home):
    from topdown import cli
    called = []
    monkeypatch.setattr(cli, '_become', lambda call, env: called.append(env))
    monkeypatch.setenv('PATH', '/somewhere')
    cli._lab('1')
    assert called[0]['PATH'].split(os.pathsep) == [str(Path(sys.executable).parent), '/somewhere']


def test_lab_serves_the_copies(tiny):
    import socket
    import time
    from urllib.request import urlopen
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    process = tiny.start('lab', '1', '--no-browser', '--port', port, env=os.environ | {'JUPYTER_TOKEN': 'secret'}, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try: text = urlopen(f'http://127.0.0.1:{port}/api/contents?token=secret', timeout=5).read().decode()
            except OSError:
                assert process.poll() is None
                time.sleep(.1)
            else: break
        assert '01_smaller.ipynb' in text and (places()['lessons']/'01_smaller.ipynb').is_file()
    finally:
        process.terminate()
        process.wait(20)
