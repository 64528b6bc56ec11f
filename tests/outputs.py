"""Run the notebooks on the sample track and store what they print: python tests/outputs.py [PART OF A NAME]

Without an argument all notebooks are run, the workshop's first, since the lessons stand on it.
"""
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(part=''):
    for name in ('TOPDOWN_DATA', 'TOPDOWN_TRACK', 'TOPDOWN_RUN_ID'): os.environ.pop(name, None)
    nbs = ROOT/'nbs'
    chosen = [p for some in ('workshop/*', '*', 'exercises/*') for p in sorted(nbs.glob(f'{some}.ipynb')) if part in p.relative_to(nbs).as_posix()]
    if not chosen: sys.exit(f'no notebook has {part!r} in its name')
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        os.environ['TOPDOWN_HOME'] = home
        from topdown.report import failure_text
        from topdown.runner import run_notebook
        from topdown.upkeep import save_outputs
        for path in chosen:
            result = run_notebook(path, Path(home)/'runs'/path.stem)
            if not result.ok: sys.exit(failure_text(result))
            print(f'{path.name}: {result.seconds:.0f} s, {"new outputs" if save_outputs(result, path) else "as before"}', flush=True)


if __name__ == '__main__': main(*sys.argv[1:])
