"""The reference pages against what they speak of: every message, command, term and address"""
import ast
import json
import re
import tomllib
from datetime import date

import messages
import pytest
import tree

NBS = tree.ROOT/'nbs'
REFERENCE = NBS/'reference'
LESSONS = sorted(p for p in NBS.glob('[0-9][0-9]*.ipynb'))


def page(name): return (REFERENCE/name).read_text(encoding='utf-8')


def sources(path, kind=None):
    nb = json.loads(path.read_text(encoding='utf-8'))
    return [''.join(c['source']) for c in nb['cells'] if kind in (None, c['cell_type'])]


# Troubleshooting

def test_every_message_has_its_way_out():
    have = messages.listed(page('troubleshooting.qmd'))
    raised = {messages.quoted(m) for some in messages.messages().values() for m in some}
    assert len(raised) > 400
    lacking = sorted(raised - set(have)) + sorted(m for m, out in have.items() if not out or messages.TO_WRITE in out)
    assert not lacking, f'no way out for {lacking[:3]}: run python tests/messages.py --write, then write it on the page'
    assert not set(have) - raised, f'nobody raises {sorted(set(have) - raised)[:3]} any more: run python tests/messages.py --write'


def test_messages_are_found_in_all_their_forms():
    code = '''
class Own(CourseError): pass
def made(x): return f'a text with {x} in it'
def f(a, b):
    if a: raise CourseError(f'no {a!r} in {b}; ' 'give another')
    if b: raise Own(b, 'too many photos here')
    if a > b: raise CourseError('one of the arms' if a else f'{b} is the other arm')
    raise unknown('shoe size', a, b) from None
    raise CourseError('{} and {} numbers'.format(a, b))
    raise CourseError(made(a))
'''
    found = messages.raised_by(ast.parse(code), {'CourseError', 'Own'})
    assert found == ['no … in …; give another', 'too many photos here', 'one of the arms', '… is the other arm',
                     'unknown shoe size …; known: …', '… and … numbers', 'a text with … in it']


def test_a_way_out_survives_a_new_message():
    before = messages.page_with_messages(page('troubleshooting.qmd'))
    first = next(iter(messages.listed(before)))
    without = re.sub(r'^- ' + re.escape(first) + r'\\\n.*\n', '', before, count=1, flags=re.M)
    after = messages.listed(messages.page_with_messages(without))
    assert after[first] == messages.TO_WRITE
    assert all(after[m] == out for m, out in messages.listed(before).items() if m != first)


def broken_mat(): import torch; torch.ones(8, 10) @ torch.ones(5, 2)


def linear(x):
    import torch
    torch.nn.Linear(10, 2)(x)


def twice():
    import torch
    x = torch.ones(3, requires_grad=True)
    loss = (x*x).sum(); loss.backward(); loss.backward()


def bounds():
    import torch
    torch.nn.functional.cross_entropy(torch.ones(1, 5), torch.tensor([7]))


def broadcast():
    import numpy as np
    np.ones(3) + np.ones(4)


def floats():
    import numpy as np
    np.array(['male', '1'], dtype=object).astype(float)


def stack():
    import torch
    torch.utils.data.default_collate([torch.ones(3, 4), torch.ones(3, 5)])


BREAKERS = {
    "No module named 'topdown'": lambda: __import__('topdown_'),
    "name 'x' is not defined": lambda: exec('x'),
    'mat1 and mat2 shapes cannot be multiplied (8x10 and 5x2)': broken_mat,
    'mat1 and mat2 must have the same dtype, but got Double and Float': lambda: linear(__import__('torch').ones(8, 10).double()),
    'Target 7 is out of bounds': bounds,
    'Trying to backward through the graph a second time': twice,
    'does not require grad and does not have a grad_fn': lambda: __import__('torch').ones(1).sum().backward(),
    'operands could not be broadcast together with shapes': broadcast,
    "could not convert string to float: 'male'": floats,
    'stack expects each tensor to be equal size': stack}


@pytest.mark.parametrize('said', BREAKERS)
def test_the_libraries_still_say_it(said):
    ten = page('troubleshooting.qmd').split('## Ten messages of the libraries')[1].split('\n## ')[0]
    assert f'`{said}`' in ten, 'the page quotes ten messages, and this test makes each of them'
    assert len(re.findall(r'^\| `', ten, flags=re.M)) == len(BREAKERS) == 10
    with pytest.raises(Exception) as e: BREAKERS[said]()
    assert said in str(e.value).replace('topdown_', 'topdown')


# Glossary

STYLE = ['epoch', 'mini-batch', 'loss', 'metric', 'learning rate', 'weight', 'bias', 'activation', 'parameter', 'gradient', 'validation set', 'overfitting',
         'fine-tuning', 'pretrained', 'head', 'body', 'embedding', 'latent factor', 'token', 'numericalisation', 'language model', 'ensemble', 'out-of-bag',
         'data leakage', 'baseline']


def glossary():
    "Word → (meaning, the lesson's file)"
    rows = re.findall(r'^\| (?!---|word )(.+?) \| (.+?) \| \[\w+\]\(\.\./(\S+?)\) \|$', page('glossary.qmd'), flags=re.M)
    return {word: (meaning, lesson) for word, meaning, lesson in rows}


def spellings(word):
    "The forms in which an entry is found: 'batch, mini-batch' is two words, 'gate' is also there for 'gates'"
    for part in [word, *re.split(r', | \(|\) ', word)]:
        part = part.strip(' ()').lower()
        if part: yield from (part, part + 's', part + 'es', re.sub('y$', 'ies', part), re.sub('x$', 'ces', part))


def defined_terms(text):
    "Emphasised words in the sentence forms that define: called *x*, the *x* is, a *x* is, (*x*)"
    text = re.sub(r'```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$\n]*\$|\]\([^)]*\)', ' ', text, flags=re.S)
    word = r'(\*{1,2})(?![\s*])([^*\n]{2,40}?)\1(?!\*)'
    forms = [rf'\b(?:is|are) called (?:an? |the )?{word}', rf'\b(?:is|are) known as (?:an? |the )?{word}', rf'\(\s*(?:an? |the )?{word}\s*\)',
             rf'(?:^|[.:;] )(?:An?|The) {word} (?:is|are) ', rf'\bname(?:s|d)? (?:it|this|them) {word}']
    return {m[2].strip(' .,:;').lower() for f in forms for m in re.finditer(f, text, flags=re.M)}


NO_TERMS = {'items', 'level', 'mr', 'noise', 'note', 'strangeness', 'triangle, lower'}   # explained for one place, nothing to look up


def test_glossary_is_sorted_and_has_each_word_once():
    words = re.findall(r'^\| (?!---|word )(.+?) \| ', page('glossary.qmd'), flags=re.M)
    key = lambda w: re.sub(r'[^a-z0-9]', '', w.lower())
    assert words == sorted(words, key=key) and len(words) == len(set(words)) == len(glossary())


@pytest.mark.parametrize('word', STYLE)
def test_glossary_has_the_field_s_terms(word): assert word in {s for w in glossary() for s in spellings(w)}


@pytest.mark.parametrize('path', LESSONS, ids=lambda p: p.stem)
def test_glossary_has_what_a_lesson_defines(path):
    known = {s for w in glossary() for s in spellings(w)}
    new = {t for text in sources(path, 'markdown') for t in defined_terms(text) if not any(w.startswith(f'{t} ') for w in known)} - known - NO_TERMS
    assert not new, f'{path.name} explains {sorted(new)}: add to the glossary, or to NO_TERMS if no reader would look it up'


def test_definitions_are_found():
    text = 'This is called *pruning*. A *twig* is thin. He said *not* so (the *bark*). **The step** is small. It is called `*code*`.'
    assert defined_terms(text) == {'pruning', 'twig', 'bark'}


def test_the_lesson_that_an_entry_names_has_the_word():
    texts = {p.name: '\n'.join(sources(p)).lower().replace('*', '') for p in LESSONS}
    wrong = []
    for word, (meaning, lesson) in glossary().items():
        stems = [re.sub(r'(ing|es|s|e|y)$', '', part.strip(' ()').lower()) for part in re.split(r', | \(|\) | of ', word) if part.strip(' ()')]
        if not meaning.startswith('see ') and not any(s in texts[lesson] for s in [word.lower(), *stems]): wrong.append((word, lesson))
    assert not wrong


# Cheat sheet

def commands(command, name='topdown'):
    "Each command of the command line with its options"
    subs = getattr(command, 'commands', None)
    for sub, c in (subs or {}).items(): yield from commands(c, f'{name} {sub}')
    if not subs or command.invoke_without_command: yield name, {o for p in command.params for o in p.opts if o.startswith('-')}


def test_cheat_sheet_has_every_command_and_option():
    import typer
    from topdown import cli
    app = next(v for v in vars(cli).values() if isinstance(v, typer.Typer) and any(g.name == 'app' for g in v.registered_groups))
    found, text = dict(commands(typer.main.get_command(app))), page('cheatsheet.qmd')
    for name, options in found.items():
        rows = ' '.join(line for line in text.splitlines() if f'`{name}' in line)
        assert rows, f'the cheat sheet lacks `{name}`'
        lacking = [o for o in options - {'--help'} if not re.search(rf'`{o}[ `]', rows) and f'{o} ' not in rows]
        assert not lacking, f'the cheat sheet lacks {lacking} of {name}'
    named = {re.match(r'topdown (?:(?:app|slides|exercises) [a-z]+|(?:progress|cost) (?:[a-z]+)|[a-z]+)', c)[0] for c in re.findall(r'`(topdown [a-z][^`]*)`', text)}
    assert named <= set(found), f'the cheat sheet names {sorted(named - set(found))}, which is no command'


def test_cheat_sheet_names_targets_of_make_that_exist():
    targets = set(re.findall(r'^([a-z-]+):', (tree.ROOT/'Makefile').read_text(encoding='utf-8'), flags=re.M))
    assert set(re.findall(r'`make ([a-z-]+)', page('cheatsheet.qmd'))) <= targets


# Credits

def test_credits_name_every_set_and_all_weights():
    from topdown.data import DATASETS, WEIGHTS
    text = page('credits.qmd')
    assert not [n for n in [*DATASETS, *WEIGHTS] if not re.search(rf'(?<![\w-]){re.escape(n)}(?![\w-])', text)]


def test_credits_say_whose_the_pictures_are():
    assert not [p.name for p in (NBS/'images').iterdir() if p.suffix in ('.jpg', '.png', '.svg') and p.name not in page('credits.qmd')]


# External links

def register(): return tomllib.loads(page('links.toml'))['link']


def used_links():
    "External address → the files that link to it"
    found = {}
    texts = {p: p.read_text(encoding='utf-8') for p in [*NBS.rglob('*.qmd'), *tree.ROOT.glob('*.md')]}
    texts |= {p: '\n'.join(sources(p, 'markdown')) for p in NBS.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts}
    for path, text in texts.items():
        for url in re.findall(r'\]\((https?://[^)\s]+)\)|<(https?://[^>\s]+)>', text): found.setdefault(url[0] or url[1], set()).add(path.name)
    for url in re.findall(r'^source = (\S+)', (tree.ROOT/'settings.ini').read_text(encoding='utf-8'), flags=re.M): found.setdefault(url, set()).add('settings.ini')
    return found


def test_every_external_link_is_in_the_register():
    exact = {o['address'] for o in register() if not o.get('begins')}
    begins = tuple(o['address'] for o in register() if o.get('begins'))
    lacking = {u: sorted(w) for u, w in used_links().items() if u not in exact and not u.startswith(begins)}
    assert not lacking, f'add to nbs/reference/links.toml, with the date: {lacking}'


def test_register_has_no_link_that_nobody_uses():
    used = used_links()
    idle = [o['address'] for o in register() if not any(u.startswith(o['address']) if o.get('begins') else u == o['address'] for u in used)]
    assert not idle, f'nobody links to {idle}'


def test_register_says_when_and_how():
    seen = set()
    for o in register():
        assert isinstance(o['looked_up'], date) and o['what'] and o['how'] in HOW, o
        assert o['address'] not in seen; seen.add(o['address'])


HOW = {'opened', 'stored copy', 'by name'}   # the page itself, a copy of it in an archive, or only its maker's name for it
