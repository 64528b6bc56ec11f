"""Colab, Kaggle and Paperspace imitated: the library is found, nothing is broken, cells for a GPU wait for one; and the files for them"""
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import lacking, write
from hosts import FOLDERS, ROOT, Host, colab, install_from_here
from packaging.requirements import Requirement

from topdown.platforms import InstallPlan, complete, kaggle_kernels, kernel_metadata, paperspace_settings, plan_install
from topdown.settings import CourseError, course, find_lesson

HERE = next(p for p in sys.path if (Path(p)/'torch').is_dir())   # the packages of this Python


def code_of(name): return [''.join(c['source']) for c in json.loads((ROOT/'nbs'/f'{name}.ipynb').read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']


# Where the library is there

@pytest.mark.parametrize('name', FOLDERS)
def test_first_cells_of_lesson_0(name, tmp_path):
    first = code_of('00_start_here')
    first = first[:next(i for i, o in enumerate(first) if o.startswith('#| default_exp'))]
    assert 'pip install' in first[0] and len(first) > 4
    status, said = Host(name, tmp_path, [ROOT, HERE]).cells(*first, "print(places()['home'], places()['cache'])")
    home = f'{FOLDERS[name]}/topdown'
    assert status == 0 and f'machine: {name}  · track: sample' in said and f'{home} {home}/cache' in said, said
    assert 'The course is ready' not in said, 'the install cell did something, although the library is there'


def test_first_cells_of_lesson_1_on_kaggle(tmp_path):
    first = code_of('01_is_it_a_bird')[:2]
    assert 'import' in first[1]
    status, said = Host('kaggle', tmp_path, [ROOT, HERE]).cells(*first, 'print(PhotoClassifier.__module__)')
    assert status == 0 and 'topdown.vision' in said, said


def test_read_only_inputs_of_kaggle(tmp_path):
    from PIL import Image
    photos = tmp_path/'photos'
    photos.mkdir()
    for i in range(3): Image.new('RGB', (64, 64), (80*i, 90, 100)).save(photos/f'{i}.jpg')
    (photos/'broken.jpg').write_bytes(b'no photo')
    status, said = Host('kaggle', tmp_path, [ROOT, HERE]).cells(
        "from topdown.settings import CourseError, mirror, places\nfrom topdown.vision import check_photos",
        "found = check_photos('/kaggle/input/photos'); print(len(found.good), 'good,', len(found.broken), 'broken')",
        "try: found.quarantine()\nexcept CourseError as e: print('said:', e)",
        "print(mirror(), places()['home'])", inputs=photos, TOPDOWN_DATA='/kaggle/input/photos')
    assert status == 0 and '3 good, 1 broken' in said and '/kaggle/input/photos /kaggle/working/topdown' in said, said
    assert 'said: nothing was moved: the folder /kaggle/input/photos is read-only; make it writable, or work on a copy of it' in said
    assert sorted(o.name for o in photos.iterdir()) == ['0.jpg', '1.jpg', '2.jpg', 'broken.jpg']


# Where it has to be installed

@pytest.mark.fresh
def test_install_cell_on_colab(tmp_path):
    "torch and fastai are there: nothing of Colab's own moves, and no red line; benchmarks/install.py says how long it takes"
    if subprocess.run([sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '-d', str(tmp_path/'index'), 'fastcore'], capture_output=True).returncode: lacking('a package index')
    if not (ROOT/'.git').exists(): lacking('a git clone')
    host, cell = colab(tmp_path/'colab'), install_from_here()
    status, said = host.cells(cell, seconds=600)
    assert status == 0 and 'The course is ready. Added: ' in said, said
    assert 'pandas 2.2.2 (google-colab wants ==2.2.2)' in said and 'torch 2.11.0+cu128 (built for this machine)' in said
    assert not re.search(r'ERROR|resolver|incompatible|Not added', said), said
    mine = [o.name for o in (host.folder/'env').glob('lib/python*/site-packages/*.dist-info')]
    assert not [o for o in mine if o.split('-')[0] in ('torch', 'torchvision', 'pandas', 'fastai', 'numpy', 'jupyterlab')], mine
    assert any(o.startswith('ddgs-') for o in mine) and any(o.startswith('openpyxl-') for o in mine)
    status, said = host.cells(cell, 'from topdown.settings import platform\nimport topdown\nprint(platform(), topdown.__file__)', 'import ddgs, openpyxl, fastai')
    assert status == 0 and f'colab {host.folder}' in said and 'The course is ready' not in said, said


def needs(*lines): return [Requirement(o) for o in lines]


@pytest.mark.parametrize('need, have, asks, loaded, kept', [
    ('torch>=2.14', '2.11', '', False, 'built for this machine'), ('pandas>=2.3', '2.2.2', '==2.2.2', False, 'other wants ==2.2.2'),
    ('pandas>=2.3', '2.2.2', '>=2,<2.3', False, 'other wants <2.3,>=2'), ('pandas>=2.3', '2.2.2', '>=2,<4', False, None), ('pandas>=2.3', '2.2.2', '', True, 'loaded already'),
    ('pandas>=2.3', '2.2.2', '', False, None), ('pandas', '2.2.2', '', False, 'fine'), ('pandas>=2.3', '2.4', '==2.4', True, 'fine'), ('jupyterlab>=4.6', '3.0', '', False, 'fine')])
def test_what_is_added_and_what_stays(need, have, asks, loaded, kept):
    name = need.split('>')[0]
    plan = plan_install(needs(need), {name: have}, {name: [('other', Requirement(name + asks).specifier)]} if asks else {}, [name] if loaded else [])
    assert plan == {'fine': InstallPlan(), None: InstallPlan(needs(need))}.get(kept, InstallPlan([], {f'{name} {have}': kept}))


def test_a_name_is_known_by_any_of_its_spellings():
    assert plan_install(needs('Scikit_Learn>=1.7', 'PILLOW'), {'scikit-learn': '1.8', 'pillow': '12'}, {}) == InstallPlan()


def test_what_is_here_is_fixed_while_others_are_added(capsys, monkeypatch):
    monkeypatch.setattr('importlib.metadata.packages_distributions', dict) # nothing is loaded, whatever other tests have done
    seen = []
    def pip(*args):
        seen.append((Path(args[1]).read_text(encoding='utf-8').splitlines(), args[2:]))
        return 'ERROR: no way' if len(args) > 3 or 'ddgs' in args[2] else ''
    complete(pip, lambda: ({'torch': '2.99', 'pooch': '0.1'}, {}))
    fixed, together = seen[0]
    assert fixed == ['torch==2.99'] and any(o.startswith('pooch') for o in together), 'what is raised must not be fixed'
    assert len(seen) == 1 + len(together) and all(len(one) == 1 for _, one in seen[1:])
    said = capsys.readouterr().out
    assert 'Not added: ddgs' in said and 'no way' in said and 'pooch' in said.split('\n')[0] and 'jupyterlab' not in said


# Cells for a GPU

@pytest.mark.parametrize('flags, gpu, ran', [([], True, False), (['--flags', 'cuda'], False, False), (['--flags', 'cuda'], True, True)])
def test_cells_for_a_gpu(tmp_path, flags, gpu, ran):
    "As `nbdev-test` runs them: left out without the flag; with it, run where a GPU computes, else left out with a line that says so"
    (tmp_path/'nbs').mkdir()
    for line in (ROOT/'pyproject.toml').read_text(encoding='utf-8').splitlines():
        if line.startswith('tst_flags'): tst_flags = line
    (tmp_path/'pyproject.toml').write_text(f'[project]\nname = "tiny"\nversion = "1"\n[tool.nbdev]\nlib_path = "tiny"\nnbs_path = "nbs"\n{tst_flags}\n', encoding='utf-8')
    (tmp_path/'tiny').mkdir()
    (tmp_path/'tiny'/'__init__.py').write_text('__version__ = "1"\n', encoding='utf-8')
    core = 'import topdown.core' if not gpu else 'import topdown.platforms\ntopdown.platforms.gpu_cells(lambda: True)'
    book = write(tmp_path/'nbs'/'a.ipynb', '# A', core, f'#| cuda\nopen({str(tmp_path/"ran")!r}, "w").write("yes")', f'open({str(tmp_path/"after")!r}, "w").write("yes")')
    no_card = {'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run([Path(sys.executable).parent/'nbdev-test', str(book), '--n-workers', '0', '--do-print', *flags], cwd=tmp_path, text=True, encoding='utf-8',
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | no_card)
    assert done.returncode == 0 and (tmp_path/'after').exists(), done.stdout
    assert (tmp_path/'ran').exists() == ran


def test_a_cell_that_is_left_out_says_so(tmp_path):
    status, said = Host('colab', tmp_path, [ROOT, HERE]).cells('import topdown.core', '#| cuda\n1/0', 'print("on", 1 + 1)', CUDA_VISIBLE_DEVICES='')
    assert status == 0 and 'Left out: this cell is marked "#| cuda"' in said and 'on 2' in said and 'ZeroDivision' not in said, said


def test_a_run_says_why_such_cells_were_left_out(tmp_path):
    from topdown.cells import RunResult
    from topdown.report import console, show_run
    def said(**skipped):
        to = console()
        with to.capture() as held: show_run(RunResult('a', 'full', 'x', tmp_path, tmp_path/'a.ipynb', skipped=skipped), to)
        return held.get()
    assert 'not run: 2 × cuda' in said(cuda=2) and 'a GPU that computes; `topdown doctor`' in said(cuda=2) and 'doctor' not in said(slow=1)


# The files for each platform

def test_kaggle_folders(tmp_path):
    made = kaggle_kernels(tmp_path/'out', 'some-one')
    assert [o.name for o in made] == [o.name for o in course().lessons]
    ids = set()
    for folder in made:
        about = json.loads((folder/'kernel-metadata.json').read_text(encoding='utf-8'))
        assert about['enable_gpu'] is True and about['enable_internet'] is True and about['is_private'] is True and 'P100' not in about['machine_shape']
        assert json.loads((folder/about['code_file']).read_text(encoding='utf-8'))['nbformat'] == 4
        assert about['id'] == 'some-one/' + about['title'].lower().replace(' ', '-') and 5 <= len(about['title']) <= 50
        ids.add(about['id'])
    assert len(ids) == len(made)


def test_kaggle_names(tmp_path, monkeypatch):
    monkeypatch.setenv('KAGGLE_USERNAME', 'Teacher')
    assert '"teacher/' in (kaggle_kernels(tmp_path/'a', lessons=[find_lesson(1)])[0]/'kernel-metadata.json').read_text(encoding='utf-8')
    monkeypatch.delenv('KAGGLE_USERNAME')
    assert '"topdown-course/' in (kaggle_kernels(tmp_path/'b', lessons=[find_lesson(1)])[0]/'kernel-metadata.json').read_text(encoding='utf-8')
    with pytest.raises(CourseError, match="'a b' is no name of a Kaggle account.*--user"): kaggle_kernels(tmp_path/'c', 'a b')
    assert not (tmp_path/'c').exists()
    long = dataclasses.replace(find_lesson(1), title='A title that goes on and on and on and on and on')
    with pytest.raises(CourseError, match='on Kaggle 5 to 50; shorten the title of lesson 01'): kernel_metadata(long, 'someone')


def test_the_command(tiny):
    status, out, err = tiny.call('kaggle', '--to', tiny.root/'out', '--user', 'me')
    assert status == 0 and 'kaggle kernels push' in out and (tiny.root/'out'/'01_smaller'/'kernel-metadata.json').is_file(), err
    status, out, err = tiny.call('kaggle', '--user', 'not me')
    assert status == 2 and 'is no name of a Kaggle account' in err and 'Traceback' not in err


def test_devcontainer():
    about = json.loads((ROOT/'.devcontainer'/'devcontainer.json').read_text(encoding='utf-8'))
    assert 'image' in about and not {'build', 'dockerFile', 'dockerComposeFile'} & set(about)
    assert set(about) <= {'name', 'image', 'hostRequirements', 'updateContentCommand', 'remoteEnv', 'forwardPorts', 'portsAttributes', 'customizations'}
    major, minor = map(int, re.search(r':(\d+)\.(\d+)', about['image']).groups())
    assert (major, minor) >= (3, 11) and about['hostRequirements']['gpu'] == 'optional'
    target = about['updateContentCommand'].removeprefix('make ')
    assert re.search(rf'^{re.escape(target)}:', (ROOT/'Makefile').read_text(encoding='utf-8'), flags=re.M)
    assert all((ROOT/o).is_file() for o in about['customizations']['codespaces']['openFiles'])


def test_the_page_says_when():
    page = (ROOT/'nbs'/'reference'/'platforms.qmd').read_text(encoding='utf-8')
    form = paperspace_settings(find_lesson(1))
    assert re.search(r'(wound down|winding down)', page) and form['Container'] in page and form['Machine'] in page
    for price in course().prices: assert price.gpu in page and f'{price.usd_low:.2f}' in page and f'{price.usd_high:.2f}' in page and price.as_of in page, price
    assert len(re.findall(r'20\d\d', page)) > 5
