"""The builder of the site: what it takes from the clone, what it refuses, what it leaves alone. How the pages look is tests/test_pages.py's affair"""
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import tree
from conftest import lacking

from topdown import site
from topdown.pages import fill, library, module_page
from topdown.settings import CourseError

KEPT = ('01_is_it_a_bird.ipynb', 'workshop/store.ipynb')   # whole; of the other notebooks the title alone


def small(root):
    "A clone with the texts of two notebooks"
    for name in ('pyproject.toml', 'settings.ini', '_quarto.yml'): shutil.copy2(tree.ROOT/name, root/name)
    for name in ('topdown', 'results', 'apps/site', 'apps/quiz'):
        shutil.copytree(tree.ROOT/name, root/name, ignore=shutil.ignore_patterns('__pycache__', 'node_modules'))
    for path in (tree.ROOT/'nbs').rglob('*.ipynb'):
        if '.ipynb_checkpoints' in path.parts: continue
        name, nb = path.relative_to(tree.ROOT/'nbs').as_posix(), json.loads(path.read_text(encoding='utf-8'))
        if name not in KEPT: nb['cells'] = nb['cells'][:1]
        (root/'nbs'/name).parent.mkdir(parents=True, exist_ok=True)
        (root/'nbs'/name).write_text(json.dumps(nb), encoding='utf-8')
    page = '---\ntitle: {}\n---\n\nThe [lesson](01_is_it_a_bird.ipynb#recap) and $a^2$.\n'
    (root/'nbs'/'index.qmd').write_text(page.format('Home'), encoding='utf-8')
    for entry in re.findall(r'(?:reference|quizzes)/\w+\.qmd', (root/'_quarto.yml').read_text(encoding='utf-8')):
        (root/'nbs'/entry).parent.mkdir(exist_ok=True)
        (root/'nbs'/entry).write_text(page.format('Words').replace('(01', '(../01'), encoding='utf-8')
    return root


def state(folder): return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file() and '__pycache__' not in p.parts}


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    "A small clone that the builder takes for the course"
    root = small(tmp_path_factory.mktemp('clone'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, 'course_root', lambda: root)
        yield root


@pytest.fixture(scope='module')
def built(clone, tmp_path_factory):
    "That clone's site, built once, over an older site with decks"
    try: site.pandoc()
    except CourseError: lacking('pandoc')
    before, to = state(clone), tmp_path_factory.mktemp('site')
    (to/'.topdown-site').touch(), (to/'old.html').touch()
    (to/'slides').mkdir(), (to/'slides'/'is_it_a_bird.html').write_text('a deck')
    made = site.build_site(to, 'embedded')
    assert state(clone) == before, 'the build wrote into the clone'
    return made


def test_says_what_it_made(built):
    assert built.engine == 'embedded' and built.pages == sum(1 for p in built.folder.rglob('*.html')) - 1


def test_an_older_site_gives_way_and_decks_stay(built):
    assert not (built.folder/'old.html').exists() and (built.folder/'slides'/'is_it_a_bird.html').read_text() == 'a deck'
    assert 'href="slides/is_it_a_bird.html"' in (built.folder/'is_it_a_bird.html').read_text(encoding='utf-8')
    assert 'href="slides' not in (built.folder/'trees.html').read_text(encoding='utf-8')


def test_a_page_has_prose_code_outputs_and_mathml(built):
    page = (built.folder/'is_it_a_bird.html').read_text(encoding='utf-8')
    assert 'We want a computer to look at a photo' in page and 'class="sourceCode python"' in page and 'birds: 600 pictures' in page
    assert '<math' in (built.folder/'index.html').read_text(encoding='utf-8')
    assert '#| hide' not in re.sub(r'<code>#\| hide</code>', '', page) and 'default_exp' not in page


def test_links_between_symbol_and_cell_go_both_ways(built):
    lesson = (built.folder/'is_it_a_bird.html').read_text(encoding='utf-8')
    reference = (built.folder/'reference'/'library'/'vision.html').read_text(encoding='utf-8')
    for name in ('PhotoClassifier', 'PhotoClassifier.fit', 'bird_or_other'):
        assert f'id="lib-{name}"' in lesson and f'href="../../is_it_a_bird.html#lib-{name}"' in reference, name
        assert f'id="{name}"' in reference and f'href="reference/library/vision.html#{name}"' in lesson, name


def test_helpers_are_folded_and_public_code_is_not(built):
    page = (built.folder/'workshop'/'store.html').read_text(encoding='utf-8')
    folded = ''.join(re.findall(r'<details>.*?</details>', page, flags=re.S))
    assert 'Helpers: _free' in folded and 'disk_errors' in page and 'class="kw">def</span> atomic(' not in folded


def test_addresses_are_relative(built):
    for path in built.folder.rglob('*.html'):
        found = re.findall(r'\b(?:href|src)="(/[^"]*|[^":]+\.(?:ipynb|qmd)[^"]*)"', path.read_text(encoding='utf-8'))
        assert not found, f'{path.name}: {found[:3]}'


def test_search_index_holds_prose_without_code(built):
    text = (built.folder/'search.js').read_text(encoding='utf-8')
    index = json.loads(text.removeprefix('window.searchIndex = ').rstrip(';\n'))
    assert any(o[0].startswith('is_it_a_bird.html#') and 'baseline' in o[2] for o in index)
    assert not any('import ' in o[2] and 'fastcore.test' in o[2] for o in index) and '<style' not in text and 'data:image' not in text


def test_a_link_that_leads_nowhere_stops_the_build(clone, built, tmp_path):
    page = clone/'nbs'/'index.qmd'
    old = page.read_text(encoding='utf-8')
    page.write_text(old.replace('01_is_it_a_bird.ipynb', '01_is_it_a_brid.ipynb'), encoding='utf-8')
    try:
        with pytest.raises(CourseError, match='index.html links to .01_is_it_a_brid.ipynb#recap., and there is no such file'):
            site._write_page(page, clone/'nbs', clone/'nbs', [], clone/'apps'/'site', tmp_path)
    finally: page.write_text(old, encoding='utf-8')


def test_a_folder_of_somebody_elses_is_refused(clone, tmp_path):
    (tmp_path/'thesis.txt').write_text('mine')
    with pytest.raises(CourseError, match='not a site of ours'): site.build_site(tmp_path, 'embedded')
    assert site._replaceable(tmp_path/'new') and not site._replaceable(tmp_path)
    assert (tmp_path/'thesis.txt').read_text() == 'mine'


def test_without_pandoc_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    monkeypatch.setitem(sys.modules, 'pypandoc', None)
    with pytest.raises(CourseError, match=r"topdown-course\[site\]"): site.pandoc()


def test_quarto_is_taken_where_it_is_on_the_path(clone, tmp_path, monkeypatch):
    if os.name != 'posix': lacking('a shell for a stand-in of quarto')
    stand_in = tmp_path/'bin'/'quarto'
    stand_in.parent.mkdir()
    # It is called as `quarto render --no-cache --output-dir DIR`, in the folder with the processed notebooks.
    stand_in.write_text('#!/bin/sh\ntest "$1" = render || exit 1\nmkdir -p "$4"\ncp 01_is_it_a_bird.ipynb reference/library/vision.qmd "$4"\necho page > "$4/index.html"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv('PATH', f'{stand_in.parent}{os.pathsep}{os.environ["PATH"]}')
    made = site.build_site(tmp_path/'out')
    assert (made.engine, made.pages) == ('quarto', 1)
    assert 'lib-PhotoClassifier' in (made.folder/'01_is_it_a_bird.ipynb').read_text() and (made.folder/'vision.qmd').is_file()
    monkeypatch.setenv('PATH', str(Path(sys.executable).parent))
    with pytest.raises(CourseError, match='no quarto on the PATH'): site.build_site(tmp_path/'other', 'quarto')


def test_each_public_definition_is_on_its_modules_page():
    trees = tree.modules()
    for module in library():
        text = module_page(module)
        defined = {n.name for n in trees[module.name].body if hasattr(n, 'name')}
        for name in defined & set(tree.public(trees[module.name])): assert f'{{#{name}}}' in text, f'topdown.{module.name}.{name}'


def test_pages_of_the_course_can_be_filled():
    for page in (tree.ROOT/'nbs').rglob('*.qmd'): assert '<!-- fill:' not in fill(page.read_text(encoding='utf-8')), page.name
    results = fill('<!-- fill: results -->')
    record = json.loads((tree.ROOT/'results'/'01_real.json').read_text())[0]
    assert f"**{record['value']:,.4g}**" in results and '**0.0498**' in results
