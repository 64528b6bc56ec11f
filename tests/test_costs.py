"""The cost book against cases worked out by hand, and against what people mistype"""
import json
import os
import re
import subprocess
import sys
from datetime import date, datetime, timezone

import pytest
from conftest import SETTINGS

from topdown.costs import (COST_KINDS, CostReport, Hours, Quote, add_cost, cost_book, cost_page, cost_report, cost_text, cost_warnings, cost_weeks,
                           hours_in_months, idle_usd, import_costs, plan_cost, plot_months, plot_weeks, quotes, run_hours)
from topdown.ledger import record, records
from topdown.settings import CourseError, Price, course, places, read_settings


def entry(time, lesson='01', run='r', metric='error_rate', value=.1, seconds=None, **more):
    "One line of a ledger"
    places()['ledger'].parent.mkdir(parents=True, exist_ok=True)
    r = dict(time=time, run_id=run, lesson=lesson, metric=metric, value=value, seconds=seconds, track='real', device='cpu', platform='own') | more
    with open(places()['ledger'], 'a', encoding='utf-8') as f: f.write(json.dumps(r) + '\n')


def report(hours=(), bills=(), plans=None): return CostReport(list(hours), quotes(list(hours)), list(bills), plans or {})


def hours(begin, n, lesson='01', how='run', track='real', device='cpu'):
    return Hours(lesson, f'{begin}', datetime.fromisoformat(begin).replace(tzinfo=timezone.utc), n*3600, how, track, device, 'own')


# Hours

def test_a_run_of_a_lesson_is_in_the_book_and_not_in_the_results(tiny, tmp_path, monkeypatch):
    tiny.lesson('01_smaller', '# Smaller', 'from topdown.ledger import record', "record('01', 'error_rate', .1, device='cuda:0')")
    code, out, err = tiny.call('run', '1', '--json', tmp_path/'r.json')
    assert code == 0, err
    assert 'run_seconds' not in out and [r['metric'] for r in json.loads((tmp_path/'r.json').read_text())] == ['error_rate']
    assert [r['metric'] for r in records()] == ['error_rate'] and 'run_seconds' not in tiny.call('results')[1]
    kept = records(runs=True)[-1]
    assert kept['metric'] == 'run_seconds' and kept['value'] == kept['seconds'] > 0 and kept['run_id'] == records()[0]['run_id']
    assert (kept['lesson'], kept['track'], kept['device'], kept['platform'], kept['better']) == ('01', 'sample', 'cuda:0', records()[0]['platform'], 'lower')
    assert kept['peak_rss_mb'] > 20
    one, = run_hours()
    assert (one.how, one.lesson, one.seconds, one.device) == ('run', '01', kept['value'], 'cuda:0')


def test_a_run_that_failed_costs_too(tiny):
    tiny.lesson('01_smaller', '# Smaller', 'import time; time.sleep(.5)', '1/0')
    assert tiny.call('run', '1')[0] == 1
    one, = run_hours()
    assert one.how == 'run' and one.seconds >= .5 and one.device == 'not known' and records() == []


def test_a_full_ledger_does_not_lose_a_run(home, tmp_path, monkeypatch):
    import topdown.runner as runner
    from conftest import write
    from topdown.settings import Lesson
    def full(*args, **kw): raise CourseError('ledger.jsonl cannot be written: the disk is full')
    monkeypatch.setattr(runner, 'record', full)
    monkeypatch.setattr(runner, 'find_lesson', lambda name: type('L', (), dict(number='01', name='a', path=write(tmp_path/'a.ipynb', '1'))))
    with pytest.warns(UserWarning, match='this run is missing from the cost book: ledger.jsonl cannot be written'):
        assert runner.run('1', out=tmp_path/'out').ok


def test_hours_by_hand_go_from_the_start_of_the_first_to_the_last(home):
    entry('2026-03-01T10:10:00+00:00', seconds=600)
    entry('2026-03-01T11:30:00+00:00', metric='f1', seconds=60)
    entry('2026-03-02T08:00:00+00:00', lesson='04', run='s', seconds=1800)
    entry('2026-03-03T08:00:00+00:00', lesson='05', run='t')
    assert [(h.lesson, h.hours, h.how) for h in run_hours()] == [('01', 1.5, 'span'), ('04', .5, 'record'), ('05', 0, 'record')]


def test_one_notebook_that_records_for_two_lessons_is_two(home):
    for lesson in ('01', '02'):
        entry('2026-03-01T10:00:00+00:00', lesson)
        entry('2026-03-01T11:00:00+00:00', lesson, metric='x')
    assert [(h.lesson, h.hours) for h in run_hours()] == [('01', 1), ('02', 1)]


def test_a_timed_run_does_not_count_its_results_again(home):
    entry('2026-03-01T10:00:00+00:00', seconds=900)
    entry('2026-03-01T10:50:00+00:00', metric='run_seconds', value=3000, seconds=3000)
    one, = run_hours()
    assert (one.seconds, one.how, f'{one.begin:%H:%M}') == (3000, 'run', '10:00')


def test_lines_without_a_time_or_with_odd_seconds_do_no_harm(home):
    entry('when?')
    entry(None)
    entry('2026-03-01T10:00:00', seconds='long')
    entry('2026-03-01T11:00:00+01:00', metric='x', seconds=-5, track=None)
    one, = run_hours()
    assert one.seconds == 0 and one.begin.tzinfo and one.track == 'real'


def test_no_ledger_no_bills(home):
    empty = cost_report()
    assert 'No hours yet' in cost_text(empty) and 'No bills yet' in cost_text(empty) and cost_warnings(empty) == []
    assert all((q.low, q.high) == (0, 0) for q in empty.quotes)
    for plot in (plot_months, plot_weeks):
        with pytest.raises(CourseError, match='to draw'): plot(empty)


# Prices

def test_what_hours_cost_by_hand():
    p = Price('', .5, 2., 'May', 'there', 'm', storage_usd_gb_month=.1, gb=73, idle_address_usd_hour=.01)
    some = [hours('2026-03-01T00:00', 2), hours('2026-03-05T02:00', 2)]        # kept 100 hours, 4 of them used
    assert quotes(some, [p]) == [Quote(p, 2., 8., pytest.approx(.1*73*100/730), pytest.approx(.01*96))]


def test_what_is_not_known_is_none_and_not_nothing():
    q, = quotes([hours('2026-03-01T00:00', 2)], [Price('G', 1, 1, 'May', 'there', gb=10)])
    assert q.storage is None and q.address is None
    text = cost_text(CostReport([hours('2026-03-01T00:00', 2)], [q], [], {}))
    assert re.search(r'^G +2.00 +not known +not known +May$', text, flags=re.M)


def test_runs_side_by_side_are_no_negative_idle_time():
    q, = quotes([hours('2026-03-01T00:00', 2), hours('2026-03-01T00:00', 2)], [Price('', 1, 1, 'May', 'x', 'm', idle_address_usd_hour=1.)])
    assert (q.low, q.address) == (4, 0)


def test_prices_of_the_course_have_a_date_and_a_source():
    for p in (*course().prices, *course().machines): assert re.search(r'20\d\d', p.as_of) and p.source.startswith('https://') and p.name
    assert all(p.gpu for p in course().prices) and not any(p.gpu for p in course().machines)


PRICE = '\n[price x]\ngpu = G\nusd_low = 1\nusd_high = 2\nas_of = May 2026\nsource = https://example.org/x\n'


@pytest.mark.parametrize('old, new, words', [
    ('gpu = G\n', '', r'\[price x\] should have gpu or, without one, machine'), ('gpu = G', 'gpu = G\nmachine = M', 'one of the two'),
    ('usd_low = 1', 'usd_low = 3', 'usd_low 3 is more than usd_high 2'), ('usd_low = 1', 'usd_low = 1\ngb = -1', "gb in .* from 0 up, found '-1'"),
    ('as_of = May 2026\n', '', 'lacks as_of'), ('source = https://example.org/x\n', '', 'lacks source'),
    ('usd_low = 1', 'usd_low = 1\nstorage_usd_gb = 1', "unknown key 'storage_usd_gb'.*known: storage_usd_gb_month"),
    ('usd_low = 1', 'usd_low = 1\nstorage_usd_gb_month = cheap', "found 'cheap'")])
def test_mistakes_in_a_price(tmp_path, old, new, words):
    (tmp_path/'s.ini').write_text(SETTINGS + PRICE.replace(old, new), encoding='utf-8')
    with pytest.raises(CourseError, match=words): read_settings(tmp_path/'s.ini')


def test_a_price_with_everything(tmp_path):
    (tmp_path/'s.ini').write_text(SETTINGS + PRICE + PRICE.replace('price x', 'price y').replace('gpu = G', 'machine = M\nstorage_usd_gb_month = .1\ngb = 5\n'
                                  'idle_address_usd_hour = .01'), encoding='utf-8')
    c = read_settings(tmp_path/'s.ini')
    assert [(p.name, p.gb) for p in c.prices] == [('G', None)]
    assert [(p.name, p.storage_usd_gb_month, p.gb, p.idle_address_usd_hour) for p in c.machines] == [('M', .1, 5, .01)]


# Bills

@pytest.mark.parametrize('bad, words', [
    (dict(usd=-1), 'from 0 up, found -1'), (dict(usd=float('nan')), 'found nan'), (dict(usd=float('inf')), 'found inf'), (dict(usd='3'), "found '3'"),
    (dict(usd=True), 'found True'), (dict(usd=None), 'found None'), (dict(kind='disk'), "unknown kind of cost 'disk'; known: "),
    (dict(kind='plan'), "unknown kind of cost 'plan'"), (dict(platform='colabb'), "unknown host 'colabb'; known: colab"),
    (dict(date='2999-01-01'), 'date 2999-01-01 is in the future'), (dict(date='2026-13'), "found '2026-13'"), (dict(date='2026-02-30'), "found '2026-02-30'"),
    (dict(date='20260301'), "found '20260301'"), (dict(date='2026'), "found '2026'"), (dict(date='0026-03'), "found '0026-03'"),
    (dict(date='2026-W01-1'), 'should be a day'), (dict(date=None), "found 'None'")])
def test_bills_that_are_refused(home, bad, words):
    with pytest.raises(CourseError, match=words): add_cost(**(dict(date='2026-03', kind='compute', usd=1) | bad))
    assert not places()['costs'].exists()


def test_today_and_this_month_are_no_future(home):
    for text in (f'{date.today()}', f'{date.today():%Y-%m}'): assert add_cost(text, 'compute', 0).date == text


def test_the_same_bill_twice(home):
    b = add_cost('2026-03', 'storage', 4.5, note='disk')
    with pytest.raises(CourseError, match=rf'the cost book has {b.id} already \(2026-03, storage, 4.5 US dollars\)'):
        add_cost('2026-03', ' Storage ', 4.5, note='disk ')
    add_cost('2026-03', 'storage', 4.5, note='a second disk')
    add_cost('2026-03', 'storage', 4.5, note='disk', id='invoice 7')
    with pytest.raises(CourseError, match='the cost book has invoice 7 already'): add_cost('2026-04', 'other', 1, id='invoice 7')
    assert len(cost_book()[0]) == 3


def test_the_last_plan_counts(home):
    plan_cost(10), plan_cost(30, 'total'), plan_cost(5)
    assert cost_book() == ([], dict(month=5., total=30.))
    for bad, words in (((-1,), 'from 0 up, found -1'), ((1, 'week'), "unknown span of a plan 'week'")):
        with pytest.raises(CourseError, match=words): plan_cost(*bad)


def test_a_line_that_is_torn_or_wrong_is_reported_and_kept(home):
    add_cost('2026-03', 'compute', 1)
    with open(places()['costs'], 'a', encoding='utf-8') as f: f.write('{"id": "x", "date": "2026-03", "kind": "compute", "usd": -5}\n{"id":')
    before = places()['costs'].read_bytes()
    with pytest.warns(UserWarning, match='left out of every sum: line 3; usd should be'): assert len(cost_book()[0]) == 1
    add_cost('2026-04', 'compute', 2)
    assert places()['costs'].read_bytes().startswith(before + b'\n')
    with pytest.warns(UserWarning): assert [b.usd for b in cost_book()[0]] == [1, 2]


def test_two_programs_at_once_lose_nothing(home):
    code = "import sys; from topdown.costs import add_cost\nfor i in range(25): add_cost('2026-03', 'other', i, note=sys.argv[1])"
    both = [subprocess.Popen([sys.executable, '-c', code, name], env=os.environ) for name in 'ab']
    assert [p.wait(60) for p in both] == [0, 0] and len(cost_book()[0]) == 50


# Import

def csv_file(path, text, encoding='utf-8'):
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize('text', ['date,kind,usd\n2026-03-01,compute,1.5\n2026-03,Storage,$2\n', '\ufeffDate;KIND;usd;region\n2026-03-01;compute;1,50;eu\n2026-03;storage;2;eu\n',
                                  'kind\tusd\tdate\ncompute\t1.50\t2026-03-01\nstorage\t2\t2026-03\n', 'date,kind,usd,note\r\n2026-03-01,compute,1.5,"a, b\r\nc"\r\n2026-03,storage,2,\r\n'])
def test_bills_in_several_spellings(home, tmp_path, text):
    new, there = import_costs(csv_file(tmp_path/'b.csv', text))
    assert [(b.date, b.kind, b.usd) for b in cost_book()[0]] == [('2026-03', 'storage', 2.), ('2026-03-01', 'compute', 1.5)] and (len(new), there) == (2, 0)


def test_a_bill_that_grew_is_imported_again(home, tmp_path):
    text = 'date,kind,usd,id\n2026-03-01,compute,1,a\n'
    import_costs(csv_file(tmp_path/'b.csv', text))
    new, there = import_costs(csv_file(tmp_path/'b.csv', text + '2026-03-02,compute,1,b\n'), 'colab')
    assert ([b.id for b in new], there, new[0].platform) == (['b'], 1, 'colab')
    with pytest.raises(CourseError, match='the cost book has a already'): import_costs(csv_file(tmp_path/'b.csv', text.replace(',1,', ',9,')))


@pytest.mark.parametrize('text, words', [
    ('date,usd\n2026-03,1\n', 'lacks the column kind; its first line names date, usd'), ('', 'lacks the column date, kind, usd; its first line names nothing'),
    ('date,kind,usd\n', 'has no line below its first'), ('date,kind,usd\n2026-03,compute,1\n2026-03,compute,-1\n', r'line 3: usd should be'),
    ('date,kind,usd\n2026-03,compute\n', "line 2: usd should be .* found ''"), ('date,kind,usd\n2026-03,compute,nan\n', 'line 2: usd .* found nan'),
    ('date,kind,usd\n2026-03,compute,1\n2026-03,compute,1.0\n', 'line 3 is the same bill as line 2'), ('date,kind,usd\n2999-03,compute,1\n', 'line 2: .*future'),
    ('date,kind,usd,platform\n2026-03,compute,1,moon\n', "line 2: unknown host 'moon'"), ('date,kind,usd\n2026-03,gpu,1\n', "line 2: unknown kind of cost 'gpu'")])
def test_bills_with_a_mistake_enter_nothing(home, tmp_path, text, words):
    with pytest.raises(CourseError, match=words): import_costs(csv_file(tmp_path/'b.csv', text))
    assert not places()['costs'].exists()


def test_files_that_are_no_bill(home, tmp_path):
    with pytest.raises(CourseError, match='no file'): import_costs(tmp_path/'none.csv')
    with pytest.raises(CourseError, match='cannot be read'): import_costs(tmp_path)
    with pytest.raises(CourseError, match='cannot be read as a text file'): import_costs(csv_file(tmp_path/'b.csv', 'date,kind,usd\n2026-03,compüte,1\n', 'latin-1'))


# The report

def bills(home, *rows): return [add_cost(*r) for r in rows]


def test_planned_against_paid_and_what_for(home):
    some = bills(home, ('2026-01', 'compute', 10.), ('2026-03-31', 'storage', 30.), ('2026-03', 'address', 20.))
    r = report([hours('2026-03-02T00:00', 74.4)], some, dict(month=15., total=59.))
    assert {m: sum(paid.values()) for m, paid in r.months.items()} == {'2026-01': 10, '2026-02': 0, '2026-03': 50} and r.paid == 60
    assert r.kinds == dict(compute=10, storage=30, address=20, other=0) and hours_in_months(r.hours) == {'2026-03': pytest.approx(74.4)}
    assert idle_usd(r) == pytest.approx(50*.9)                 # 74.4 of 744 hours ran in March
    assert cost_warnings(r) == [
        '2026-01: 10.00 US dollars for compute, and the ledger has no run in that month; was a machine left on?',
        '2026-03: 50.00 US dollars, 3.3 times the plan of 15.00', 'in all: 60.00 US dollars, 1.0 times the plan of 59.00',
        '75% was spent while nothing ran: 45.00 of 60.00 US dollars, for disks and addresses that were kept. Delete what you can make again']


def test_no_warning_where_all_is_well(home):
    r = report([hours('2026-03-02T00:00', 5)], bills(home, ('2026-03', 'compute', 10.), ('2026-03', 'storage', 1.)), dict(month=11., total=11.))
    assert cost_warnings(r) == []
    assert cost_warnings(report([hours('2026-03-02T00:00', 5)], r.bills, dict(month=0.)))[0].endswith('and the plan was to spend nothing')


def test_a_year_passes_between_two_bills(home):
    assert list(report(bills=bills(home, ('2025-11', 'other', 1.), ('2026-02', 'other', 1.))).months) == ['2025-11', '2025-12', '2026-01', '2026-02']


def test_weeks_take_days_and_spread_months(home):
    r = report([hours('2026-03-03T00:00', 2), hours('2026-03-04T00:00', 1)], bills(home, ('2026-03-02', 'compute', 7.), ('2026-02', 'storage', 28.)))
    weeks = cost_weeks(r)
    assert weeks[date(2026, 3, 2)] == (7., 3., 2)
    assert weeks[date(2026, 1, 26)] == (pytest.approx(1.), 0, 0) and weeks[date(2026, 2, 2)][0] == pytest.approx(7.)   # 1 February is a Sunday
    assert sum(usd for usd, *_ in weeks.values()) == pytest.approx(35.)


def test_text_says_how_hours_are_known_and_what_they_are_not(home):
    text = cost_text(report([hours('2026-03-01T00:00', 2), hours('2026-03-02T00:00', 1, '99', 'span', 'sample', 'cuda')]))
    assert re.search(r'^01 \S.* real +cpu +1 +2.00  timed by topdown run$', text, flags=re.M)
    assert re.search(r'^99 +sample +cuda +1 +1.00  by hand: first to last record$', text, flags=re.M)
    assert '3.00 hours in 2 runs (2.00 on cpu, 1.00 on cuda)' in text and '1.00 of them on the sample track' in text
    assert 'A GPU takes other hours for the same work' in text
    assert all(p.source in text for p in course().prices)


def test_pictures_say_the_answer_in_words(home):
    r = report([hours('2026-03-02T00:00', 5)], bills(home, ('2026-02', 'compute', 10.), ('2026-03-01', 'storage', 30.)), dict(month=15.))
    alt = plot_months(r).alt
    assert alt == ('Stacked bars of 40.00 US dollars in 2 months: most in 2026-03, 30.00; storage is the largest part, 75% of all; '
                   '1 of 2 months are above the plan of 15.00')
    assert re.search(r'5 weeks cost money without a run, together 40.00 of 40.00', plot_weeks(r).alt)


def test_a_page_needs_nothing_else_and_escapes_what_it_shows(home, tmp_path):
    r = report([hours('2026-03-02T00:00', 5, '<b>')], bills(home, ('2026-03', 'storage', 30.)))
    page = cost_page(r, tmp_path/'deep'/'c.html').read_text(encoding='utf-8')
    assert page.startswith('<!doctype html><html lang="en">') and page.count('<img alt="') == 2 and '&lt;b&gt;' in page and '<b>' not in page
    assert not re.search(r'<script|<link|src="(?!data:)|href=|@import|url\(', page)
    assert 'No bills yet' in cost_page(report(), tmp_path/'c.html').read_text(encoding='utf-8')


def test_bills_of_nothing(home):
    r = report(bills=bills(home, ('2026-03', 'storage', 0.)))
    assert 'in all' in cost_text(r) and plot_months(r).alt.startswith('Stacked bars of 0.00') and cost_warnings(r) == [] and set(r.kinds) == set(COST_KINDS)


def test_a_result_recorded_by_hand_under_another_run(home):
    assert record(1, 'x', 1, track='sample', run='mine', peak_mb=12.34)['peak_rss_mb'] == 12.3 and records()[0]['run_id'] == 'mine'
