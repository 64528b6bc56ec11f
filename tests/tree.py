"""The library's structure, read from its syntax trees: which module imports which, and the map on the front page

python tests/tree.py --write   writes the map into nbs/index.qmd
"""
import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT/'topdown'
BEGIN, END = '<!-- map: begin -->', '<!-- map: end -->'


def modules():
    "Name → syntax tree of each generated module"
    return {p.stem: ast.parse(p.read_text(encoding='utf-8')) for p in sorted(PACKAGE.glob('*.py')) if not p.stem.startswith('_')}


def notebook_of(name):
    "The notebook that a module's header names, relative to nbs/"
    found = re.search(r'File to edit: \.\./nbs/(\S+\.ipynb)', (PACKAGE/f'{name}.py').read_text(encoding='utf-8'))
    return found and found[1]


def imports(tree):
    "The modules of this package that a tree imports, anywhere in it"
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1: found |= {node.module} if node.module else {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or '').startswith('topdown.'): found.add(node.module.split('.')[1])
        elif isinstance(node, ast.Import): found |= {a.name.split('.')[1] for a in node.names if a.name.startswith('topdown.')}
    return found


def public(tree):
    "The names in `__all__`"
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__all__': return ast.literal_eval(node.value)
    return []


def module_map():
    "The front page's table: notebook → module → builds on → used by"
    trees = modules()
    uses = {name: imports(tree) for name, tree in trees.items()}
    lines = ['| notebook | module | builds on | used by |', '| --- | --- | --- | --- |']
    def row(name):
        users = sorted(u for u, used in uses.items() if name in used)
        return f"| [{Path(notebook_of(name)).stem}]({notebook_of(name)}) | `topdown.{name}` | {', '.join(sorted(uses[name])) or '–'} | {', '.join(users) or '–'} |"
    order = sorted(trees, key=lambda n: ('/' in notebook_of(n), notebook_of(n)))
    return '\n'.join(lines + [row(n) for n in order])


def page_with_map(text):
    "The front page with the map as it is now"
    before, rest = text.split(BEGIN)
    return f'{before}{BEGIN}\n\n{module_map()}\n\n{END}{rest.split(END)[1]}'


if __name__ == '__main__':
    page = ROOT/'nbs'/'index.qmd'
    new = page_with_map(page.read_text(encoding='utf-8'))
    if '--write' in sys.argv: page.write_text(new, encoding='utf-8')
    else: print(new)
