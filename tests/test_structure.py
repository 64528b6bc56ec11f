"""The shape of the repository: arrows down only, small cells, clean notebooks, true pages"""
import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tree
from conftest import lacking

ROOT = tree.ROOT
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
LESSONS = [p for p in NOTEBOOKS if re.match(r'\d\d', p.name) and p.parent.name == 'nbs'] # not the exercises
TREES = tree.modules()

# Lower ranks know nothing of higher ones; two modules of one rank know nothing of each other.
RANKS = [{'settings', 'cells', 'hardware', 'loops', 'sandbox'}, {'store', 'photos', 'quiz'}, {'fetch', 'pen', 'infer', 'sheets', 'checkpoint', 'platforms', 'quizfaces'}, {'creatures', 'serve'}, {'things'},
         {'draw'}, {'sample'}, {'data'}, {'ledger', 'subset'}, {'core'}, {'body', 'costs', 'cleaning', 'copies', 'descent', 'pages', 'report', 'slides', 'upkeep'}, {'vision', 'app', 'learner', 'runner', 'doctor', 'exercises', 'progress'},
         {'collab', 'tabular', 'text', 'grader'}, {'trees', 'language'}, {'transformer'}, {'publish', 'site'}, {'cli'}]
GROUND = ['settings', 'store', 'photos', 'infer', 'serve', 'sheets', 'checkpoint', 'platforms', 'fetch', 'pen', 'creatures', 'things', 'draw', 'sample', 'data', 'ledger', 'cli', 'quiz', 'quizfaces',
          'progress', 'subset', 'sandbox', 'exercises', 'grader']


def rank(name): return next(i for i, names in enumerate(RANKS) if name in names)


def cells(path, kind=None):
    nb = json.loads(path.read_text(encoding='utf-8'))
    return [c | {'text': ''.join(c['source'])} for c in nb['cells'] if kind in (None, c['cell_type'])]


def is_exported(text): return bool(re.match(r'#\|\s*exports?\b', text))


def test_every_module_has_a_rank(): assert set(TREES) == set().union(*RANKS)


@pytest.mark.parametrize('name', TREES)
def test_arrows_point_down(name):
    up = {used for used in tree.imports(TREES[name]) if rank(used) >= rank(name)}
    assert not up, f'{name} imports {up}, which stand on its own floor or above'


@pytest.mark.parametrize('name', TREES)
def test_generated_header_names_a_notebook_that_exists(name):
    assert (ROOT/'nbs'/tree.notebook_of(name)).is_file()


def test_no_public_name_twice():
    seen = {}
    for name, t in TREES.items():
        for public in tree.public(t):
            assert public not in seen, f'{public} is public in {seen[public]} and in {name}'
            seen[public] = name


@pytest.mark.parametrize('name', TREES)
def test_no_unused_import(name):
    t = TREES[name]
    used = {n.id for n in ast.walk(t) if isinstance(n, ast.Name)} | set(re.findall(r'\w+', ' '.join(
        n.value for n in ast.walk(t) if isinstance(n, ast.Constant) and isinstance(n.value, str))))
    bound = {(a.asname or a.name).split('.')[0] for n in ast.walk(t) if isinstance(n, (ast.Import, ast.ImportFrom)) for a in n.names}
    unused = bound - used - (REEXPORTED if name == 'core' else set())
    assert not unused, f'{name} imports and never uses {unused}'


REEXPORTED = {'get', 'weights', 'record', 'places', 'platform', 'track'}   # what a reader needs of the ground


def test_core_re_exports_the_ground():
    import topdown.core
    assert all(hasattr(topdown.core, name) for name in REEXPORTED)


@pytest.mark.parametrize('name', GROUND)
def test_ground_imports_nothing_heavy(name):
    code = f"import sys, topdown.{name}; print([m for m in ('torch', 'fastai', 'pandas', 'matplotlib', 'sklearn', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_cells_are_small(path):
    for c in cells(path, 'code'):
        lines = c['text'].splitlines()
        where = f'{path.name}, cell {c["id"]}: {lines[0] if lines else ""}'
        assert max(map(len, lines), default=0) <= 140, f'{where}: a line is longer than 140 characters'
        if is_exported(c['text']): assert len(lines) <= 32, f'{where}: an exported cell of {len(lines)} lines'
        elif c['metadata'].get('tags'): assert len(lines) <= 48, f'{where}: a cell of an exercise, of {len(lines)} lines'
        elif not c['text'].startswith(('#| hide', '#| slow', '#| cuda')): assert len(lines) <= 12, f'{where}: a demo cell of {len(lines)} lines'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_imports_stand_alone(path):
    for c in cells(path, 'code'):
        if "find_spec('topdown')" in c['text'] or c['text'].startswith('%'): continue
        kinds = {isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(re.sub(r'^\s*[%!].*$', '', c['text'], flags=re.M)).body}
        assert kinds != {True, False}, f'{path.name}, cell {c["id"]} mixes imports with other code: {c["text"][:80]!r}'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_file(path):
    assert path.stat().st_size < 1_000_000, f'{path.name} is over 1 MB'
    first = cells(path)[0]['text']
    assert re.fullmatch(r'# .+\n+> .+', first), f'{path.name}: the first cell is a title and a subtitle, nothing else'
    for c in cells(path, 'code'):
        for o in c['outputs']:
            assert o['output_type'] != 'error', f'{path.name} stores an error'
            for mime, data in o.get('data', {}).items():
                assert 'widget' not in mime, f'{path.name}: a stored widget cannot be shown'
                if mime.startswith('image/'): raise AssertionError(f'{path.name}, cell {c["id"]}: an image without alt text; use picture() or show_images()')
                size = len(''.join(data) if isinstance(data, list) else str(data))
                assert size < 84_000, f'{path.name}, cell {c["id"]}: an output of {size:,} characters (60 kB is 80,000 in base64)'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_stored_outputs_are_from_the_sample_track(path):
    makes_a_mirror = "os.environ['TOPDOWN_DATA'] =" in path.read_text(encoding='utf-8')      # of drawn pictures, to show how one is read
    for c in cells(path, 'code'):
        text = json.dumps(c['outputs'])
        assert makes_a_mirror or 'from TOPDOWN_DATA' not in text, f'{path.name}, cell {c["id"]}'
        assert str(Path.home()) not in text.replace('/home/you', ''), f'{path.name}, cell {c["id"]}'


def prints(text):
    "Does a cell print, whatever happens?"
    if text.startswith('#|') or text.lstrip().startswith(('%', '!')): return False
    calls = [node.value.func for node in ast.parse(text).body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    return any(isinstance(f, ast.Name) and f.id == 'print' for f in calls)


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_what_a_cell_prints_is_stored(path):
    lacking = [c['text'][:80] for c in cells(path, 'code') if prints(c['text']) and not c['outputs']]
    assert not lacking, f'{path.name} was changed after its outputs were stored: make outputs ONLY={path.stem}; first: {lacking[0]}'


@pytest.mark.parametrize('path', LESSONS, ids=lambda p: p.stem)
def test_lesson_skeleton(path):
    from topdown.settings import badges, find_lesson, install_cell
    all_cells, lesson = cells(path), find_lesson(path.stem)
    assert all_cells[0]['text'].startswith(f'# {lesson.title}\n')
    assert all_cells[1]['text'] == badges(lesson) and all_cells[2]['text'] == install_cell()
    heads = re.findall(r'^## (.+)$', '\n'.join(c['text'] for c in all_cells if c['cell_type'] == 'markdown'), flags=re.M)
    assert heads[-3:] == ['Recap', 'Questions', 'Further research']
    assert len(re.findall(r'^\d+\. ', all_cells[-1]['text'].split('## Further research')[0], flags=re.M)) == 10
    kinds = [c['metadata'].get('slideshow', {}).get('slide_type') for c in all_cells]
    assert None not in kinds, f'cell {all_cells[kinds.index(None)]["id"]} does not say whether it is on a slide; if not, slide_type is skip'
    assert kinds.count('slide') >= 8


@pytest.mark.parametrize('path', LESSONS, ids=lambda p: p.stem)
def test_no_more_than_three_code_cells_without_prose(path):
    run = 0
    for c in cells(path):
        if c['cell_type'] == 'markdown': run = 0
        elif not c['text'].startswith(('#| hide', '#| default_exp')) and not re.fullmatch(r'(\s*(import|from) .*\n?)+', re.sub(r'^#\|.*\n', '', c['text'])):
            run += 1
            assert run <= 3, f'{path.name}: {run} code cells in a row at {c["text"][:70]!r}'


def test_public_functions_have_docments():
    for name, t in TREES.items():
        for node in ast.walk(t):
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name not in tree.public(t): continue
            assert ast.get_docstring(node), f'topdown.{name}.{node.name} has no docstring'
            if isinstance(node, ast.ClassDef): continue
            source = ast.get_source_segment((tree.PACKAGE/f'{name}.py').read_text(encoding='utf-8'), node)
            for arg in node.args.args + node.args.kwonlyargs:
                if arg.arg == 'self': continue
                assert re.search(rf'\b{arg.arg}\b[^\n]*#', source), f'topdown.{name}.{node.name}: no comment beside {arg.arg}'


def test_front_page_has_the_map_as_it_is():
    page = (ROOT/'nbs'/'index.qmd').read_text(encoding='utf-8')
    assert tree.page_with_map(page) == page, 'run: python tests/tree.py --write'


def test_links_between_pages():
    for page in [*(ROOT/'nbs').rglob('*.qmd'), ROOT/'README.md', ROOT/'CONTRIBUTING.md']:
        for target in re.findall(r'\]\(([^)#:\s]+)\)', page.read_text(encoding='utf-8')):
            assert (page.parent/target).exists(), f'{page.name} links to {target}'
    for nb in NOTEBOOKS:
        for c in cells(nb, 'markdown'):
            for target in re.findall(r'\]\(([^)#:\s]+)\)', c['text']): assert (nb.parent/target).exists(), f'{nb.name} links to {target}'


def test_quarto_pages_exist():
    import yaml
    site = yaml.safe_load((ROOT/'_quarto.yml').read_text(encoding='utf-8'))
    assert (ROOT/'nbs'/'_quarto.yml').read_text(encoding='utf-8') == (ROOT/'_quarto.yml').read_text(encoding='utf-8')
    def pages(entry):
        if isinstance(entry, str): yield entry
        elif 'contents' in entry: yield from (p for e in entry['contents'] for p in pages(e))
        elif 'href' in entry: yield entry['href']
    listed = [p for e in site['website']['sidebar']['contents'] + site['website']['navbar']['left'] for p in pages(e)]
    assert all((ROOT/'nbs'/p).is_file() for p in listed)
    assert {p.name for p in LESSONS} <= set(listed)


def test_each_bound_of_a_benchmark_has_a_program_that_measures_it():
    from topdown.ledger import contracts
    found = contracts(kind='benchmark')
    assert {c['program'] for c in found} <= {f'benchmarks/{p.name}' for p in (ROOT/'benchmarks').glob('*.py')} and len(found) > 5
    for c in found: assert f"'{c['metric']}'" in (ROOT/c['program']).read_text(encoding='utf-8'), f"{c['program']} does not measure {c['metric']}"


def test_repository_speaks_of_itself_alone():
    listed = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True)
    files = [ROOT/f for f in listed.stdout.split('\0') if f] if listed.returncode == 0 else []
    if not files: lacking('the git clone')
    index = re.compile('|'.join(['pypi' + r'\.org', 'pythonhosted' + r'\.org', 'npmjs' + r'\.org', 'registry' + r'\.']))
    for f in files:
        if f.suffix in ('.safetensors', '.ico', '.png') or not f.is_file(): continue
        text = f.read_text(encoding='utf-8', errors='replace')
        assert not index.search(text), f'{f.name} names a package registry'
        assert str(Path.home()) + '/' not in text and str(ROOT.parent) + '/' not in text, f'{f.name} carries a path of this machine'


def test_export_and_clean_leave_the_tree_as_it_is(tmp_path):
    import shutil
    if not (ROOT/'.git').exists(): lacking('the git clone')
    copy = tmp_path/'copy'
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns('.git', '.venv', '*.egg-info', '__pycache__', '.pytest_cache'), symlinks=True)
    def state(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for d in ('nbs', 'topdown') for p in (folder/d).rglob('*')
                               if p.is_file() and p.suffix in ('.py', '.ipynb')}
    before = state(copy)
    for command in ('nbdev-export', 'nbdev-clean'): subprocess.run([str(Path(sys.executable).parent/command)], cwd=copy, check=True, capture_output=True)
    after = state(copy)
    changed = sorted(k for k in before | after if before.get(k) != after.get(k))
    assert not changed, f'nbdev-export and nbdev-clean change {changed}: run them and commit'
