"""Every message that the library and its web page raise, and the troubleshooting page, which lists each with its way out

python tests/messages.py           prints what the page lacks and what it lists for nothing
python tests/messages.py --write   adds what it lacks, with a way out still to be written, and takes out what is no longer raised
"""
import ast
import re
import sys
from functools import lru_cache

import tree

PAGE = tree.ROOT/'nbs'/'reference'/'troubleshooting.qmd'
BEGIN, END, TO_WRITE = '<!-- messages: begin -->', '<!-- messages: end -->', 'TO BE WRITTEN'


def text_of(node):
    "The message in a piece of source, with … for what is filled in"
    if isinstance(node, ast.Constant): return node.value if isinstance(node.value, str) else '…'
    if isinstance(node, ast.JoinedStr): return ''.join(v.value if isinstance(v, ast.Constant) else '…' for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add): return text_of(node.left) + text_of(node.right)
    if isinstance(node, ast.Call) and getattr(node.func, 'attr', '') == 'format': return re.sub(r'\{[^}]*\}', '…', text_of(node.func.value))
    return '…'


def texts_of(node, returned):
    "All messages that a piece of source can give: both arms of an `if`, and what a helper returns"
    if isinstance(node, ast.IfExp): return texts_of(node.body, returned) + texts_of(node.orelse, returned)
    if isinstance(node, ast.Call) and (name := getattr(node.func, 'id', '')) in returned: return returned[name]
    return [text_of(node)]


def says_something(text):
    "Is it a message, and not only a name that is put into one?"
    return len(re.findall(r'[A-Za-z]{2,}', text)) >= (2 if '…' in text else 3)


def tidy(text): return re.sub(r'…(\s*…)*', '…', ' '.join(text.split()))


def raised_by(t, errors):
    "The messages of one module, in the order in which they stand there"
    returned = {f.name: [text_of(r.value) for r in ast.walk(f) if isinstance(r, ast.Return) and r.value] for f in ast.walk(t) if isinstance(f, ast.FunctionDef)}
    calls = sorted((c for c in ast.walk(t) if isinstance(c, ast.Call)), key=lambda c: (c.lineno, c.col_offset))
    found = []
    for c in calls:
        name = getattr(c.func, 'id', '') or getattr(c.func, 'attr', '')
        if name == 'unknown' and c.args and isinstance(c.args[0], ast.Constant): found.append(f'unknown {c.args[0].value} …; known: …')
        elif name in errors: found += next((some for a in c.args if (some := [o for o in texts_of(a, returned) if says_something(o)])), [])
    return list(dict.fromkeys(map(tidy, found)))


def thrown_by_the_page():
    "The messages of the web page's scripts"
    found = []
    for script in sorted((tree.ROOT/'apps'/'page').glob('*.js')):
        for _, text in re.findall(r'(?:new \w+(?:Error|Photo)|refuse)\(\s*([`\'"])(.*?)\1\s*\)', script.read_text(encoding='utf-8'), flags=re.S):
            found.append(tidy(re.sub(r'\$\{[^}]*\}', '…', text)))
    return [o for o in dict.fromkeys(found) if says_something(o)]


@lru_cache
def messages():
    "Notebook or script → the messages that its code raises"
    trees, errors = tree.modules(), {'CourseError', 'ValueError', 'TypeError'}
    for _ in range(3): errors |= {c.name for t in trees.values() for c in ast.walk(t) if isinstance(c, ast.ClassDef)
                                  if errors & {getattr(b, 'id', '') for b in c.bases}}
    found = {tree.notebook_of(name): raised_by(t, errors) for name, t in trees.items()}
    found['the page in the browser'] = thrown_by_the_page()
    return {where: some for where, some in found.items() if some}


def quoted(text):
    "A message as Markdown code, whatever is in it"
    fence = '`'*(1 + max(map(len, re.findall('`+', text)), default=0))
    gap = ' ' if len(fence) > 1 else ''
    return f'{fence}{gap}{text}{gap}{fence}'


def listed(page):
    "Message → its way out, as the page has them"
    body = page.split(BEGIN)[1].split(END)[0]
    return {line[2:-1]: out.strip() for line, out in re.findall(r'^(- `.+\\)\n  (.*)$', body, flags=re.M)}


def page_with_messages(page):
    "The page with every message as it is now, and the ways out that it had"
    old, out = listed(page), []
    for where, some in sorted(messages().items(), key=lambda o: ('/' in o[0] or ' ' in o[0], o[0])):
        head = f'[{where.split("/")[-1].removesuffix(".ipynb")}](../{where})' if where.endswith('.ipynb') else where
        out += [f'### {head}', '', *(f'- {quoted(m)}\\\n  {old.get(quoted(m), TO_WRITE)}' for m in some), '']
    return f'{page.split(BEGIN)[0]}{BEGIN}\n\n' + '\n'.join(out) + f'\n{END}{page.split(END)[1]}'


if __name__ == '__main__':
    page = PAGE.read_text(encoding='utf-8')
    new = page_with_messages(page)
    if '--write' in sys.argv: PAGE.write_text(new, encoding='utf-8')
    else:
        before, now = listed(page), listed(new)
        print(*(f'+ {m}' for m in now if before.get(m, TO_WRITE) == TO_WRITE), *(f'- {m}' for m in before if m not in now), sep='\n')
