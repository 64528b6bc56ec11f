"""A settings.ini with mistakes in it: each is named with file, place, value and what would be right"""
import pytest
from conftest import SETTINGS

from topdown.settings import CourseError, install_cell, read_settings


@pytest.mark.parametrize('old, new, words', [
    ('minutes_real = 1', 'minuts_real = 1', r"line 12: unknown key 'minuts_real' in \[lesson 00\]; known: minutes_real"),
    ('title = Tiny', 'Titel = Tiny', r"line 2: unknown key 'titel' in \[course\]; known: title"),
    ('[lesson 01]', '[leson 01]', r'line 15: unknown section \[leson 01\]'), ('[lesson 01]', '[]', r'unknown section \[\]|cannot be read'),
    ('branch = main\n', '', r'line 1: \[course\] lacks branch'), ('branch = main', 'branch =', r'line 5: branch in \[course\] is empty'),
    ('tracks = sample', 'tracks = sampl', "unknown track 'sampl'; known: sample"), ('minutes_real = 4', 'minutes_real = four', "should be a number from 0 up, found 'four'"),
    ('minutes_real = 4', 'minutes_real = -4', "found '-4'"), ('minutes_real = 4', 'minutes_real = nan', "found 'nan'"),
    ('https://github.com/someone/tiny', 'github', "repository should be a web address, found 'github'"), ('name = 01_smaller', 'name = 00_small', "two lessons have the name '00_small'"),
    ('tracks = sample, real, full', 'tracks = real', 'tracks lacks sample'), ('name = 00_small', 'name = ../x', "found '../x'"),
    ('[course]', '[course', 'cannot be read as an ini file')])
def test_mistakes(tmp_path, old, new, words):
    assert old in SETTINGS
    (tmp_path/'settings.ini').write_text(SETTINGS.replace(old, new, 1), encoding='utf-8')
    with pytest.raises(CourseError, match=words) as e: read_settings(tmp_path/'settings.ini')
    assert str(tmp_path/'settings.ini') in str(e.value)


@pytest.mark.parametrize('there', ['nothing', 'a folder', 'the package'])
def test_the_install_cell_installs_only_where_the_package_is_missing(tmp_path, there):
    "A hosted machine's home folder is called `topdown`, and Python takes such a folder for a package without code"
    import subprocess
    import sys
    if there != 'nothing': (tmp_path/'topdown').mkdir()
    if there == 'the package': (tmp_path/'topdown'/'__init__.py').touch()
    code = install_cell().replace('%pip install', 'installed = True #').split('    from')[0] + "\nprint('installed' in globals())"
    only_here = f'import sys; sys.path = [{str(tmp_path)!r}] + [p for p in sys.path if "site-packages" not in p]; sys.meta_path = sys.meta_path[-3:]'
    said = subprocess.run([sys.executable, '-S', '-I', '-c', f'{only_here}\n{code}'], capture_output=True, text=True, check=True, cwd=tmp_path).stdout.strip()
    assert said == str(there != 'the package')
