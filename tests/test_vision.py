"""What lesson 1 does with odd, broken and hostile photos, and when the web fails"""
import errno
import io
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from topdown.data import get
from topdown.settings import CourseError
from topdown.vision import (PhotoClassifier, bird_or_other, check_photos, download_photos, load_photos, network, open_photo, photo_button, pixel_inspector,
                            region_means, search_photos, worst_mistakes)


@pytest.fixture
def picture():
    "A picture with a red left and a blue right half"
    a = np.zeros((40, 60, 3), 'uint8')
    a[:, :30, 0], a[:, 30:, 2] = 200, 200
    return Image.fromarray(a)


def is_red_then_blue(im):
    a = np.asarray(im).astype(int)
    return im.mode == 'RGB' and a[20, 5, 0] > 150 > a[20, 5, 2] and a[20, -5, 2] > 150 > a[20, -5, 0]


def saved(im, path, **kw):
    im.save(path, **kw)
    return path


@pytest.mark.parametrize('mode', ['CMYK', 'P', 'RGBA', 'RGB'])
def test_modes(picture, tmp_path, mode):
    ending = 'jpg' if mode in ('CMYK', 'RGB') else 'png'
    assert is_red_then_blue(open_photo(saved(picture.convert(mode), tmp_path/f'x.{ending}', **({'quality': 95} if ending == 'jpg' else {}))))


def test_transparency_becomes_white(tmp_path):
    im = open_photo(saved(Image.new('RGBA', (8, 8), (255, 0, 0, 0)), tmp_path/'clear.png'))
    assert im.getpixel((4, 4)) == (255, 255, 255)


def test_palette_with_transparency(picture, tmp_path):
    assert is_red_then_blue(open_photo(saved(picture.quantize(16), tmp_path/'p.png', transparency=15)))


def test_sixteen_bits(tmp_path):
    deep = Image.fromarray(np.linspace(0, 65535, 64*64).reshape(64, 64).astype('uint16'))
    a = np.asarray(open_photo(saved(deep, tmp_path/'deep.png')))
    assert a.shape == (64, 64, 3) and a.min() == 0 and a.max() == 255 and abs(int(a[32, 0, 0]) - 128) < 3


def test_animation_gives_its_first_frame(picture, tmp_path):
    other = Image.new('RGB', picture.size, 'green')
    assert is_red_then_blue(open_photo(saved(picture, tmp_path/'moving.gif', save_all=True, append_images=[other, other])))


def test_exif_rotation(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3                                            # stored upside down
    upside_down = picture.rotate(180)
    assert is_red_then_blue(open_photo(saved(upside_down, tmp_path/'turned.jpg', exif=exif, quality=95)))
    exif[0x0112] = 6                                            # stored on its side
    assert open_photo(saved(picture, tmp_path/'side.jpg', exif=exif)).size == (40, 60)


def test_a_size_hint_changes_nothing_but_speed(picture, tmp_path):
    f = saved(picture.resize((1200, 800)), tmp_path/'large.jpg', quality=95)
    assert is_red_then_blue(open_photo(f, 64)) and load_photos([f], 64).shape == (1, 64, 64, 3)


@pytest.mark.parametrize('kind', ['plain', 'large', 'grey', 'CMYK', 'turned', 'png', 'an open picture'])
def test_load_photos_reads_what_pillow_reads(picture, tmp_path, kind):
    "Small JPEGs go another way than all else; the numbers must not tell which"
    noisy = Image.fromarray(np.random.default_rng(0).normal(128, 20, (50, 70, 3)).clip(0, 255).astype('uint8')).resize((140, 100))
    f = tmp_path/('x.png' if kind == 'png' else 'x.jpg')
    if kind == 'turned':
        exif = Image.Exif(); exif[0x0112] = 6
        noisy.save(f, quality=90, exif=exif)
    else: {'large': noisy.resize((700, 500)), 'grey': noisy.convert('L'), 'CMYK': noisy.convert('CMYK')}.get(kind, noisy).save(f)
    source = Image.open(f) if kind == 'an open picture' else f
    got, want = load_photos([source], 64)[0].astype(int), np.asarray(open_photo(f, 64).resize((64, 64), 2)).astype(int)
    assert got.shape == (64, 64, 3) and abs(got - want).max() <= 2


def test_load_photos_turns_a_photo_whose_orientation_stands_far_behind(picture, tmp_path):
    exif = Image.Exif(); exif[0x0112] = 3
    plain = saved(picture.transpose(Image.Transpose.ROTATE_180), tmp_path/'turned.jpg', exif=exif, quality=95)
    data = plain.read_bytes()
    plain.write_bytes(data[:2] + b'\xff\xfe' + struct.pack('>H', 6002) + b' '*6000 + data[2:]) # a long comment comes first
    assert is_red_then_blue(Image.fromarray(load_photos([plain], 40)[0]).resize((60, 40)))


@pytest.mark.parametrize('note', [b'Exif', b'tiff:Orientation="3"'])
def test_load_photos_and_open_photo_agree_on_the_orientation(picture, tmp_path, note):
    "A camera writes it as EXIF, other programs as XMP"
    if note == b'Exif': more = {'exif': Image.Exif()}; more['exif'][0x0112] = 3
    else: more = {'xmp': b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
                         b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" ' + note + b'/></rdf:RDF></x:xmpmeta>'}
    f = saved(picture.transpose(Image.Transpose.ROTATE_180), tmp_path/'turned.jpg', quality=95, **more)
    assert is_red_then_blue(open_photo(f)) and is_red_then_blue(Image.fromarray(load_photos([f], 40)[0]).resize((60, 40)))


def test_a_damaged_note_of_the_camera_is_no_reason_to_refuse_a_photo(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 1
    data = bytearray(saved(picture, tmp_path/'x.jpg', exif=exif, quality=95).read_bytes())
    at = data.index(b'Exif\0\0') + 6
    assert data[at:at + 2] in (b'II', b'MM')
    for i in range(at + 4, at + 24):
        for value in (0, 255):
            bad = bytearray(data)
            bad[i] = value
            assert is_red_then_blue(open_photo(bytes(bad))) or i >= at + 18 # the orientation itself may be another one now


@pytest.mark.parametrize('scale, dtype', [(1, 'float32'), (1.0001, 'float64'), (255, 'float32'), (255.001, 'float64'), (255, 'int64'), (65535, 'uint16'),
                                          (65535, 'int32'), (65535, '>u2'), (255, 'uint8')])
def test_arrays_of_all_kinds(scale, dtype):
    a = np.array([[0, .5, 1]])*scale
    assert np.abs(np.asarray(open_photo(a.astype(dtype)))[0, :, 0].astype(int) - [0, 127, 255]).max() <= 1
    assert np.asarray(open_photo((a*0).astype(dtype))).max() == 0


def test_a_fault_of_the_system_is_not_called_damage(picture, tmp_path, monkeypatch):
    f = saved(picture, tmp_path/'x.png')
    def too_many(*args, **kw): raise OSError(errno.EMFILE, 'Too many open files')
    monkeypatch.setattr(Image, 'open', too_many)
    with pytest.raises(CourseError, match='Too many open files; the fault is not in the photo'): check_photos(tmp_path)


def test_worst_mistakes_names_a_label_that_is_a_number():
    with pytest.raises(CourseError, match='does not know: 2; it knows 0, 1'): worst_mistakes(np.eye(2), [0, 2], [0, 1])


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='a way of POSIX systems')
def test_load_photos_in_a_forked_process(picture, tmp_path):
    f = saved(picture, tmp_path/'x.jpg')
    load_photos([f], 32)
    if not (child := os.fork()): load_photos([f], 32); os._exit(0)
    for _ in range(200):
        if os.waitpid(child, os.WNOHANG)[0]: return
        time.sleep(.05)
    os.kill(child, 9); os.waitpid(child, 0)
    pytest.fail('the threads of the parent do not exist in the child, and it waits for them')


def test_load_photos_names_the_bad_file(picture, tmp_path):
    good, cut, text = saved(picture, tmp_path/'good.jpg'), tmp_path/'cut.jpg', tmp_path/'text.jpg'
    cut.write_bytes(good.read_bytes()[:-300]); text.write_text('no photo')
    for bad, why in ((cut, 'damaged'), (text, 'not an image'), (tmp_path/'none.jpg', 'no such photo')):
        with pytest.raises(CourseError, match=f'{bad.name}.*{why}|{why}.*{bad.name}'): load_photos([good, bad, good], 32)


@pytest.mark.parametrize('name', ['two words.jpg', 'Äußerst schön.jpg', '🐦.jpg'])
def test_names(picture, tmp_path, name):
    folder = tmp_path/'größer 🦉'
    folder.mkdir()
    assert is_red_then_blue(open_photo(saved(picture, folder/name, quality=95)))
    assert len(check_photos(folder).good) == 1


def test_sources(picture, tmp_path):
    f = saved(picture, tmp_path/'x.png')
    for source in (f, str(f), f.read_bytes(), io.BytesIO(f.read_bytes()), picture, np.asarray(picture), np.asarray(picture)/255): assert is_red_then_blue(open_photo(source))


def bomb(path, side=40_000):
    "A PNG of a few hundred bytes that claims side × side pixels"
    def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)) + chunk(b'IDAT', zlib.compress(b'\0'*1000)) + chunk(b'IEND', b''))
    return path


def truncated(im, path):
    buffer = io.BytesIO()
    im.resize((600, 400)).save(buffer, 'JPEG', quality=95)
    path.write_bytes(buffer.getvalue()[:len(buffer.getvalue())//2])
    return path


def test_bad_files_are_named_with_their_cause(picture, tmp_path):
    text = tmp_path/'text.jpg'
    text.write_text('this is no photo')
    empty = tmp_path/'empty.jpg'
    empty.touch()
    for path, why in [(text, 'not an image.*quarantine'), (empty, 'not an image'), (truncated(picture, tmp_path/'cut.jpg'), 'damaged'), (bomb(tmp_path/'bomb.png'), '1,600,000,000 pixels, over the limit'),
                      (bomb(tmp_path/'large.png', 12_000), '12,000 × 12,000 pixels, over the limit'), (tmp_path, 'is a folder'), (tmp_path/'none.jpg', 'no such photo')]:
        with pytest.raises(CourseError, match=why) as e: open_photo(path)
        assert str(path) in str(e.value)


def test_check_and_quarantine_lose_nothing(picture, tmp_path, home):
    folder = tmp_path/'set'
    (folder/'a').mkdir(parents=True)
    saved(picture, folder/'a'/'good.png')
    saved(picture, folder/'a'/'same pixels.bmp')
    truncated(picture, folder/'a'/'cut.jpg')
    bomb(folder/'bomb.png')
    (folder/'notes.txt').write_text('left alone')
    before = {f.relative_to(folder): f.read_bytes() for f in folder.rglob('*') if f.is_file()}
    check = check_photos(folder)
    assert (len(check.good), len(check.broken), len(check.duplicates)) == (1, 2, 1)
    moved = check.quarantine()
    assert sorted(f.name for f in folder.rglob('*') if f.is_file()) == ['good.png', 'notes.txt']
    assert check_photos(folder).quarantine() is None
    from topdown.store import put_back
    put_back(moved)
    assert {f.relative_to(folder): f.read_bytes() for f in folder.rglob('*') if f.is_file()} == before


def test_two_checks_in_one_second_have_folders_of_their_own(picture, tmp_path, home):
    moved = []
    for name in ('a', 'b'):
        (tmp_path/name/'set').mkdir(parents=True)
        truncated(picture, tmp_path/name/'set'/'cut.jpg')
        moved.append(check_photos(tmp_path/name/'set').quarantine())
    from topdown.store import put_back
    assert put_back(moved[0]) == [tmp_path/'a'/'set'/'cut.jpg'] and not (tmp_path/'b'/'set'/'cut.jpg').exists()


def test_a_photo_that_may_not_be_read_is_not_called_broken(picture, tmp_path, monkeypatch):
    f = saved(picture, tmp_path/'x.png')
    def forbidden(*args, **kw): raise PermissionError(errno.EACCES, 'Permission denied', str(f))
    monkeypatch.setattr(Image, 'open', forbidden)
    with pytest.raises(CourseError, match='may not be read'): check_photos(tmp_path)


@pytest.mark.parametrize('make, why', [(lambda d: d/'none', 'no such folder'), (lambda d: d, 'holds no photos')])
def test_check_of_no_folder_or_an_empty_one(tmp_path, make, why):
    with pytest.raises(CourseError, match=why): check_photos(make(tmp_path))


def test_no_search_on_the_sample_track(capsys):
    def engine(query, n): raise AssertionError('the sample track touched the network')
    assert search_photos('owl', engine=engine) == [] and 'no network' in capsys.readouterr().out


def test_no_search_because_of_a_folder_of_data(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv('TOPDOWN_DATA', str(tmp_path))
    def engine(query, n): raise AssertionError('nobody asked for the network')
    assert search_photos('owl', engine=engine) == [] and 'TOPDOWN_TRACK=real' in capsys.readouterr().out


def test_a_search_without_a_network_says_so(monkeypatch, capsys):
    monkeypatch.setenv('TOPDOWN_TRACK', 'real')
    def engine(query, n): raise ConnectionError('name resolution failed')
    assert search_photos('owl', engine=engine) == []
    said = capsys.readouterr().out
    assert 'name resolution failed' in said and 'own photos' in said


def test_search_keeps_each_address_once(monkeypatch):
    monkeypatch.setenv('TOPDOWN_TRACK', 'real')
    assert search_photos('owl', 2, engine=lambda query, n: ['a', 'a', 'b', 'c']) == ['a', 'b']


def test_download_keeps_photos_and_counts_the_rest(picture, tmp_path, capsys):
    buffer = io.BytesIO()
    picture.resize((3000, 2000)).save(buffer, 'JPEG')
    def fetch(url):
        if url == 'gone': raise ConnectionError('404')
        return {'photo': buffer.getvalue(), 'page': b'<html>'}[url]
    files = download_photos(['photo', 'gone', 'page'], tmp_path/'new'/'owls', fetch=fetch)
    assert [open_photo(f).size for f in files] == [(640, 427)]
    assert '1 of 3 photos saved' in capsys.readouterr().out
    assert download_photos(['photo'], tmp_path/'new'/'owls', fetch=fetch) == files and len(list((tmp_path/'new'/'owls').iterdir())) == 1


def test_download_to_a_full_disk_leaves_no_half_file(picture, tmp_path, monkeypatch):
    buffer = io.BytesIO()
    picture.save(buffer, 'JPEG')
    def full(*args, **kw): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(Image.Image, 'save', full)
    with pytest.raises(CourseError, match='full'): download_photos(['u'], tmp_path/'d', fetch=lambda u: buffer.getvalue())
    assert list((tmp_path/'d').iterdir()) == []


def test_download_stops_at_a_size_limit(monkeypatch):
    import requests

    from topdown.vision import _fetch_bytes

    class Endless:
        def __enter__(self): return self
        def __exit__(self, *args): pass
        def raise_for_status(self): pass
        def iter_content(self, n):
            while True: yield b'x'*n
    monkeypatch.setattr(requests, 'get', lambda *args, **kw: Endless())
    with pytest.raises(CourseError, match='more than'): _fetch_bytes('http://endless', limit=1_000_000)


@pytest.fixture(scope='module')
def birds(): return get('birds', track='sample')


def test_classifier(birds):
    files = birds.files[::8]
    labels = [bird_or_other(f) for f in files]
    model = PhotoClassifier().fit(files, labels)
    for source in (files[0], str(files[0]), files[0].read_bytes(), Image.open(files[0]), np.asarray(Image.open(files[0]))):
        answer = model.predict(source)
        assert set(answer) == {'bird', 'other'} and abs(sum(answer.values()) - 1) < 1e-6 and all(type(p) is float for p in answer.values())
    assert list(answer.values()) == sorted(answer.values(), reverse=True)
    assert model.error_rate(files, labels) < 0.05
    p = model.probabilities(files)
    assert p.shape == (len(files), 2) and np.allclose(p.sum(1), 1)
    with pytest.raises(CourseError, match='owl'): worst_mistakes(p, ['owl']*len(files), model.classes)
    button = photo_button(model)
    button.children[0].notify_change({'name': 'value', 'new': ({'content': b'no photo'},), 'old': (), 'type': 'change', 'owner': button.children[0]})
    assert 'did not work' in button.children[1].value


def test_classifier_mistakes(birds):
    model = PhotoClassifier()
    with pytest.raises(CourseError, match='only one class'): model.fit(birds.files[:3], ['bird']*3)
    with pytest.raises(CourseError, match='3 photos and 2 labels'): model.fit(birds.files[:3], ['bird', 'other'])
    with pytest.raises(CourseError, match='not been trained'): model.predict(birds.files[0])
    with pytest.raises(CourseError, match='no photos'): load_photos([])


def test_torch_features_match_the_plain_network(birds):
    "The fast road is PyTorch's own forward pass, then an average over the picture"
    import torch
    from topdown.vision import Body
    body = Body()
    files = birds.files[:5]
    with torch.no_grad(): want = body.net(body.batch(load_photos(files, body.size))).mean((2, 3))
    got = body.features(files, bs=2)
    assert got.shape == tuple(want.shape) and np.allclose(got, want.numpy(), atol=1e-4)


def test_region_means(picture):
    means = region_means(picture, 2)
    assert means.shape == (2, 2, 3) and np.allclose(means[:, 0], [200, 0, 0]) and np.allclose(means[:, 1], [0, 0, 200])
    with pytest.raises(CourseError, match='cannot be cut'): region_means(picture, 50)


def test_inspector_without_widgets(picture, monkeypatch):
    import sys

    from topdown.core import Picture
    monkeypatch.setitem(sys.modules, 'ipywidgets', None)
    assert isinstance(pixel_inspector(picture), Picture)


def test_unknown_network():
    with pytest.raises(CourseError, match="unknown network 'squeezenet'; known: squeezenet1_1"): network('squeezenet')


def test_bird_or_other(): assert [bird_or_other(Path(f'x/{k}/1.jpg')) for k in ('bird', 'butterfly')] == ['bird', 'other']
