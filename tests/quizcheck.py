"""What must be true of every quiz file, and what its answers are when Python, or a second reader, works them out

python tests/quizcheck.py [NN …]           prints the faults of the quizzes
python tests/quizcheck.py --sheet [NN …]   prints the questions without their answers, for a second reader

What that reader finds stands in second_key.json, by id: the index of the right choice (single), a list of indices (multiple), the steps in their
order, each as its text or a part of it, or all as indices into the alphabetical list that the sheet shows (order), word stems in small letters
that a good answer must hold, alternatives parted by | (text). A number or an output may stand there too; Python works those out anyway.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from topdown.quiz import QUESTION_KINDS, judge, read_quiz
from topdown.settings import CourseError

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT/'nbs'/'quizzes').glob('*.toml'))
KEY = ROOT/'tests'/'second_key.json'
ENDS = {'Recap', 'Questions', 'Further research'}

RUNNER = """
import contextlib, io, json, sys, traceback
real, found = sys.stdout, {}
for name, code in json.load(sys.stdin).items():
    out, error = io.StringIO(), ''
    with contextlib.redirect_stdout(out):
        try: exec(compile(code, name, 'exec'), {'__name__': '__main__'})
        except BaseException: error = traceback.format_exc(limit=-1)
    found[name] = [out.getvalue(), error]
json.dump(found, real)
"""


def printed(codes):
    "Name → (what its code prints, the error that ended it), each in a namespace of its own, all in one process"
    if not codes: return {}
    env = {k: v for k, v in os.environ.items() if k not in ('TOPDOWN_DATA', 'TOPDOWN_TRACK')} | {'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'agg', 'PYTHONIOENCODING': 'utf-8'}
    env['PYTHONPATH'] = os.pathsep.join([str(ROOT), *filter(None, [env.get('PYTHONPATH')])])
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, '-c', RUNNER], input=json.dumps(codes), cwd=folder, env=env | {'TOPDOWN_HOME': folder},
                              capture_output=True, text=True, encoding='utf-8', timeout=600)
    if done.returncode: raise RuntimeError(f'a program of a quiz ended Python: {done.stderr[-2000:]}')
    return {name: tuple(o) for name, o in json.loads(done.stdout).items()}


@lru_cache
def loaded(path): return read_quiz(path)


@lru_cache
def ran(path):
    "What the programs of a file print"
    return printed({q.id: q.check if q.kind == 'number' else q.code for q in loaded(path).questions if q.kind in ('number', 'output')})


@lru_cache
def second_key():
    "Id → the answer that a second reader found without looking at the file's"
    return json.loads(KEY.read_text(encoding='utf-8')) if KEY.exists() else {}


@lru_cache
def headings(lesson):
    "The ## and ### headings of a lesson's notebook"
    nb = json.loads(lesson.path.read_text(encoding='utf-8'))
    text = '\n'.join(''.join(c['source']) + '\n' for c in nb['cells'] if c['cell_type'] == 'markdown')
    return re.findall(r'^###? (.+?)\s*$', re.sub(r'^```.*?^```', '', text, flags=re.M | re.S), flags=re.M)


def right_answer(q):
    "What `judge` must call right"
    indices = [k for k, c in enumerate(q.choices) if c.right]
    return {'single': indices[0] if indices else None, 'multiple': set(indices), 'number': q.answer, 'output': q.answer,
            'order': list(range(len(q.steps))), 'text': set(range(len(q.points)))}[q.kind]


def wrong_answers(q):
    "Answers that `judge` must call wrong, each with what it must say about them"
    if q.kind == 'single': return [(k, c.why) for k, c in enumerate(q.choices) if not c.right]
    if q.kind == 'multiple': return [({k}, c.why) for k, c in enumerate(q.choices) if not c.right] + [(set(), ''), (set(range(len(q.choices))), '')]
    if q.kind == 'number': return [*q.wrong.items(), (q.answer + 3*q.tolerance + 1, 'The answer is'), (q.answer - 3*q.tolerance - 1, 'The answer is')]
    if q.kind == 'output': return [*q.wrong.items(), ('', ''), (q.answer + 'x', 'It prints')]
    if q.kind == 'order': return [(list(range(len(q.steps)))[::-1], q.steps[0])]
    return [(set(), o) for o in q.points]


def lines(text): return [o.rstrip() for o in text.rstrip().split('\n')]


def shape_faults(q):
    "What a question of its kind must hold, and how its answers must be judged"
    if q.kind in ('single', 'multiple'):
        n = sum(c.right for c in q.choices)
        if not n or n == len(q.choices) or (q.kind == 'single' and n > 1): yield f'{n} of {len(q.choices)} choices are right'
        if not all(c.why.strip() for c in q.choices): yield 'a choice lacks why'
    if q.kind == 'text' and not q.model.strip(): yield 'the model answer is empty'
    if q.kind == 'output' and '' in lines(q.answer): yield 'an empty line of the answer cannot be typed in the terminal'
    try:
        if not judge(q, right_answer(q)).right: yield 'the right answer is judged wrong'
        for given, why in wrong_answers(q):
            verdict = judge(q, given)
            if verdict.right: yield f'{given!r} is judged right'
            elif why.strip() not in '\n'.join(verdict.lines): yield f'{given!r} is not answered with {why!r}'
    except (CourseError, StopIteration) as e: yield f'cannot be judged: {e!r}'


def run_faults(q, done):
    "Does Python find the same answer?"
    if q.id not in done: return
    said, error = done[q.id]
    if error: yield f'its program fails: {error}'; return
    if q.kind == 'output':
        if lines(said) != lines(q.answer): yield f'Python prints {said!r}, the answer is {q.answer!r}'
        return
    try: value = float(said)
    except ValueError: yield f'check should print one number, found {said!r}'; return
    if not abs(value - q.answer) <= q.tolerance + 1e-9*abs(q.answer): yield f'check prints {said.strip()}, the answer is {q.answer}'


def key_faults(q, key):
    "Did the second reader find the same answer?"
    if q.id not in key:
        if q.kind not in ('number', 'output'): yield 'nobody has answered it a second time'
        return
    second, mine = key[q.id], right_answer(q)
    if q.kind == 'text':
        lacks = [stems for stems in second if not any(o in q.model.lower() for o in stems.split('|'))]
        if lacks or not second: yield f'the model answer lacks {lacks or "words to look for"}'
    elif q.kind in ('number', 'output'):
        if not judge(q, second).right: yield f'the second answer is {second!r}, the answer {mine!r}'
    elif q.kind == 'order':
        texts = [sorted(q.steps)[o] if isinstance(o, int) else o for o in second]
        if len(texts) != len(q.steps) or not all(o in step for o, step in zip(texts, q.steps)): yield f'the second order is {texts}, the order {q.steps}'
    elif (set(second) if q.kind == 'multiple' else second) != mine: yield f'the second answer is {second!r}, the answer {mine!r}'


def question_faults(q, done, key): return [*shape_faults(q), *run_faults(q, done), *key_faults(q, key)]


def quiz_faults(quiz):
    "What must be true of a file as a whole"
    qs, heads = quiz.questions, headings(quiz.lesson)
    if len(qs) < 20: yield f'{len(qs)} questions, at least 20 are wanted'
    for kind in QUESTION_KINDS:
        if kind not in {q.kind for q in qs}: yield f'no question of kind {kind}'
    if not 5 <= len(quiz.objectives) <= 8: yield f'{len(quiz.objectives)} objectives, 5 to 8 are wanted'
    asked = Counter(q.objective for q in qs)
    for key in quiz.objectives:
        if asked[key] < 2: yield f'objective {key} is asked {asked[key]} times, at least 2 are wanted'
    for q in qs:
        if q.section not in heads or q.section in ENDS: yield f'{q.id}: no section {q.section!r} in {quiz.lesson.name}'
    places = Counter(next(k for k, c in enumerate(q.choices) if c.right) for q in qs if q.kind == 'single')
    n = sum(places.values())
    if n >= 4 and (len(places) < 3 or max(places.values()) > .6*n): yield f'the right choice stands too often in one place: {dict(places)}'
    asks = Counter((q.ask, q.code) for q in qs)
    for (ask, _), count in asks.items():
        if count > 1: yield f'{ask!r} is asked {count} times'


def mutants(q):
    "The question with one mistake in it: what was done, and the result"
    if q.kind in ('single', 'multiple'):
        for k, c in enumerate(q.choices):
            if q.kind == 'multiple': yield f'choice {k} turned', replace(q, choices=[replace(o, right=o.right != (i == k)) for i, o in enumerate(q.choices)])
            elif not c.right: yield f'choice {k} right', replace(q, choices=[replace(o, right=i == k) for i, o in enumerate(q.choices)])
    if q.kind == 'number':
        for by in (3*q.tolerance + 1, -3*q.tolerance - 1): yield f'{by:+} added', replace(q, answer=q.answer + by)
    if q.kind == 'output':
        shown = lines(q.answer)
        for k in range(len(shown)): yield f'line {k} changed', replace(q, answer='\n'.join(shown[:k] + [shown[k] + '0'] + shown[k+1:]))
        yield 'a line too many', replace(q, answer='\n'.join([*shown, shown[-1]]))
    for k in range(len(q.steps) - 1): yield f'steps {k} and {k+1} swapped', replace(q, steps=q.steps[:k] + [q.steps[k+1], q.steps[k]] + q.steps[k+2:])
    if q.kind == 'text':
        yield 'model emptied', replace(q, model='')
        yield 'model replaced', replace(q, model='Nobody knows.')


def faults(path):
    "All faults of a file"
    try: quiz = loaded(path)
    except CourseError as e: return [str(e)]
    found = [f'{path.name}: {o}' for o in quiz_faults(quiz)]
    return found + [f'{path.name}, {q.id}: {o}' for q in quiz.questions for o in question_faults(q, ran(path), second_key())]


def sheet(quiz):
    "The questions without their answers; choices in the order of the file, steps in that of the alphabet"
    for q in quiz.questions:
        yield f'\n## {q.id} ({q.kind}) from “{q.section}”\n\n{q.ask}\n' + (f'\n```python\n{q.code.strip()}\n```\n' if q.code else '')
        yield from (f'{k}: {o}' for k, o in enumerate([c.text for c in q.choices] or sorted(q.steps)))


if __name__ == '__main__':
    numbers = [o for o in sys.argv[1:] if o != '--sheet']
    chosen = [p for p in FILES if not numbers or p.stem in numbers]
    for p in chosen if '--sheet' in sys.argv else []: print(f'# {loaded(p).lesson.title}', *sheet(loaded(p)), sep='\n')
    for p in chosen if '--sheet' not in sys.argv else []: print(*(faults(p) or [f'{p.name}: no fault']), sep='\n')
