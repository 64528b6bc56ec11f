"""Lesson 1 as people meet it: in JupyterLab and as RISE slides, in a real browser"""
import os
import shutil
import time
from pathlib import Path

import nbformat
import pytest
from conftest import lacking
from lab import lab_over, write_notebook
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.browser

CLEANER = """import numpy as np
from topdown.cleaning import Decisions, PhotoCleaner
from topdown.data import get
from topdown.settings import places
birds = get('birds')
some = birds.files[::60]
labels = [birds.label(f) for f in some]
classes = sorted({birds.label(f) for f in birds.files})
p = np.random.default_rng(0).dirichlet(np.ones(len(classes)), len(some))"""


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "A JupyterLab server on loopback over copies of the lessons; its address"
    folder = tmp_path_factory.mktemp('lab')
    for p in (ROOT/'nbs').glob('*.ipynb'): shutil.copy(p, folder)
    write_notebook(folder/'widget.ipynb', 'from topdown.data import get\nfrom topdown.vision import pixel_inspector', "pixel_inspector(get('birds').files[0], 6)")
    write_notebook(folder/'cleaner.ipynb', CLEANER, "PhotoCleaner(some, labels, p, classes, Decisions(places()['home']/'cleaning'/'browser.csv', birds.path), page=6)")
    on_slides = {'slideshow': {'slide_type': 'slide'}}, {'slideshow': {'slide_type': 'subslide'}}, {'slideshow': {'slide_type': 'notes'}}
    cells = [new_markdown_cell('# A class', metadata=on_slides[0]), new_code_cell("print('six times seven is', 6*7)", metadata=on_slides[1]),
             new_markdown_cell('For the speaker', metadata=on_slides[2])]
    kernel = {'kernelspec': {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), folder/'class.ipynb')
    shutil.copy(ROOT/'apps'/'slides'/'rise.css', folder)
    with lab_over(folder) as address: yield address


@pytest.fixture(scope='module')
def browser():
    "Headless Chromium"
    try: from playwright import sync_api
    except ImportError: lacking('playwright, which comes with the extra dev')
    chromium = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if not chromium: lacking('chromium')
    with sync_api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium, args=['--no-sandbox', '--disable-gpu', '--disable-background-networking'])
        yield b
        b.close()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={'width': 1280, 'height': 900})
    context.set_default_timeout(90_000)
    yield context.new_page()
    context.close()


def until(page, do, selector, seconds):
    "Do something, up to three times, until it shows: a page that is still loading may not hear the first time"
    for last in (False, False, True):
        do()
        try: return page.wait_for_selector(selector, timeout=seconds*1000)
        except Exception as e: # playwright may be missing, so its errors cannot be named here
            if last or type(e).__name__ != 'TimeoutError': raise


def test_lesson_opens_in_jupyterlab(lab, page):
    page.goto(f'{lab}/lab/tree/01_is_it_a_bird.ipynb?reset')
    page.wait_for_selector('.jp-Notebook h1:has-text("Is it a bird?")')
    page.wait_for_selector('.jp-RenderedHTMLCommon img[alt*="probability that it is a bird"]')
    assert page.locator('text=Error displaying widget').count() == 0
    width = page.evaluate('document.querySelector("img[alt*=\'probability that it is a bird\']").naturalWidth')
    assert width > 200, 'the stored picture is shown'


def test_pixel_inspector_by_mouse_and_by_keyboard(lab, page):
    page.goto(f'{lab}/lab/tree/widget.ipynb?reset')
    page.wait_for_selector('text=Python 3 (ipykernel) | Idle')
    def run_both():
        page.locator('.jp-Notebook .jp-CodeCell').first.click()
        page.keyboard.press('Shift+Enter'); page.keyboard.press('Shift+Enter')
    until(page, run_both, '.widget-gridbox button >> nth=35', 90)
    buttons = page.locator('.widget-gridbox button')
    assert buttons.count() == 36
    assert 'row 1, column 1: red' in buttons.first.get_attribute('title')
    until(page, lambda: buttons.nth(7).click(), 'text=/row 2, column 2: red \\d+, green \\d+, blue \\d+/', 20)
    def by_keyboard(): buttons.nth(8).focus(); page.keyboard.press('Enter')
    until(page, by_keyboard, 'text=/row 2, column 3: red/', 20)


@pytest.mark.parametrize('name, title', [('01_is_it_a_bird', 'Is it a bird?'), ('02_from_model_to_app', 'From model to app'),
                                         ('03_how_a_network_learns', 'How a network learns'), ('04_mnist_from_scratch', 'MNIST from scratch'),
                                         ('05_collaborative_filtering', 'Collaborative filtering'), ('06a_tables', 'Tables'), ('06b_trees', 'Trees'), ('07a_texts', 'Texts'),
                                         ('07b_language_models', 'Language models'), ('07c_attention', 'Attention')])
def test_lesson_as_slides(lab, page, name, title):
    page.goto(f'{lab}/rise/{name}.ipynb')
    page.wait_for_selector(f'.reveal .slides section h1:has-text("{title}")', state='attached')
    assert page.locator('.reveal .slides > section').count() >= 10
    shown = "document.querySelector('.reveal .slides section.present section.present') || document.querySelector('.reveal .slides section.present')"
    page.wait_for_function(f'() => {shown}')
    seen = {}
    for _ in range(300):
        text, height, last = page.evaluate(f"(() => {{ const s = {shown}; return [s.innerText.slice(0, 60), s.scrollHeight, !!document.querySelector('.navigate-right[disabled]')"
                                           " && !!document.querySelector('.navigate-down[disabled]')]; })()")
        seen[text] = height
        if last and 'Recap' in text: break
        page.keyboard.press('Space')
        page.wait_for_timeout(150)
    assert len(seen) >= 25, f'only {len(seen)} slides were reached: {list(seen)[-3:]}'
    assert max(seen.values()) <= 600, f'a slide is too tall to be seen at once: {max(seen.items(), key=lambda o: o[1])}'


def test_cell_runs_on_a_slide(lab, page):
    page.goto(f'{lab}/rise/class.ipynb')
    page.wait_for_selector('.reveal .slides section.present h1:has-text("A class")')
    assert 'rgb(27, 31, 36)' == page.evaluate("getComputedStyle(document.querySelector('.reveal h1')).color"), "the course's theme"
    page.keyboard.press('Space')
    page.wait_for_selector('.reveal .slides section.present .jp-CodeCell')
    assert page.locator('text=six times seven is 42').count() == 0
    def run(): page.locator('section.present .jp-CodeCell .cm-content').click(); page.keyboard.press('Shift+Enter')
    until(page, run, 'section .jp-OutputArea-output:has-text("six times seven is 42")', 30)


def test_cleaner_by_keyboard_alone(lab, page):
    written = Path(os.environ['TOPDOWN_HOME'])/'cleaning'/'browser.csv'
    def listed(): return written.read_text(encoding='utf-8-sig').splitlines()[1:] if written.exists() else []
    def until_listed(rows):
        end = time.monotonic() + 30
        while listed() != rows:
            assert time.monotonic() < end, f'{listed()} instead of {rows}; {page.locator(".topdown-cleaner [role=status]").inner_text()}'
            page.wait_for_timeout(50)
    def tab_to(number):
        "Press Tab until the choice of that photo has the focus"
        label = 'document.activeElement?.labels?.[0]?.innerText ?? document.activeElement?.innerText ?? ""'
        for _ in range(120):
            if page.evaluate(label).startswith(number): return
            page.keyboard.press('Tab')
        raise AssertionError(f'Tab does not reach {number}')
    page.goto(f'{lab}/lab/workspaces/cleaner/tree/cleaner.ipynb')
    page.wait_for_selector('text=Python 3 (ipykernel) | Idle')
    def run_both():
        page.locator('.jp-Notebook .jp-CodeCell').first.click()
        page.keyboard.press('Shift+Enter'); page.keyboard.press('Control+Enter') # which keeps the focus on the cell
    until(page, run_both, '.topdown-cleaner select >> nth=7', 90)
    photos = page.locator('.topdown-cleaner img')
    alts = [photos.nth(i).get_attribute('alt') for i in range(photos.count())]
    assert len(alts) == 6 and all(alt.startswith('Photo ') for alt in alts)
    tab_to('1:'); page.keyboard.type('set')
    page.wait_for_selector('.topdown-cleaner [role=status]:has-text("1 set aside")')
    first = listed()
    assert len(first) == 1 and first[0].endswith(',set aside,')
    page.keyboard.press('Tab')
    for key in ('b', 'Home', 'ArrowDown'): page.keyboard.press(key) # JupyterLab has commands on these keys
    page.wait_for_selector('.topdown-cleaner [role=status]:has-text("1 keep")')
    assert page.locator('.jp-Notebook .jp-CodeCell').count() == 2
    both = listed()
    assert both[0] == first[0] and both[1].endswith(',keep,')
    tab_to('Undo'); page.keyboard.press('Enter')
    until_listed(first)
    page.keyboard.press('Shift+Tab'); page.keyboard.press('Enter') # the next page; its first choice gets the focus
    page.wait_for_selector('.topdown-cleaner [role=status]:has-text("Page 2 of 2")')
    page.wait_for_function('() => document.activeElement.labels?.[0]?.innerText.startsWith("1:")')
    page.keyboard.press('ArrowDown')
    page.wait_for_selector('.topdown-cleaner [role=status]:has-text("1 keep")')
    assert len(listed()) == 2
