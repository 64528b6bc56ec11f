"""Carry the course itself into the wheel, so that `topdown run` works without a clone. Everything else is in pyproject.toml."""
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CARRIED = ('settings.ini', 'nbs', 'results', 'apps')


class CarryCourse(build_py):
    "Copy the course into `topdown/_course`; an editable install uses the clone itself"
    def run(self):
        super().run()
        if self.editable_mode: return
        course = Path(self.build_lib)/'topdown'/'_course'
        shutil.rmtree(course, ignore_errors=True)
        course.mkdir(parents=True)
        for name in CARRIED:
            if Path(name).is_dir(): shutil.copytree(name, course/name, ignore=shutil.ignore_patterns('.*', '__pycache__'))
            else: shutil.copy2(name, course/name)


setup(cmdclass={'build_py': CarryCourse})
