"""The questions on a page of the site and beside the cells of a notebook, as a reader with a keyboard meets them"""
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sitecheck
import tree
from conftest import lacking
from lab import lab_over, write_notebook
from pages import chromium

from topdown import quizfaces, site
from topdown.pages import page_title
from topdown.quiz import judge, read_quiz
from topdown.quizfaces import QuizWidget, markdown_html, markdown_letters, quiz_page
from topdown.settings import CourseError, course

SMALL = r'''lesson = "03_how_a_network_learns"
[objectives]
loss = "Say with one number how badly a model fits"
[[question]]
id = "03.01"
kind = "single"
objective = "loss"
section = "Recap"
ask = "The misses of `model` are 2 and $-2$. What is the *mean* of their squares $\\frac{1}{n}\\sum_i m_i^2$?"
choices = [{text = "$0 \\times 10^{-3}$", why = "The misses cancel, their squares do not."},
           {text = "`4`, or <b>four</b>", right = true, why = "(4 + 4)/2 is 4."}, {text = "Eight", why = "That is the *sum* of the squares."}]
why = "Squares do not cancel."
[[question]]
id = "03.02"
kind = "multiple"
objective = "loss"
section = "Recap"
ask = "Which of these make a loss smaller?"
choices = [{text = "A better weight", right = true, why = "It misses by less."}, {text = "A nicer name", why = "A loss reads no names."},
           {text = "A step against the slope", right = true, why = "That way is down."}]
why = "Only what changes the misses changes the loss."
[[question]]
id = "03.03"
kind = "number"
objective = "loss"
section = "Recap"
ask = "A weight is at 2.0 metres, its slope is 0.5, and the learning rate is 0.1. Where is it after one step?"
answer = 1.95
tolerance = 0.004
unit = "metres"
check = "print(2.0 - 0.1*0.5)"
wrong = {"2.05" = "A step goes *against* the slope."}
why = "A step is the learning rate times the slope."
[[question]]
id = "03.04"
kind = "output"
objective = "loss"
section = "Recap"
ask = "What is printed?"
code = """
for i in range(3): print('step', i)  # a line that is long enough to need more room than a phone has, so that it has to be scrolled
"""
answer = "step 0\nstep 1\nstep 2\n"
wrong = {"step 1\nstep 2\nstep 3" = "`range` begins with 0."}
why = "`range(3)` is 0, 1, 2."
[[question]]
id = "03.05"
kind = "order"
objective = "loss"
section = "Recap"
ask = "Put the parts of one step into order."
steps = ["Predict with `model`", "Take the loss $L$", "Take the slopes", "Move the weights"]
why = "The slopes belong to the loss of this prediction."
[[question]]
id = "03.06"
kind = "text"
objective = "loss"
section = "Recap"
ask = "Why are misses squared?"
model = "So that misses above and below do not cancel, and large ones count more."
points = ["says that misses would cancel", "says that large misses count `more`"]
why = "The section shows a flat line whose misses sum to zero."
'''
LESSON = '03_how_a_network_learns'


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "A quiz with one question of every kind"
    path = tmp_path_factory.mktemp('quiz')/'03.toml'
    path.write_text(SMALL, encoding='utf-8')
    return read_quiz(path)


@pytest.fixture(scope='module')
def built(small, tmp_path_factory):
    "A site of one page, with the questions of the small quiz; its folder"
    try: site.pandoc()
    except CourseError: lacking('pandoc')
    root, to, theme = tmp_path_factory.mktemp('clone'), tmp_path_factory.mktemp('site')/'_docs', tree.ROOT/'apps'/'site'
    nbs = root/'nbs'
    (nbs/'quizzes').mkdir(parents=True)
    for path in ('index.qmd', 'reference/credits.qmd'):
        (nbs/path).parent.mkdir(exist_ok=True)
        (nbs/path).write_text(f'---\ntitle: {Path(path).stem.title()}\n---\n\n[Questions](/quizzes/03.qmd) [lesson](/{LESSON}.qmd)\n', encoding='utf-8')
    text = (tree.ROOT/'nbs'/'quizzes'/'03.qmd').read_text(encoding='utf-8').replace('<!-- fill: quiz 03 -->', quiz_page(small))
    (nbs/'quizzes'/'03.qmd').write_text(text.replace('.ipynb', '.qmd'), encoding='utf-8')
    (nbs/f'{LESSON}.qmd').write_text('---\ntitle: The lesson\n---\n\n## Recap\n\nA [page](/quizzes/03.qmd).\n', encoding='utf-8')
    for name in ('quiz.js', 'quiz.css'): shutil.copy2(tree.ROOT/'apps'/'quiz'/name, nbs/'quizzes')
    nav, files = [('', [('index.qmd', 'Index')]), ('Questions', [('quizzes/03.qmd', 'Questions: How a network learns')])], set()
    for path in sorted(nbs.rglob('*.qmd')):
        found, more = site._write_page(path, nbs, nbs, nav, theme, to)
        files |= more
    for name in files: shutil.copy2(nbs/name, to/name)
    for name in ('style.css', 'site.js'): shutil.copy2(theme/name, to/name)
    (to/'search.js').write_text('window.searchIndex = []\n', encoding='utf-8')
    return to


PAGE = 'quizzes/03.html'


@pytest.fixture(scope='module')
def browser():
    with chromium() as b: yield b


@pytest.fixture
def visit(browser, built):
    "Open the page; whatever the test does, the page must ask for nothing outside its folder and meet no error"
    contexts, wrong = [], []
    with sitecheck.served(built) as base:
        def visit(**how):
            contexts.append(browser.new_context(**{'viewport': sitecheck.DESK, 'reduced_motion': 'reduce'} | how))
            contexts[-1].set_default_timeout(30_000)
            page = contexts[-1].new_page()
            page.on('request', lambda r: r.url.startswith((base, 'blob:', 'data:')) or wrong.append(r.url))
            page.on('console', lambda m: m.type in ('error', 'warning') and wrong.append(m.text))
            page.on('pageerror', lambda e: wrong.append(str(e)))
            page.goto(base + PAGE)
            return page
        yield visit
        for c in contexts: c.close()
    assert not wrong


def test_page_links_and_html(built):
    pages = sitecheck.read(built)
    assert not sitecheck.broken(built, pages) and not sitecheck.fetched_from_outside(pages)
    assert not sitecheck.faulty_heads(pages) and not sitecheck.speechless(pages)
    assert 'recap' in pages[f'{LESSON}.html'.removeprefix('03_')].ids, 'the link to the section has somewhere to lead'
    assert not sitecheck.invalid(built, pages)


def test_formulas_code_and_marks_are_rendered_and_nothing_else(built):
    text = (built/PAGE).read_text(encoding='utf-8')
    assert '<mfrac>' in text and '<code>4</code>' in text and 'sourceCode python' in text
    assert '<!-- fill' not in text and '`{=html}' not in text


def test_markup_in_a_question_stays_text(small):
    text = quiz_page(small)
    assert r'`{=html}`4`, or \<b>four\</b> `</span>' in text and '$\\frac{1}{n}\\sum_i m_i^2$' in text
    assert markdown_html('<script>x</script> `<b>` $a<b$') == '<p>&lt;script&gt;x&lt;/script&gt; <code>&lt;b&gt;</code> $a&lt;b$</p>\n'
    assert markdown_html('[x](javascript:alert(1))', inline=True) == '[x](javascript:alert(1))'
    assert markdown_html('costs $5 and `$x$`, $a_1*b_1*c$', inline=True) == 'costs $5 and <code>$x$</code>, $a_1*b_1*c$'
    assert markdown_letters('**A** `b_1` $2 \\times 3$') == 'A b_1 2 × 3'


ACTIVE = 'document.activeElement'


def tab_to(page, test, limit=160):
    "Press Tab, which goes round, until the element with the focus passes a test in JavaScript"
    for _ in range(limit):
        if page.evaluate(f'(e => {{ const form = e.closest("form.try")?.dataset.id; return {test} }})({ACTIVE})'): return
        page.keyboard.press('Tab')
    raise AssertionError(f'Tab does not reach {test}')


def said(page, number): return page.locator(f'form.try[data-id="03.0{number}"] .said').inner_text()
def send(page, number): tab_to(page, f'form === "03.0{number}" && e.type === "submit"'); page.keyboard.press('Enter')
def kept(page): return json.loads(page.evaluate("localStorage.getItem('topdown-answers') ?? '[]'"))


def test_answered_by_keyboard_alone(visit):
    page = visit()
    tab_to(page, 'form === "03.01" && e.type === "radio"')
    send(page, 1)
    assert said(page, 1) == 'Nothing is chosen so far; choose one answer first.' and kept(page) == []
    tab_to(page, 'form === "03.01" && e.type === "radio"')
    for _ in range(3): # the arrow keys go round
        if page.evaluate(f'{ACTIVE}.checked && {ACTIVE}.value === "2"'): break
        page.keyboard.press('ArrowDown')
    send(page, 1)
    assert re.sub(r'\s+', ' ', said(page, 1)) == ('✗ Not right. Your answer: Eight That is the sum of the squares. '
                                                  'Right is: 4, or <b>four</b> (4 + 4)/2 is 4. Squares do not cancel.')
    for value in ('0', '2'):
        tab_to(page, f'form === "03.02" && e.value === "{value}"')
        page.keyboard.press('Space')
    send(page, 2)
    assert said(page, 2).startswith('✓ Right.')
    tab_to(page, 'form === "03.03" && e.type === "text"')
    page.keyboard.type('2,05 m'); page.keyboard.press('Enter')
    assert '✗ Not right.' in said(page, 3) and 'A step goes against the slope.' in said(page, 3)
    page.keyboard.press('Control+a'); page.keyboard.type('soon'); page.keyboard.press('Enter')
    assert 'should be a number' in said(page, 3)
    tab_to(page, 'form === "03.04" && e.localName === "textarea"')
    for line in ('step 0', 'step 2'): page.keyboard.type(line); page.keyboard.press('Enter')
    send(page, 4)
    assert '◐ Partly right.' in said(page, 4) and 'Line 2 is “step 1”.' in said(page, 4)
    at = "[...document.querySelectorAll('[data-id=\"03.05\"] li')].findIndex(o => o.dataset.step === '%s')"
    for place in range(4): # each step up to its place, from below
        while (now := page.evaluate(at % place)) > place:
            tab_to(page, f'form === "03.05" && e.closest("li")?.dataset.step === "{place}" && !e.disabled && e.textContent === "↑"')
            page.keyboard.press('Enter')
            assert said(page, 5) == f'Moved to place {now} of 4'
            assert page.evaluate(f'{ACTIVE}.closest("li").dataset.step') == str(place), 'the focus goes along'
    send(page, 5)
    assert said(page, 5).startswith('✓ Right.')
    tab_to(page, 'form === "03.06" && e.localName === "textarea"')
    page.keyboard.type('They would cancel.')
    send(page, 6)
    assert 'A model answer is shown' in said(page, 6)
    tab_to(page, 'form === "03.06" && e.value === "0"')
    page.keyboard.press('Space')
    send(page, 6)
    assert '◐ Partly right.' in said(page, 6) and 'Still to add: says that large misses count more' in said(page, 6)
    assert [(o['question'], o['right'], o['share'], o['face']) for o in kept(page)] == [
        ('03.01', False, 0, 'site'), ('03.02', True, 1, 'site'), ('03.03', False, 0, 'site'),
        ('03.04', False, pytest.approx(1/3), 'site'), ('03.05', True, 1, 'site'), ('03.06', False, .5, 'site')]
    assert '6 of 6 answered, 2 of them right' in page.inner_text('.progress')


def test_answers_are_kept_exported_and_forgotten(visit):
    page = visit()
    page.on('dialog', lambda d: d.accept())
    form = page.locator('form.try[data-id="03.01"]')
    for _ in range(2): # the same answer twice is one answer
        form.get_by_label('Eight').check()
        form.get_by_role('button', name='Answer').click()
    form.get_by_label('four').check()
    form.get_by_role('button', name='Answer').click()
    page.reload()
    assert '1 of 6 answered, 1 of them right' in page.inner_text('.progress') and '✓ right' in page.inner_text('#question-1')
    with page.expect_download() as download: page.get_by_role('button', name='Export my answers').click()
    assert download.value.suggested_filename == 'topdown-answers.json'
    told = json.loads(Path(download.value.path()).read_text(encoding='utf-8'))
    assert [(o['question'], o['right'], o['share'], o['face']) for o in told] == [('03.01', False, 0, 'site'), ('03.01', True, 1, 'site')]
    assert all(re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z', o['when']) and list(o) == ['question', 'right', 'share', 'when', 'face'] for o in told)
    page.get_by_role('button', name='Forget my answers').click()
    assert kept(page) == [] and '0 of 6 answered' in page.inner_text('.progress') and page.locator('.mark').count() == 0


GIVEN = ['1.95', '195 per cent', '1.95 percent', '1.95%', '1.9541', '1.95 M.', '1.95 metre', '1.95 metres long', '1.954', '1.9459', '2.046', '1,95', '1.95 metres', '1.95 m', ' 1.95m. ', '+1.95', '195e-2', '1.95e0', '39/20', '= 1.95', '≈1,952', '1.96', '-1.95', '2.05', '2,05 metres', '195%',
         '195 %', '1,950', '1950', '1 950', '1.9 5', '−1.95', 'soon', '', '1.95 miles', '1..95', '1.2.3', 'e5', '1e', '1/0', 'inf', 'NaN', '1.950,0', '0x10', '1_95e-2', "1'95", '.5', '5.']
PRINTED = ['step 0\nstep 1\nstep 2', 'step 0 \r\nstep 1\nstep 2\n\n', 'step 0\nstep 2', 'step 1\nstep 2\nstep 3', 'step 0\nstep 1\nstep 2\nstep 3', 'x']


def test_the_page_judges_as_python_does(visit, small):
    page = visit()
    def python(q, given):
        try: return judge(q, given).share
        except CourseError: return 'refused'
    def asked(q, fill):
        page.evaluate("localStorage.clear()")
        fill(page.locator(f'form.try[data-id="{q.id}"]'))
        page.locator(f'form.try[data-id="{q.id}"] [type=submit]').click()
        return kept(page)[0]['share'] if kept(page) else 'refused'
    (_, many, number, output, _, _), differ = small.questions, []
    shares, bare = (replace(number, unit=unit, wrong={}) for unit in ('per cent', ''))
    line = replace(output, answer='x = 1', wrong={})
    for q, given, field in [(number, GIVEN, 'input'), (shares, GIVEN, 'input'), (bare, GIVEN, 'input'), (output, PRINTED, 'textarea'), (line, ['x = 2', 'x = 1\ny', 'x = 1 '], 'textarea')]:
        for text in given:
            page.locator(f'form.try[data-id="{q.id}"]').evaluate('(o, more) => { o.dataset.answer = JSON.stringify({...JSON.parse(o.dataset.answer), ...more}); o.given = null }',
                                                                 {'unit': q.unit, 'answer': q.answer})
            expected, found = python(q, text), asked(q, lambda form: form.locator(field).fill(text))
            if found != (expected if expected == 'refused' else pytest.approx(expected)): differ.append((text, found, expected))
    assert not differ, differ # given, what the page makes of it, what Python makes of it
    for taken in ([0], [1], [0, 1], [0, 2], [0, 1, 2]):
        page.reload()
        assert asked(many, lambda form: [form.locator(f'input[value="{i}"]').check() for i in taken]) == python(many, set(taken)), taken


def test_without_javascript_everything_can_be_read(visit, small):
    page = visit(java_script_enabled=False)
    assert page.locator('button:visible').count() == 0 and not page.is_visible('.progress')
    assert page.locator('details.solution > summary:visible').all_inner_texts() == ['Answer']*6
    for i, q in enumerate(small.questions):
        page.locator('details.solution > summary').nth(i).click()
        text = page.locator('.question').nth(i).inner_text()
        assert q.why.replace('`', '') in text and (not q.points or markdown_letters(q.points[1]) in text) and (not q.choices or q.choices[1].why in text)


def test_in_both_schemes_on_a_phone_and_for_axe(browser, built):
    found = sitecheck.visit(browser, built, {PAGE: None})
    found['script'] = [o for o in found['script'] if 'characters' not in o] # a page as short as this one has more buttons than text
    assert not any(found.values()), found
    axe = sitecheck.npm('axe-core/axe.min.js').read_text(encoding='utf-8')
    with sitecheck.served(built) as base:
        for scheme, size in (('light', sitecheck.DESK), ('dark', sitecheck.DESK), ('dark', sitecheck.PHONE)): # with answers, and all that they open
            context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion='reduce')
            page = context.new_page()
            page.goto(base + PAGE)
            page.evaluate(axe)
            for field in page.locator('.try input[type=text], .try textarea').all(): field.fill('1.95')
            for first in page.locator('.try fieldset:visible').all():
                if first.locator('input').count(): first.locator('input').last.check()
            for button in page.locator('.try [type=submit]').all(): button.click()
            page.locator('.try [type=submit]').last.click()
            for o in page.locator('details.solution > summary').all(): o.click()
            assert page.locator('.said > div').count() == 6
            assert not page.evaluate(sitecheck.AXE, None) and not page.evaluate(sitecheck.WIDE)
            context.close()


def test_search_passes_questions_over(built):
    text = (built/PAGE).read_text(encoding='utf-8')
    body = re.split('<!-- body -->|<!-- end -->', text)[1]
    assert 'squared' in body and not any('squared' in o[2] for o in site.sections(PAGE, 'Questions', body))


def test_each_quiz_has_its_page_and_solutions_stay_at_home(tmp_path, monkeypatch):
    for lesson in course().lessons:
        if not (tree.ROOT/'nbs'/'quizzes'/f'{lesson.number}.toml').exists(): continue
        page = tree.ROOT/'nbs'/'quizzes'/f'{lesson.number}.qmd'
        assert page_title(page) == f'Questions: {lesson.title}'
        assert f'../{lesson.name}.ipynb' in page.read_text(encoding='utf-8') and f'<!-- fill: quiz {lesson.number} -->' in page.read_text(encoding='utf-8')
    root, stage = tmp_path/'clone', tmp_path/'stage'
    for name in ('pyproject.toml', 'settings.ini', '_quarto.yml', 'nbs/quizzes/03.qmd', 'nbs/exercises/03.ipynb', 'results/a.json', 'apps/quiz/quiz.js', 'apps/quiz/quiz.css'):
        (root/name).parent.mkdir(parents=True, exist_ok=True)
        (root/name).write_text('{}', encoding='utf-8')
    (root/'topdown').mkdir()
    stage.mkdir()
    site._stage(root, stage)
    assert (stage/'nbs'/'quizzes'/'quiz.js').is_file() and not (stage/'nbs'/'exercises').exists()


# ---- in a notebook

@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "JupyterLab over a notebook that shows the small quiz, and the folder in which answers are written down"
    folder = tmp_path_factory.mktemp('lab')
    (folder/'03.toml').write_text(SMALL, encoding='utf-8')
    listen = "import topdown.quizfaces as faces\nimport json\nfrom pathlib import Path\nfrom topdown.quiz import read_quiz"
    note = """def noted(*told):
    with open('told.jsonl', 'a') as f: f.write(json.dumps([told[0], told[1].right, told[2]]) + chr(10))
    return ''
faces.remember = noted
faces.QuizWidget(read_quiz('03.toml'))"""
    write_notebook(folder/'quiz.ipynb', listen, note)
    with lab_over(folder) as address: yield address, folder


def in_widget(page, test, limit=60):
    "Press Tab until the element of the widget that has the focus passes a test in JavaScript"
    for _ in range(limit):
        if page.evaluate(f'(e => !!e.closest(".topdown-quiz") && {test})({ACTIVE})'): return
        page.keyboard.press('Tab')
    raise AssertionError(f'Tab does not reach {test}')


def write(page, kind, *lines):
    "Type into the field, a moment after it appeared"
    in_widget(page, f'e.localName === "{kind}"')
    page.wait_for_timeout(500)
    for i, line in enumerate(lines):
        if i: page.keyboard.press('Enter')
        page.keyboard.type(line)
    assert page.evaluate(f'{ACTIVE}.value') == '\n'.join(lines)


def press(page, name):
    in_widget(page, f'e.localName === "button" && e.textContent === "{name}"')
    page.keyboard.press('Enter')


def go_on(page, number, sees):
    "To the next question; its heading has the focus then, so that Tab leads into its controls"
    press(page, 'Next')
    page.wait_for_selector(f'.topdown-quiz {sees}')
    page.wait_for_function(f'() => {ACTIVE}.localName === "h3" && {ACTIVE}.textContent.startsWith("Question {number} of 6")')


def hears(page, text):
    try: page.wait_for_selector(f'.topdown-quiz [role=status]:has-text("{text}")', timeout=30_000)
    except Exception as e: # playwright may be missing, so its errors cannot be named here
        raise AssertionError(f'{text!r} is not said: {page.locator(".topdown-quiz").inner_text()}') from e


AXE_HERE = "async () => (await axe.run('.topdown-quiz')).violations.map(v => [v.id, v.impact, v.nodes.map(n => n.html)])"


def test_widget_by_keyboard_alone(browser, lab):
    address, folder = lab
    context = browser.new_context(viewport={'width': 1280, 'height': 900})
    context.set_default_timeout(90_000)
    page = context.new_page()
    page.goto(f'{address}/lab/workspaces/quiz/tree/quiz.ipynb')
    page.wait_for_selector('text=Python 3 (ipykernel) | Idle')
    page.locator('.jp-Notebook .jp-CodeCell').first.click()
    page.keyboard.press('Shift+Enter'); page.keyboard.press('Control+Enter') # which keeps the focus on the cell
    page.wait_for_selector('.topdown-quiz [role=radiogroup] [data-rich]')
    page.evaluate(sitecheck.npm('axe-core/axe.min.js').read_text(encoding='utf-8'))
    def sound(): assert page.evaluate(AXE_HERE) == []
    radios, boxes = page.get_by_role('radio'), page.locator('.topdown-quiz').get_by_role('checkbox')
    assert [radios.nth(i).evaluate('o => o.labels[0].querySelector("[data-rich] code, [data-rich] mjx-container") !== null') for i in range(3)].count(True) == 2
    assert page.get_by_role('radiogroup', name='The misses of model are 2 and -2').count() == 1 and page.get_by_role('radio', name='0 × 10^-3').count() == 1
    sound()
    press(page, 'Answer'); hears(page, 'Nothing is chosen so far')
    page.keyboard.press('Shift+Tab'); page.keyboard.press('Space')
    for _ in range(3):
        if page.evaluate(f'{ACTIVE}.labels[0].textContent === "Eight"'): break
        page.keyboard.press('ArrowDown')
    page.wait_for_timeout(300) # the kernel hears of the choice
    press(page, 'Answer'); hears(page, 'Not right.'); hears(page, 'That is the sum of the squares.'); sound()
    go_on(page, 2, '.widget-checkbox [data-rich]')
    for i in range(3):
        in_widget(page, 'e.type === "checkbox" && !e.checked'); name = page.evaluate(f'{ACTIVE}.labels[0].textContent')
        if name != 'A nicer name': page.keyboard.press('Space')
        page.keyboard.press('Tab')
    assert boxes.count() == 3 and page.get_by_role('group', name='Which of these make a loss smaller?').count() == 1
    press(page, 'Answer'); hears(page, 'Right.'); sound()
    go_on(page, 3, 'input[type=text]')
    write(page, 'input', '1,95')
    assert page.get_by_label('Your answer (metres)').count() == 1
    press(page, 'Answer'); hears(page, '✓ Right.'); sound()
    go_on(page, 4, 'textarea')
    write(page, 'textarea', 'step 1', 'step 2', 'step 3')
    press(page, 'Answer'); hears(page, 'range begins with 0.'); sound()
    go_on(page, 5, '.topdown-quiz-move')
    page.wait_for_selector('.topdown-quiz-move[title^="Move up step 4:"]')
    for place, step in enumerate(('Predict with model', 'Take the loss', 'Take the slopes')): # each step up to its place, from below
        now = page.evaluate("step => [...document.querySelectorAll('.topdown-quiz-move[title^=\"Move up\"]')].findIndex(o => o.title.includes(step))", step)
        if now == place: continue
        in_widget(page, f'e.title.startsWith("Move up step {now + 1}:")')
        for k in range(now, place, -1):
            page.keyboard.press('Enter'); hears(page, f'Moved to place {k} of 4')
            page.wait_for_function(f'() => {ACTIVE}.title.startsWith("Move") && {ACTIVE}.title.includes("step {k}:")')
    sound()
    press(page, 'Answer'); hears(page, '✓ Right.')
    go_on(page, 6, 'textarea')
    write(page, 'textarea', 'They would cancel: b, dd, x.') # keys on which JupyterLab has commands
    press(page, 'Answer'); hears(page, 'A model answer is shown')
    page.wait_for_selector('.topdown-quiz .widget-checkbox [data-rich]')
    in_widget(page, 'e.type === "checkbox"'); page.keyboard.press('Space')
    sound()
    press(page, 'Answer'); hears(page, 'Partly right.'); hears(page, 'Still to add')
    assert page.locator('.jp-Notebook .jp-CodeCell').count() == 2, "JupyterLab's own keys are not heard here"
    told = [json.loads(o) for o in (folder/'told.jsonl').read_text(encoding='utf-8').splitlines()]
    assert told == [['03.01', False, 'notebook'], ['03.02', True, 'notebook'], ['03.03', True, 'notebook'], ['03.04', False, 'notebook'],
                    ['03.05', True, 'notebook'], ['03.06', False, 'notebook']]
    context.close()


def test_widget_draws_the_same_questions_again(small):
    some = [q.id for q in QuizWidget(small, 3, seed=1).questions]
    assert some == [q.id for q in QuizWidget(small, 3, seed=1).questions] and some == sorted(some) and len(some) == 3
    assert len(QuizWidget(small, 99).questions) == 6


def test_without_widgets_the_questions_and_answers_are_shown(small, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ipywidgets', None)
    shown = QuizWidget(small)._repr_mimebundle_()
    assert set(shown) == {'text/html', 'text/plain'} and shown['text/plain'].startswith('6 questions about How a network learns')
    assert shown['text/html'].count('<details><summary>Answer</summary>') == 6 and '<b>' not in shown['text/html'] and 'Squares do not cancel.' in shown['text/html']


def test_an_answer_that_cannot_be_kept_is_judged_all_the_same(small, monkeypatch):
    monkeypatch.setattr(quizfaces, 'remember', lambda *told: 'the disk is full')
    asked = QuizWidget(small)
    asked.widget()
    asked.controls.children[0].value = 1
    asked.judge()
    assert '✓ Right.' in asked.said.value and 'This answer is not kept: the disk is full' in asked.said.value
