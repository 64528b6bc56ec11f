"""Downloads from a server that misbehaves, and archives that nobody should open carelessly"""
import gzip
import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile

import pooch
import pytest

import topdown.fetch as fetch
from topdown.fetch import download, resuming, unpack
from topdown.settings import CourseError

BODY = hashlib.sha256(b'seed').digest() * 8000 # 256,000 bytes


def digest(data): return hashlib.sha256(data).hexdigest()


RIGHT = digest(BODY)


def get(url, to, sha256=RIGHT): return download(url, to, sha256, progress=False)


def left_over(folder): return sorted(p.name for p in folder.iterdir() if not p.name.endswith('.lock'))


# Downloads

def test_the_connection_breaks_and_the_download_resumes(server, tmp_path):
    server.breaks = [1000, 0, 100_000]
    assert get(server.url('a', BODY), tmp_path/'a').read_bytes() == BODY
    assert server.ranges_asked == [None, 'bytes=1000-', 'bytes=1000-', 'bytes=101000-']
    assert all(h.get('If-Range') == '"v1"' for h in server.asked[1:]) and left_over(tmp_path) == ['a']


def test_a_later_call_resumes(server, tmp_path):
    url = server.url('a', BODY)
    server.breaks = [50_000, 0, 0, 0]
    with pytest.raises(CourseError, match=r'broke off .* the 50,000 bytes that arrived are kept, and the next try goes on from there'):
        get(url, tmp_path/'a')
    assert left_over(tmp_path) == ['a.part', 'a.part.json']
    server.asked.clear()
    assert get(url, tmp_path/'a').read_bytes() == BODY
    assert server.ranges_asked == ['bytes=50000-'] and left_over(tmp_path) == ['a']


@pytest.mark.skipif(os.name == 'nt', reason='signals of POSIX systems')
@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_program_resumes(server, tmp_path, how):
    server.step, server.pause = 8192, .05
    url, to = server.url('a', BODY), tmp_path/'a'
    code = 'import sys; from topdown.fetch import download; download(*sys.argv[1:])'
    p = subprocess.Popen([sys.executable, '-c', code, url, str(to), RIGHT], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while not (tmp_path/'a.part').exists() or (tmp_path/'a.part').stat().st_size < 20_000:
        assert time.monotonic() < end and p.poll() is None
        time.sleep(.01)
    p.send_signal(how)
    p.wait(20)
    server.pause = 0
    assert get(url, to).read_bytes() == BODY
    assert server.ranges_asked[-1] not in (None, 'bytes=0-') and left_over(tmp_path) == ['a']


def test_the_file_changed_meanwhile(server, tmp_path):
    url = server.url('a', b'old' * 50_000)
    server.breaks = [60_000, 0, 0, 0]
    with pytest.raises(CourseError): get(url, tmp_path/'a')
    server.etag, server.files['/a'] = '"v2"', BODY
    server.asked.clear()
    assert get(url, tmp_path/'a').read_bytes() == BODY
    assert server.ranges_asked == ['bytes=60000-'] # the server answered with all of it


@pytest.mark.parametrize('etag, date', [('W/"weak"', 'Mon, 01 Jan 2024 00:00:00 GMT'), (None, 'Mon, 01 Jan 2024 00:00:00 GMT'), (None, None)])
def test_weak_or_missing_marks(server, tmp_path, etag, date):
    server.etag, server.date, server.breaks = etag, date, [1000]
    assert get(server.url('a', BODY), tmp_path/'a').read_bytes() == BODY
    assert server.ranges_asked == [None, 'bytes=1000-'] and server.asked[1].get('If-Range') == date


def test_pieces_of_two_files_are_noticed(server, tmp_path):
    "Without any mark, only the hash can tell that the file changed: one fresh try follows"
    server.etag, server.breaks = None, [60_000, 0, 0, 0]
    url = server.url('a', b'old' * 50_000)
    with pytest.raises(CourseError): get(url, tmp_path/'a')
    server.files['/a'] = BODY
    assert get(url, tmp_path/'a').read_bytes() == BODY
    assert server.ranges_asked[-2:] == ['bytes=60000-', None]


def test_a_server_that_knows_no_ranges(server, tmp_path):
    server.ranges, server.breaks = False, [100_000]
    assert get(server.url('a', BODY), tmp_path/'a').read_bytes() == BODY


def test_an_answer_from_the_wrong_place(server, tmp_path):
    server.breaks, server.shift = [1000], 7
    assert get(server.url('a', BODY), tmp_path/'a').read_bytes() == BODY
    assert server.ranges_asked == [None, 'bytes=1000-', None]


def test_everything_had_arrived_already(server, tmp_path):
    url = server.url('a', BODY)
    server.breaks = [50_000, 0, 0, 0]
    with pytest.raises(CourseError): get(url, tmp_path/'a')
    (tmp_path/'a.part').write_bytes(BODY)
    assert get(url, tmp_path/'a').read_bytes() == BODY and server.ranges_asked[-1] == f'bytes={len(BODY)}-'


@pytest.mark.parametrize('damage', ['longer', 'json', 'other url', 'no json'])
def test_a_damaged_part(server, tmp_path, damage):
    url = server.url('a', BODY)
    server.breaks = [50_000, 0, 0, 0]
    with pytest.raises(CourseError): get(url, tmp_path/'a')
    if damage == 'longer': (tmp_path/'a.part').write_bytes(BODY + b'too much')
    if damage == 'json': (tmp_path/'a.part.json').write_text('[')
    if damage == 'other url': url = server.url('b', BODY)
    if damage == 'no json': (tmp_path/'a.part.json').unlink()
    assert get(url, tmp_path/'a').read_bytes() == BODY and left_over(tmp_path) == ['a']


def test_a_short_answer_without_a_length(server, tmp_path):
    server.lengths, server.breaks = False, [1000]
    with pytest.raises(CourseError, match=f'SHA-256 expected {RIGHT}, found {digest(BODY[:1000])}; kept as .*a.bad'):
        get(server.url('a', BODY), tmp_path/'a')
    assert left_over(tmp_path) == ['a.bad'] and (tmp_path/'a.bad').read_bytes() == BODY[:1000]
    assert get(server.url('a', BODY), tmp_path/'a').read_bytes() == BODY


def test_a_silent_server(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, '_timeout', (.5, .3))
    server.hang, server.breaks = True, [1000, 1000, 1000, 1000]
    with pytest.raises(CourseError, match=r'timed out.* the 4,000 bytes'): get(server.url('a', BODY), tmp_path/'a')
    server.hang = False
    assert get(server.url('a', BODY), tmp_path/'a').read_bytes() == BODY


@pytest.mark.parametrize('breaks, asked', [([], [None]), ([70_000, 1000], [None, 'bytes=70000-', 'bytes=71000-'])])
def test_an_answer_in_chunks(server, tmp_path, breaks, asked):
    server.chunked, server.lengths, server.step, server.breaks = True, False, 10_000, list(breaks)
    assert get(server.url('a', BODY), tmp_path/'a').read_bytes() == BODY
    assert server.ranges_asked == asked


def test_a_slow_server(server, tmp_path):
    server.step, server.pause = 32_000, .05
    seen = []
    download(server.url('a', BODY), tmp_path/'a', RIGHT, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) > 2 and seen == sorted(seen) and seen[-1] == (len(BODY), len(BODY))


def test_progress_is_printed(server, tmp_path, capsys):
    download(server.url('a', BODY), tmp_path/'a', RIGHT)
    assert capsys.readouterr().out.endswith('\ra: 0.3 of 0.3 MB\n')


@pytest.mark.parametrize('codes', [[503], [429, 500, 503]])
def test_a_busy_server(server, tmp_path, codes):
    server.statuses = list(codes)
    assert get(server.url('a', BODY), tmp_path/'a').read_bytes() == BODY


@pytest.mark.parametrize('codes, words', [([503] * 4, 'the server answered 503'), ([403], 'cannot be downloaded: the server answered 403')])
def test_a_server_that_refuses(server, tmp_path, codes, words):
    server.statuses = list(codes)
    with pytest.raises(CourseError, match=words): get(server.url('a', BODY), tmp_path/'a')
    assert 'a' not in left_over(tmp_path)


def test_no_such_file(server, tmp_path):
    with pytest.raises(CourseError, match='the server answered 404 Not Found; the address may have changed'):
        get(server.url('a', BODY) + 'x', tmp_path/'a')
    assert left_over(tmp_path) == []


def test_a_login_page(server, tmp_path):
    with pytest.raises(CourseError, match='it is a web page: does this network want a login'):
        get(server.url('a', b'\n<!DOCTYPE html><html>Welcome to the hotel'), tmp_path/'a')


def test_compressed_on_the_way_is_taken_as_it_is(server, tmp_path):
    data = gzip.compress(BODY)
    server.headers = {'Content-Encoding': 'gzip'} # what some servers say of every .tar.gz
    assert get(server.url('a.gz', data), tmp_path/'a.gz', digest(data)).read_bytes() == data


def test_a_good_file_stays_when_a_new_one_is_wrong(server, tmp_path):
    (tmp_path/'a').write_bytes(BODY)
    assert get('http://127.0.0.1:9/a', tmp_path/'a').read_bytes() == BODY # right already: nobody is asked
    with pytest.raises(CourseError): get(server.url('a', b'other'), tmp_path/'a', digest(b'new'))
    assert (tmp_path/'a').read_bytes() == BODY


@pytest.mark.parametrize('url', ['http://127.0.0.1:9/a', 'http://no-such-host.invalid/a'])
def test_no_network(tmp_path, url):
    with pytest.raises(CourseError, match=r'cannot be reached: \w+; connect to the network .* `--track sample`'): get(url, tmp_path/'a')


@pytest.mark.parametrize('url', ['', 'a.txt', 'ftp://x/a', 'file:///etc/passwd', 'http://'])
def test_no_address(tmp_path, url):
    with pytest.raises(CourseError, match='is not an address'): get(url, tmp_path/'a')


def test_the_disk_is_full(server, tmp_path, monkeypatch):
    def full(*args, **kw): raise OSError(28, 'No space left on device')
    real = open
    monkeypatch.setattr('builtins.open', lambda path, *a, **kw: full() if str(path).endswith('.part') else real(path, *a, **kw))
    with pytest.raises(CourseError, match='a.part cannot be written: the disk is full'): get(server.url('a', BODY), tmp_path/'a')
    monkeypatch.undo()
    assert get(server.url('a', BODY), tmp_path/'a').read_bytes() == BODY


def test_two_programs_want_one_file(server, tmp_path):
    server.step, server.pause = 16_384, .02
    code = 'import sys; from topdown.fetch import download; print(download(*sys.argv[1:], progress=False))'
    args = [sys.executable, '-c', code, server.url('a', BODY), str(tmp_path/'a'), RIGHT]
    both = [subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for p in both: assert p.communicate(timeout=60)[0].strip() == str(tmp_path/'a')
    assert len(server.asked) == 1 and (tmp_path/'a').read_bytes() == BODY # the second one waited, and found it


def test_a_hash_of_which_only_the_beginning_is_known(server, tmp_path):
    assert get(server.url('a', BODY), tmp_path/'a', RIGHT[:8].upper()).read_bytes() == BODY
    with pytest.raises(CourseError, match='SHA-256 expected 00000000, found'): get(server.url('b', BODY), tmp_path/'b', '0'*8)
    for wrong in (RIGHT[:7], '', 'none at all'):
        with pytest.raises(CourseError, match='is no SHA-256'): get(server.url('c', BODY), tmp_path/'c', wrong)


def test_with_pooch(server, tmp_path):
    keeper = pooch.create(tmp_path, base_url='', registry={'a.bin': RIGHT}, urls={'a.bin': server.url('a', b'x' * len(BODY))})
    pooch.get_logger().setLevel('WARNING')
    with pytest.raises(CourseError, match='is not the file that the course knows'): keeper.fetch('a.bin', downloader=resuming)
    assert not (tmp_path/'a.bin').exists() and (tmp_path/'incoming'/'a.bin.bad').exists()
    server.files['/a'], server.breaks = BODY, [1000, 0, 0, 0]
    with pytest.raises(CourseError, match='broke off'): keeper.fetch('a.bin', downloader=resuming)
    server.asked.clear()
    assert open(keeper.fetch('a.bin', downloader=resuming), 'rb').read() == BODY and server.ranges_asked == ['bytes=1000-']


def test_with_pooch_without_a_known_hash(server, tmp_path):
    path = pooch.retrieve(server.url('a', BODY), known_hash=None, path=tmp_path, fname='a', downloader=resuming)
    assert open(path, 'rb').read() == BODY


# Archives

def tar(path, *members, mode='w:gz'):
    "Write a tar archive of (name, content, changes to its TarInfo)"
    with tarfile.open(path, mode) as t:
        for name, content, *changes in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in (changes[0] if changes else {}).items(): setattr(info, key, value)
            t.addfile(info, io.BytesIO(content))
    return path


def zipped(path, *members):
    "Write a zip archive of (name, content, changes to its ZipInfo)"
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
        for name, content, *changes in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in (changes[0] if changes else {}).items(): setattr(info, key, value)
            z.writestr(info, content)
    return path


def refused(archive, to, words):
    "The archive is refused with these words, and nothing is left of it, here or outside"
    before = {p for p in to.parent.parent.rglob('*')}
    with pytest.raises(CourseError, match=words) as e: unpack(archive, to)
    assert str(archive) in str(e.value) and {p for p in to.parent.parent.rglob('*')} == before


@pytest.fixture
def out(tmp_path):
    (tmp_path/'in').mkdir()
    return tmp_path/'in'/'out'


NAMES = {'../x': 'leads out', 'a/../../x': 'leads out', 'a/..': 'leads out', '/x': 'absolute', '//x': 'absolute',
         'a:b.jpg': 'absolute', 'birds/a:b.jpg': 'Windows cannot hold', 'birds/CON.jpg': 'Windows cannot hold', 'end.': 'Windows cannot hold', 'C:\\x': 'absolute', 'c:x': 'absolute', '..\\x': 'leads out', '\\\\server\\x': 'absolute', 'a\\..\\..\\x': 'leads out'}


@pytest.mark.parametrize('name, words', NAMES.items())
@pytest.mark.parametrize('make', [tar, zipped])
def test_paths_that_lead_out(tmp_path, out, name, words, make):
    archive = make(tmp_path/f"a{'.zip' if make is zipped else '.tar.gz'}", ('good.txt', b'good'), (name, b'bad'))
    refused(archive, out, words)


@pytest.mark.parametrize('kind, word', [(tarfile.SYMTYPE, 'link'), (tarfile.LNKTYPE, 'link'), (tarfile.CHRTYPE, 'device'),
                                        (tarfile.BLKTYPE, 'device'), (tarfile.FIFOTYPE, 'device')])
def test_members_of_a_tar_that_are_no_files(tmp_path, out, kind, word):
    refused(tar(tmp_path/'a.tgz', ('good', b'good'), ('bad', b'', {'type': kind, 'linkname': '/etc/passwd'})), out, f"'bad' is a {word}")


def test_a_file_written_through_a_link(tmp_path, out):
    link = ('a', b'', {'type': tarfile.SYMTYPE, 'linkname': str(tmp_path)})
    refused(tar(tmp_path/'a.tar.gz', link, ('a/x', b'bad')), out, "'a' is a link")


@pytest.mark.parametrize('mode, word', [(stat.S_IFLNK, 'link'), (stat.S_IFIFO, 'device'), (stat.S_IFCHR, 'device')])
def test_members_of_a_zip_that_are_no_files(tmp_path, out, mode, word):
    refused(zipped(tmp_path/'a.zip', ('bad', b'/etc/passwd', {'external_attr': (mode | 0o777) << 16})), out, f"'bad' is a {word}")


def test_bombs(tmp_path, out):
    zeros = bytes(30_000_000)
    refused(tar(tmp_path/'a.tar.gz', ('zeros', zeros)), out, 'it is a bomb')
    refused(zipped(tmp_path/'a.zip', ('zeros', zeros)), out, 'it is a bomb')
    header = {'pax_headers': {'comment': 'x' * 20_000_000}} # hidden in a header
    refused(tar(tmp_path/'b.tar.gz', ('a', b'', header)), out, 'it is a bomb')


def test_limits(tmp_path, out):
    archive = tar(tmp_path/'a.tar.gz', *[(f'{i}', os.urandom(1000)) for i in range(20)])
    with pytest.raises(CourseError, match='more than 5,000 bytes'): unpack(archive, out, most_bytes=5000)
    with pytest.raises(CourseError, match='more than 10 files'): unpack(archive, out, most_files=10)
    assert not out.exists() and len(unpack(archive, out)) == 20


def test_a_zip_whose_table_lies_about_sizes(tmp_path, out):
    path = zipped(tmp_path/'a.zip', ('zeros', bytes(1_000_000)))
    data = path.read_bytes().replace((1_000_000).to_bytes(4, 'little'), (10).to_bytes(4, 'little'))
    path.write_bytes(data)
    refused(path, out, 'truncated or damaged')


@pytest.mark.parametrize('make, name', [(tar, 'a.tar.gz'), (zipped, 'a.zip')])
def test_truncated_anywhere(tmp_path, out, make, name):
    whole = make(tmp_path/name, ('a.txt', os.urandom(3000)), ('b/c.txt', os.urandom(3000))).read_bytes()
    cut = tmp_path/f'cut-{name}'
    for n in (0, 1, 5, 20, 300, 1500, 3300, len(whole) - 30, len(whole) - 9, len(whole) - 4, len(whole) - 1):
        cut.write_bytes(whole[:n])
        refused(cut, out, 'truncated|damaged')


@pytest.mark.parametrize('make, name', [(tar, 'a.tar.gz'), (zipped, 'a.zip')])
def test_altered_anywhere(tmp_path, out, make, name):
    "One flipped byte in the contents is noticed by the check sum"
    whole = make(tmp_path/name, ('a.txt', os.urandom(3000)), ('b/c.txt', os.urandom(3000))).read_bytes()
    for n in (200, 1000, 2500):
        (tmp_path/f'x-{name}').write_bytes(whole[:n] + bytes([whole[n] ^ 255]) + whole[n + 1:])
        refused(tmp_path/f'x-{name}', out, 'truncated|damaged')


@pytest.mark.parametrize('name', ['a.tar.gz', 'a.tgz', 'a.zip'])
def test_no_archive_at_all(tmp_path, out, name):
    (tmp_path/name).write_bytes(b'just a text ' * 100)
    refused(tmp_path/name, out, 'damaged')
    with pytest.raises(CourseError, match='no archive'): unpack(tmp_path/f'none-{name}', out)


@pytest.mark.parametrize('name', ['a.rar', 'a.tar', 'a.gz', 'a'])
def test_unknown_kinds(tmp_path, out, name):
    (tmp_path/name).touch()
    refused(tmp_path/name, out, 'it opens .tar.gz, .tgz and .zip')


@pytest.mark.filterwarnings('ignore:Duplicate name')
@pytest.mark.parametrize('members', [('a', 'a'), ('a/b', 'a'), ('a', 'a/b')])
@pytest.mark.parametrize('make', [tar, zipped])
def test_a_name_that_stands_twice(tmp_path, out, make, members):
    archive = make(tmp_path/('a.zip' if make is zipped else 'a.tgz'), *[(m, m.encode()) for m in members])
    with pytest.raises(CourseError, match='twice|in the way'): unpack(archive, out)
    assert not out.exists() and list(out.parent.iterdir()) == []


def test_a_password(tmp_path, out):
    path = zipped(tmp_path/'a.zip', ('a', b'secret'))
    data = bytearray(path.read_bytes())
    data[6] |= 1 # the flag "encrypted", in the member's header
    data[data.index(b'PK\x01\x02') + 8] |= 1 # and in the table
    path.write_bytes(data)
    refused(path, out, 'encrypted|password')


def test_full_disk_and_ctrl_c_while_unpacking(tmp_path, out, monkeypatch):
    archive = tar(tmp_path/'a.tar.gz', ('a', b'x'), ('b', b'y'))
    for error, expected in ((OSError(28, 'No space left on device'), CourseError), (KeyboardInterrupt(), KeyboardInterrupt)):
        def fail(src, to, name, meter):
            to.write_bytes(b'half')
            if name == 'b': raise error
        monkeypatch.setattr(fetch, '_write', fail)
        with pytest.raises(expected): unpack(archive, out)
        assert list(out.parent.iterdir()) == []


def test_ordinary_archives(tmp_path, out):
    members = [('./', b'', {'type': tarfile.DIRTYPE}), ('./birds/', b'', {'type': tarfile.DIRTYPE}),
               ('./birds/Zaunkönig 🐦.jpg', b'1', {'mode': 0o4777}), ('birds/empty', b''), ('x' * 120 + '/' + 'y' * 120, b'long names')]
    files = unpack(tar(tmp_path/'a.tar.gz', *members), out)
    assert files == sorted(files) and len(files) == 3 and (out/'birds'/'Zaunkönig 🐦.jpg').read_bytes() == b'1'
    mode = (out/'birds'/'Zaunkönig 🐦.jpg').stat().st_mode
    assert os.name == 'nt' or not mode & (stat.S_ISUID | stat.S_IXUSR) # nothing becomes a program
    assert len(unpack(zipped(tmp_path/'A.ZIP', ('birds/', b''), ('birds/Zaunkönig 🐦.jpg', b'1')), tmp_path/'zip')) == 1
