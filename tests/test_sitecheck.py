"""The checks of the site can fail: a small good site passes them all, and each fault that is planted in it is found"""
import re

import pytest
import sitecheck
from pages import chromium

STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; font: 1rem sans-serif; color: light-dark(#111, #eee); background: light-dark(#fff, #111); }
a { color: light-dark(#0645ad, #8ab4f8); }
main, nav, footer { padding: 1rem; }
pre { overflow-x: auto; }
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="stylesheet" href="{up}style.css"><link rel="icon" href="data:,"></head>
<body><nav aria-label="Course"><a href="{up}index.html">Course</a> <a href="{up}a/lesson.html#first">Lesson</a></nav>
<main><h1>{title}</h1><h2 id="first">First</h2>{body}</main></body></html>
"""
GOOD = {'index.html': '<p>Words.</p><p><img src="a/bird.svg" alt="A bird on a branch" width="20" height="20"></p>',
        'a/lesson.html': f'<pre tabindex="0">{"a long line " * 40}</pre><p><math><mi>x</mi></math> and <a href="#first">back</a></p>'}
KNOWN = {'https://known.example/page'}, ['https://ours.example/']
BIRD = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle cx="4" cy="4" r="3"/></svg>'


def write(site, pages=GOOD, style=STYLE):
    "The small site, as files"
    (site/'a').mkdir(parents=True, exist_ok=True)
    for name, body in pages.items():
        text = PAGE.format(title=f'Page {name.split(".")[0]}', up='../'*name.count('/'), body=body)
        (site/name).write_text(text, encoding='utf-8')
    (site/'style.css').write_text(style, encoding='utf-8')
    (site/'a'/'bird.svg').write_text(BIRD, encoding='utf-8')
    return site


def read_checks(site):
    "The findings of the checks that only read"
    pages = sitecheck.read(site)
    return {'broken': sitecheck.broken(site, pages), 'heads': sitecheck.faulty_heads(pages), 'speechless': sitecheck.speechless(pages),
            'outside': sitecheck.fetched_from_outside(pages), 'unregistered': sitecheck.unregistered(pages, *KNOWN)}


def test_a_good_site_has_no_findings(tmp_path): assert not any(read_checks(write(tmp_path)).values())


@pytest.mark.parametrize('kind, body', [
    ('broken', '<a href="lost.html">x</a>'), ('broken', '<a href="index.html#lost">x</a>'), ('broken', '<a href="#lost">x</a>'),
    ('broken', '<a href="#">x</a>'),
    ('broken', '<a href="/index.html">x</a>'), ('broken', '<a href="../index.html">x</a>'), ('broken', '<a href="a">x</a>'),
    ('broken', '<a href="">x</a>'),
    ('broken', '<img alt="A bird" src="lost.png">'), ('broken', '<style>p { background: url("lost.png") }</style>'), 
    ('broken', '<img alt="A bird" srcset="lost.png 2x">'),
    ('outside', '<script src="https://cdn.example/a.js"></script>'), ('outside', '<link rel="stylesheet" href="//cdn.example/a.css">'),
    ('outside', '<img alt="A badge" src="https://badge.example/a.svg">'), 
    ('outside', '<style>@import url(https://cdn.example/a.css)</style>'),
    ('speechless', '<img src="a/bird.svg">'), ('speechless', '<img alt="" src="a/bird.svg">'), 
    ('speechless', '<img alt="bird.svg" src="a/bird.svg">'),
    ('speechless', '<img alt="image" src="a/bird.svg">'), ('speechless', '<svg></svg>'), ('speechless', '<canvas></canvas>'),
    ('heads', '<h1>Again</h1>'), ('heads', '<main></main>'), ('unregistered', '<a href="https://unknown.example/">x</a>'),
    ('unregistered', '<a href="https://known.example/">x</a>'),
    ('unregistered', '<a href="https://ours.example.evil/">x</a>')])
def test_a_planted_fault_is_found(tmp_path, kind, body):
    found = read_checks(write(tmp_path, GOOD | {'index.html': GOOD['index.html'] + body}))
    assert found[kind] and all('index.html' in o for o in found[kind]), found


@pytest.mark.parametrize('body', [
    '<a href="https://known.example/page#part">x</a>', '<a href="https://ours.example/a/b">x</a>',
    '<a href="a/lesson.html?plain#first">x</a>',
    '<svg role="img" aria-label="A bird"></svg>', '<svg aria-hidden="true"></svg>', '<a href="mailto:a@b.example">x</a>'])
def test_what_is_right_is_not_found(tmp_path, body):
    found = read_checks(write(tmp_path, GOOD | {'index.html': GOOD['index.html'] + body}))
    assert not any(found.values()), found


@pytest.mark.parametrize('old, new', [
    (' lang="en"', ''), ('<title>.*?</title>', '<title>Page a/lesson</title>'), ('name="viewport"', 'name="other"')])
def test_a_fault_of_the_head_is_found(tmp_path, old, new):
    page = write(tmp_path)/'index.html'
    page.write_text(re.sub(old, new, page.read_text(encoding='utf-8')), encoding='utf-8')
    assert read_checks(tmp_path)['heads']


def test_a_page_without_a_link_to_it_is_found(tmp_path):
    assert read_checks(write(tmp_path, GOOD | {'b.html': ''}))['broken'] == ['b.html: no link leads here']


def test_a_lost_picture_of_a_style_sheet_is_found(tmp_path):
    assert read_checks(write(tmp_path, style='p { background: url(lost.png) }'))['broken'] == ['style.css: lost.png leads nowhere']


def test_the_html_checker(tmp_path):
    faults = ['<p><b>open</p>', '<img src="a/bird.svg">', '<p id="first">twice</p>', '<ul><p>x</p></ul>', '<p><div>x</div></p>']
    pages = GOOD | {f'{i}.html': body for i, body in enumerate(faults)}
    write(tmp_path, pages)
    found = sitecheck.invalid(tmp_path, pages)
    assert {o.split(':')[0] for o in found} == {f'{i}.html' for i in range(5)}, found


PLANTED = {  # name of the page → kind of finding, and what is in it
    'cdn.html': ('requests', '<script>fetch("https://cdn.example/a").catch(() => 0)</script>'),
    'beside.html': ('requests', '<script>fetch("/beside").catch(() => 0)</script>'),
    'error.html': ('console', '<script>throw new Error("oh")</script>'),
    'warning.html': ('console', '<script>console.warn("oh")</script>'),
    'lost.html': ('console', '<img src="lost.png" alt="A lost bird">'),
    'dim.html': ('axe', '<p style="color: light-dark(#aaa, #eee)">Too light on white</p>'),
    'dark.html': ('axe', '<p style="color: light-dark(#111, #333)">Too dark on black</p>'),
    'button.html': ('axe', '<button></button>'),
    'landmark.html': ('axe', '</main><main>Another</main>'),
    'stray.html': ('axe', '</main><p>Outside of every landmark</p>'),
    'bright.html': ('schemes', '<style>body { background: #fff; color: #111 } a { color: #00c }</style>'),
    'wide.html': ('phone', '<div style="width: 900px">wide</div>'),
    'word.html': ('phone', '<p>' + 'a_very_long_name'*9 + '</p>'),
    'scroll.html': ('axe', '<p style="overflow-x: auto; white-space: nowrap">' + 'Words that nobody reaches by keyboard. '*9 + '</p>'),
    'heavy.html': ('heavy', f'<!-- {"x" * 1_500_000} -->'),
    'script.html': ('script', '<div id="late"></div><script>late.textContent = "Written by a script. ".repeat(9)</script>'),
    'menu.html': ('script', '<nav aria-label="Menu" hidden id="m"><a href="index.html">Home</a></nav><script>m.hidden = false</script>')}


@pytest.mark.browser
def test_what_only_a_browser_finds(tmp_path):
    write(tmp_path, GOOD | {name: body for name, (_, body) in PLANTED.items()})
    with chromium() as browser: found = sitecheck.visit(browser, tmp_path, [*GOOD, *PLANTED])
    about = {name: [kind for kind, list_ in found.items() if any(o.startswith(f'{name}') for o in list_)] for name in [*GOOD, *PLANTED]}
    for name in GOOD: assert not about[name], found
    for name, (kind, _) in PLANTED.items(): assert kind in about[name], f'{name}: {kind} not in {about[name]}'
