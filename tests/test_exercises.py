"""Each exercise in nbs/exercises: its solution passes, everything else does not, and the learner's version gives nothing away"""
import ast
import json
import re

import pytest

from topdown.copies import copy_lesson
from topdown.exercises import (build_exercises, clean_notebook, copy_exercises, exercise_notebook, exercises, exercises_folder, find_exercise, given_for, read_exercises,
                               whole_lesson)
from topdown.grader import _too_early, grade, introduced
from topdown.settings import CourseError, course, places

ALL = exercises()
NOTEBOOKS = sorted(exercises_folder().glob('*.ipynb'))
each = pytest.mark.parametrize('e', ALL, ids=[e.id for e in ALL])


def test_each_lesson_has_three_exercises_and_a_large_one():
    for number in sorted({o.number[:2] for o in course().lessons}):
        some = [e for e in ALL if e.lesson == number]
        assert len(some) >= 3 and [e.large for e in some].count(True) == 1, f'lesson {number} has {[e.title for e in some]}'


@each
def test_the_solution_passes(e):
    g = grade(e, e.solution, memory=2, seed=42)
    assert g.passed and g.said == 'all checks passed', g
    for source in given_for(e): assert not _too_early(source, e.lesson)


@each
def test_the_skeleton_is_not_filled_in(e):
    g = grade(e, e.stub)
    assert not g.passed and g.said.startswith('not filled in yet: '), g.said


@each
def test_each_wrong_version_is_told_what_is_wrong(e):
    for w in e.wrong:
        g = grade(e, [w.source], seed=42)
        assert not g.passed and w.phrase in g.said, f'{w.sort}: {w.phrase!r} is not in {g.said!r}'
        assert g.hints and not g.said.startswith("the exercise's own cells failed")


@each
def test_a_slip_of_the_pen_is_found_in_its_line(e):
    lines = '\n'.join(e.solution).split('\n')
    n = next(i for i, o in enumerate(lines) if re.match(r'(def|class) .*:|\w+ *=', o))
    lines[n] = lines[n].replace('(', '((', 1) if '(' in lines[n] else lines[n] + ' ='
    said = grade(e, ['\n'.join(lines)]).said
    assert re.match(r'in the cell that begins with `.+`, line \d+: this is not Python', said) and '^' in said, said


@each
def test_a_later_lesson_is_of_no_help(e):
    later = sorted(k for k, v in introduced().items() if k.startswith('topdown.') and v > e.lesson)
    said = grade(e, [*e.solution, f'import {later[0]}']).said if later else 'comes in lesson'
    assert 'comes in lesson' in said


@each
def test_hints_escalate_and_name_a_section(e):
    headings = {h.strip().lower() for o in course().lessons if o.number[:2] == e.lesson for c in json.loads(o.path.read_text(encoding='utf-8'))['cells']
                if c['cell_type'] == 'markdown' for h in re.findall(r'^#{2,4} +(.+)$', ''.join(c['source']), flags=re.M)}
    assert len(e.hints) == 3
    named = re.findall(r'\*([^*]+)\*', e.hints[0])
    assert any(h.startswith(o.strip(' .:').lower()) for o in named for h in headings), f'the first hint names no section of the lesson: {e.hints[0]}'


@each
def test_the_task_says_how_long_and_how_it_is_graded(e):
    assert re.search(r'Takes about (\d+ (to \d+ )?minutes|an hour)', e.task) and re.search(r'[Gg]raded', e.task) and all(o in e.task for o in e.needs), e.task


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_the_learners_version_gives_nothing_away(path):
    text, full = exercise_notebook(path), exercise_notebook(path, 'solution')
    cells, solved = json.loads(text)['cells'], json.loads(full)['cells']
    shown = '\n'.join(''.join(c['source']) for c in cells)
    some = read_exercises(path)
    told = '\n'.join(o for e in some for o in (*e.given, *e.stub, e.task, *(''.join(c['source']) for role, c in e.cells if role == 'shown')))
    for e in some:
        secret = [*e.solution, e.checks, *e.hints, *(w.source for w in e.wrong)]
        leaked = [o for source in secret for o in map(str.strip, source.splitlines()) if len(o) >= 20 and o in shown and o not in told]
        assert not leaked and f'check("{e.id}")' in shown, leaked
    assert not {'hints', 'wrong', 'solution', 'checks', 'tags'} & set(re.findall(r'\w+', json.dumps([c['metadata'] for c in cells])))
    def ours(cells): return [(c['id'], c['source']) for c in cells if c['metadata'].get('topdown', {}).get('role') not in ('stub', 'solution')]
    assert ours(cells) == ours(solved) and all(not c.get('outputs') for c in cells + solved)


def test_versions_are_notebooks():
    import nbformat
    for path in NOTEBOOKS:
        for version in ('learner', 'solution'): nbformat.validate(nbformat.reads(exercise_notebook(path, version), as_version=4))
    for o in course().lessons: nbformat.validate(nbformat.reads(clean_notebook(o.path), as_version=4))


def test_a_clean_lesson_has_code_and_headings_alone():
    for lesson in course().lessons:
        cells, was = (json.loads(text)['cells'] for text in (clean_notebook(lesson.path), lesson.path.read_text(encoding='utf-8')))
        assert [c['source'] for c in cells if c['cell_type'] == 'code'] == [c['source'] for c in was if c['cell_type'] == 'code' and ''.join(c['source']).strip()]
        assert all(line.startswith('#') or not line.strip() for c in cells if c['cell_type'] == 'markdown' for line in c['source'])
        assert not any(c['outputs'] for c in cells if c['cell_type'] == 'code')


def test_a_changed_copy_is_kept_and_an_unchanged_build_is_the_same_to_the_byte(home):
    to = home/'built'
    first = build_exercises(to, '3')
    before = {p: p.read_bytes() for p, _ in first}
    assert {what for _, what in first} == {'new'} and {p.parent.name for p in before} == {'learner', 'solution', 'clean'}
    assert {what for _, what in build_exercises(to, '3')} == {'same'} and {p: p.read_bytes() for p in before} == before
    mine = to/'learner'/'03.ipynb'
    mine.write_text(mine.read_text(encoding='utf-8').replace('...', '42'), encoding='utf-8')
    held = mine.read_bytes()
    assert dict(build_exercises(to, '3'))[mine.resolve()] == 'kept' and mine.read_bytes() == held
    assert dict(build_exercises(to, '3', fresh=True))[mine.resolve()] == 'fresh' and mine.read_bytes() == before[mine.resolve()]
    assert any(p.read_bytes() == held for p in mine.parent.glob('03-*.ipynb'))


def test_a_copy_lies_beside_the_lessons(home):
    path, what = copy_exercises('6a')
    assert (path, what) == (places()['lessons']/'exercises'/'06.ipynb', 'new') and copy_exercises('6')[1] == 'same'
    assert (path.parent/'../06a_tables.ipynb').resolve() == copy_lesson('6a')[0].resolve()


def test_what_is_not_known_is_named():
    with pytest.raises(CourseError, match=r"unknown exercise '3.99'; known: .*3\.1"): find_exercise('3.99')
    for wrong in ('99', 'x', '04_mnist_from_scrath'):
        with pytest.raises(CourseError, match='unknown lesson'): whole_lesson(wrong)


def cell(kind, source, *tags): return {'cell_type': kind, 'id': 'x', 'metadata': {'tags': list(tags)} if tags else {}, 'source': source}


GOOD = [cell('markdown', '# Title'), cell('markdown', '## 4.1 Twice', 'task'), cell('code', '#| eval: false\ndef f(): ...', 'stub'), cell('code', 'def f(): return 1', 'solution'),
        cell('code', '# needs: f\ndef check_4_1(expect): expect(f() == 1, "one")', 'checks'), cell('markdown', '1. a\n2. b\n3. c', 'hints'),
        cell('code', '#| eval: false\n# plausible: one\nf = 3', 'wrong'), cell('code', '#| eval: false\n# hard-coded: one\nf = 3', 'wrong')]
BROKEN = {'an unknown tag': ({1: cell('markdown', '## 4.1 Twice', 'taks')}, r'04.ipynb, cell 2 .* has the tags taks'),
          'a cell without a tag': ({3: cell('code', 'x = 1')}, r'cell 4 .* has no tag'),
          'the wrong kind': ({5: cell('code', '1', 'hints')}, r'cell 6 .* should be a markdown cell, found code'),
          'no title': ({1: cell('markdown', '# 4.1', 'task')}, r'cell 2 .*begins with the line'),
          'another lesson': ({1: cell('markdown', '## 5.1 Twice', 'task')}, r'have the numbers 4.1'),
          'a gap in the numbers': ({1: cell('markdown', '## 4.2 Twice', 'task'), 4: cell('code', '# needs: f\ndef check_4_2(expect): pass', 'checks')}, r'should be 4.1'),
          'a stub that would run': ({2: cell('code', 'def f(): ...', 'stub')}, r'cell 3 .*a stub cell begins with'),
          'two hints': ({5: cell('markdown', '1. a\n2. b', 'hints')}, r'cell 6 .*list of 3, and nothing else; found 2'),
          'no needs': ({4: cell('code', 'def check_4_1(expect): pass', 'checks')}, r'cell 5 .*needs: NAME'),
          'no check': ({4: cell('code', '# needs: f\ndef check(expect): pass', 'checks')}, r'does not define check_4_1'),
          'no phrase': ({6: cell('code', '#| eval: false\nf = 3', 'wrong')}, r'cell 7 .*second line of a wrong cell'),
          'no hard-coded one': ({7: cell('code', '', )}, r'exercise 4.1 lacks a cell with the tag: a hard-coded wrong'),
          'no solution': ({3: cell('code', '')}, r'lacks a cell with the tag: solution'),
          'no Python': ({3: cell('code', 'def f(: pass', 'solution')}, r'exercise 4.1: a cell is not Python, line 1')}


@pytest.mark.parametrize('what', BROKEN)
def test_a_mistake_in_a_notebook_is_named_with_its_cell(what, tmp_path):
    changes, said = BROKEN[what]
    path = tmp_path/'04.ipynb'
    path.write_text(json.dumps({'cells': GOOD}), encoding='utf-8')
    assert [e.id for e in read_exercises(path)] == ['4.1']
    path.write_text(json.dumps({'cells': [changes.get(i, c) for i, c in enumerate(GOOD)]}), encoding='utf-8')
    with pytest.raises(CourseError, match=said): read_exercises(path)


def test_given_cells_of_earlier_exercises_are_found_by_the_names_that_are_used():
    e, later = (find_exercise(o) for o in ('3.1', '3.1'))
    later.before, later.given = ['import numpy as np', 'data = np.ones(3)', 'other = 1'], []
    later.solution, later.checks, later.needs = ['def f(): return data'], '', ['f']
    assert given_for(later) == ['import numpy as np', 'data = np.ones(3)'] and given_for(e) == e.given
    assert given_for(later, ('other + 1',))[-1] == 'other = 1'


def test_checks_use_the_seed():
    for e in ALL: assert 'SEED' in {o.id for o in ast.walk(ast.parse(e.checks)) if isinstance(o, ast.Name)}, f'the checks of {e.id} have no inputs of their own'
