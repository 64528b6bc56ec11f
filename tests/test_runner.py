"""Runs that succeed, fail, die, hang, are stopped, or happen twice at once"""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import write

from topdown.runner import run_notebook
from topdown.settings import CourseError

posix = pytest.mark.skipif(os.name == 'nt', reason='signals between processes work differently on Windows')


def texts(path):
    "What each code cell of an executed notebook printed or returned"
    cells = [o for o in nbformat.read(path, 4).cells if o.cell_type == 'code']
    return [''.join(o.get('text', '') or o.get('data', {}).get('text/plain', '') for o in cell.outputs) for cell in cells]


def gone(pid, seconds=10):
    "Whether a process ends within some seconds"
    for _ in range(int(seconds*20)):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE: return True
        time.sleep(.05)
    return False


def wait_for(path, seconds=60):
    "Wait until a cell has written a file, and give its words"
    for _ in range(int(seconds*20)):
        if path.is_file() and path.read_text().endswith('\n'): return path.read_text().split()
        time.sleep(.05)
    raise AssertionError(f'{path} never came')


def test_a_run_gets_its_own_folder_track_and_interpreter(tmp_path):
    source = write(tmp_path/'näme with späces 🐦.ipynb', '# A', 'import os, sys; sys.executable', 'os.getcwd()',
                   "os.environ['TOPDOWN_TRACK'], os.environ['TOPDOWN_RUN_ID'], os.environ['EXTRA']")
    before = source.read_bytes()
    done = run_notebook(source, tmp_path/'öut put', 'real', env={'EXTRA': 'x'}, run_id='the run')
    assert done.ok and done.cells == done.total == 3
    assert texts(done.notebook) == [repr(sys.executable), repr(str(tmp_path/'öut put')), "('real', 'the run', 'x')"]
    assert source.read_bytes() == before
    assert sorted(o.name for o in done.folder.iterdir()) == [source.name]
    assert nbformat.read(done.notebook, 4).metadata['topdown'].items() >= dict(run_id='the run', track='real', state='finished').items()
    assert 20 < done.peak_mb < 2000 and 0 < done.seconds < 100


def test_another_kernel_named_python3_does_not_win(tmp_path, monkeypatch):
    spec = tmp_path/'jupyter'/'kernels'/'python3'
    spec.mkdir(parents=True)
    (spec/'kernel.json').write_text(json.dumps(dict(argv=['/no/such/python', '{connection_file}'], display_name='x', language='python')))
    monkeypatch.setenv('JUPYTER_PATH', str(tmp_path/'jupyter'))
    done = run_notebook(write(tmp_path/'a.ipynb', 'import sys; sys.executable'), tmp_path/'out')
    assert texts(done.notebook) == [repr(sys.executable)]


def test_stored_outputs_do_not_pass_for_new_ones(tmp_path):
    nb = nbformat.read(write(tmp_path/'a.ipynb', '1/0', '#| eval: false\n2'), 4)
    nb.cells[1].outputs = [nbformat.v4.new_output('stream', text='old')]
    nbformat.write(nb, tmp_path/'a.ipynb')
    assert texts(run_notebook(tmp_path/'a.ipynb', tmp_path/'out').notebook)[1] == ''


@pytest.mark.parametrize('track, ran', [('sample', ['1', '', '', '']), ('full', ['1', '', '', ''])])
def test_flagged_cells_do_not_run(tmp_path, track, ran, monkeypatch):
    import topdown.runner
    from topdown.hardware import Probe
    monkeypatch.setattr(topdown.runner, 'probe', lambda: Probe('2', True, 2, 'cuda', 'broken card', False))
    source = write(tmp_path/'a.ipynb', '1', '#| eval: false\n2', '#|slow\n3', '#| export\n#| cuda\n4')
    done = run_notebook(source, tmp_path/'out', track)
    assert texts(done.notebook) == ran and done.skipped == {'eval: false': 1, 'slow': 1, 'cuda': 1}


def test_cuda_cells_run_on_a_card_that_works(tmp_path, monkeypatch):
    import topdown.runner
    from topdown.hardware import Probe
    monkeypatch.setattr(topdown.runner, 'probe', lambda: Probe('2', True, 2, 'cuda', 'a card', True))
    assert texts(run_notebook(write(tmp_path/'a.ipynb', '#| cuda\n4'), tmp_path/'out', 'full').notebook) == ['4']


def test_a_failing_cell_is_named_with_line_and_place(tmp_path):
    source = write(tmp_path/'a.ipynb', '# First', 'x = 1', '# The bad one\n\ntext', 'import json\n\njson.loads("{")\nx', 'print("never")')
    done = run_notebook(source, tmp_path/'out')
    f = done.failure
    assert (f.kind, f.cell, f.heading, f.line, done.cells, done.total) == ('error', 2, 'The bad one', 3, 1, 3)
    assert f.message.startswith('JSONDecodeError: Expecting property name') and 'decoder.py:' in f.where
    assert texts(done.notebook)[2] == '' and nbformat.read(done.notebook, 4).metadata['topdown']['state'] == 'error'


@pytest.mark.parametrize('source, line, says', [('x = 1\nx = = 2', 2, 'SyntaxError'), ('def f():\n    1/0\n\nf()', 2, 'ZeroDivisionError'),
                                                ('raise SystemExit(3)', 0, 'SystemExit')])
def test_the_line_that_failed(tmp_path, source, line, says):
    f = run_notebook(write(tmp_path/'a.ipynb', source), tmp_path/'out').failure
    assert f.kind == 'error' and f.message.startswith(says) and f.line in (line, 1)
    assert f.line == line or says == 'SystemExit'


def test_an_error_in_a_function_of_an_earlier_cell_marks_the_line_of_the_call(tmp_path):
    f = run_notebook(write(tmp_path/'a.ipynb', 'def f():\n    a = 0\n    return 1/a', 'x = 1\n\nf()'), tmp_path/'out').failure
    assert (f.cell, f.line) == (2, 3)


def test_a_course_error_keeps_its_whole_text(tmp_path):
    f = run_notebook(write(tmp_path/'a.ipynb', 'from topdown.settings import CourseError', 'raise CourseError("no such folder\\nmake it")'),
                     tmp_path/'out').failure
    assert f.message == 'CourseError: no such folder\nmake it'


def test_a_tag_may_allow_an_error(tmp_path):
    nb = nbformat.read(write(tmp_path/'a.ipynb', '1/0', '2'), 4)
    nb.cells[0].metadata['tags'] = ['raises-exception']
    nbformat.write(nb, tmp_path/'a.ipynb')
    assert run_notebook(tmp_path/'a.ipynb', tmp_path/'out').ok


@pytest.mark.parametrize('code, says', [('import os; os._exit(3)', 'ended itself with status 3'),
                                        pytest.param('import os, signal; os.kill(os.getpid(), signal.SIGKILL)', 'out of memory, most likely', marks=posix),
                                        pytest.param('import ctypes; ctypes.string_at(0)', 'crashed inside compiled code', marks=posix)])
def test_a_dead_kernel_is_called_dead(tmp_path, code, says):
    done = run_notebook(write(tmp_path/'a.ipynb', 'print("before")', f'print("last words", flush=True)\n{code}'), tmp_path/'out')
    assert (done.failure.kind, done.failure.cell, done.cells) == ('died', 2, 1)
    assert says in done.failure.message
    assert texts(done.notebook)[0] == 'before\n' and '[topdown run]' in texts(done.notebook)[1]


def test_a_cell_that_takes_too_long(tmp_path):
    source = write(tmp_path/'a.ipynb', 'import os, time\nopen("pid", "w").write(f"{os.getpid()}\\n")', 'time.sleep(60)')
    done = run_notebook(source, tmp_path/'out', timeout=2)
    assert (done.failure.kind, done.failure.cell) == ('timeout', 2) and 'longer than 2 seconds' in done.failure.message
    assert gone(int(wait_for(tmp_path/'out'/'pid')[0]))


def test_a_kernel_that_does_not_start(tmp_path, monkeypatch):
    import topdown.runner
    monkeypatch.setattr(topdown.runner.sys, 'executable', str(tmp_path/'no python'))
    done = run_notebook(write(tmp_path/'a.ipynb', '1'), tmp_path/'out')
    assert done.failure.kind == 'start' and 'topdown doctor' in done.failure.message and done.notebook.is_file()


def test_helpers_of_a_lesson_end_with_it(tmp_path):
    code = 'import subprocess, sys\np = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])\nimport time; time.sleep(1)\np.pid'
    done = run_notebook(write(tmp_path/'a.ipynb', code), tmp_path/'out')
    assert done.ok and gone(int(texts(done.notebook)[0]))


def test_memory_of_a_run_counts_a_peak(tmp_path):
    done = run_notebook(write(tmp_path/'a.ipynb', 'x = bytearray(b"x"*300_000_000); del x'), tmp_path/'out')
    assert 300 < done.peak_mb < 1000


def test_nothing_of_yours_is_written_over(tmp_path):
    source = write(tmp_path/'a.ipynb', '1')
    for folder in (tmp_path, tmp_path/'mine'):
        folder.mkdir(exist_ok=True)
        if folder != tmp_path: write(folder/'a.ipynb', '# My notes')
        before = (folder/'a.ipynb').read_bytes()
        with pytest.raises(CourseError, match='no run made it'): run_notebook(source, folder)
        assert (folder/'a.ipynb').read_bytes() == before
    for _ in range(2): assert run_notebook(source, tmp_path/'out').ok


def test_no_notebook_and_a_broken_one(tmp_path):
    with pytest.raises(CourseError, match='no notebook at'): run_notebook(tmp_path/'none.ipynb', tmp_path/'out')
    (tmp_path/'bad.ipynb').write_text('{"cells": [')
    with pytest.raises(CourseError, match='cannot|can be read'): run_notebook(tmp_path/'bad.ipynb', tmp_path/'out')


def test_progress_is_told_before_each_cell(tmp_path):
    told = []
    run_notebook(write(tmp_path/'a.ipynb', '# A', '1', '# B', '2'), tmp_path/'out', progress=lambda *a: told.append(a))
    assert told == [(0, 2, 'A'), (1, 2, 'B'), (2, 2, 'done')]


SLOW = ('import os, subprocess, sys, time\np = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])\n'
        'print("so far", flush=True)\nopen("pids", "w").write(f"{os.getpid()} {p.pid}\\n")\ntime.sleep(100)')


@posix
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_the_partial_notebook_and_leaves_no_orphan(tiny, tmp_path, number):
    tiny.lesson('01_smaller', '# Smaller', '1 + 1', '# Slow', SLOW, 'print("never")')
    process = tiny.start('run', '1', '--out', tmp_path/'out', '--json', tmp_path/'r.json')
    pids = wait_for(tmp_path/'out'/'pids')
    time.sleep(.3)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert texts(tmp_path/'out'/'01_smaller.ipynb')[0] == '2'
    assert texts(tmp_path/'out'/'01_smaller.ipynb')[1].startswith('so far\n[topdown run] stopped by')
    assert 'was stopped in cell [2], under the heading "Slow"' in err and 'Traceback' not in err + out
    assert all(gone(int(pid)) for pid in pids)
    assert json.loads((tmp_path/'r.json').read_text()) == []


@posix
def test_a_second_ctrl_c_ends_a_kernel_that_does_not_listen(tiny, tmp_path):
    deaf = 'import os, signal, time\nfor s in (signal.SIGINT, signal.SIGTERM): signal.signal(s, signal.SIG_IGN)\n'
    tiny.lesson('01_smaller', deaf + 'open("pids", "w").write(f"{os.getpid()}\\n")\nwhile True: time.sleep(.01)')
    process = tiny.start('run', '1', '--out', tmp_path/'out')
    pids = wait_for(tmp_path/'out'/'pids')
    process.send_signal(signal.SIGINT)
    time.sleep(.3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130 and gone(int(pids[0]))


@posix
def test_ctrl_c_while_the_kernel_starts(tiny, tmp_path):
    process = tiny.start('run', '1', '--out', tmp_path/'out')
    while not (tmp_path/'out'/'kernel.log').exists() and process.poll() is None: time.sleep(.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and 'Traceback' not in err
    assert not [o for o in psutil.process_iter(['cmdline', 'cwd']) if o.info['cwd'] == str(tmp_path/'out')]


@posix
@pytest.mark.parametrize('wait', [.05, .2, .4, .6, .9, 1.3, 1.7, 2.2])
def test_ctrl_c_at_any_moment(tiny, tmp_path, wait):
    process = tiny.start('run', '1', '--out', tmp_path/'out', env=os.environ | {'PYTHONFAULTHANDLER': '1'})
    time.sleep(wait)
    process.send_signal(signal.SIGINT)
    try: out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT if wait < .1 else signal.SIGABRT) # Python that is just starting may lose the first one
        out, err = process.communicate(timeout=60)
    early = process.returncode == 1 and '/topdown/' not in err   # Python itself was starting and had not come to our code yet
    assert process.returncode in (0, 130, -signal.SIGINT) or early, err   # the last: imports were under way
    assert 'Traceback' not in err or 'topdown/runner.py' not in err
    assert not [o for o in psutil.process_iter(['cwd']) if o.info['cwd'] == str(tmp_path/'out')]


@posix
def test_killing_the_runner_ends_its_kernel_too(tiny, tmp_path):
    tiny.lesson('01_smaller', SLOW)
    process = tiny.start('run', '1', '--out', tmp_path/'out')
    pids = wait_for(tmp_path/'out'/'pids')
    process.kill()
    process.communicate(timeout=60)
    kernel, helper = map(int, pids)
    assert gone(kernel)
    if psutil.pid_exists(helper): psutil.Process(helper).kill()


def test_two_runs_into_one_folder(tiny, tmp_path):
    tiny.lesson('01_smaller', 'import time; time.sleep(30)')
    first = tiny.start('run', '1', '--out', tmp_path/'out')
    while not (tmp_path/'out'/'01_smaller.ipynb').exists() and first.poll() is None: time.sleep(.01)
    code, _, err = tiny.call('run', '1', '--out', tmp_path/'out')
    assert code == 2 and 'is being written by another run; choose another folder' in err
    first.kill()
    first.communicate(timeout=60)
    tiny.lesson('01_smaller', '1 + 1')
    assert tiny.call('run', '1', '--out', tmp_path/'out')[0] == 0 # nobody writes there any more


def test_notes_in_a_run_are_not_written_over(tiny, tmp_path):
    assert tiny.call('run', '1', '--out', tmp_path/'out')[0] == tiny.call('run', '1', '--out', tmp_path/'out')[0] == 0
    nb = nbformat.read(tmp_path/'out'/'01_smaller.ipynb', 4)
    nb.cells[0].source += '\nmy notes'
    nbformat.write(nb, tmp_path/'out'/'01_smaller.ipynb')
    code, _, err = tiny.call('run', '1', '--out', tmp_path/'out')
    assert code == 2 and 'was changed since a run made it' in err and 'my notes' in (tmp_path/'out'/'01_smaller.ipynb').read_text()


@pytest.mark.parametrize('variable, kept', [('TOPDOWN_HOME', 'relative/ledger.jsonl'), ('TOPDOWN_DATA', None)])
def test_relative_paths_in_the_environment(tiny, tmp_path, variable, kept):
    tiny.lesson('01_smaller', 'from topdown.settings import mirror', 'mirror()', "from topdown.ledger import record\nrecord('01', 'm', 1.)")
    (tmp_path/'relative').mkdir()
    code, out, err = tiny.call('run', '1', cwd=tmp_path, env=os.environ | {variable: 'relative'})
    assert code == 0 and ' m ' in out, err
    assert not kept or (tmp_path/kept).is_file()


def test_json_to_a_folder_is_refused_before_anything_runs(tiny, tmp_path):
    code, _, err = tiny.call('run', '1', '--json', tmp_path, '--out', tmp_path/'out')
    assert code == 2 and 'that is a folder' in err and not (tmp_path/'out').exists()


def test_two_runs_at_once(tiny):
    tiny.lesson('01_smaller', 'from topdown.ledger import record', 'import time; time.sleep(1)',
                "for i in range(20): record('01', 'error_rate', i/100, baseline=.4)")
    processes = [tiny.start('run', '1', '--json', tiny.root/f'{n}.json') for n in range(2)]
    ends = [o.communicate(timeout=120) for o in processes]
    assert [o.returncode for o in processes] == [0, 0], ends
    seen = [json.loads((tiny.root/f'{n}.json').read_text()) for n in range(2)]
    assert [[o['value'] for o in s] for s in seen] == [[i/100 for i in range(20)]]*2
    assert len({o['run_id'] for s in seen for o in s}) == 2
    assert len(list((Path(os.environ['TOPDOWN_HOME'])/'runs').iterdir())) == 2


def test_a_folder_of_data_is_no_choice_of_the_track(tiny, tmp_path):
    "With --data alone the notebook is on the real track, and nothing tells `data` that it may use the network"
    tiny.lesson('00_small', "import os\nfrom topdown.settings import track\nprint('track', track(), repr(os.environ['TOPDOWN_TRACK']))")
    for more, said in ([], "track real ''"), (['--track', 'real'], "track real 'real'"):
        out = tmp_path/f'out{len(more)}'
        code, _, err = tiny.call('run', '0', '--data', str(tmp_path), '--out', str(out), *more)
        assert code == 0, err
        assert said in (out/'00_small.ipynb').read_text(encoding='utf-8')
