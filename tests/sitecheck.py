"""What a built site must be: each check returns what it finds wrong, line by line. tests/test_pages.py runs them over the course's site"""
import contextlib
import functools
import http.server
import re
import shutil
import subprocess
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from conftest import lacking
from pages import ROOT, Quiet

NPM = ROOT/'.venv'/'npm'/'node_modules'   # `make test` fetches it
BELOW = '/someone/course/'                 # the site stands below a sub-path, as it does on a free host
DESK, PHONE = {'width': 1280, 'height': 900}, {'width': 360, 'height': 740}
HEAVIEST = 1_500_000


def npm(name):
    "A file of the npm packages that the checks need"
    if not (NPM/name).is_file(): lacking(f'{name} in .venv/npm/node_modules (make test fetches it with npm)')
    return NPM/name


class Page(HTMLParser):
    "The tags of a page in order, each with its attributes, and the text inside each `title`"

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.styles, self._inside = [], text, [], None
        self.feed(text)
        self.ids = {a[k] for t, a in self.tags for k in (('id', 'name') if t == 'a' else ('id',)) if a.get(k)}

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {k: v or '' for k, v in attrs}))
        self._inside = tag

    def handle_data(self, data):
        if self._inside == 'style': self.styles.append(data)

    def handle_endtag(self, tag): self._inside = None

    def find(self, *tags): return [(t, a) for t, a in self.tags if t in tags]


def read(site):
    "Address below the site → page"
    return {p.relative_to(site).as_posix(): Page(p.read_text(encoding='utf-8')) for p in sorted(Path(site).rglob('*.html'))}


def references(page):
    "What a page points at: each address, and whether the browser fetches it by itself"
    for tag, a in page.tags:
        if tag in ('a', 'area') and 'href' in a: yield a['href'], False
        elif tag == 'link' and a.get('rel') not in ('canonical', 'license', 'author'): yield a.get('href', ''), True
        for k in ('src', 'poster', 'data') if tag != 'button' else ():
            if k in a: yield a[k], True
        for part in filter(None, a.get('srcset', '').split(', ')): yield part.split()[0], True
    yield from ((u, True) for css in page.styles for u in in_css(css))


def in_css(css): return re.findall(r'url\(\s*[\'"]?(.*?)[\'"]?\s*\)', css)


def outside(url): return url.startswith('//') or urlsplit(url).scheme not in ('', 'data', 'blob')


def broken(site, pages):
    "Links and anchors that lead nowhere, addresses that only work on one host, and pages to which no link leads"
    site, base, linked = Path(site), 'http://host/1/2/3/', {'index.html', '404.html'}
    def wrong(where, url):
        if not url or url == '#': return 'is empty'
        if outside(url) or url.startswith('data:'): return None
        if url.startswith('/'): return 'starts at the host, so it fails below a sub-path'
        full = urljoin(base + where, url)
        if not full.startswith(base): return 'leads out of the site'
        target, anchor = unquote(urlsplit(full).path[len('/1/2/3/'):]), unquote(urlsplit(full).fragment)
        if not target or target.endswith('/'): target += 'index.html'
        if not (site/target).is_file(): return 'leads nowhere'
        if target != where: linked.add(target)
        if anchor and target in pages and anchor not in pages[target].ids | {'top'}: return 'names an anchor that is not there'
    pointers = [(where, url) for where, page in pages.items() for url in dict.fromkeys(u for u, _ in references(page))]
    for css in sorted(site.rglob('*.css')):
        pointers += [(css.relative_to(site).as_posix(), url) for url in in_css(css.read_text(encoding='utf-8'))]
    found = [f'{where}: {url} {why}' for where, url in pointers if (why := wrong(where, url))]
    return found + [f'{where}: no link leads here' for where in pages if where not in linked]


def fetched_from_outside(pages):
    "What a browser would fetch from another host while it shows a page"
    return [f'{where}: {url}' for where, page in pages.items() for url, fetched in references(page) if fetched and outside(url)]


def unregistered(pages, known, beginnings):
    "Links to other sites that are neither known nor begin as known ones do"
    links = {(url, where) for where, page in pages.items() for url, _ in references(page) if re.match('(https?:)?//', url)}
    below = tuple(o.rstrip('/') + '/' for o in beginnings)
    def is_known(url): return url.split('#')[0].rstrip('/') in known or (url + '/').startswith(below)
    return [f'{where}: {url}' for url, where in sorted(links) if not is_known(url)]


EMPTY_WORDS = re.compile(r'\S*\.(png|jpe?g|svg|gif|webp)|image|picture|figure|png|\S', re.I)


def speechless(pages):
    "Pictures without words for those who cannot see them"
    found = []
    for where, page in pages.items():
        for tag, a in page.find('img', 'svg', 'canvas', 'iframe', 'object', 'area', 'input'):
            what = f'{where}: <{tag} {a.get("src", a.get("id", ""))[:60]}>'
            hidden, name = a.get('aria-hidden') == 'true', a.get('aria-label') or a.get('aria-labelledby')
            words = a.get('alt', '') if tag in ('img', 'area', 'input') else a.get('title') or name
            if tag == 'input' and a.get('type') != 'image' or hidden: continue
            if tag == 'svg': words = a.get('role') == 'img' and name
            if not words: found.append(f'{what} has no alternative text')
            elif EMPTY_WORDS.fullmatch(words): found.append(f'{what} says only {words!r}')
    return found


def faulty_heads(pages):
    "What each page states about itself: language, title, width, one `main`, one `h1`"
    found, titles = [], {}
    for where, page in pages.items():
        count = {t: len(page.find(t)) for t in ('html', 'title', 'main', 'h1')}
        found += [f'{where}: {n} <{t}> instead of one' for t, n in count.items() if n != 1]
        if not any(a.get('lang') for _, a in page.find('html')): found.append(f'{where}: no language')
        told = {a.get('name'): a.get('content', '') for _, a in page.find('meta')}
        if 'device-width' not in told.get('viewport', ''): found.append(f'{where}: no viewport')
        title = (re.findall(r'<title>(.*?)</title>', page.text, re.S) or [''])[0].strip()
        if titles.setdefault(title, where) != where: found.append(f'{where}: the title {title!r} is also that of {titles[title]}')
    return found


def invalid(site, pages):
    "Errors that the W3C's checker finds in the pages"
    java = shutil.which('java') or lacking('java, which the HTML checker runs in')
    command = [java, '-Xss8m', '-jar', str(npm('vnu-jar/build/dist/vnu.jar')), '--errors-only', '--format', 'gnu', *pages]
    told = subprocess.run(command, cwd=site, capture_output=True, text=True, encoding='utf-8', timeout=600)
    found = [re.sub(r'^"file:.*?/' + re.escape(Path(site).name) + r'/(.*?)":', r'\1:', line) for line in told.stderr.splitlines() if line]
    if told.returncode and not found: raise RuntimeError(f'the HTML checker failed: {told.stdout}')
    return found


class Below(Quiet):
    "Serve the site below BELOW, and nothing beside it"
    def translate_path(self, path):
        path = urlsplit(path).path
        return super().translate_path('/' + path[len(BELOW):]) if path.startswith(BELOW) else '/nowhere'


@contextlib.contextmanager
def served(site):
    "The site on loopback; its address"
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Below, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{server.server_port}{BELOW}'
    finally:
        server.shutdown()
        server.server_close()


AXE = """async rules => {
    const found = await axe.run(document, {resultTypes: ['violations'], ...(rules ? {runOnly: rules} : {})});
    const told = n => n.target.join(' ') + ': ' + n.any.concat(n.all, n.none).map(o => o.message).join('; ');
    return found.violations.map(v => [v.id, v.impact, v.nodes.length, v.nodes.slice(0, 3).map(told)]);
}"""
LANDMARKS = ('landmark-', 'region', 'page-has-heading-one', 'bypass', 'heading-order', 'skip-link')

WIDE = """() => {
    const width = document.documentElement.clientWidth, all = document.scrollingElement.scrollWidth;
    if (all <= width) return [];
    const held = e => { for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
        if (getComputedStyle(p).overflowX !== 'visible' && p.getBoundingClientRect().right <= width + 1) return true; return false; };
    const spills = e => e.clientWidth && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === 'visible';
    const wide = e => e.getBoundingClientRect().right > width + 1 || spills(e);
    const out = [...document.body.querySelectorAll('*')].filter(e => wide(e) && !held(e)).reverse();
    const told = e => `<${e.localName} class="${e.className.baseVal ?? e.className}"> ` + e.textContent.trim().slice(0, 40);
    return [`${all} pixels wide instead of ${width}: ` + out.slice(0, 3).map(told).join(', ')];
}"""

HIDDEN = """() => [...document.querySelectorAll('nav a:not([href^="#"])')]
    .filter(a => !a.closest('details') && !a.checkVisibility({visibilityProperty: true})).map(a => a.textContent)"""
TEXT = "() => (document.querySelector('main') || document.body).innerText.replace(/\\s+/g, ' ')"
BACKGROUND = """() => { const c = getComputedStyle(document.body).backgroundColor, n = c.match(/[\\d.]+/g).map(Number);
    return n.length > 3 && n[3] === 0 ? 'none' : n[0] + n[1] + n[2] < 384 ? 'dark' : 'light' }"""


def _weigh(site, base, asked):
    "Bytes of the files of the site that a page asked for"
    paths = {unquote(urlsplit(u).path)[len(BELOW):] or 'index.html' for u in asked if u.startswith(base)}
    return sum((Path(site)/p).stat().st_size for p in paths if (Path(site)/p).is_file())


def _listen(page, base, where, found, asked):
    "Note what a page asks for and says; stop each request that would leave the site"
    def ask(route):
        url = route.request.url
        asked.append(url)
        if url.startswith((base, 'data:', 'blob:')): return route.continue_()
        found['requests'].append(f'{where}: {url[:200]}')
        route.abort()
    page.route('**/*', ask)
    page.on('console', lambda m: m.type in ('error', 'warning') and found['console'].append(f'{where}: {m.text[:200]}'))
    page.on('pageerror', lambda e: found['console'].append(f'{where}: {str(e)[:200]}'))


def _ask_axe(page, where, scheme, rules, found):
    "Let axe-core look at a page"
    for rule, impact, count, nodes in page.evaluate(AXE, rules):
        kind = 'axe' if impact in ('serious', 'critical') or rule.startswith(LANDMARKS) else 'axe-minor'
        found[kind].append(f'{where} ({scheme}): {rule}, {impact}, {count} times: ' + ' | '.join(o[:240] for o in nodes))


def _look(page, where, axe, found):
    "What a page is like on a desk, light and dark, and on a phone"
    for scheme in ('light', 'dark'):
        page.emulate_media(color_scheme=scheme, reduced_motion='reduce')
        shown = page.evaluate(BACKGROUND)
        if shown not in (scheme, 'none' if scheme == 'light' else scheme): found['schemes'].append(f'{where}: {shown} instead of {scheme}')
        if scheme == 'light': page.evaluate(axe)
        _ask_axe(page, where, scheme, None, found)
    page.set_viewport_size(PHONE)
    found['phone'] += [f'{where}: {o}' for o in page.evaluate(WIDE)]
    _ask_axe(page, where, 'phone', ['scrollable-region-focusable', 'target-size'], found)


def _without_script(page, where):
    "Links of the navigation that nobody sees without JavaScript, on a desk and on a phone"
    for size in (DESK, PHONE):
        page.set_viewport_size(size)
        for text in page.evaluate(HIDDEN): yield f'{where}: without JavaScript nobody sees the link {text!r} at {size["width"]} pixels'


def visit(browser, site, addresses):
    "Open each page as a visitor does; kind of finding → findings, and the bytes of each page"
    found = {k: [] for k in ('requests', 'console', 'axe', 'axe-minor', 'schemes', 'phone', 'heavy', 'script')}
    axe = npm('axe-core/axe.min.js').read_text(encoding='utf-8')
    with served(site) as base:
        for where in addresses:
            asked, texts = [], []
            for script in (True, False):
                context = browser.new_context(viewport=DESK, java_script_enabled=script)
                page = context.new_page()
                if script: _listen(page, base, where, found, asked)
                page.goto(base + where, wait_until='load')
                texts.append(page.evaluate(TEXT))
                if script: _look(page, where, axe, found)
                else: found['script'] += _without_script(page, where)
                context.close()
            all_, plain = map(len, texts)
            if plain < .98*all_: found['script'].append(f'{where}: without JavaScript {plain} of {all_} characters')
            if (size := _weigh(site, base, asked)) > HEAVIEST: found['heavy'].append(f'{where}: {size:,} bytes')
    return found


ANSWERS = "() => [...document.querySelectorAll('#found a')].map(a => a.href)"


def search(page, base, word, wanted=None, seconds=10):
    "Type a word into the site's search: the addresses of the answers, once the wanted one is among them or the time is up"
    box = page.locator('input[type=search]').first
    box.fill('')
    box.press_sequentially(word)
    arrived = f'wanted => ({ANSWERS})().some(u => u.startsWith(wanted))' if wanted else "() => document.querySelector('#found').innerText"
    with contextlib.suppress(Exception): # playwright may be missing, so its errors cannot be named here
        page.wait_for_function(arrived, arg=base + (wanted or ''), timeout=seconds*1000)
    return [u.removeprefix(base) for u in page.evaluate(ANSWERS)]
