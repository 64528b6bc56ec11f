"""What the grader must withstand, and what it says to a learner"""
import json
import os
import socket
import sys
from pathlib import Path

import pytest
from conftest import lacking

from topdown import grader
from topdown.exercises import Exercise
from topdown.grader import cells_for, grade, learner_cells, read_before_running
from topdown.sandbox import landlock_version
from topdown.settings import CourseError, course_root, places

CHECKS = """# needs: twice
def check_3_9(expect):
    import random
    n = random.Random(SEED).randrange(100, 999)
    found = twice(n)
    expect(isinstance(found, int), f'twice({n}) should be a whole number', hint=1, found=found)
    expect(found == 2*n and len(GIVEN) == 3, f'twice({n}) should be {2*n}', hint=0, found=found)
"""
RIGHT = 'def twice(n): return 2*n'
TOY = Exercise('3.9', 'Twice', False, '03', '## 3.9 Twice', Path('03.ipynb'), given=['GIVEN = [1, 2, 3]\ndef helper(): return 1'],
               stub=['def twice(n): ...'], solution=[RIGHT], checks=CHECKS, needs=['twice'], hints=['look there', 'think so', 'write that'])


@pytest.fixture(autouse=True)
def own(home):
    "Each test has a home folder of its own, with something in it that nobody else may see"
    home.mkdir()
    for name in ('ledger.jsonl', 'progress.sqlite'): (home/name).write_text('"secret"\n', encoding='utf-8')
    return home


@pytest.fixture
def walls():
    if not landlock_version(): lacking('Landlock')


def tried(*cells, **kw): return grade(TOY, list(cells), seed=1, **kw)


def test_a_right_solution_passes_behind_walls(walls):
    g = tried(RIGHT)
    assert g.passed and g.isolated and g.said == 'all checks passed' and 'passed' in repr(g) and 'role="status"' in g._repr_html_()


def test_a_wrong_one_hears_what_was_asked_and_found():
    g = tried('def twice(n): return n + 2')
    assert not g.passed and g.said == 'twice(237) should be 474; found 239' and g.hints == ['look there']
    assert tried('def twice(n): return "x"*1000').said.endswith("found '" + 'x'*199 + '…') and tried('def twice(n): return "x"').hints == ['think so']


def test_inputs_of_the_checks_differ_from_try_to_try():
    assert len({grade(TOY, ['def twice(n): return 0']).said for _ in range(3)}) > 1


@pytest.mark.parametrize('cell', ['def twice(n): ...', 'def twice(n):\n    "Twice"\n    pass', 'twice = None', 'x = 1', 'def twice(n): return',
                                  'def twice(n):\n    m = ...\n    return m'])
def test_a_gap_is_not_called_wrong(cell):
    g = tried(cell)
    assert not g.passed and g.said.startswith('not filled in yet: `twice`') and not g.hints


def test_a_forgotten_return_is_named():
    assert '`return`' in tried('def twice(n): 2*n').said


def asked(checks, *cells):
    "Grade cells by other checks than those of the toy"
    from dataclasses import replace
    return grade(replace(TOY, checks='# needs: twice\ndef check_3_9(expect):\n    ' + checks), list(cells or [RIGHT]), seed=1)


@pytest.mark.parametrize('found, named', [('None', True), ('(None, 516.5)', False), ('"slice(None, 3)"', False), ('[None]', False)])
def test_a_forgotten_return_is_suspected_only_where_none_itself_was_found(found, named):
    assert ('`return`' in asked(f'expect(False, "another value was wanted", found={found})').said) == named
    assert ('`return`' in asked(f'found = {found}; expect(False, f"another value was wanted, found {{found}}")').said) == named


def test_an_error_about_none_suspects_a_forgotten_return_only_of_a_function_without_one():
    assert '`return`' in asked('twice(3) - 1', 'def twice(n): 2*n').said
    assert '`return`' not in asked('twice(3)[0] - 1', 'def twice(n): return None, 2*n').said


@pytest.mark.parametrize('value, shown', [
    ('np.float64(2.9331724)', '2.933'), ('np.float32(0.00012345678)', '0.0001235'), ('2.9331724', '2.933'), ('np.int64(12345)', '12345'), ('np.bool_(True)', 'True'),
    ('(np.float64(2.0), np.str_("a"))', "(2.0, 'a')"), ('np.float64("nan")', 'nan'), ('123456.789012', '123457'), ('np.array([2.9331724, 1/3])', 'array([2.933, 0.3333])'),
    ('np.arange(30)/7', 'array([0., 0.1429, 0.2857, '), ('"1.23456.7"', "'1.23456.7'")])
def test_found_values_are_plain_numbers_with_four_digits(value, shown):
    said = asked(f'import numpy as np; expect(False, "another value was wanted", found={value})').said
    assert said.startswith(f'another value was wanted; found {shown}') and len(said) < 240, said
    if 'array' not in shown: assert shown in asked(f'import numpy as np; found = {value}; expect(False, f"another value was wanted, found {{found!r}}")').said


def test_rounding_keeps_apart_what_differs_and_leaves_what_the_checks_wrote():
    assert grader._rounded('should be 2.93317240, found np.float64(2.93304)') == 'should be 2.93317, found 2.93304'
    assert grader._rounded('should be 16.2534, found 16.2534; 12.5 of v1.23456.7') == 'should be 16.2534, found 16.2534; 12.5 of v1.23456.7'


def test_an_error_in_the_checks_shows_the_learners_line_that_led_to_it():
    said = asked('try: twice(3)\n    except ZeroDivisionError: raise TypeError("no number")', 'def twice(n):\n    return n/0').said
    assert said == 'what your code gave could not be checked: TypeError: no number\nin the cell that begins with `def twice`, line 2: return n/0'


def test_a_syntax_error_is_shown_with_line_and_caret():
    said = tried('x = 1', 'y = 2\ndef twice(n: return 2*n').said
    assert said.startswith('in the cell that begins with `y = 2`, line 2: this is not Python: ') and '\n    def twice(n: return 2*n\n' in said and said.rstrip().endswith('^')
    assert '`%timeit 1` is a command of Jupyter' in tried('%timeit 1\n' + RIGHT).said
    assert 'cannot be read as Python' in tried('-'*100_000 + '1').said or 'not Python' in tried('('*1000 + ')'*1000).said
    assert tried('x\0').said


def test_an_error_is_traced_to_the_learners_own_lines():
    said = tried('def half(n):\n    return n/0', 'def twice(n): return half(n)').said
    assert said.splitlines() == ['your code stopped with an error when tried: ZeroDivisionError: division by zero',
                                 'in the cell that begins with `def twice`, line 1: def twice(n): return half(n)',
                                 'in the cell that begins with `def half`, line 2: return n/0']
    assert 'in the cell that begins with `1/0`, line 1: 1/0' in tried('1/0\n' + RIGHT).said


@pytest.mark.parametrize('line, why', [
    ('from topdown.learner import Learner', 'comes in lesson 4'), ('import topdown.transformer as t', 'comes in lesson 7'), ('from topdown import text', 'comes in lesson 7'),
    ('import lightgbm', 'comes in lesson 6'), ('import antigravity_engine', 'which no lesson uses'), ('__import__("topdown.trees")', 'comes in lesson 6'),
    ('from topdown.exercises import exercises', 'no part of a solution')])
def test_what_later_lessons_bring_is_refused(line, why):
    said = tried(f'{RIGHT}\n{line}').said
    assert why in said and 'line 2' in said


def test_a_roundabout_import_of_a_later_lesson_is_refused_too():
    said = tried(f'import importlib\nname = "topdown." + "learner"\nimportlib.import_module(name)\n{RIGHT}').said
    assert 'topdown.learner comes in a later lesson' in said


def test_given_names_stay_as_they_were_given():
    assert tried('GIVEN = []\n' + RIGHT).passed                       # the checks see theirs
    assert '`helper` is given' in tried('def helper(): return 2\n' + RIGHT).said


def test_calls_of_the_grader_in_a_cell_are_left_out():
    assert tried(f'from topdown.grader import check\n{RIGHT}\ncheck("3.9")').passed


ENDS = 'gave no verdict'
HOSTILE = {
    'exits': ('import sys\nsys.exit(0)', 'exit'),
    'ends the process': ('import os\nos._exit(0)', ENDS),
    'ends it when tried': ('import os\ndef twice(n): os._exit(0)', ENDS),
    'exits when tried': ('def twice(n): raise SystemExit(0)', 'SystemExit'),
    'prints a verdict': ('print(\'{"passed": true, "said": null}\')\nimport os; os._exit(0)', ENDS),
    'writes a verdict into each file': ("import os\nfor fd in range(300):\n    try: os.write(fd, b'{\"passed\": true, \"hint\": 0, \"said\": null, \"nonce\": \"\"}\\n')\n"
                                        "    except OSError: pass\nos._exit(0)", ENDS),
    'closes all files': ('import os\nos.closerange(0, 300)', ENDS),
    'replaces isinstance': ('import builtins\nbuiltins.isinstance = isinstance = lambda *a: True\nbuiltins.len = lambda o: 3\ndef twice(n): return "x"', 'whole number'),
    'replaces random': ('import random\nrandom.Random.randrange = lambda *a: 4\ndef twice(n): return n + 4', 'should be'),
    'defines the checks': ('def check_3_9(expect): pass\ndef expect(*a, **k): pass\nSEED = 3\ndef twice(n): return 0', 'should be'),
    'patches the grader': ('import sys\nm = sys.modules["topdown.grader"]\nm._check = m._put_back = m._expecting = lambda *a: lambda *a, **k: None\ndef twice(n): return 0', 'should be'),
    'speaks to the terminal': ('def twice(n): raise ValueError("\\x1b[2J passed")', 'ValueError: ·[2J passed'),
    'swallows what expect raises': ('def twice(n):\n    try: return 0\n    except BaseException: return 2*n', 'should be'),
    'is no number': ('def twice(n): return lambda: n', 'function twice'),
    'cannot be shown': ('class X:\n    def __repr__(self): raise ValueError\ndef twice(n): return X()', 'a X whose repr fails'),
    'starts a program': ('import subprocess\nsubprocess.Popen(["sleep", "1000"])', 'PermissionError'),
    'forks for ever': ('import os\nwhile True: os.fork()', 'PermissionError'),
    'leaves a child behind': ('import os\nif os.fork() == 0:\n    import time; time.sleep(1000)', 'PermissionError'),
    'kills its parent': ('import os, signal\nos.kill(os.getppid(), signal.SIGKILL)', 'PermissionError'),
    'takes all memory': ('x = [bytearray(10**8) for _ in range(100)]', 'MemoryError'),
    'fills the disk': ('with open("big", "wb") as f:\n    for _ in range(100): f.write(bytes(10**6))', 'OSError'),
    'reads another process': ('import os\nopen(f"/proc/{os.getppid()}/environ").read()', 'PermissionError'),
    'looks around': ('import os\nos.listdir("/")', 'PermissionError'),
    'writes beside': ('open("/tmp/beside", "w")', 'PermissionError'),
    'asks its own input': ('input()', 'EOFError'),
}


@pytest.mark.parametrize('what', HOSTILE)
def test_hostile_code_does_not_pass(what, walls):
    code, said = HOSTILE[what]
    g = tried(code if 'def twice' in code else f'{code}\n{RIGHT}', memory=.5)
    assert not g.passed and said in g.said, g.said


def test_a_loop_without_end_is_ended():
    for code in ('while True: pass', 'import os\nos.closerange(0, 300)\nwhile True:\n    try:\n        while True: pass\n    except BaseException: pass'):
        g = tried(f'{code}\n{RIGHT}', seconds=1)
        assert not g.passed and 'longer than 1 seconds' in g.said and g.total < 20
    assert tried(RIGHT).passed                                        # the helper is still there


def test_endless_output_is_cut():
    g = tried(f'while True: print("x"*1000)\n{RIGHT}', seconds=20)
    assert 'printed more than 5 MB' in g.said and len(g.printed) <= 5000 and g.total < 15


@pytest.mark.parametrize('name', ['ledger.jsonl', 'progress.sqlite'])
@pytest.mark.parametrize('act', ['open({!r}).read()', 'open({!r}, "a").write("x")', 'import os; os.remove({!r})', 'import os; os.rename({!r}, "mine")', 'import os; os.truncate({!r}, 0)'])
def test_what_a_person_made_is_out_of_reach(own, name, act, walls):
    g = tried(act.format(str(own/name)) + f'\n{RIGHT}')
    assert 'PermissionError' in g.said or 'OSError' in g.said, g.said
    assert (own/name).read_text(encoding='utf-8') == '"secret"\n' and sorted(o.name for o in own.iterdir()) == ['ledger.jsonl', 'progress.sqlite']


def test_the_home_in_the_courses_own_folder_is_as_closed(monkeypatch, walls):
    monkeypatch.setenv('TOPDOWN_HOME', str(course_root()))
    read, _ = grader._readable()
    assert str(course_root()) not in read and str(course_root()/'ledger.jsonl') not in read and str(course_root()/'topdown') in read


def test_solutions_cannot_be_read(walls):
    assert 'PermissionError' in tried(f'open({str(course_root()/"nbs"/"exercises"/"03.ipynb")!r})\n{RIGHT}').said


def test_no_connection_gets_through(walls):
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        listener.listen()
        listener.settimeout(.3)
        g = tried(f'import socket\ntry: socket.create_connection(("127.0.0.1", {listener.getsockname()[1]}), 2)\nexcept OSError: pass\n{RIGHT}')
        assert g.passed
        with pytest.raises(TimeoutError): listener.accept()


def test_the_environment_holds_no_token(monkeypatch):
    monkeypatch.setenv('SECRET_TOKEN', 'hush')
    grader._stop_helper()
    g = tried(f'import os\nprint(dict(os.environ), open("/proc/self/environ").read() if os.path.exists("/proc/self/environ") else "")\n{RIGHT}')
    assert g.passed and 'hush' not in g.printed and 'PATH' in g.printed


def test_where_landlock_is_missing_it_says_so(monkeypatch):
    monkeypatch.setattr(grader, 'landlock_version', lambda: 0)
    g = tried(RIGHT)
    assert g.passed and not g.isolated and 'not isolated: files (no Landlock' in g.note and 'not isolated' in repr(g)


def test_without_forks_it_is_as_strict(monkeypatch):
    monkeypatch.setattr(grader, '_ask_helper', grader._ask_alone)
    assert tried(RIGHT).passed and ENDS in tried(f'import os\nos._exit(0)\n{RIGHT}').said
    assert 'longer than 1 seconds' in tried(f'while True: pass\n{RIGHT}', seconds=-29).said.replace('-29', '1')


def test_each_failed_try_shows_one_hint_more(own):
    (own/'progress.sqlite').unlink()
    shown = [len(grade(TOY, ['def twice(n): return 0'], keep=True).hints) for _ in range(4)]
    assert shown == [1, 2, 3, 3]
    passed = grade(TOY, [RIGHT], keep=True)
    assert passed.passed and not passed.note and '3.9' in grader.passed_exercises()
    assert len(grade(TOY, ['def twice(n): return 0'], keep=True).hints) == 1


def test_the_last_hint_never_comes_first(own):
    (own/'progress.sqlite').unlink()
    from dataclasses import replace
    late = replace(TOY, checks='# needs: twice\ndef check_3_9(expect): expect(False, "no", hint=2)')
    assert [grade(late, [RIGHT], keep=True).hints for _ in range(3)] == [['think so'], ['think so', 'write that'], ['think so', 'write that']]


def helper_that(monkeypatch, *lives):
    "Let the helpers that are started next lead these lives, and then the usual one"
    grader._stop_helper()
    lives, start = list(lives), grader._start
    def other(code):
        call, env = start(code)
        return (call[:-1] + [lives.pop(0)], env) if lives else (call, env)
    monkeypatch.setattr(grader, '_start', other)
    return lives


BROKEN = ['import topdown.no_such_module', 'import sys; sys.stdin.readline(); raise OSError("half written")', 'print("no verdict", flush=True); input()',
          'import os; os.close(0); os.close(1)']


@pytest.mark.parametrize('life', BROKEN)
def test_a_helper_that_ends_is_replaced_once_and_nobody_notices(life, monkeypatch):
    left = helper_that(monkeypatch, life)
    assert tried(RIGHT).passed and not left


def test_a_helper_that_dies_between_two_tries_is_replaced():
    assert tried(RIGHT).passed
    grader._helper[os.getpid()].kill()
    assert tried(RIGHT).passed


def test_where_it_ends_twice_no_try_is_counted_and_no_hint_shown(own, monkeypatch):
    (own/'progress.sqlite').unlink()
    helper_that(monkeypatch, BROKEN[0], BROKEN[1])
    g = grade(TOY, [RIGHT], keep=True)
    assert not g.passed and not g.hints and 'OSError: half written' in g.said and 'this try is not counted' in g.said, g
    assert len(grade(TOY, ['def twice(n): return 0'], keep=True).hints) == 1


def test_a_child_that_ends_before_the_learners_code_is_not_the_learners_doing(monkeypatch):
    grader._stop_helper()
    life = 'from topdown import grader; grader._enter = lambda *a: 1/0; grader._serve()'
    helper_that(monkeypatch, life, life)
    g = tried(RIGHT)
    assert not g.hints and 'ZeroDivisionError' in g.said and 'not counted' in g.said, g
    helper_that(monkeypatch, life)
    assert tried(RIGHT).passed


def test_the_exercises_own_failure_is_not_counted():
    from dataclasses import replace
    g = grade(replace(TOY, given=['import no_such_library']), [RIGHT])
    assert g.said.startswith("the exercise's own cells failed") and not g.hints


def test_a_broken_progress_file_does_not_keep_the_grade_back(monkeypatch):
    monkeypatch.setattr('topdown.progress.ProgressFile.__init__', lambda *a: (_ for _ in ()).throw(OSError('no space')))
    g = grade(TOY, [RIGHT], keep=True)
    assert g.passed and 'not in your progress file: no space' in g.note


def test_cells_of_a_notebook_are_found_by_their_metadata(tmp_path):
    def cell(source, **about): return {'cell_type': 'code', 'metadata': {'topdown': about} if about else {}, 'source': source}
    nb = {'cells': [cell('a', exercise='3.8', role='stub'), cell('given', exercise='3.9', role='given'), cell('mine', exercise='3.9', role='stub'), cell('added'),
                    cell('check', exercise='3.9', role='check'), cell('more'), cell('b', exercise='3.10', role='stub'), cell('c')]}
    path = tmp_path/'n.ipynb'
    path.write_text(json.dumps(nb), encoding='utf-8')
    assert learner_cells(TOY, path) == ['mine', 'added', 'more']
    with pytest.raises(CourseError, match='no cells of exercise 3.9'):
        path.write_text('{"cells": []}', encoding='utf-8')
        learner_cells(TOY, path)


def test_the_last_definition_in_a_running_notebook_counts():
    history = ['import math as m', 'def twice(n): return n', 'def two(): return m.sqrt(4)', 'def twice(n): return n*two()', 'other = 1', TOY.given[0], 'check("3.9")']
    assert cells_for(TOY, history) == ['import math as m', 'def two(): return m.sqrt(4)', 'def twice(n): return n*two()']
    assert cells_for(TOY, history + ['def twice(n: return'])[-1] == 'def twice(n: return'
    assert cells_for(TOY, ['x = 1']) == [] and 'not filled in' in read_before_running(TOY, [])[0]


def test_check_reads_the_history_of_the_notebook(tmp_path):
    from conftest import write
    from topdown.runner import run_notebook
    cells = ['import numpy as np', 'from topdown.exercises import find_exercise\nfor o in find_exercise("3.1").given: exec(o)', find_solution('3.1'),
             'from topdown.grader import check\ncheck("3.1")', 'check("3.1").passed']
    result = run_notebook(write(tmp_path/'x.ipynb', *cells), tmp_path/'run')
    assert result.ok, result.failure
    out = [o for c in json.loads(result.notebook.read_text(encoding='utf-8'))['cells'] for o in c['outputs']]
    assert 'role=\\"status\\"' in json.dumps(out) and 'True' in json.dumps(out[-1])


def find_solution(id):
    from topdown.exercises import find_exercise
    return '\n'.join(find_exercise(id).solution)


def test_check_outside_of_a_notebook_names_the_command():
    with pytest.raises(CourseError, match='topdown check 3.1'): grader.check('3.1')


def test_a_lesson_is_graded_from_its_copy(own):
    from topdown.exercises import copy_exercises
    with pytest.raises(CourseError, match='topdown exercises copy 3'): grader.check_lesson('3', keep=False)
    path, _ = copy_exercises('3')
    assert path.parent == places()['lessons']/'exercises'
    found = grader.check_lesson('3', keep=False)
    assert not any(g.passed for g in found) and all('not filled in' in g.said for g in found)


def test_the_built_solutions_pass_from_the_notebook_and_inside_it(tmp_path):
    from topdown.exercises import build_exercises
    from topdown.runner import run_notebook
    path = next(p for p, _ in build_exercises(tmp_path/'built', '2') if p.parent.name == 'solution')
    found = grader.check_lesson('2', path, keep=False)
    assert found and all(g.passed for g in found), found
    result = run_notebook(path, tmp_path/'run')
    assert result.ok, result.failure
    said = [json.dumps(c['outputs']) for c in json.loads(result.notebook.read_text(encoding='utf-8'))['cells'] if c['source'] and 'check("' in ''.join(c['source'])]
    assert len(said) == len(found) and all('all checks passed' in o for o in said), said


def test_grader_imports_nothing_heavy():
    import subprocess
    code = "import sys, topdown.grader; print([m for m in ('torch', 'fastai', 'pandas', 'matplotlib', 'numpy', 'IPython') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=os.environ).stdout.strip() == '[]'
