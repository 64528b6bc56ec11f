"""Seconds to build the website from notebooks that are executed already, with the embedded engine, and the heaviest page

python benchmarks/site.py [--runs 3]
"""
import re
import statistics
import tempfile
import time
from pathlib import Path

from common import heading, options, spread, verdict


def weight(page):
    "Bytes of a page with the pictures of its own that it shows; style, script and search index are counted once for the site"
    text = page.read_text(encoding='utf-8')
    shown = {page.parent/src for src in re.findall(r'<img[^>]* src="([^":]+)"', text)}
    return page.stat().st_size + sum(p.stat().st_size for p in shown if p.is_file())


def main():
    args = options(__doc__.splitlines()[0], 3)
    from topdown.site import build_site
    heading('The website', 'topdown-course', 'nbdev', 'pypandoc_binary')
    times = []
    for _ in range(args.runs):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            built = build_site(Path(folder)/'site', 'embedded')
            times.append(time.perf_counter() - start)
            pages = {p.relative_to(built.folder).as_posix(): weight(p) for p in built.folder.rglob('*.html')}
            shared = {n: (built.folder/n).stat().st_size for n in ('style.css', 'site.js', 'search.js')}
    heaviest = max(pages, key=pages.get)
    print(f'{built.pages} pages in {spread(times, 1)} s')
    print(f'heaviest page: {heaviest}, {pages[heaviest]/1e6:.2f} MB with its pictures; median {statistics.median(pages.values())/1e6:.2f} MB')
    print('for all pages: ' + ', '.join(f'{n} {size/1e6:.2f} MB' for n, size in shared.items()))
    verdict('00', 'site_seconds', 'sample', statistics.median(times))
    verdict('00', 'site_page_mb', 'sample', pages[heaviest]/1e6)


if __name__ == '__main__': main()
