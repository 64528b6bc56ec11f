"""Quizzes: every file, every answer by a second way, the engine, its errors, and a session in the terminal"""
import io
import json
import random
import re
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace

import pytest
import quizcheck
from rich.console import Console

import topdown.quiz as engine
from topdown.quiz import QUESTION_KINDS, Verdict, answer_text, as_card, judge, quiz, quiz_terminal, quizzes, read_quiz, remember, shuffled, where_to_read
from topdown.settings import CourseError, course, find_lesson

each_file = pytest.mark.parametrize('path', quizcheck.FILES, ids=lambda p: p.stem)

SMALL = '''lesson = "03_how_a_network_learns"

[objectives]
loss = "Say how badly a model fits"
step = "Take a step"

[[question]]
id = "03.01"
kind = "single"
objective = "loss"
section = "One number for the misfit: the loss"
ask = "Which is *even*?"
choices = [
  {text = "one", why = "one is odd"},
  {text = "two", right = true, why = "two is twice one"},
  {text = "three", why = "three is odd"},
]
why = "About even numbers."

[[question]]
id = "03.02"
kind = "multiple"
objective = "step"
section = "Down the valley"
ask = "Which are odd?"
choices = [
  {text = "one", right = true, why = "one is odd"},
  {text = "two", why = "two is even"},
  {text = "three", right = true, why = "three is odd"},
  {text = "four", why = "four is even"},
]
why = "About odd numbers."

[[question]]
id = "03.03"
kind = "number"
objective = "step"
section = "Down the valley"
ask = "How far?"
answer = 1.95
tolerance = 0.005
unit = "metres"
check = "print(1.95)"
wrong = {"2.05" = "That is uphill."}
why = "About lengths."

[[question]]
id = "03.04"
kind = "output"
objective = "loss"
section = "Down the valley"
ask = "What is printed?"
code = """
answer = 3
print(answer)
print('[[question]]')
"""
answer = "3\\n[[question]]\\n"
wrong = {"answer" = "That is its name."}
why = "About printing."

[[question]]
id = "03.05"
kind = "order"
objective = "step"
section = "Momentum"
ask = "Count."
steps = ["one", "two", "three"]
why = "About counting."

[[question]]
id = "03.06"
kind = "text"
objective = "loss"
section = "Momentum"
ask = "Say what a loss is."
model = "A number that says how badly a model fits"
points = ["says number", "says badly"]
why = "About losses."
'''


@pytest.fixture
def small(tmp_path):
    "A small quiz with one question of each kind"
    (tmp_path/'03.toml').write_text(SMALL, encoding='utf-8')
    return read_quiz(tmp_path/'03.toml')


def of(quiz, kind): return next(q for q in quiz.questions if q.kind == kind)


# The files

def test_every_lesson_has_a_quiz():
    assert [q.lesson.number for q in quizzes()] == [o.number for o in course().lessons] == [p.stem for p in quizcheck.FILES]


@each_file
def test_file_is_complete(path): assert not list(quizcheck.quiz_faults(quizcheck.loaded(path)))


@each_file
def test_each_question_can_be_judged(path):
    assert not [(q.id, o) for q in quizcheck.loaded(path).questions for o in quizcheck.shape_faults(q)]


@each_file
def test_python_finds_the_same_answers(path):
    assert not [(q.id, o) for q in quizcheck.loaded(path).questions for o in quizcheck.run_faults(q, quizcheck.ran(path))]


@each_file
def test_a_second_reader_found_the_same_answers(path):
    assert not [(q.id, o) for q in quizcheck.loaded(path).questions for o in quizcheck.key_faults(q, quizcheck.second_key())]


@each_file
def test_every_mistake_in_an_answer_would_be_found(path):
    done, key, missed, count = quizcheck.ran(path), quizcheck.second_key(), [], 0
    for q in quizcheck.loaded(path).questions:
        before = set(quizcheck.question_faults(q, done, key))
        for what, wrong in quizcheck.mutants(q):
            count += 1
            if not set(quizcheck.question_faults(wrong, done, key)) - before: missed.append((q.id, what))
    assert not missed and count > 2*len(quizcheck.loaded(path).questions)


def test_second_key_names_only_questions_that_exist():
    assert set(quizcheck.second_key()) <= {q.id for p in quizcheck.FILES for q in quizcheck.loaded(p).questions}


@each_file
def test_each_question_fits_on_a_card(path):
    for q in quizcheck.loaded(path).questions:
        assert as_card(q).front.startswith(q.ask) and q.why in as_card(q).back and answer_text(q)


@each_file
def test_each_question_can_be_shown_in_a_narrow_terminal(path):
    for q in quizcheck.loaded(path).questions:
        shown, to = terminal(60)
        engine._show(q, shuffled(q, 1), '1 of 2', to)
        text = shown.getvalue()
        assert '\\frac' not in text and q.id in text
        code = q.code.splitlines() + re.findall(r'```.*?```', q.ask, flags=re.S)
        assert all(len(o) <= 60 or any(o.strip() in c for c in code) for o in map(str.rstrip, text.splitlines())), q.id


# The checks themselves

def test_checks_find_nothing_in_a_good_question_and_every_mutant(small, tmp_path):
    done = quizcheck.ran(tmp_path/'03.toml')
    key = {'03.01': 1, '03.02': [0, 2], '03.05': ['one', 'two', 'three'], '03.06': ['number', 'badly']}
    small = quizcheck.loaded(tmp_path/'03.toml')
    assert {q.id: quizcheck.question_faults(q, done, key) for q in small.questions} == {q.id: [] for q in small.questions}
    found = [(q.kind, what, quizcheck.question_faults(m, done, key)) for q in small.questions for what, m in quizcheck.mutants(q)]
    assert {kind for kind, *_ in found} == set(QUESTION_KINDS) and all(faults for *_, faults in found)
    for number in (of(small, 'number'), of(small, 'output')): assert quizcheck.run_faults(number, {number.id: ('', 'NameError')})
    order = of(small, 'order')
    assert not list(quizcheck.key_faults(order, {'03.05': [0, 2, 1]})), 'indices into the alphabetical list: one, three, two'
    assert list(quizcheck.key_faults(order, {'03.05': [0, 1, 2]})) and list(quizcheck.key_faults(order, {'03.05': ['one', 'two']}))
    assert list(quizcheck.key_faults(small.questions[0], {})) == ['nobody has answered it a second time']


def test_the_sheet_for_a_second_reader_gives_nothing_away(small):
    text = '\n'.join(quizcheck.sheet(small))
    assert '0: one\n1: three\n2: two' in text and not re.search('About|1.95|badly', text) and all(q.ask in text for q in small.questions)


def test_programs_run_apart_from_each_other():
    found = quizcheck.printed({'a': 'x = 1\nprint(x)', 'b': 'print(x)', 'c': 'import sys\nsys.exit("over")', 'd': 'print("é")'})
    assert found['a'] == ('1\n', '') and 'NameError' in found['b'][1] and 'SystemExit' in found['c'][1] and found['d'][0] == 'é\n'


# Reading

WRONG = [ # what is written instead, how the line begins that is named, what is said
    ('ask = "How far?"', 'ask = How far?', 'ask = How far?', 'not TOML: Invalid value; found \'ask = How far?\''),
    ('answer = 1.95\n', 'answer = 1.95\nanswer = 2\n', 'answer = 2', 'not TOML: Cannot overwrite a value'),
    ('lesson = "03_how_a_network_learns"', 'lesson = "how"', 'lesson = "how"', "unknown lesson 'how'; known: "),
    ('lesson = "03', 'lessen = "03', 'lessen', "unknown key 'lessen'; known: lesson, "),
    ('[objectives]', '[aims]', '[aims]', "unknown key 'aims'; known: "),
    ('step = "Take a step"', 'step = 3', '[objectives]', 'objectives should be a table of texts'),
    ('kind = "number"', 'kind = "nubmer"', 'kind = "nubmer"', "question 03.03: unknown kind 'nubmer'; known: number, "),
    ('kind = "number"', '', '[[question]]', 'unknown kind None'),
    ('ask = "Count."', 'aks = "Count."', 'aks', "question 03.05: for kind order: unknown key 'aks'; known: ask, "),
    ('model = "A', 'steps = ["a"]\nmodel = "A', 'steps = ["a"]', "for kind text: unknown key 'steps'; known: "),
    ('tolerance = 0.005\n', '', 'id = "03.03"', 'it lacks tolerance'),
    ('check = "print(1.95)"\n', '', 'id = "03.03"', 'it lacks check'),
    ('tolerance = 0.005', 'tolerance = -1', 'tolerance = -1', 'tolerance should be 0 or more, found -1'),
    ('tolerance = 0.005', 'tolerance = true', 'tolerance = true', 'tolerance should be a number, found True'),
    ('answer = 1.95', 'answer = "1.95"', 'answer = "1.95"', "answer should be a number, found '1.95'"),
    ('answer = 1.95', 'answer = inf', 'answer = inf', 'answer should be a number, found inf'),
    ('answer = "3\\n[[question]]\\n"', 'answer = 3', 'answer = 3', 'question 03.04: answer should be a text, found 3'),
    ('  {text = "three", why = "three is odd"},\n]', '  {text = "three"},\n]', '{text = "three"}', 'question 03.01: choice 3 lacks why: one clause that says why it is wrong'),
    ('right = true, why = "two', 'rihgt = true, why = "two', '{text = "two"', "choice 2: unknown key 'rihgt'; known: right, "),
    ('right = true, why = "two', 'right = 1, why = "two', '{text = "two"', 'right of choice 2 should be true or false, found 1'),
    ('text = "two", right = true, why', 'text = "two", why', 'choices', 'no choice is right'),
    ('text = "one", why', 'text = "one", right = true, why', 'choices', '2 choices are right; kind single has one'),
    ('{text = "three", why = "three is odd"}', '{text = "two", why = "x"}', '{text = "two", right', "two choices are 'two'"),
    ('  {text = "three", why = "three is odd"},\n]', ']', 'choices', 'choices should have 3 to 6 entries, found 2'),
    ('objective = "step"\nsection = "Momentum"', 'objective = "stpe"\nsection = "Momentum"', 'objective = "stpe"', "unknown objective 'stpe'; known: step, "),
    ('id = "03.05"', 'id = "03.04"', 'id = "03.04"', "the id '03.04' was taken by question number 4"),
    ('id = "03.05"', 'id = "04.05"', 'id = "04.05"', "id should be 03. and two digits, found '04.05'"),
    ('id = "03.05"', 'id = 5', 'id = 5', 'id should be a text, found 5'),
    ('"one", "two", "three"]', '"one", "two", "one"]', 'steps', 'two steps are the same'),
    ('"one", "two", "three"]', '"one", "two", 3]', 'steps', 'steps should be a list of texts'),
    ('points = ["says number", "says badly"]', 'points = ["says number"]', 'points', 'points should have 2 to 4 entries, found 1'),
    ('"2.05" =', '"1.951" =', 'wrong', "'1.951' stands among the wrong answers and would be judged right"),
    ('"2.05" =', '"far" =', 'wrong', "the answer should be a number, such as 12, 0.5 or 1e-3; found 'far'"),
    ('"answer" =', '"3 \\n[[question]]" =', 'wrong', 'would be judged right'),
    ('why = "About odd numbers."', 'why = " "', 'why = " "', "why should be a text, found ' '"),
]


@pytest.mark.parametrize('old, new, line, said', WRONG)
def test_a_mistake_in_a_file_is_named_with_its_line(tmp_path, old, new, line, said):
    assert old in SMALL
    path, text = tmp_path/'03.toml', SMALL.replace(old, new, 1)
    path.write_text(text, encoding='utf-8')
    with pytest.raises(CourseError) as e: read_quiz(path)
    m = re.match(re.escape(str(path)) + r', line (\d+)[:,] ', str(e.value))
    assert m and text.split('\n')[int(m[1]) - 1].strip().startswith(line) and said in str(e.value), e.value


def test_of_two_like_keys_that_of_the_right_question_is_named(tmp_path):
    path = tmp_path/'03.toml'
    path.write_text(SMALL.replace('section = "Momentum"\nask = "Say', 'section = ""\nask = "Say'), encoding='utf-8')
    with pytest.raises(CourseError, match='line 75, question 03.06: section should be a text'): read_quiz(path)


def test_a_file_that_breaks_off_names_its_last_line(tmp_path):
    path = tmp_path/'03.toml'
    path.write_text(SMALL[:SMALL.index('{text = "two", right')], encoding='utf-8')
    with pytest.raises(CourseError, match=r'line 1[45]: not TOML: '): read_quiz(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(CourseError, match='no quiz at .*none.toml'): read_quiz(tmp_path/'none.toml')
    path = tmp_path/'03.toml'
    path.write_bytes(SMALL.replace('Count', 'Zähle').encode('latin-1'))
    with pytest.raises(CourseError, match='line 67: not UTF-8'): read_quiz(path)
    path.write_text('lesson = "03_how_a_network_learns"\n', encoding='utf-8')
    with pytest.raises(CourseError, match='line 1: the file lacks objectives'): read_quiz(path)


def test_windows_files_are_read_as_well(tmp_path, small):
    path = tmp_path/'windows.toml'
    path.write_bytes(b'\xef\xbb\xbf' + SMALL.replace('\n', '\r\n').encode())
    assert [q.id for q in read_quiz(path).questions] == [q.id for q in small.questions]
    assert judge(of(read_quiz(path), 'output'), '3\r\n[[question]]').right


def test_unknown_lessons_are_refused_as_everywhere(tmp_path, monkeypatch):
    for name in (99, 'thre', 6):
        with pytest.raises(CourseError) as e: quiz(name)
        with pytest.raises(CourseError) as f: find_lesson(name)
        assert str(e.value) == str(f.value)
    monkeypatch.setattr(engine, '_quiz_file', lambda lesson: tmp_path/f'{lesson.number}.toml')
    with pytest.raises(CourseError, match='lesson 03 has no quiz: no file .*03.toml'): quiz(3)
    assert quizzes() == []
    (tmp_path/'04.toml').write_text(SMALL, encoding='utf-8')
    with pytest.raises(CourseError, match='should be the quiz of 04_mnist_from_scratch, found 03_how'): quiz(4)


def test_a_changed_file_is_read_again(tmp_path, monkeypatch):
    import os
    monkeypatch.setattr(engine, '_quiz_file', lambda lesson: tmp_path/f'{lesson.number}.toml')
    (tmp_path/'03.toml').write_text(SMALL, encoding='utf-8')
    assert quiz(3) is quiz('03')
    (tmp_path/'03.toml').write_text(SMALL.replace('Count.', 'Count on.'), encoding='utf-8')
    os.utime(tmp_path/'03.toml', ns=(1, 1))
    assert of(quiz(3), 'order').ask == 'Count on.'


# Judging

def test_each_wrong_choice_says_why(small):
    q = of(small, 'single')
    assert judge(q, 0).lines == ['Not right.', '“one”: one is odd.', 'Right is “two”: two is twice one.', 'About even numbers.',
                                 'Read again: lesson 3, section “One number for the misfit: the loss”.']
    assert judge(q, 1) == Verdict(True, 1, ['Right.', '“two”: two is twice one.', 'About even numbers.'], '1')


def test_several_choices(small):
    q = of(small, 'multiple')
    share = {frozenset(o): judge(q, o).share for o in [{0, 2}, {0}, {0, 1}, {1, 3}, {0, 1, 2}, {0, 1, 2, 3}, set()]}
    assert list(share.values()) == [1, .5, 0, 0, .5, 0, 0] and judge(q, [2, 0]).right
    said = judge(q, {0, 1}).lines
    assert said[1:4] == ['Right is “one”: one is odd.', 'Wrong is “two”: two is even.', 'Missed was “three”: three is odd.']


@pytest.mark.parametrize('given', ['1.95', '1,95', '1.95 metres', '1,95 m', '1.95metre', ' = 1.95', '195e-2', '0.195E+1', 1.95, '1.946', '1.945', '1.955', '39/20', '195 %', '≈ 1.95'])
def test_numbers_that_are_right(small, given): assert judge(of(small, 'number'), given).right


@pytest.mark.parametrize('given', ['1.9', '-1.95', '−1.95', '2', 2, '195', '1.944', '1e-3', '0'])
def test_numbers_that_are_wrong(small, given):
    verdict = judge(of(small, 'number'), given)
    assert not verdict.right and verdict.share == 0
    assert verdict.lines[1:3] == [f'{given} is not within 0.005 of the answer.', 'The answer is 1.95 metres.']


@pytest.mark.parametrize('given', ['', 'two', 'nan', 'inf', '1e999', '1.2.3', '1,2,3', '--1', '1/0', '1.95 km', 'e5', '.', '1 2 x 3 metres', None, True, float('nan'), [1]])
def test_what_is_no_number_is_asked_again(small, given):
    with pytest.raises(CourseError, match='the answer should be a number|wanted in metres'): judge(of(small, 'number'), given)


def test_tempting_numbers_say_why(small):
    for given in ('2.05', '2,05 metres', 2.053): assert judge(of(small, 'number'), given).lines[1] == 'That is uphill.'


def test_large_numbers_and_percent(small):
    q = replace(of(small, 'number'), answer=25000, tolerance=0, unit='', wrong={})
    for good in ('25000', '25,000', '25 000', "25'000", '25_000', '2.5e4', '25000 weights', '25.000,0', '25,000.0'): assert judge(q, good).right, good
    for bad in ('25', '2,5000', '24999', '25001'): assert not judge(q, bad).right, bad
    assert judge(replace(q, answer=1234567), '1,234,567').right and judge(replace(q, answer=1.234), '1,234').right
    assert judge(replace(q, answer=.12), '12 %').right and judge(replace(q, answer=12, unit='%'), '12 %').right and judge(replace(q, answer=12, unit='percent'), '12%').right
    assert judge(q, 7).lines[1] == '7 is not the answer.'


def test_outputs_are_compared_line_by_line(small):
    q = of(small, 'output')
    for good in ('3\n[[question]]', '3  \n[[question]]\n\n', '3\r\n[[question]] '): assert judge(q, good).right
    for bad in ('', '3', ' 3\n[[question]]', '3\n\n[[question]]', '3\n[[question]]\n4'): assert not judge(q, bad).right
    assert judge(q, '3').lines[1] == 'Line 2 is `[[question]]`.' and judge(q, '3').share == .5
    assert judge(q, 'answer ').lines[1] == 'That is its name.'
    assert judge(q, '3\n[[question]]\n4').lines[1] == 'It prints no more than 2 lines.'
    assert judge(replace(q, answer='7'), '8').lines[:3] == ['Not right.', 'It prints:', '```\n7\n```']


def test_orders_and_texts(small):
    order, text = of(small, 'order'), of(small, 'text')
    assert judge(order, [0, 1, 2]).right and [round(judge(order, o).share, 2) for o in ([1, 0, 2], [2, 1, 0])] == [.67, 0]
    assert judge(order, [1, 0, 2]).lines[1:3] == ['At place 1 stands “one”, not “two”. The order is:', '1. one\n2. two\n3. three']
    assert judge(text, {0, 1}).right and judge(text, {1}).lines[:3] == ['Partly right.', 'Still to add: says number.', 'A model answer: A number that says how badly a model fits.']


@pytest.mark.parametrize('kind, given', [('single', 3), ('single', -1), ('single', 'b'), ('single', None), ('multiple', {0, 4}), ('multiple', 'ab'), ('multiple', 1),
                                         ('order', [0, 1]), ('order', [0, 0, 1]), ('order', '012'), ('text', {2}), ('text', None)])
def test_what_is_no_answer_is_refused(small, kind, given):
    with pytest.raises(CourseError, match='should be'): judge(of(small, kind), given)


def test_the_order_shown_depends_on_seed_and_question(small):
    q = of(small, 'multiple')
    assert shuffled(q, 3) == shuffled(q, 3) and len({tuple(shuffled(q, s)) for s in range(300)}) == 24
    assert all(shuffled(of(small, 'order'), s) != [0, 1, 2] for s in range(300)) and shuffled(of(small, 'text'), 1) == []
    assert len({tuple(shuffled(replace(q, id=f'03.{i}'), 0)) for i in range(10, 40)}) > 5


def test_where_to_read(small):
    assert where_to_read(small.questions[4]) == 'lesson 3, section “Momentum”'
    assert where_to_read(replace(small.questions[4], lesson=find_lesson('00'))).startswith('lesson 0,')
    assert where_to_read(replace(small.questions[4], lesson=find_lesson('6a'))).startswith('lesson 6a,')


# Formulas

@pytest.mark.parametrize('written, plain', [
    (r'$\frac{1}{n}\sum_i x_i^{2}$', '`1/nΣ_i x_i^2`'), (r'$$a \le \sqrt{b}$$', '`a ≤ √b`'), ('`$HOME` and `a$b$`', '`$HOME` and `a$b$`'),
    ('5 $ and 6 $', '5 $ and 6 $'), (r'$a*b*c$', '`a*b*c`'), (r'$\big(e^{a + b}\big)\,\sqrt d$', '`(e^(a + b)) √d`'), (r'$n_\text{all} \cdot \ln 2$', '`n_all · ln 2`'), (r'\$5 or \$6', r'\$5 or \$6'), (r'$\frac{\sqrt{x}}{2}$', '`(√x)/2`'), ('```\n$x$\n```', '```\n$x$\n```')])
def test_formulas_for_the_terminal(written, plain): assert engine._for_terminal(written) == plain


# The terminal

def terminal(width=80):
    "A console that writes into a string"
    shown = io.StringIO()
    return shown, Console(file=shown, width=width, highlight=False, force_jupyter=False, force_terminal=False)


class Keyboard:
    "Scripted lines; an exception is raised; after the last one the input ends"
    def __init__(self, *lines): self.lines, self.prompts = list(lines), []
    def __call__(self, prompt):
        self.prompts.append(prompt)
        if not self.lines: raise EOFError
        line = self.lines.pop(0)
        if isinstance(line, type): raise line
        return line


@pytest.fixture
def course_of_one(tmp_path, small, monkeypatch):
    "A course whose only quiz is the small one, and what was remembered"
    kept = []
    monkeypatch.setattr(engine, '_quiz_file', lambda lesson: tmp_path/f'{lesson.number}.toml')
    monkeypatch.setattr(engine, 'remember', lambda id, verdict, face: kept.append((id, verdict.right, face)) or '')
    return kept


def play(*lines, width=80, **kw):
    shown, to = terminal(width)
    keyboard = Keyboard(*lines)
    done = quiz_terminal(ask=keyboard, to=to, seed=4, **({'lesson': 3} | kw))
    return done, '\n'.join(o.rstrip() for o in shown.getvalue().splitlines()), keyboard


def typed(small, seed=4):
    "What to type so that every answer is right"
    def letters(q, right): return ''.join('abcdefg'[shuffled(q, seed).index(k)] for k in right)
    s, m, _, _, o, _ = small.questions
    return [letters(s, [1]), letters(m, [0, 2]), '1,95', '3', '[[question]]', '', letters(o, [0, 1, 2]), 'a number that says how badly it fits', 'ab']


def test_a_session_in_which_all_is_right(course_of_one, small):
    done, text, keyboard = play(*typed(small))
    assert [v.right for _, v in done] == [True]*6 and not keyboard.lines
    assert course_of_one == [(q.id, True, 'terminal') for q in small.questions]
    assert '6 of 6 right.' in text and '3/3  Say how badly a model fits' in text and '3/3  Take a step' in text
    assert '6 of 6 answers are kept' in text and 'reading again' not in text and 'not answered' not in text
    assert '3 of 6  (03.03, a number)' in text and "    print('[[question]]')" in text and text.count('A model answer') == 1


def test_a_session_in_which_all_is_wrong(course_of_one, small):
    good = typed(small)
    wrong = ['ab'.replace(good[0], '')[0], 'abcd', '2.05', 'x', '', good[6][::-1], 'no idea', '0']
    done, text, _ = play(*wrong)
    assert [v.right for _, v in done] == [False]*6 and [right for _, right, _ in course_of_one] == [False]*6
    again = text[text.index('Worth reading again:'):].splitlines()
    assert again[1:4] == ['- lesson 3, section “One number for the misfit: the loss”', '- lesson 3, section “Down the valley”', '- lesson 3, section “Momentum”']
    assert '0/3  Say how badly a model fits' in text and 'That is uphill.' in text and 'Still to add: says badly.' in text


@pytest.mark.parametrize('typed, said', [('z', "one letter from a to c, found 'z'"), ('ab', 'one letter from a to c'), ('12', "one letter from a to c, found '12'")])
def test_bad_input_is_asked_again_with_a_sentence(course_of_one, small, typed, said):
    done, text, _ = play(typed, typed, 'a', 'q')
    assert text.count(said) == 2 and len(done) == 1 and text.count('Which is even?') == 1


def test_bad_input_of_each_kind(course_of_one, small):
    done, text, _ = play('', 'e', 'aa', '', 'far', '3 km', '', '', 'ab', 'abd', '', 'mine', 'c', '')
    assert done == [] and course_of_one == [] and 'Nothing was answered.' in text and '6 questions were not answered.' in text
    for said in ("different letters from a to d, found 'e'", "found 'aa'", "found 'far'", "wanted in metres, found 'km'", "all 3 letters, each once, from a to c, found 'ab'",
                 "found 'abd'", "different letters from a to b, found 'c'"): assert said in text.replace('\n', ' '), said


def test_letters_may_be_typed_in_many_ways(small):
    for line in ('b, a c', 'B)A)C)', 'b;a;c', ' bac '): assert engine._letters(line, [5, 6, 7], 3, 3) == [6, 5, 7]


def test_a_question_mark_says_where_to_read(course_of_one, small):
    _, text, _ = play('?', 'q')
    assert 'Read lesson 3, section “One number for the misfit: the loss”.' in text


@pytest.mark.parametrize('end', ['q', 'Q', 'quit', KeyboardInterrupt, EOFError])
def test_a_session_that_is_ended_keeps_what_was_answered(course_of_one, small, end):
    done, text, _ = play('a', 'a', end)
    assert len(done) == len(course_of_one) == 2
    assert 'Stopped.' in text and '2 of 2 answers are kept in your progress file.' in text and '4 questions were not answered.' in text


def test_a_session_can_end_while_points_are_ticked(course_of_one, small):
    done, text, _ = play('', '', '', '', '', 'mine', KeyboardInterrupt)
    assert done == [] and 'A model answer' in text


def test_the_last_line_of_a_pipe_needs_no_empty_line_after_it(course_of_one, small):
    done, _, _ = play('', '', '', '3', '[[question]]')
    assert [(q.kind, v.right) for q, v in done] == [('output', True)]


def test_a_narrow_terminal(course_of_one, small):
    _, text, _ = play(*typed(small), width=60)
    assert max(map(len, text.splitlines())) <= 60 and '\x1b' not in text


def test_a_progress_file_that_fails_is_reported_once(course_of_one, small, monkeypatch):
    monkeypatch.setattr(engine, 'remember', lambda *a, **k: 'the disk is full')
    done, text, _ = play(*typed(small))
    assert len(done) == 6 and text.count('Answers are not kept: the disk is full') == 1 and '0 of 6 answers are kept' in text


def test_remember_writes_and_never_fails(monkeypatch):
    kept = []
    class File:
        def __enter__(self): return self
        def __exit__(self, *a): pass
        def answer(self, *a, **k): kept.append((a, k))
        def due(self): return ['03.05', '99.01', 'glossary.momentum', '03.01']
    monkeypatch.setattr(engine.importlib, 'import_module', lambda name: namedtuple('M', 'ProgressFile')(File))
    assert remember('03.01', Verdict(False, .5, [], '0, 2'), 'notebook') == '' and kept == [(('03.01', False, .5), {'face': 'notebook', 'given': '0, 2'})]
    assert engine._due()[0] == '03.05'
    def broken(name): raise OSError('no space\nleft')
    monkeypatch.setattr(engine.importlib, 'import_module', broken)
    assert remember('03.01', Verdict(True, 1, [])) == 'no space left'


def test_due_questions_come_oldest_first(course_of_one, small, monkeypatch):
    monkeypatch.setattr(engine, '_due', lambda: ['03.05', '99.01', 'glossary.momentum', '03.01'])
    asked = lambda **kw: re.findall(r'\(([\w.]+), ', play(*['']*9, only_due=True, **kw)[1])
    assert asked() == asked(lesson='all') == ['03.05', 'glossary.momentum', '03.01']
    assert asked(n=2) == ['03.05', 'glossary.momentum'] and asked(glossary=True) == ['glossary.momentum'] and asked(lesson=4, glossary=True) == []
    monkeypatch.setattr(engine, '_due', lambda: [])
    assert play(only_due=True)[1].strip() == 'Nothing is due.'


def test_some_questions_of_all(course_of_one, small):
    asked = lambda seed: re.findall(r'\((03\.\d\d), ', play(*['']*9, n=3)[1])
    assert len(asked(1)) == 3 and asked(1) == sorted(asked(1)) and len(play(n=60)[1]) > 100
    assert {tuple(q.id for q in engine._cut(small.questions, 3, s)) for s in range(60)} > {('03.01', '03.02', '03.03')}
    with pytest.raises(CourseError, match='the number of questions should be 1 or more, found 0'): play(n=0)
    with pytest.raises(CourseError, match="unknown lesson '77'"): play(lesson=77)


def test_words_of_the_glossary(course_of_one):
    done, text, keyboard = play('a step keeps a part of those before', 'a', 'q', lesson=3, glossary=True)
    assert len(done) == 1 and done[0][1].right and course_of_one[0][0].startswith('glossary.') and '1/1  Words of lesson 03' in text


def test_a_pipe_and_no_colour(tmp_path):
    "In a process of its own: stdin is a pipe, stdout is no terminal"
    code = "from topdown.quiz import quiz_terminal; quiz_terminal(3, glossary=True, seed=1)"
    done = subprocess.run([sys.executable, '-c', code], input='?\nmine\na\n', capture_output=True, text=True, encoding='utf-8', timeout=60,
                          env=dict(__import__('os').environ, NO_COLOR='1', COLUMNS='60', PYTHONIOENCODING='utf-8', TOPDOWN_HOME=str(tmp_path)))
    assert done.returncode == 0 and 'Stopped.' in done.stdout and '1 of 1 right.' in done.stdout and '\x1b' not in done.stdout and 'Traceback' not in done.stderr


def test_random_answers_never_break_a_session(course_of_one, small):
    rng = random.Random(0)
    for _ in range(60):
        lines = [''.join(rng.choices('abcd12.,e- ?q%/\n[]{}$*`é', k=rng.randrange(6))) for _ in range(40)]
        play(*lines)
