"""What a server must survive: damaged photos, files that only look like photos, forms and requests that break the rules

Used by test_serve.py (a few hundred) and by benchmarks/fuzz.py (ten thousand). The same seed gives the same uploads.
"""
import io
import json
import random
import socket
import struct
import time
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import lru_cache

HUGE = 200_000_000 # bytes
SCRIPT = b'<script>fetch("http://127.0.0.1/?"+document.cookie)</script>'
NAMES = [
    '../../../etc/passwd', '..\\..\\windows\\win.ini', '/etc/shadow', 'C:\\boot.ini', 'file:///etc/passwd', '%2e%2e%2fetc%2fpasswd',
    '~/.ssh/id_rsa', 'a\0.jpg', 'x'*5000 + '.jpg', '🐦'*200 + '.png', '\u202egpj.exe', 'con', '.', '..', '', '"', '\\', 'a\r\nX-Evil: 1',
    '$(reboot).jpg', '; rm -rf ~;.jpg', "'; drop table photos;--", '<script>alert(1)</script>.png']


@dataclass
class Upload:
    kind: str # what is wrong with it
    body: bytes
    headers: dict = field(default_factory=dict)
    raw: bytes | None = None # the whole request instead, word for word
    huge: int = 0 # so many bytes more are sent after the body
    stop: int | None = None # hang up after so many bytes
    expect: tuple = () # the only statuses that are right; by default 200 and what refuses


def saved(im, kind, **kw):
    out = io.BytesIO()
    im.save(out, kind, **kw)
    return out.getvalue()


@lru_cache
def photos():
    "Small whole photos in every format and mode that a visitor may send"
    from PIL import Image
    grey = Image.frombytes('L', (96, 72), random.Random(0).randbytes(96*72))
    im = Image.merge('RGB', (grey, grey.rotate(90).resize((96, 72)), grey.transpose(Image.Transpose.FLIP_TOP_BOTTOM)))
    clear, turned = im.copy(), Image.Exif()
    clear.putalpha(grey)
    turned[0x0112] = 6
    moving = dict(save_all=True, append_images=[im.rotate(a) for a in range(0, 90, 15)])
    how = {'jpeg': (im, 'JPEG', {}), 'progressive': (im, 'JPEG', {'progressive': True}), 'grey': (grey, 'JPEG', {}),
           'cmyk': (im.convert('CMYK'), 'JPEG', {}), 'turned': (im, 'JPEG', {'exif': turned}), 'png': (im, 'PNG', {}),
           'clear': (clear, 'PNG', {}), 'palette': (im.quantize(16), 'PNG', {'transparency': 3}),
           'deep': (grey.convert('I;16'), 'PNG', {}), 'bits': (grey.convert('1'), 'PNG', {}), 'moving png': (im, 'PNG', moving),
           'gif': (im, 'GIF', {}), 'moving gif': (im, 'GIF', moving), 'bmp': (im, 'BMP', {}), 'bmp of bits': (grey.convert('1'), 'BMP', {}),
           'webp': (im, 'WEBP', {}), 'lossless': (clear, 'WEBP', {'lossless': True}), 'moving webp': (im, 'WEBP', moving)}
    return {name: saved(im, kind, **kw) for name, (im, kind, kw) in how.items()}


def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png(width, height, data=b'', extra=b'', bits=8, colours=2):
    "A PNG that claims a size, with the image data and further chunks given"
    head = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, bits, colours, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + head + extra + chunk(b'IDAT', data) + chunk(b'IEND', b'')


@lru_cache
def bomb(megabytes):
    "A few kilobytes that unpack to many megabytes of zeros"
    press = zlib.compressobj(9)
    return b''.join([*(press.compress(bytes(1_000_000)) for _ in range(megabytes)), press.flush()])


@lru_cache
def large(kind):
    "Whole pictures of 49 megapixels, all of one colour, in a small file"
    from PIL import Image
    modes = {'JPEG': 'RGB', 'PNG': 'RGBA', 'WEBP': 'RGBA', 'GIF': 'P', 'deep': 'I;16'}
    how = {'WEBP': {'lossless': True, 'method': 0}, 'GIF': {'transparency': 0}}
    return saved(Image.new(modes[kind], (7000, 7000)), 'PNG' if kind == 'deep' else kind, **how.get(kind, {}))


def form(body, name=b'photo.jpg', field=b'file', edge=b'edge'):
    "A photo in a form, as a browser sends it"
    head = b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\nContent-Type: image/jpeg\r\n\r\n' % (edge, field, name)
    return head + body + b'\r\n--%s--\r\n' % edge


def form_upload(kind, body, edge='edge', **kw): return Upload(kind, body, {'Content-Type': f'multipart/form-data; boundary={edge}'}, **kw)


# Each of the following makes one kind of upload out of a random number generator

def any_photo(r): return r.choice(sorted(photos().items()))[1]


def whole(r): return Upload('whole', any_photo(r), expect=(200,))
def in_a_form(r): return form_upload('in a form', form(any_photo(r)), expect=(200,))


def cut(r):
    body = any_photo(r)
    return Upload('cut', body[:r.randrange(1, len(body))])


def bits(r):
    body = bytearray(any_photo(r))
    for _ in range(r.choice([1, 3, 10, 100])): body[r.randrange(len(body))] ^= 1 << r.randrange(8)
    return Upload('bits flipped', bytes(body))


def head_bits(r):
    body = bytearray(any_photo(r))
    for _ in range(r.choice([1, 2, 5])): body[r.randrange(min(64, len(body)))] = r.choice([0, 1, 127, 128, 255, r.randrange(256)])
    return Upload('head changed', bytes(body))


def shuffled(r):
    body = bytearray(any_photo(r))
    at, n = r.randrange(len(body)), r.choice([8, 64, 512])
    part = list(body[at:at + n])
    r.shuffle(part)
    body[at:at + n] = bytes(part)
    return Upload('bytes shuffled', bytes(body))


def spliced(r):
    a, b = any_photo(r), any_photo(r)
    return Upload('spliced', a[:r.randrange(len(a))] + b[r.randrange(len(b)):])


def repeated(r):
    body = any_photo(r)
    at, n = r.randrange(len(body)), r.randrange(1, 200)
    return Upload('piece repeated', body[:at] + body[at:at + n]*r.choice([2, 50, 2000]) + body[at:])


def noise(r):
    start = r.choice([b'', b'\xff\xd8\xff\xe0', b'\x89PNG\r\n\x1a\n', b'GIF89a', b'BM', b'RIFF\x00\x01\x00\x00WEBPVP8 '])
    return Upload('noise', start + r.randbytes(r.choice([1, 10, 1000, 50_000])))


def polyglot(r):
    z = io.BytesIO()
    with zipfile.ZipFile(z, 'w') as f: f.writestr('../../evil.py', 'print(1)')
    tail = r.choice([SCRIPT, z.getvalue(), b'<?php system($_GET[0]); ?>', b'%PDF-1.4\n', b'#!/bin/sh\nreboot\n', photos()['png']])
    return Upload('polyglot', r.choice([any_photo(r) + tail, tail + any_photo(r), b'GIF89a/*' + any_photo(r) + b'*/=1;' + SCRIPT]))


def png_bomb(r):
    side = r.choice([50_000, 100_000, 2**31 - 1, 7000])
    height, data = r.choice([side, 1, 7000]), bomb(r.choice([10, 100]))
    return Upload('PNG bomb', png(side, height, data, bits=r.choice([1, 8, 16]), colours=r.choice([0, 2, 6, 3])))


def zip_bomb(r):
    kind = r.choice([b'zTXt', b'iTXt', b'iCCP'])
    pressed = bomb(r.choice([10, 200]))
    data = {b'zTXt': b'note\0\0', b'iTXt': b'note\0\1\0en\0note\0', b'iCCP': b'profile\0\0'}[kind] + pressed
    good = zlib.compress((b'\0' + bytes(30))*10)
    return Upload('zip bomb in a PNG', png(10, 10, good, chunk(kind, data)*r.choice([1, 5])))


def absurd(r):
    w, h = r.choice([(65535, 65535), (65535, 1), (0, 0), (1, 0), (7001, 7200), (40_000, 40_000)])
    gif, bmp, webp, jpeg = (bytearray(photos()[name]) for name in ('gif', 'bmp', 'moving webp', 'jpeg'))
    small = struct.pack('<HH', w, h)
    signed = struct.pack('<ii', r.choice([w, -w, 2**31 - 1]), r.choice([h, -h, -2**31]))
    head = struct.pack('<IIiiHHIIiiII', 54, 40, w, h, 1, r.choice([1, 8, 24, 32]), r.choice([0, 1, 2]), 0, 0, 0, 0, 0)
    sides = b''.join(struct.pack('<I', max(o - 1, 0))[:3] for o in (w, h))
    at = jpeg.find(b'\xff\xc0')
    jpeg[at + 5:at + 9] = struct.pack('>HH', h, w)
    return Upload('absurd size', bytes(r.choice([
        b'GIF89a' + small + gif[10:], b'GIF89a\x01\0\x01\0\0\0\0,\0\0\0\0' + small + b'\0\x02\x02\x44\x01\0;', bmp[:18] + signed + bmp[26:],
        b'BM' + bytes(8) + head + bytes(99), webp[:12] + b'VP8X' + struct.pack('<I', 10) + b'\x12\0\0\0' + sides + webp[30:], jpeg])))


def many_frames(r):
    gif = b'GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff' + b',\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0'*r.choice([1000, 100_000]) + b';'
    frames = chunk(b'acTL', struct.pack('>II', r.choice([0, 2**31 - 1, 4_000_000_000]), 0))
    return Upload('many frames', r.choice([gif, png(10, 10, zlib.compress((b'\0' + bytes(30))*10), frames)]))


def large_picture(r): return Upload('very large picture', large(r.choice(['PNG', 'WEBP', 'GIF', 'JPEG', 'deep'])), expect=(200, 429))


def bad_notes(r):
    exif = b'Exif\0\0' + r.choice([b'II*\0\x08\0\0\0', b'MM\0*\0\0\0\x08']) + r.randbytes(r.choice([6, 200]))
    jpeg = photos()['jpeg']
    return Upload('bad notes', jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + jpeg[2:])


@lru_cache
def other_files():
    "Files that are no photos of the five formats, some of them dangerous in other hands"
    from PIL import Image
    z, tiny = io.BytesIO(), Image.new('RGB', (20, 20), 'red')
    with zipfile.ZipFile(z, 'w', zipfile.ZIP_DEFLATED) as f: f.writestr('zeros', bytes(1_000_000))
    return [
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" onload="alert(1)">' + SCRIPT + b'</svg>',
        b'<!doctype html>' + SCRIPT, b'%PDF-1.7\n1 0 obj',
        b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n%%EOF', z.getvalue(), b'plain text',
        b'{"photo": "bird"}',
        b'\x80\x04\x95\x0f\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.', b'\0\0\0\x18ftypmp42' + bytes(99),
        b'\x7fELF' + bytes(99), *(saved(tiny, k) for k in ('TIFF', 'ICO', 'PPM', 'TGA', 'PCX', 'PDF', 'JPEG2000', 'SGI', 'ICNS', 'DDS'))]


def other_file(r):
    said = r.choice(['image/jpeg', 'image/svg+xml', 'text/html', 'video/mp4', ''])
    return Upload('other file', r.choice(other_files()), {'Content-Type': said}, expect=(400,))


def wrong_type(r):
    said = r.choice(['text/html', 'application/json', 'application/x-www-form-urlencoded', 'video/mp4', 'x'*3000, 'multipart', ''])
    return Upload('wrong type said', any_photo(r), {'Content-Type': said}, expect=(200,))


def empty(r):
    if r.random() < .25: return form_upload('empty', form(b''), expect=(400,))
    return Upload('empty', r.choice([b'', b'\0', b'\n'*1000]), expect=(400,))


def huge(r):
    how = r.choice(['said', 'sent', 'chunked'])
    head = b'POST /predict HTTP/1.1\r\nHost: x\r\n'
    if how == 'said': return Upload('huge', b'', raw=head + b'Content-Length: %d\r\n\r\n' % r.choice([HUGE, 10**15]), expect=(413,))
    if how == 'sent': return Upload('huge', b'', raw=head + b'Content-Length: %d\r\n\r\n' % HUGE, huge=HUGE, expect=(413,))
    return Upload('huge', b'', raw=head + b'Transfer-Encoding: chunked\r\n\r\n' + b'%x\r\n' % HUGE, huge=HUGE, expect=(413,))


def bad_name(r):
    name = r.choice(NAMES).encode('utf-8', 'replace')
    return form_upload('bad name', form(any_photo(r), name), expect=() if b'\r' in name else (200,))


def broken_form(r):
    "Some of these may be understood after all; those that must not be expect a 400"
    body, good, start, end = any_photo(r), form(any_photo(r)), b'--edge\r\n', b'\r\n--edge--'
    may = [good[:r.randrange(len(good))], good.replace(b'\r\n', b'\n'), form(body)*50, form(form(body)), r.randbytes(5000),
           start + b'Content-Disposition: form-data; name="file' + r.randbytes(200) + b'\r\n\r\n' + body + end]
    must_not = [start*5000, form(body, field=r.choice([b'photo', b'', b'file2', b'../file', b'FILE[]'])), b'--edge--\r\n', body,
                start + b'X: ' + b'y'*r.choice([20_000, 1_000_000]) + b'\r\n\r\n' + body + end]
    edges = [Upload('broken form', good, {'Content-Type': 'multipart/form-data'}, expect=(400,))]
    edges += [form_upload('broken form', good, edge=e, expect=(400,)) for e in ('other', '"' + 'e'*300 + '"')]
    edges += [form_upload('broken form', o, expect=(400,)) for o in must_not]
    return r.choice([form_upload('broken form', o) for o in may] + edges)


def broken_request(r):
    body, line = any_photo(r), b'POST /predict HTTP/1.1\r\nHost: x\r\n'
    n = b'Content-Length: %d\r\n' % len(body)
    return Upload('broken request', b'', raw=r.choice([
        line + b'Content-Length: -5\r\n\r\n' + body, line + b'Content-Length: 5\r\nContent-Length: 6\r\n\r\n' + body,
        line + b'Content-Length: abc\r\n\r\n' + body, line + n + b'Transfer-Encoding: chunked\r\n\r\n' + body,
        line + b'Transfer-Encoding: chunked\r\n\r\nzz\r\n' + body, line + b'X: ' + b'y'*100_000 + b'\r\n\r\n',
        r.randbytes(300) + b'\r\n\r\n', b'POST /predict HTTP/9.9\r\n\r\n', b'GET ' + b'/'*70_000 + b' HTTP/1.1\r\n\r\n',
        line + b'\xff\xfe: 1\r\nContent-Length: 0\r\n\r\n',
        b'POST http://127.0.0.1/predict HTTP/1.1\r\nContent-Length: 0\r\nHost: x\r\n\r\n',
        line + b'Expect: 100-continue\r\n' + n + b'\r\n' + body]))


def other_address(r):
    path = r.choice(['/../../etc/passwd', '/%2e%2e/%2e%2e/etc/passwd', '/predict/', '/predict/../healthz', '/?file=../../etc/passwd',
                     '/%00', '/\\..\\', '//example.com/', '/predict?' + 'a=b&'*2000])
    method = r.choice(['GET', 'PUT', 'DELETE', 'OPTIONS', 'TRACE', 'HEAD', 'BREW'])
    raw = f'{method} {path} HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n'.encode('latin-1')
    return Upload('other address', b'', raw=raw, expect=(200, 400, 404, 405))


def hangs_up(r):
    body = any_photo(r)
    return Upload('hangs up', body, stop=r.randrange(1, len(body) + 100))


COMMON = [whole, in_a_form, cut, bits, head_bits, shuffled, spliced, repeated, noise, polyglot, png_bomb, zip_bomb, absurd, bad_notes,
          other_file, wrong_type, empty, bad_name, broken_form, broken_request, other_address, hangs_up]
RARE = [many_frames, large_picture, huge] # these take seconds, or many bytes


def uploads(n, seed=0, rare=100):
    "n uploads: every kind in turn, and one of the rare kinds each `rare` times"
    for i in range(n):
        r = random.Random(seed*1_000_003 + i)
        yield RARE[i//rare % len(RARE)](r) if rare and i % rare == rare - 1 else COMMON[i % len(COMMON)](r)


# ---- sending

def as_request(u):
    "The bytes of an upload's request"
    if u.raw is not None: return u.raw
    head = {'Host': 'x', 'Content-Type': 'image/jpeg', 'Content-Length': str(len(u.body))} | u.headers
    return b'POST /predict HTTP/1.1\r\n' + ''.join(f'{k}: {v}\r\n' for k, v in head.items() if v).encode('utf-8') + b'\r\n' + u.body


def is_whole(data, at, head, no_body):
    "Has all of a reply arrived whose head ends at `at`?"
    if no_body: return True
    if 'content-length' in head: return len(data) - at - 4 >= int(head['content-length'])
    return 'chunked' in head.get('transfer-encoding', '') and data.endswith(b'0\r\n\r\n')


def reply(s, patience=60, no_body=False):
    "Status, headers and content of the reply; status 0 if the server hung up without one"
    data, end = b'', time.monotonic() + patience
    while True:
        at = data.find(b'\r\n\r\n')
        if at > 0 and data.startswith(b'HTTP/1.1 100'): data = data[at + 4:]; continue
        head = dict(line.lower().split(': ', 1) for line in data[:max(at, 0)].decode('latin-1').split('\r\n')[1:] if ': ' in line)
        if at > 0 and is_whole(data, at, head, no_body): return int(data[9:12]), head, data[at + 4:]
        s.settimeout(max(.01, end - time.monotonic()))
        try: piece = s.recv(65536)
        except ConnectionError: piece = b''
        if not piece: return (int(data[9:12]), head, data[at + 4:]) if at > 0 else (0, {}, b'')
        data += piece


def message_of(status, head, content):
    "What a reply says to its reader"
    if status == 0: return 'no reply'
    if not content: return 'a reply without content'
    if 'json' not in head.get('content-type', ''): return content.decode('utf-8', 'replace')[:80]
    said = json.loads(content)
    return said.get('error') or ('a prediction' if 'answer' in said else 'a report')


def send(port, u, patience=60):
    "Send an upload over a connection of its own: status (0: none came), message, seconds; TimeoutError if the server hangs"
    start, request = time.monotonic(), as_request(u)
    with socket.create_connection(('127.0.0.1', port), timeout=patience) as s:
        try:
            s.sendall(request[:u.stop])
            if u.stop is not None: return 0, 'hung up', time.monotonic() - start
            left, block = u.huge, bytes(1 << 18)
            while left > 0:
                s.sendall(block[:left])
                left -= len(block)
        except (BrokenPipeError, ConnectionResetError): pass # the server has had enough; its answer may be there
        found = reply(s, patience, request.startswith(b'HEAD'))
    return found[0], message_of(*found), time.monotonic() - start


def wrong(u, status):
    "Why a status is not right for an upload, or None"
    if u.stop is not None: return None
    if status >= 500 or status == 0: return f'{u.kind}: {status or "no reply"}'
    if u.expect and status not in (*u.expect, 429): return f'{u.kind}: {status} in place of {u.expect}'
