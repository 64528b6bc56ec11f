"""The course's site as visitors meet it. `TOPDOWN_SITE=_docs pytest tests/test_pages.py` checks a site that is already built"""
import datetime
import html
import json
import os
import re
import tomllib
from pathlib import Path

import pytest
import sitecheck
from conftest import lacking
from pages import ROOT, chromium

from topdown.settings import CourseError, course

WORDS = {'learning rate': 'how_a_network_learns.html', 'broadcasting': 'mnist_from_scratch.html', 'leakage': 'tables.html',
         'latent factor': 'collaborative_filtering.html', 'out-of-bag': 'trees.html', 'LSTM': 'language_models.html',
         'numericalisation': 'texts.html', 'safetensors': 'from_model_to_app.html', 'photocleaner': 'workshop/cleaning.html',
         'bird': 'is_it_a_bird.html'}
REFERENCE = ('glossary', 'troubleshooting', 'cheatsheet', 'resources', 'platforms', 'editions', 'results', 'credits')
NOTEBOOKS = sorted((ROOT/'nbs').glob('*.ipynb')) + sorted((ROOT/'nbs'/'workshop').glob('*.ipynb'))


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The site with its decks, built by the embedded engine"
    if 'TOPDOWN_SITE' in os.environ: return Path(os.environ['TOPDOWN_SITE']).resolve()
    from topdown.site import build_site
    from topdown.slides import build_slides, find_reveal
    folder = tmp_path_factory.mktemp('site')/'_docs'
    try: reveal = find_reveal(network=False)
    except CourseError as e: lacking(str(e))
    build_site(folder, engine='embedded')
    for lesson in course().lessons: build_slides(lesson.name, folder/'slides', reveal)
    return folder


@pytest.fixture(scope='module')
def pages(site): return sitecheck.read(site)


def address(path):
    "Where a notebook's page is: under its name without the number"
    name = path.relative_to(ROOT/'nbs').with_suffix('.html')
    return name.with_name(re.sub(r'^\d+\w*?_', '', name.name)).as_posix()


def is_deck(where): return where.startswith('slides/')


def none(found):
    "Fail with the findings, and how many there are"
    assert not found, f'{len(found)} findings:\n' + '\n'.join(found[:40])


def register():
    "The links to other sites that somebody has looked up"
    return tomllib.loads((ROOT/'nbs'/'reference'/'links.toml').read_text(encoding='utf-8'))['link']


def letters(text): return re.sub(r'[\W_]+', '', text).lower()
def letters_of_html(text): return letters(html.unescape(re.sub(r'<(math|script)\b.*?</\1>|<[^>]+>', '', text, flags=re.S)))
def letters_of_markdown(text): return letters(re.sub(r'(?<!`)\$[^\s$][^$\n]*\$|\{\.[^}]*\}|(?<=\])\([^)]*\)', '', text))


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_a_page_has_the_text_of_its_notebook(pages, path):
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    prose = '\n\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')
    prose = re.sub(r'^(```|~~~).*?^\1', '', prose, flags=re.S | re.M)
    shown = letters_of_html(pages[address(path)].text)
    none([o for o in re.findall(r'^(?:##+ |[A-Z]).+$', prose, re.M) if letters_of_markdown(o) not in shown])


def test_links_and_anchors(site, pages): none(sitecheck.broken(site, pages))
def test_nothing_is_fetched_from_another_site(pages): none(sitecheck.fetched_from_outside(pages))
def test_pictures_have_words(pages): none(sitecheck.speechless(pages))
def test_head_and_landmarks(pages): none(sitecheck.faulty_heads({k: v for k, v in pages.items() if not is_deck(k)}))
def test_valid_html(site, pages): none(sitecheck.invalid(site, pages))


def test_links_to_other_sites_are_registered(pages):
    looked_up = {o['address'].rstrip('/') for o in register() if not o.get('begins')}
    none(sitecheck.unregistered(pages, looked_up, [o['address'] for o in register() if o.get('begins')] + [course().repository]))


def test_the_register_is_dated():
    for o in register(): assert datetime.date(2026, 1, 1) <= o['looked_up'] <= datetime.date.today() + datetime.timedelta(1), o


@pytest.fixture(scope='module')
def browser():
    with chromium() as b: yield b


@pytest.fixture(scope='module')
def found(browser, site, pages):
    "What a browser finds on every page. A deck needs JavaScript, has one look and hangs on a wall: phones and schemes are not its matter"
    kinds = sitecheck.visit(browser, site, pages)
    return {kind: [o for o in list_ if not (is_deck(o) and kind in ('phone', 'script', 'schemes'))] for kind, list_ in kinds.items()}


@pytest.mark.browser
@pytest.mark.parametrize('kind', ['requests', 'console', 'axe', 'schemes', 'phone', 'heavy', 'script'])
def test_in_a_browser(found, kind): none(found[kind])


@pytest.mark.browser
def test_search_finds_ten_words(browser, site):
    with sitecheck.served(site) as base:
        page = browser.new_page()
        page.goto(f'{base}index.html')
        got = {word: sitecheck.search(page, base, word, wanted)[:10] for word, wanted in WORDS.items()}
        none([f'{w!r} leads to {o} and not to {WORDS[w]}' for w, o in got.items() if not any(a.startswith(WORDS[w]) for a in o)])
        assert sitecheck.search(page, base, 'xylophonist', seconds=3) == []
        page.goto(f'{base}reference/glossary.html') # from a page in a folder the answers lead to the same places
        for o in sitecheck.search(page, base, 'LSTM', WORDS['LSTM']): assert (site/o.split('#')[0]).is_file(), o
        page.locator('#found a').first.click()
        page.wait_for_load_state()
        assert 'lstm' in page.locator('main').inner_text().lower()
        page.close()
