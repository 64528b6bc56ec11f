"""Each lesson's deck: short enough for a lesson, on one screen, readable without a network and without a program"""
import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from conftest import lacking, notebook
from test_browser import browser, page  # noqa: F401 fixtures

from topdown import slides
from topdown.settings import CourseError, course, find_lesson

LESSONS = [o.name for o in course().lessons]


@pytest.fixture(scope='module')
def decks(tmp_path_factory):
    "Name → deck, made when a test asks for it"
    try: reveal = slides.find_reveal(network=False)
    except CourseError: lacking('reveal.js in .venv (make test fetches it with npm)')
    to = tmp_path_factory.mktemp('decks')
    class Decks(dict):
        def __missing__(self, name): return self.setdefault(name, slides.build_slides(name, to, reveal))
    return Decks()


def cells(name): return json.loads(find_lesson(name).path.read_text(encoding='utf-8'))['cells']


def tiny_deck(decks, folder, *parts):
    "A deck of one slide a part"
    nb = notebook(*parts)
    for c in nb.cells: c.metadata['slideshow'] = {'slide_type': 'slide'}
    at = Path(shutil.copytree(decks[LESSONS[0]].parent, folder/'decks'))/'tiny.html'
    at.write_text(slides.deck_html(nb, find_lesson(0)), encoding='utf-8')
    return at


@pytest.mark.parametrize('name', LESSONS)
def test_deck_is_for_45_minutes(name):
    kinds = [slides.slide_type(o) for o in cells(name)]
    assert 10 <= slides.slides_in({'cells': cells(name)}) <= slides.SLIDES
    assert kinds[0] == 'slide' and set(kinds) <= {'slide', 'subslide', 'fragment', 'notes', 'skip'}


@pytest.mark.parametrize('name', LESSONS)
def test_speaker_has_notes(name):
    kinds = [slides.slide_type(o) for o in cells(name)]
    assert all(o['cell_type'] == 'markdown' for o, kind in zip(cells(name), kinds) if kind == 'notes')
    silent = longest = 0
    for kind in kinds:
        silent = 0 if kind == 'notes' else silent + (kind in ('slide', 'subslide'))
        longest = max(longest, silent)
    assert kinds.count('notes') >= slides.slides_in({'cells': cells(name)})/2, 'the prose beside a slide is marked notes'
    assert longest <= 6, f'{longest} slides in a row without a note'


@pytest.mark.parametrize('name', LESSONS)
def test_deck_is_a_page_of_its_own(decks, name):
    text = decks[name].read_text(encoding='utf-8')
    assert len(text) < 1_500_000
    files = re.findall(r'<(?:link|script|img)[^>]*? (?:href|src)="([^"]*)"', text)
    assert all(o.startswith('data:') or (decks[name].parent/o).is_file() for o in files), files
    for tag in re.findall(r'<img[^>]*>', text): assert re.search(r'alt="[^"]{10,}"', tag), tag[:80]
    pages = {slides.page_stem(p.stem) for p in find_lesson(0).path.parent.rglob('*') if p.suffix in ('.ipynb', '.qmd')}
    for target in re.findall(r'href="\.\./([^"#]+)\.html', text): assert Path(target).name in pages, target
    assert '<span class="c1">#|' not in text and '\\(' not in text, 'a directive or a formula that nothing draws'
    assert text.count('<section>') == text.count('</section>') and text.count('<div') == text.count('</div>')


@pytest.mark.browser
@pytest.mark.parametrize('name', LESSONS)
def test_no_slide_is_too_full(decks, browser, name): assert slides.slide_faults(browser, decks[name]) == []  # noqa: F811


@pytest.mark.browser
def test_too_full_is_found(decks, browser, tmp_path):  # noqa: F811
    table = '# Wide\n\n| ' + ' | '.join(f'a_word_that_is_long_{i}' for i in range(12)) + ' |\n' + '|---'*12 + '|\n'
    at = tiny_deck(decks, tmp_path, '# Fine', '# Tall\n\n' + '\n\n'.join(['line']*40), table, '\n'.join(f'x{i} = 1' for i in range(40)), '# Fine, too')
    found = slides.slide_faults(browser, at)
    assert {o[0] for o in found} == {2, 3, 4} and all('too' in o[2] or 'cut off' in o[2] for o in found), found


@pytest.mark.browser
def test_deck_is_used(decks, page):  # noqa: F811
    said = []
    page.on('console', lambda m: said.append(m.text))
    page.on('pageerror', lambda e: said.append(str(e)))
    page.on('request', lambda r: r.url.startswith(('file:', 'data:', 'about:', 'blob:')) or said.append(r.url))
    page.goto(decks['01_is_it_a_bird'].as_uri())
    page.wait_for_function('() => window.Reveal && Reveal.isReady()')
    page.keyboard.press('Space')
    assert page.evaluate('Reveal.getSlidePastCount()') == 1
    for o in ('summary', '.home a'): assert page.locator(o).count()
    with page.context.expect_page() as opened: page.keyboard.press('s')
    speaker = opened.value
    speaker.on('pageerror', lambda e: said.append(str(e)))
    speaker.wait_for_selector('.speaker-controls-notes:not(.hidden) .value:not(:empty)')
    assert len(speaker.locator('.speaker-controls-notes .value').inner_text()) > 40
    assert not said, said


@pytest.mark.browser
def test_deck_without_javascript(decks, browser):  # noqa: F811
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(decks['01_is_it_a_bird'].as_uri())
    heads = page.locator('.text h2')
    assert heads.count() > 8 and all(heads.nth(i).is_visible() for i in range(heads.count()))
    tops = [heads.nth(i).bounding_box()['y'] for i in range(heads.count())]
    assert tops == sorted(set(tops)), 'one below the other'
    context.close()


def test_reveal_is_not_to_be_had(home, tmp_path, monkeypatch):
    monkeypatch.setattr(slides.sys, 'prefix', str(tmp_path))
    with pytest.raises(CourseError, match='the network was not asked'): slides.find_reveal(network=False)
    monkeypatch.setattr(slides.shutil, 'which', lambda name: None)
    with pytest.raises(CourseError, match='npm, which fetches it, is not installed'): slides.find_reveal()


def test_no_browser_no_pandoc(decks, monkeypatch):
    monkeypatch.setattr(slides.shutil, 'which', lambda name: None)
    with pytest.raises(CourseError, match='needs the browser Chromium'): slides.measure_slides(decks[LESSONS[0]])
    monkeypatch.setitem(slides.sys.modules, 'pypandoc', None)
    with pytest.raises(CourseError, match='topdown-course\\[site\\]'): slides.as_html(['a'])


def test_command(tiny, monkeypatch, tmp_path):
    for name in ('apps',): shutil.copytree(slides.course_root()/name, tiny.root/name)
    code, out, err = tiny.call('slides', 'build', '1', '--to', tmp_path/'to')
    assert code == 2 and 'has no slides' in err and not (tmp_path/'to').exists()
    code, out, err = tiny.call('slides', 'build', '7')
    assert code == 2 and "unknown lesson '7'" in err


def test_page_of_decks_lists_every_lesson():
    text = (find_lesson(0).path.parent/'reference'/'slides.qmd').read_text(encoding='utf-8')
    listed = re.findall(r'\| (\w+) \| <a href="\.\./slides/([^"]+)\.html">([^<]+)</a> \|', text)
    assert listed == [(o.number, slides.page_stem(o.name), o.title) for o in course().lessons]
