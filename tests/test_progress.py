"""Progress under bad conditions: programs killed while they write, damaged and old files, a clock that jumps back, exports that were cut off"""
import getpass
import html.parser
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import closing
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path

import pytest
from fsrs import Card, Rating, Scheduler

import topdown.progress as progress
from topdown.copies import inventory, put_away
from topdown.ledger import record
from topdown.progress import ProgressFile, cohort, progress_page, progress_text
from topdown.settings import CourseError, places

MONDAY = datetime(2026, 1, 5, 18, tzinfo=timezone.utc)


@pytest.fixture
def mine(home):
    "An open progress file in a home folder of its own"
    with ProgressFile() as p: yield p


def rows(path, table='answers'):
    with closing(sqlite3.connect(path)) as db: return db.execute(f'SELECT * FROM {table} ORDER BY rowid').fetchall()


def integrity(path):
    with closing(sqlite3.connect(path)) as db: return db.execute('PRAGMA integrity_check').fetchone()[0]


@lru_cache
def full_bytes(n):
    with tempfile.TemporaryDirectory() as folder: return _full(Path(folder)/'p.sqlite', n)


def full_file(path, n=300):
    "A file with n answers and a try at an exercise"
    path.write_bytes(full_bytes(n))
    return full_bytes(n)


def _full(path, n):
    with ProgressFile(path) as p:
        for i in range(n): p.answer(f'03.{i % 40:02}', i % 3 > 0, when=MONDAY + timedelta(hours=i), given=str(i % 4))
        p.exercise('3.1', True, hint=1, when=MONDAY)
    return path.read_bytes()


WRITER = """
import os, sys
from topdown.progress import ProgressFile
with ProgressFile() as p:
    print('ready', flush=True)
    for i in range(int(sys.argv[2])):
        q = f'{sys.argv[1]}.{i:03}'
        p.answer(q, i % 2 == 0)
        os.write(1, (q + chr(10)).encode()) # acknowledged
"""


def test_eight_programs_write_500_answers_and_some_are_killed(home):
    "Whatever a program acknowledged before it was killed is in the file"
    draw, counts = random.Random(42), [64, 64, 64, 64, 61, 61, 61, 61] # 500 answers
    log = [open(home.parent/f'said {i}', 'w+') for i in range(8)]
    running = [subprocess.Popen([sys.executable, '-c', WRITER, f'w{i}', str(n)], stdout=log[i]) for i, n in enumerate(counts)]
    def said(i): log[i].seek(0); return log[i].read().split('\n')[1:-1]
    killed = []
    for i in (1, 3, 4, 6): # each is killed in the middle of its work
        until, enough = time.monotonic() + 60, draw.randrange(3, 30)
        while len(said(i)) < enough and running[i].poll() is None and time.monotonic() < until: time.sleep(.005)
        if running[i].poll() is None: os.kill(running[i].pid, signal.SIGKILL); killed.append(i)
    for p in running: p.wait(timeout=120)
    assert killed and all(running[i].returncode == (-signal.SIGKILL if i in killed else 0) for i in range(8))
    with ProgressFile() as p:
        there = {q for q, in p._ask('SELECT question FROM answers')}
        assert p.notes == [] and p._ask('PRAGMA integrity_check') == [('ok',)]
        acknowledged = {q for i in range(8) for q in said(i)}
        assert acknowledged <= there and len(acknowledged) > 250 and len(there - acknowledged) <= len(killed)
        assert all(len(said(i)) == counts[i] for i in range(8) if i not in killed)
        assert {q for q, in p._ask('SELECT question FROM cards')} == there, 'an answer and its card come together'
    for f in log: f.close()


RATINGS = {(True, 1.): Rating.Good, (True, .5): Rating.Good, (False, .5): Rating.Hard, (False, 0.): Rating.Again, (False, 1.): Rating.Again}


@pytest.mark.parametrize('seed', range(4))
def test_intervals_are_those_of_fsrs(mine, seed):
    draw, theirs, now, scheduler = random.Random(seed), Card(due=MONDAY), MONDAY, Scheduler(enable_fuzzing=False)
    for _ in range(30):
        right, share = draw.choice(list(RATINGS))
        theirs, _ = scheduler.review_card(theirs, RATINGS[right, share], now)
        assert mine.answer('03.01', right, share, when=now) == theirs.due
        assert '03.01' in mine.due(theirs.due) and '03.01' not in mine.due(theirs.due - timedelta(seconds=1))
        now = draw.choice([theirs.due, theirs.due + timedelta(days=3), now + timedelta(minutes=1)])


def test_a_clock_that_jumps_back_is_said_once_and_confuses_no_schedule(mine):
    mine.answer('03.01', True, when=MONDAY)
    with pytest.warns(UserWarning, match='the clock shows 2025-12-26 18:00 UTC, and 03.01 was answered later'):
        mine.answer('03.01', True, when=MONDAY - timedelta(days=10))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        due = mine.answer('03.01', False, when=MONDAY - timedelta(days=9))
    assert due == MONDAY + timedelta(minutes=10) and len(mine.notes) == 1
    assert [r[4][:10] for r in rows(mine.path)] == ['2026-01-05', '2025-12-26', '2025-12-27'], 'the log keeps what the clock showed'


def test_due_by_lesson_oldest_first(mine):
    for i, q in enumerate(['04.01', '03.02', '06a.01', '03.01', 'glossary.loss']): mine.answer(q, False, when=MONDAY + timedelta(minutes=i))
    later = MONDAY + timedelta(days=1)
    assert mine.due(later) == ['04.01', '03.02', '06a.01', '03.01', 'glossary.loss'] and mine.due(MONDAY) == []
    assert mine.due(later, 3) == ['03.02', '03.01'] and mine.due(later, '6a') == ['06a.01'] and mine.due(later, 'glossary') == ['glossary.loss']
    with pytest.raises(CourseError, match="unknown lesson '99'"): mine.due(lesson=99)


@pytest.mark.parametrize('wrong, words', [
    (dict(question_id=''), 'question should be a text of 1 to 120'), (dict(question_id='a\nb'), 'question should be'), (dict(question_id=7), 'question should be'),
    (dict(right='yes'), 'right should be True or False'), (dict(right=None), 'right should be'), (dict(right=[]), 'right should be'),
    (dict(share=1.5), 'from 0 to 1, found 1.5'), (dict(share=float('nan')), 'from 0 to 1, found nan'), (dict(share='all'), 'share a number'),
    (dict(when=datetime(2026, 1, 1)), 'a time with its zone'), (dict(when='yesterday'), "found 'yesterday'"), (dict(face=''), 'face should be')])
def test_answers_that_are_none(mine, wrong, words):
    with pytest.raises(CourseError, match=words): mine.answer(**(dict(question_id='03.01', right=True) | wrong))
    assert rows(mine.path) == []


def test_exercises(mine):
    for passed, hint in ((False, 0), (False, 1), (True, 2), (True, 0), (False, 0)): mine.exercise('3.1', passed, hint, when=MONDAY + timedelta(minutes=hint))
    assert mine.passed() == {'3.1': MONDAY} and mine.tries('3.1') == 1 and mine.tries('3.2') == 0
    for wrong in (dict(id=''), dict(id='3.1', passed='x'), dict(id='3.1', hint=-1), dict(id='3.1', hint=.5)):
        with pytest.raises(CourseError, match='should be'): mine.exercise(**(dict(passed=True) | wrong))


def test_rows_of_the_log_are_never_changed(mine):
    mine.answer('03.01', True)
    for sql in ('UPDATE answers SET right = 0', 'DELETE FROM answers'):
        with sqlite3.connect(mine.path) as db, pytest.raises(sqlite3.IntegrityError, match='only ever added'): db.execute(sql)


# ---- old, foreign and damaged files ----

def version_1(path, *more):
    with sqlite3.connect(path) as db:
        db.execute('CREATE TABLE answers (question TEXT, right INTEGER, time TEXT)')
        db.executemany('INSERT INTO answers VALUES (?, ?, ?)', [('03.01', 1, '2025-11-01T10:00:00'), ('03.01', 0, '2025-11-02T10:00:00+00:00'), *more])
        db.execute('PRAGMA user_version = 1')
    db.close()


def test_a_file_of_version_1_is_taken_over_and_kept(tmp_path):
    version_1(tmp_path/'p.sqlite', ('03.02', 7, 'never'))
    old = rows(tmp_path/'p.sqlite')
    with pytest.warns(UserWarning, match='was of version 1'), ProgressFile(tmp_path/'p.sqlite') as p:
        assert [r[1:5] for r in rows(p.path)] == [('03.01', 1, 1., '2025-11-01T10:00:00.000000+00:00'), ('03.01', 0, 0., '2025-11-02T10:00:00.000000+00:00')]
        assert '1 rows without sense' in p.notes[0] and p.due() == ['03.01'] and p._ask('PRAGMA user_version') == [(2,)]
    backup, = tmp_path.glob('p-version-1-*.sqlite')
    assert rows(backup) == old
    with ProgressFile(tmp_path/'p.sqlite') as p: assert p.notes == [], 'only once'


def test_a_migration_that_breaks_off_leaves_the_old_file(tmp_path, monkeypatch):
    version_1(tmp_path/'p.sqlite')
    def broken(*args): raise KeyboardInterrupt
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt): m.setattr(progress, '_replay', broken); ProgressFile(tmp_path/'p.sqlite')
    assert len(rows(tmp_path/'p.sqlite')[0]) == 3
    with pytest.warns(UserWarning, match='version 1'), ProgressFile(tmp_path/'p.sqlite') as p: assert len(rows(p.path)) == 2


@pytest.mark.parametrize('change, words', [('PRAGMA user_version = 3', 'is of version 3, and this course knows versions up to 2; update the course'),
                                           ('PRAGMA user_version = -1', 'is of version -1'),
                                           ('ALTER TABLE answers RENAME COLUMN face TO mask', 'its table answers has other columns')])
def test_files_that_are_left_alone(tmp_path, change, words):
    full_file(tmp_path/'p.sqlite', 3)
    with sqlite3.connect(tmp_path/'p.sqlite') as db: db.execute(change)
    db.close()
    with pytest.raises(CourseError, match=words): ProgressFile(tmp_path/'p.sqlite')
    assert len(rows(tmp_path/'p.sqlite')) == 3 and not list(tmp_path.glob('p-*'))


def test_another_programs_database_is_refused(tmp_path):
    with sqlite3.connect(tmp_path/'p.sqlite') as db: db.execute('CREATE TABLE songs (name TEXT)')
    db.close()
    with pytest.raises(CourseError, match=r'belongs to another program \(tables songs\)'): ProgressFile(tmp_path/'p.sqlite')


PAGE = 4096
DAMAGES = {'garbage': (lambda d: b'garbage'*999, 0), 'text': (lambda d: b'hello', 0), 'three quarters of the file': (lambda d: d[:len(d)*3//4], None),
           'no head': (lambda d: bytes(100) + d[100:], 300), 'the tables are gone': (lambda d: d[:100] + bytes(PAGE-100) + d[PAGE:], 300),
           'a torn end': (lambda d: d[:-100], None), 'nonsense in the middle': (lambda d: d[:PAGE*12+500] + random.Random(0).randbytes(PAGE) + d[PAGE*13+500:], None)}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_file_gives_back_what_can_be_read(tmp_path, damage):
    good, (spoil, saved) = full_file(tmp_path/'p.sqlite'), DAMAGES[damage]
    before = set(rows(tmp_path/'p.sqlite'))
    (tmp_path/'p.sqlite').write_bytes(spoil(good))
    with pytest.warns(UserWarning, match='p.sqlite was damaged'), ProgressFile(tmp_path/'p.sqlite') as p:
        after = set(rows(p.path))
        assert after <= before and (len(after) == saved or saved is None and len(after) > 0), len(after)
        assert {q for q, in p._ask('SELECT question FROM cards')} == {r[1] for r in after}
        p.answer('03.99', True)
    aside, = tmp_path.glob('p-damaged-*.sqlite')
    assert aside.read_bytes() == spoil(good) and integrity(tmp_path/'p.sqlite') == 'ok'
    with ProgressFile(tmp_path/'p.sqlite') as p: assert p.notes == [] and len(rows(p.path)) == len(after) + 1


def test_a_saved_schedule_is_the_one_that_was_lost(tmp_path):
    good = full_file(tmp_path/'p.sqlite')
    before = rows(tmp_path/'p.sqlite', 'cards'), rows(tmp_path/'p.sqlite', 'meta')
    (tmp_path/'p.sqlite').write_bytes(bytes(100) + good[100:])
    with pytest.warns(UserWarning): ProgressFile(tmp_path/'p.sqlite').close()
    assert (sorted(rows(tmp_path/'p.sqlite', 'cards')), rows(tmp_path/'p.sqlite', 'meta')) == (sorted(before[0]), before[1])


def test_an_empty_file_is_a_new_one(tmp_path):
    (tmp_path/'p.sqlite').touch()
    with ProgressFile(tmp_path/'p.sqlite') as p: assert p.notes == [] and p.due() == []


def crashed(path, n=20):
    "A file as a killed program leaves it, with answers that stand only in the write-ahead log"
    code = f"import os\nfrom topdown.progress import ProgressFile\np = ProgressFile({str(path)!r})\n"
    ended = subprocess.run([sys.executable, '-c', f"{code}for i in range({n}): p.answer(f'03.{{i:02}}', True)\nos._exit(9)"], check=False)
    assert ended.returncode == 9 and path.with_name(f'{path.name}-wal').stat().st_size > PAGE


@pytest.mark.parametrize('damage', ['nothing', 'the file is gone', 'the file is empty', 'a byte of the log'])
def test_what_stands_only_in_the_log_is_not_lost(tmp_path, damage):
    path, log = tmp_path/'p.sqlite', tmp_path/'p.sqlite-wal'
    crashed(path)
    if damage == 'the file is gone': path.unlink()
    if damage == 'the file is empty': path.write_bytes(b'')
    if damage == 'a byte of the log':
        data = bytearray(log.read_bytes())
        data[len(data)//3] ^= 255 # SQLite reads the log up to here
        log.write_bytes(data)
    with warnings.catch_warnings(record=True), ProgressFile(path) as p:
        assert bool(p.notes) == (damage != 'nothing') and len(rows(path)) >= (19 if damage == 'a byte of the log' else 20)
        p.close()
        assert integrity(path) == 'ok' and not log.exists()


def test_the_log_of_another_file_costs_no_answer(tmp_path):
    crashed(tmp_path/'other.sqlite')
    full_file(tmp_path/'p.sqlite', 60)
    before = set(rows(tmp_path/'p.sqlite'))
    shutil.copy(tmp_path/'other.sqlite-wal', tmp_path/'p.sqlite-wal')
    with warnings.catch_warnings(record=True), ProgressFile(tmp_path/'p.sqlite') as p: assert before <= set(rows(p.path))
    assert integrity(tmp_path/'p.sqlite') == 'ok'


@pytest.mark.filterwarnings('ignore:.*damaged')
def test_forty_files_with_wrong_bytes_can_all_be_opened_and_go_on(tmp_path):
    draw, good, saved = random.Random(0), full_bytes(60), 0
    for k in range(40):
        data, path = bytearray(good), tmp_path/f'{k}.sqlite'
        for _ in range(draw.choice([1, 5, 50])):
            i = draw.randrange(len(data))
            data[i:i+1] = draw.randbytes(1)
        path.write_bytes(data[:draw.randrange(len(data))] if k % 4 == 0 else data)
        with ProgressFile(path) as p:
            saved += len(rows(path))
            p.answer('03.01', True)
            assert p.summary()['answers'] and integrity(path) == 'ok'
    assert saved > 40*60*.6, saved


def test_a_file_that_is_moved_or_replaced_while_it_is_open(home):
    with ProgressFile() as p:
        p.answer('03.01', True)
        away = put_away()
        p.answer('03.02', True)
        assert [r[1] for r in rows(places()['progress'])] == ['03.02'] and [r[1] for r in rows(away/'progress.sqlite')] == ['03.01']
        assert p.due(MONDAY + timedelta(days=999)) == ['03.02']


@pytest.mark.parametrize('code, words', [(sqlite3.SQLITE_FULL, 'the disk is full'), (sqlite3.SQLITE_IOERR_FSYNC, 'the disk is full or fails'),
                                         (sqlite3.SQLITE_READONLY, 'is read-only'), (sqlite3.SQLITE_CANTOPEN, 'is read-only'),
                                         (sqlite3.SQLITE_BUSY, 'another program has held it'), (sqlite3.SQLITE_CORRUPT, 'damaged while it was in use')])
def test_errors_of_sqlite_in_words(mine, monkeypatch, code, words):
    mine.answer('03.01', True)
    def fail(*args):
        e = sqlite3.OperationalError('no')
        e.sqlite_errorcode = code
        raise e
    with monkeypatch.context() as m:
        m.setattr(progress, '_insert', fail)
        with pytest.raises(CourseError, match=f'progress.sqlite cannot be used: .*{words}'): mine.answer('03.02', True)
    mine.answer('03.03', True)
    assert [r[1] for r in rows(mine.path)] == ['03.01', '03.03']


def test_a_disk_that_is_full_in_earnest(mine):
    mine.answer('03.00', True)
    (pages,), = mine._ask('PRAGMA page_count')
    mine._ask(f'PRAGMA max_page_count = {pages}')
    with pytest.raises(CourseError, match='the disk is full'):
        for i in range(999): mine.answer(f'03.{i:03}', True, given='x'*400)
    mine.close()
    assert len(rows(mine.path)) == i + 1 and integrity(mine.path) == 'ok'


def test_a_folder_in_the_way_and_a_file_in_the_folders_place(tmp_path):
    (tmp_path/'p.sqlite').mkdir()
    (tmp_path/'file').touch()
    for path in (tmp_path/'p.sqlite', tmp_path/'file'/'p.sqlite'):
        with pytest.raises(CourseError, match='cannot be'): ProgressFile(path)


# ---- summary, export, import ----

def test_summary_and_text(mine):
    record('03', 'loss', .5, seconds=1800, track='sample'), record('03', 'error', .1, seconds=1800, track='sample')
    for day in range(3):
        mine.answer('03.01', day > 0, when=MONDAY + timedelta(days=day))
        mine.answer('04.01', day == 0, when=MONDAY + timedelta(days=day))
    mine.exercise('3.1', True, when=MONDAY)
    now = mine.summary(MONDAY + timedelta(days=3))
    third, fourth = (next(o for o in now['lessons'] if o['lesson'] == n) for n in ('03', '04'))
    assert (third['answered'], third['known'], third['runs'], third['hours']) == (1, 1, 1, .5) and (fourth['answered'], fourth['known']) == (1, 0)
    assert (now['answers'], now['streak'], now['due']) == (6, 3, 1) and 0 < third['recall'] < 1 and len(now['coming']) == 14 and sum(now['coming']) == 2
    assert mine.summary(MONDAY + timedelta(days=4))['streak'] == 0
    assert next(o for o in now['exercises'] if o['lesson'] == '03')['passed'] == 1
    text = progress_text(mine, MONDAY + timedelta(days=3))
    assert '6 answers, 3 days in a row. 1 question due now' in text and 'Exercises' in text
    assert 'answer some questions first' in progress_text(ProgressFile(mine.path.with_name('new.sqlite')))


def test_course_files_that_are_missing_or_broken(tiny):
    (tiny.root/'nbs'/'quizzes').mkdir()
    (tiny.root/'nbs'/'quizzes'/'00.toml').write_text('[[question]]\nid = "00.01"\n')
    (tiny.root/'nbs'/'quizzes'/'01.toml').write_text('[[question]\n')
    code = ("import json, topdown.settings as s, topdown.progress as p; from pathlib import Path; p.course_root = lambda: Path({!r}); "
            "print(p._questions(), p._exercises())").format(str(tiny.root))
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == "{'00.01': {'id': '00.01'}} {}"


def test_an_export_holds_no_name_no_path_and_no_machine(mine, tmp_path, monkeypatch):
    monkeypatch.setenv('USER', 'ada.lovelace')
    secrets = [getpass.getuser(), str(Path.home()), socket.gethostname(), 'ada.lovelace', str(mine.path.parent)]
    for i, s in enumerate(secrets): mine.answer(f'03.{i:02}', True, given=f'by {s.upper()}!')
    mine.answer('03.10', False, given='2')
    text = mine.export(tmp_path/'mine.json').read_text(encoding='utf-8')
    assert not [s for s in secrets[1:] if s.lower() in text.lower()] and '"given": "2"' in text
    found = json.loads(text)
    assert found['topdown_progress'] == 1 and len(found['learner']) == 16 and set(found['answers'][0]) == {'uid', 'question', 'right', 'share', 'when', 'face', 'given'}
    assert json.loads(mine.export(tmp_path/'again.json').read_text())['learner'] == found['learner'], 'made once'


def test_an_export_replaces_only_an_export(mine, tmp_path):
    mine.answer('03.01', True)
    mine.export(tmp_path/'mine.json'), mine.export(tmp_path/'mine.json')
    (tmp_path/'diary.json').write_text('{"dear": "diary"}')
    with pytest.raises(CourseError, match='exists and is no export'): mine.export(tmp_path/'diary.json')
    assert (tmp_path/'diary.json').read_text() == '{"dear": "diary"}'


def test_imports_add_each_answer_once_and_two_machines_agree(tmp_path):
    with ProgressFile(tmp_path/'a.sqlite') as a, ProgressFile(tmp_path/'b.sqlite') as b:
        for i in range(6): (a, b)[i % 2].answer('03.01', i != 3, when=MONDAY + timedelta(days=i))
        a.exercise('3.1', True, when=MONDAY)
        a.export(tmp_path/'a.json'), b.export(tmp_path/'b.json')
        assert a.import_(tmp_path/'b.json') == {'answers': 3, 'exercises': 0, 'known': 0} and b.import_(tmp_path/'a.json') == {'answers': 3, 'exercises': 1, 'known': 0}
        assert a.import_(tmp_path/'b.json') == {'answers': 0, 'exercises': 0, 'known': 3}
        assert sorted(rows(a.path)) == sorted(rows(b.path)) and rows(a.path, 'cards') == rows(b.path, 'cards')
        with ProgressFile(tmp_path/'one.sqlite') as one:
            for i in range(6): one.answer('03.01', i != 3, when=MONDAY + timedelta(days=i))
            assert rows(one.path, 'cards') == rows(a.path, 'cards'), 'as if all had been answered on one machine'
        with ProgressFile(tmp_path/'new.sqlite') as new:
            new.import_(tmp_path/'a.json')
            assert new._ask('SELECT value FROM meta') == a._ask('SELECT value FROM meta'), 'a new machine of the same learner'


def test_answers_given_on_the_site(mine, tmp_path):
    entries = [{'question': '03.01', 'right': True, 'share': 1, 'when': '2026-01-05T18:00:00.000Z', 'face': 'site'},
               {'question': '03.02', 'right': False, 'share': .5, 'when': 1767636000000, 'face': 'site'}]
    (tmp_path/'page.json').write_text(json.dumps({'topdown_quiz': 1, 'answers': entries}))
    (tmp_path/'list.json').write_text(json.dumps(entries))
    assert mine.import_(tmp_path/'page.json')['answers'] == 2 and mine.import_(tmp_path/'list.json') == {'answers': 0, 'exercises': 0, 'known': 2}
    assert [r[1:6] for r in rows(mine.path)] == [('03.01', 1, 1., '2026-01-05T18:00:00.000000+00:00', 'site'), ('03.02', 0, .5, '2026-01-05T18:00:00.000000+00:00', 'site')]


SITE = {'question': '03.01', 'right': True, 'when': '2026-01-05T18:00:00Z'}


@pytest.mark.parametrize('text, words', [
    ('', 'is not a JSON file'), ('{"topdown_quiz": 1, "answers": [', 'is not a JSON file'), (b'\xff\xfe', 'is not a JSON file'), ('7', 'is not an export of the course'),
    ('[' * 100_000, 'is nested too deeply'), ({'answers': []}, "neither topdown_progress nor topdown_quiz stands at its top"),
    ({'topdown_quiz': 2}, 'topdown_quiz should be 1, found 2'), ({'topdown_progress': 1}, 'learner should be 16 hexadecimal digits, found None'),
    ({'topdown_quiz': 1, 'answers': 'x'}, 'answers should be a list'), ([SITE, 7], 'number 2 of answers: it should be an object in braces, found .7'),
    ([{'question': '03.01', 'right': True}], 'number 1 of answers: it lacks when'), ([SITE | {'right': 'yes'}], "right should be True or False"),
    ([SITE | {'share': 2}], 'share should be a number from 0 to 1'), ([SITE | {'when': 'soon'}], "a time with its zone.*found 'soon'"),
    ([SITE | {'when': 1e300}], 'when should be a time'), ([SITE | {'uid': 'x'}], 'uid should be 16'),
    ([SITE | {'question': 'x'*200}], 'question should be'), ([SITE | {'question': ['a']}], 'question should be'),
    ({'topdown_quiz': 1, 'exercises': [{'exercise': '3.1', 'passed': 3, 'when': 0}]}, 'number 1 of exercises: passed should be')])
def test_files_that_are_no_exports(mine, tmp_path, text, words):
    data = text if isinstance(text, (str, bytes)) else json.dumps(text)
    (tmp_path/'x.json').write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(CourseError, match=words) as e: mine.import_(tmp_path/'x.json')
    assert str(tmp_path/'x.json') in str(e.value) and rows(mine.path) == []
    with pytest.raises(CourseError, match='no file'): mine.import_(tmp_path/'none.json')


# ---- a class ----

def learner(folder, name, firsts, when=MONDAY):
    "An export of a learner with these first answers: question → what was chosen; choice 0 is right"
    with ProgressFile(folder.parent/f'{name}.sqlite') as p:
        for q, choice in firsts.items(): p.answer(q, choice == 0, when=when, given=str(choice)); p.answer(q, True, when=when + timedelta(days=1), given='0')
        p.exercise('3.1', name != 'c', hint=len(name), when=when)
        return p.export(folder/f'{name}.json')


def test_a_class_with_files_that_do_not_count(tmp_path):
    folder = tmp_path/'class'
    folder.mkdir()
    for name, firsts in dict(a={'03.01': 2, '03.02': 0, '03.03': 1}, b={'03.01': 2, '03.02': 1, '03.03': 1}, c={'03.01': 1, '03.02': 0}, d={'03.01': 0}).items():
        learner(folder, name, firsts)
    shutil.copy(folder/'a.json', folder/'a old.json')
    learner(folder, 'a', {'03.04': 0}, MONDAY + timedelta(days=9))
    (folder/'torn.json').write_bytes((folder/'b.json').read_bytes()[:300])
    (folder/'notes.txt').write_text('bring cake')
    (folder/'site.json').write_text(json.dumps([SITE]))
    c = cohort(folder)
    assert [(o['question'], o['wrong'], o['learners']) for o in c.misleading] == [('03.01', 3, 4), ('03.02', 1, 3)], '03.03 was answered by two only'
    assert c.misleading[0]['choice'].endswith('(2 of 3)') and len(c.learners) == 4 and c.learners[0]['questions'] == 4
    assert c.exercises == [{'exercise': '3.1', 'tried': 4, 'passed': 3, 'tries': 1.25, 'hints': 1.}]
    assert set(c.bad) == {'a old.json', 'torn.json', 'notes.txt', 'site.json'} and c.bad['a old.json'] == 'a.json is of the same learner, and newer'
    text = progress_text(c)
    assert '4 learners' in text and 'torn.json: is not a JSON file' in text and str(tmp_path) not in text
    for wrong in (tmp_path/'none', tmp_path/'empty'):
        (tmp_path/'empty').mkdir(exist_ok=True)
        with pytest.raises(CourseError, match='no folder|no exports in'): cohort(wrong)


class Reader(html.parser.HTMLParser):
    "Tags in balance, and what they hold"
    def __init__(self): super().__init__(); self.open, self.seen, self.alts = [], [], []
    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag == 'img': self.alts.append(dict(attrs)['alt']); assert dict(attrs)['src'].startswith('data:image/png;base64,')
        if tag not in ('img', 'meta'): self.open.append(tag)
    def handle_endtag(self, tag): assert self.open.pop() == tag


def test_pages_are_whole_and_need_nothing_else(mine, tmp_path):
    mine.answer('03.01', True, when=MONDAY)
    (tmp_path/'class').mkdir()
    for name in 'abc': learner(tmp_path/'class', name, {'03.<b>': 1})
    for of, plots in ((mine, 4), (ProgressFile(tmp_path/'new.sqlite'), 4), (cohort(tmp_path/'class'), 3)):
        text = progress_page(tmp_path/'page.html', of, MONDAY).read_text(encoding='utf-8')
        reader = Reader()
        reader.feed(text)
        assert reader.open == [] and len(reader.alts) == plots and all(reader.alts) and 'http' not in text and '<b>' not in text
        assert reader.seen.count('h1') == reader.seen.count('main') == 1 and 'table' in reader.seen and 'nan' not in text.split('<h2>', 1)[1]


# ---- the place ----

def test_where_and_clean_know_the_file_and_its_companions(home):
    place = lambda: next(o for o in inventory() if o.name == 'progress')
    assert not place().exists and place().files == 0
    path = places()['progress']
    path.parent.mkdir(exist_ok=True)
    crashed(path)
    path.with_name('progress-version-1-2026-01-05.sqlite').write_bytes(b'old')
    (home/'progress.txt').write_text('my own')
    assert place().exists and place().files == 4 and place().bytes > 3*PAGE and 'answers' in place().what
    away = put_away()
    assert {o.name for o in away.iterdir()} == {'progress.sqlite', 'progress.sqlite-wal', 'progress.sqlite-shm', 'progress-version-1-2026-01-05.sqlite'}
    assert not place().exists and (home/'progress.txt').is_file()
    with ProgressFile(away/'progress.sqlite') as p: assert len(rows(p.path)) == 20 and p.notes == []
    with ProgressFile() as p: assert p.due() == [] and p.notes == []
