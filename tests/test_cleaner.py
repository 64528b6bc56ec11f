"""Cleaning a set: a list that survives everything, files that move and return, a page that works by clicks and by keys"""
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import topdown.store as store
from topdown.cleaning import Decisions, PhotoCleaner, check_classes, class_folders, cleaning_list
from topdown.data import get
from topdown.settings import CourseError, places
from topdown.store import moved_files, put_back, read_lines

posix = pytest.mark.skipif(os.name == 'nt', reason='signals of POSIX systems')
KINDS = ('bird', 'butterfly', 'forest')


@pytest.fixture
def photos(tmp_path, home):
    "Three classes of four photos, each of its own colour"
    root = tmp_path/'my photos'
    for k, kind in enumerate(KINDS):
        (root/kind).mkdir(parents=True)
        for i in range(4): Image.new('RGB', (40, 30), (60*k + 20, 40*i + 20, 90)).save(root/kind/f'{i}.jpg')
    return root


@pytest.fixture
def decisions(photos): return Decisions(photos.parent/'list.csv', photos)


def tree(root): return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob('*')) if p.is_file()}


def rows(path): return list(csv.reader(path.read_text(encoding='utf-8-sig').splitlines()))[1:]


def cleaner(photos, decisions, page=6, split=None, vanished=None):
    "A `PhotoCleaner` whose model doubts the photos in their order; bird/0.jpg is the least believed"
    files = [photos/kind/f'{i}.jpg' for kind in KINDS for i in range(4)]
    labels = [f.parent.name for f in files]
    p = np.zeros((12, 3))
    for n, label in enumerate(labels):
        right = KINDS.index(label)
        p[n, right], p[n, (right + 1) % 3] = (n + 1)/13, 1 - (n + 1)/13
    if vanished: (photos/vanished).unlink()
    return PhotoCleaner(files, labels, p, KINDS, decisions, split, page)


# The list

def test_every_change_is_in_the_file_at_once(decisions):
    decisions.set('bird/0.jpg', 'relabel', 'forest')
    assert rows(decisions.path) == [['bird/0.jpg', 'relabel', 'forest']]
    decisions.set(decisions.root/'bird'/'1.jpg', 'set aside')
    decisions.set('bird/0.jpg', 'keep')
    assert rows(decisions.path) == [['bird/0.jpg', 'keep', ''], ['bird/1.jpg', 'set aside', '']]
    assert decisions.counts == {'keep': 1, 'relabel': 0, 'set aside': 1}
    decisions.set('bird/0.jpg', None)
    assert decisions.read() == {'bird/1.jpg': ('set aside', '')}


@posix
@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL])
def test_killed_in_the_middle_the_list_is_whole(decisions, how):
    code = """import sys; from topdown.cleaning import Decisions
d = Decisions(sys.argv[1], sys.argv[2])
for round in range(10**6):
    for i in range(12):
        d.set(f"{['bird', 'butterfly', 'forest'][i // 4]}/{i % 4}.jpg", 'set aside' if (round + i) % 2 else 'keep'); print(i + 12*round, flush=True)"""
    p = subprocess.Popen([sys.executable, '-c', code, str(decisions.path), str(decisions.root)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    said = [int(p.stdout.readline()) for _ in range(15)]
    time.sleep(.05)
    p.send_signal(how)
    said += list(map(int, p.communicate(timeout=60)[0].split()))
    listed = Decisions(decisions.path, decisions.root).read()
    last = said[-1]
    assert len(listed) == 12
    for n in range(last - 11, last + 1): # the twelve changes that were confirmed last; the one after them may have arrived, too
        name = f'{KINDS[n % 12 // 4]}/{n % 12 % 4}.jpg'
        expected = 'set aside' if (n//12 + n % 12) % 2 else 'keep'
        assert listed[name][0] == expected or n == last - 11, (name, n, last)
    assert decisions.undo() is not None


def test_killed_between_history_and_list(decisions, monkeypatch):
    decisions.set('bird/0.jpg', 'keep')
    import topdown.cleaning as app
    def die(*args): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(app, '_save', die)
        with pytest.raises(KeyboardInterrupt): decisions.set('bird/0.jpg', 'set aside')
    assert decisions.read() == {'bird/0.jpg': ('keep', '')}
    assert decisions.undo() == 'bird/0.jpg' and decisions.read() == {} and decisions.undo() is None


def test_undo_across_restarts(photos, decisions):
    decisions.set('bird/0.jpg', 'keep')
    decisions.set('bird/1.jpg', 'set aside')
    decisions.set('bird/0.jpg', 'relabel', 'forest')
    undone = []
    for _ in range(4):
        d = Decisions(decisions.path, photos) # a new program
        undone.append((d.undo(), d.read()))
    assert undone == [('bird/0.jpg', {'bird/0.jpg': ('keep', ''), 'bird/1.jpg': ('set aside', '')}),
                      ('bird/1.jpg', {'bird/0.jpg': ('keep', '')}), ('bird/0.jpg', {}), (None, {})]


def test_undo_passes_over_what_was_edited_by_hand(decisions):
    decisions.set('bird/0.jpg', 'keep')
    decisions.set('bird/1.jpg', 'keep')
    decisions.path.write_text(decisions.path.read_text(encoding='utf-8').replace('bird/1.jpg,keep', 'bird/1.jpg,set aside'), encoding='utf-8')
    assert decisions.undo() == 'bird/0.jpg' and decisions.read() == {'bird/1.jpg': ('set aside', '')}


def test_one_undo_for_a_choice_by_arrow_keys(decisions):
    decisions.set('bird/0.jpg', 'keep')
    for choice in [('keep',), ('set aside',), ('relabel', 'forest')]: decisions.set('bird/1.jpg', *choice, again=True)
    assert decisions.undo() == 'bird/1.jpg' and decisions.read() == {'bird/0.jpg': ('keep', '')}
    decisions.set('bird/1.jpg', 'keep', again=True)
    decisions.set('bird/1.jpg', None, again=True) # there and back is no change
    assert decisions.undo() == 'bird/0.jpg'


@pytest.mark.parametrize('text', [
    'photo;decision;label\r\nbird/0.jpg;relabel;forest\r\nbird/1.jpg;set aside;\r\n;;\r\n'.encode('utf-8-sig'),
    'photo,decision,label\r\nbird/0.jpg,relabel,forest\r\nbird/1.jpg,set aside\r\n\r\n'.encode(),
    '"photo"\t"decision"\t"label"\n"bird/0.jpg"\t"relabel"\t"forest"\n"bird/1.jpg"\t"set aside"\t""\n'.encode('utf-16'),
    'Photo , Decision,Label,,\r bird/0.jpg, Relabel , forest,,\rbird\\1.jpg,SET ASIDE,,,\r'.encode()], ids=['semicolon, BOM, CRLF', 'short rows', 'UTF-16, tabs', 'blanks'])
def test_lists_as_spreadsheets_write_them(decisions, text):
    decisions.path.write_bytes(text)
    assert decisions.read() == {'bird/0.jpg': ('relabel', 'forest'), 'bird/1.jpg': ('set aside', '')}
    decisions.set('bird/2.jpg', 'keep')
    assert list(decisions.read())[2] == 'bird/2.jpg'
    mark = next(m for m in ';\t,' if m in text.decode('utf-16' if text[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'))
    assert f'bird/2.jpg{mark}keep{mark}' in decisions.path.read_text(encoding='utf-8-sig'), 'the spreadsheet finds its own separator again'


def test_names_of_all_kinds(photos, decisions):
    names = ['bird/Zaunkönig.jpg', 'bird/a, b; c.jpg', 'bird/say "hi".jpg', 'bird/🐦.jpg', "bird/it's.jpg", 'bird/deep/er.jpg']
    for name in names:
        (photos/name).parent.mkdir(exist_ok=True)
        (photos/name).write_bytes(name.encode())
        decisions.set(photos/name, 'set aside')
    assert list(decisions.read()) == names
    decisions.path.write_bytes('photo;decision;label\r\nbird/Zaunkönig.jpg;keep;'.encode('cp1252')) # as older programs write
    assert list(decisions.read()) == ['bird/Zaunkönig.jpg']


@pytest.mark.parametrize('text, why', [
    ('bird/0.jpg,rename,', "line 2: unknown decision 'rename'; known: relabel"),
    ('bird/0.jpg,,', "line 2: unknown decision ''"),
    ('bird/0.jpg,keep,\nbird/00.jpg,keep,', r"line 3: no photo 'bird/00.jpg' in .*; did you mean 'bird/0.jpg'\?"),
    ('zzz,keep,', "line 2: no photo 'zzz' in .*; correct the name or take the line out"),
    ('../list.csv,keep,', "line 2: no photo '../list.csv'"),
    ('bird,keep,', "line 2: no photo 'bird'"),
    ('bird/0.jpg,relabel,wood', "line 2: unknown class 'wood'; known: .*forest"),
    ('bird/0.jpg,relabel,', 'line 2: relabel needs the new label; known: bird, butterfly, forest'),
    ('bird/0.jpg,keep,forest', "line 2: 'keep' takes no label, found 'forest'; did you mean relabel"),
    ('bird/0.jpg,keep,\n\nbird/0.jpg,set aside,', 'line 4: bird/0.jpg stands in line 2 already'),
    ('bird/0.jpg,keep,,yes', 'line 2: 4 columns instead of 3'),
    ('bird/1.jpg,keep,\n"bird/0.jpg,keep,\n', 'line 3: no row of a CSV file .*quotation mark')])
def test_mistakes_are_named_with_their_line(decisions, text, why):
    decisions.path.write_text('photo,decision,label\n' + text, encoding='utf-8')
    before = decisions.path.read_bytes()
    for do in (decisions.read, decisions.undo, decisions.move, lambda: decisions.set('bird/2.jpg', 'keep'), lambda: decisions.apply([], []),
               lambda: Decisions(decisions.path, decisions.root)):
        with pytest.raises(CourseError, match=f'list.csv, {why}'): do()
    assert decisions.path.read_bytes() == before, 'a list with a mistake is not written over'


def test_other_files_are_no_list(decisions):
    decisions.path.write_text('bird/0.jpg,keep,\n', encoding='utf-8')
    with pytest.raises(CourseError, match='line 1: the columns should be photo,decision,label, found bird/0.jpg,keep'): decisions.read()
    decisions.path.write_bytes(b'PK\x03\x04\x81\x8d\x9d')
    with pytest.raises(CourseError, match='is not a text file; save it as CSV'): decisions.read()
    decisions.path.write_bytes(b'')
    assert decisions.read() == {}


def test_wrong_calls(photos, decisions):
    for args, why in [(('bird/9.jpg', 'keep'), "no photo 'bird/9.jpg'"), (('/elsewhere/0.jpg', 'keep'), 'does not lie in'), (('../list.csv', 'keep'), 'does not lie in'),
                      (('bird/0.jpg', 'rename'), 'unknown decision'), (('bird/0.jpg', 'relabel'), 'needs the new label'),
                      (('bird/0.jpg', 'relabel', 'wood'), 'unknown class'), (('bird/0.jpg', 'keep', 'bird'), 'takes no label')]:
        with pytest.raises(CourseError, match=why): decisions.set(*args)
    assert not decisions.path.exists()
    with pytest.raises(CourseError, match='no folder'): Decisions('x.csv', photos/'nowhere')
    with pytest.raises(CourseError, match='2 photos and 1 labels'): decisions.apply([photos/'bird/0.jpg']*2, ['bird'])


def test_a_full_disk_loses_nothing(decisions, monkeypatch):
    decisions.set('bird/0.jpg', 'keep')
    def no_space(*args): raise OSError(28, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(store.os, 'fsync', no_space)
        with pytest.raises(CourseError, match='the disk is full'): decisions.set('bird/1.jpg', 'keep')
    assert list(decisions.read()) == ['bird/0.jpg'] and decisions.undo() == 'bird/0.jpg'


def test_two_programs_write_one_list(decisions):
    code = """import sys; from topdown.cleaning import Decisions
d = Decisions(sys.argv[1], sys.argv[2])
for i in range(4): d.set(f'{sys.argv[3]}/{i}.jpg', 'keep')"""
    programs = [subprocess.Popen([sys.executable, '-c', code, str(decisions.path), str(decisions.root), kind]) for kind in KINDS]
    assert [p.wait(60) for p in programs] == [0, 0, 0]
    assert len(decisions.read()) == 12 and len(read_lines(decisions.history)[0]) == 12


# Carrying it out

def test_apply_moves_nothing_and_works_for_the_cache():
    birds = get('birds')
    before = {f: f.stat().st_mtime_ns for f in birds.files}
    d = Decisions(cleaning_list(birds), birds.path)
    d.set(birds.files[0], 'set aside')
    d.set(birds.files[1], 'relabel', 'bird')
    d.set(birds.files[2], 'keep')
    files, labels = d.apply(birds.files, [birds.label(f) for f in birds.files])
    assert files == birds.files[1:] and labels[:2] == ['bird', 'airplane']
    assert d.apply(birds.files[1:2], np.array(['airplane'])) == (birds.files[1:2], ['bird']), 'a part of the set, again and again'
    with pytest.raises(CourseError, match=r"lies in the course's cache, whose files are never altered: use apply\(\)"): d.move()
    assert {f: f.stat().st_mtime_ns for f in birds.files} == before
    for f in (d.path, d.history): f.unlink()


def test_move_put_back_and_move_again(photos, decisions):
    before = tree(photos)
    decisions.set('bird/0.jpg', 'set aside')
    decisions.set('bird/1.jpg', 'relabel', 'forest') # forest/1.jpg is there already
    decisions.set('forest/1.jpg', 'relabel', 'bird') # and bird/1.jpg may become free
    decisions.set('forest/2.jpg', 'relabel', 'forest')
    decisions.set('forest/3.jpg', 'keep')
    for _ in range(2):
        moved = decisions.move()
        assert len(moved) == 3 and decisions.move() == [], 'once more, nothing is left to do'
        after = tree(photos)
        assert after['forest/1-2.jpg'] == before['bird/1.jpg'] and after['bird/1-2.jpg'] == before['forest/1.jpg']
        assert sorted(after.values()) + [before['bird/0.jpg']] == sorted(after.values()) + [Path(moved[0]['to']).read_bytes()]
        assert set(after) == set(before) - {'bird/0.jpg', 'bird/1.jpg', 'forest/1.jpg'} | {'forest/1-2.jpg', 'bird/1-2.jpg'}
        assert Path(moved[0]['to']).parent.parent == places()['quarantine']
        old = [photos/n for n in before]
        files, labels = decisions.apply(old, [f.parent.name for f in old])
        assert all(f.is_file() and f.parent.name == label for f, label in zip(files, labels)), 'photos are followed to their new places'
        assert len(put_back(decisions.moved)) == 3 and tree(photos) == before
    assert decisions.counts == {'keep': 1, 'relabel': 3, 'set aside': 1}


def test_a_second_round_and_back_to_the_start(photos, decisions):
    before = tree(photos)
    decisions.set('bird/1.jpg', 'relabel', 'forest')
    decisions.move()
    decisions.set('forest/1-2.jpg', 'set aside')
    decisions.move()
    files = [photos/n for n in before]
    assert photos/'bird/1.jpg' not in decisions.apply(files, files)[0] and len(decisions.apply(files, files)[0]) == 11
    with pytest.raises(CourseError, match='bird/1.jpg has been moved; put_back'): decisions.set('bird/1.jpg', 'keep')
    with pytest.raises(CourseError, match='forest/1-2.jpg has been moved'): decisions.undo()
    put_back(decisions.moved)
    assert tree(photos) == before and decisions.undo() == 'forest/1-2.jpg'


def test_a_new_file_with_an_old_name(photos, decisions):
    decisions.set('bird/0.jpg', 'set aside')
    decisions.move()
    Image.new('RGB', (8, 8)).save(photos/'bird'/'0.jpg')
    with pytest.raises(CourseError, match='bird/0.jpg was moved, and another file has its name now; rename that one'): decisions.apply([], [])
    (photos/'bird'/'0.jpg').rename(photos/'bird'/'new.jpg')
    decisions.set('bird/new.jpg', 'keep')


@posix
def test_move_killed_in_the_middle_is_run_again(photos, decisions):
    before = tree(photos)
    for i in range(3): decisions.set(f'bird/{i}.jpg', 'relabel', 'forest'); decisions.set(f'butterfly/{i}.jpg', 'set aside')
    code = """import os, sys, signal, topdown.store as store; from topdown.cleaning import Decisions
real, seen = store._move, []
def move(src, dst):
    seen.append(src)
    if len(seen) == int(sys.argv[3]): os.kill(os.getpid(), signal.SIGKILL)
    real(src, dst)
store._move = move
Decisions(sys.argv[1], sys.argv[2]).move()"""
    for at in (2, 3, 2): # three times, at different files
        p = subprocess.run([sys.executable, '-c', code, str(decisions.path), str(photos), str(at)])
        assert p.returncode == -signal.SIGKILL
        assert {*before.values()} <= {*tree(photos).values(), *tree(places()['quarantine']).values()}, 'every photo is somewhere'
    decisions.move()
    assert sorted(tree(photos)) == sorted([*(n for n in before if n[:2] in ('fo',) or '3' in n), 'forest/0-2.jpg', 'forest/1-2.jpg', 'forest/2-2.jpg'])
    assert all(tree(photos).values()), 'no empty file is left over'
    assert len(moved_files(decisions.moved)) == 6 and decisions.move() == []
    put_back(decisions.moved)
    assert tree(photos) == before


def test_put_back_after_a_killed_move_leaves_no_empty_file(photos, decisions, monkeypatch):
    before = tree(photos)
    decisions.set('bird/0.jpg', 'relabel', 'forest')
    def die(*args): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(store, '_move', die)
        with pytest.raises(KeyboardInterrupt): decisions.move()
    assert (photos/'forest'/'0-2.jpg').stat().st_size == 0
    put_back(decisions.moved)
    assert tree(photos) == before
    assert len(decisions.move()) == 1


def test_move_from_a_read_only_folder(photos, decisions, monkeypatch):
    before = tree(photos)
    decisions.set('bird/0.jpg', 'set aside')
    with monkeypatch.context() as m:
        m.setattr(store.os, 'access', lambda *args: False) # root may write anywhere, so the refusal is played
        with pytest.raises(CourseError, match='nothing was moved: the folder .*bird is read-only'): decisions.move()
    assert tree(photos) == before and not any(places()['quarantine'].iterdir())


def test_move_passes_over_what_has_vanished(photos, decisions, capsys):
    for i in range(2): decisions.set(f'bird/{i}.jpg', 'set aside')
    (photos/'bird'/'0.jpg').unlink()
    assert [Path(m['from']).name for m in decisions.move()] == ['1.jpg']
    assert 'no longer there: bird/0.jpg' in capsys.readouterr().out


def test_labels_that_are_no_folders(photos):
    d = Decisions(photos.parent/'other.csv', photos, classes=['bird', 'other'])
    d.set('bird/0.jpg', 'relabel', 'other')
    assert d.apply([photos/'bird/0.jpg'], ['bird'])[1] == ['other']
    with pytest.raises(CourseError, match=r"no folder 'other', so bird/0.jpg cannot be moved there; make that folder, or use apply\(\)"): d.move()


def test_lists_of_two_folders_with_one_name(tmp_path, home, photos):
    import shutil
    shutil.copytree(photos, tmp_path/'elsewhere'/photos.name)
    one, two = (cleaning_list(get(p)) for p in (photos, tmp_path/'elsewhere'/photos.name))
    assert one != two and one.parent == two.parent == places()['home']/'cleaning' and one == cleaning_list(get(photos))


# The page

def test_classes_that_do_not_agree(photos, decisions):
    (photos/'empty').mkdir()
    assert class_folders(photos) == [*KINDS]
    check_classes(KINDS[::-1], KINDS)
    with pytest.raises(CourseError, match='the model knows moth, which the folder no longer has. Train the model again'): check_classes([*KINDS, 'moth'], KINDS)
    (photos/'forest').rename(photos/'wood')
    d = Decisions(photos.parent/'later.csv', photos)
    with pytest.raises(CourseError, match='the model knows forest, which the folder no longer has; the folder has wood, which the model does not know'):
        PhotoCleaner([photos/'bird/0.jpg'], ['bird'], np.ones((1, 3))/3, KINDS, d)
    with pytest.raises(CourseError, match="unknown label 'moth'"): PhotoCleaner([photos/'bird/0.jpg'], ['moth'], np.ones((1, 3))/3, KINDS, decisions)
    with pytest.raises(CourseError, match=r'shape \(1, 3\); found 1 labels and the shape \(1, 2\)'): PhotoCleaner([photos/'bird/0.jpg'], ['bird'], np.ones((1, 2)), KINDS, decisions)
    with pytest.raises(CourseError, match='no photos'): PhotoCleaner([], [], np.ones((0, 3)), KINDS, decisions)


def test_least_believed_first_by_label_and_split(photos, decisions):
    c = cleaner(photos, decisions, split=([0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]))
    assert c.order() == c.order('training') == [0, 2, 4, 6, 8, 10] and c.order('validation', 'forest') == [9, 11]
    assert c.loss[0] == pytest.approx(-np.log(1/13)) and c.about(0) == ('bird 8%', 'butterfly 92%')
    with pytest.raises(CourseError, match="unknown part 'valid'; known: validation"): c.order('valid')
    with pytest.raises(CourseError, match="unknown label 'wood'"): c.order(label='wood')


def test_a_certain_error_has_a_finite_loss(photos, decisions):
    c = PhotoCleaner([photos/'bird/0.jpg'], ['bird'], np.array([[0, 1, 0]]), KINDS, decisions)
    assert 20 < c.loss[0] < 30


def test_clicks_are_saved_undone_and_shown_again(photos, decisions):
    c = cleaner(photos, decisions)
    c.widget()
    keep, aside, forest = ('keep', ''), ('set aside', ''), ('relabel', 'forest')
    c.cards[0].choice.value = forest
    assert rows(decisions.path) == [['bird/0.jpg', 'relabel', 'forest']] and 'bird/0.jpg: relabel forest' in c.said.value
    c.cards[1].choice.value = keep
    for value in (keep, aside): c.cards[2].choice.value = value # by arrow keys
    assert '1 keep, 1 relabel, 1 set aside' in c.said.value and str(decisions.path) in c.said.value
    back, on, undo = c.ui.children[3].children
    undo.click()
    assert c.cards[2].choice.value == ('', '') and 'taken back: bird/2.jpg' in c.said.value and len(rows(decisions.path)) == 2
    on.click()
    assert 'Page 2 of 2' in c.said.value and c.cards[0].choice.value == ('', '')
    c.cards[5].choice.value = aside
    on.click()
    assert 'Page 1 of 2' in c.said.value and [card.choice.value for card in c.cards[:2]] == [forest, keep], 'earlier decisions are shown again'
    c.label.value = 'forest'
    assert [card.i for card in c.cards] == [8, 9, 10, 11, None, None] and c.cards[4].box.layout.display == 'none' and c.cards[3].choice.value == aside
    c.cards[3].choice.value = ('', '')
    assert len(rows(decisions.path)) == 2
    again = cleaner(photos, Decisions(decisions.path, photos)) # tomorrow
    again.widget()
    assert [card.choice.value for card in again.cards[:3]] == [forest, keep, ('', '')]
    for _ in range(9): undo.click()
    assert decisions.read() == {} and 'nothing to undo' in c.said.value


def test_words_on_the_page(photos, decisions):
    c = cleaner(photos, decisions)
    c.widget()
    card = c.cards[0]
    assert 'alt="Photo 1, labelled bird"' in card.photo.value and 'src="data:image/jpeg;base64,' in card.photo.value
    assert card.choice.description == '1: label bird 8%, model butterfly 92%'
    assert [text for text, _ in card.choice.options] == ['not decided', 'keep', 'set aside', 'butterfly (new label)', 'forest (new label)']
    assert 'role="status"' in c.said.value


def test_a_list_edited_by_hand_shows_up_and_a_mistake_is_said(photos, decisions):
    c = cleaner(photos, decisions)
    c.widget()
    decisions.path.write_text('photo,decision,label\nbird/0.jpg,relabel,bird\nbird/1.jpg,set aside,\n', encoding='utf-8')
    c.turn(0)
    assert [card.choice.value for card in c.cards[:2]] == [('keep', ''), ('set aside', '')]
    decisions.path.write_text('photo,decision,label\nbird/1.jpg,sett aside,\n', encoding='utf-8')
    c.cards[2].choice.value = ('keep', '')
    assert 'Not saved' in c.said.value and 'line 2: unknown decision' in c.said.value and c.cards[2].choice.value == ('', '')
    assert 'sett aside' in decisions.path.read_text(encoding='utf-8')
    c.turn(0)
    assert 'line 2: unknown decision' in c.said.value


@pytest.mark.parametrize('how', ['vanished', 'damaged'])
def test_a_photo_that_does_not_open_can_be_set_aside(photos, decisions, how):
    if how == 'damaged': (photos/'bird'/'0.jpg').write_bytes((photos/'bird'/'0.jpg').read_bytes()[:60])
    c = cleaner(photos, decisions, vanished='bird/0.jpg' if how == 'vanished' else None)
    c.widget()
    assert 'It does not open' in c.cards[0].photo.value
    c.cards[0].choice.value = ('set aside', '')
    assert Decisions(decisions.path, photos).read() == {'bird/0.jpg': ('set aside', '')}, 'known after a restart, too'
    assert '1 is labelled bird' in c.picture_of([0]).alt
    assert len(c.decisions.apply(c.files, c.labels)[0]) == 11


def test_thumbnails_are_read_page_by_page(photos, decisions, monkeypatch):
    import topdown.cleaning as app
    opened, real = [], app.open_photo
    monkeypatch.setattr(app, 'open_photo', lambda file, *args: opened.append(file) or real(file, *args))
    c = cleaner(photos, decisions, page=4)
    assert opened == []
    c.widget()
    assert len(opened) == 4
    c.turn(1)
    assert len(opened) == 8


def test_the_static_form(photos, decisions, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'ipywidgets', None)
    decisions.set('bird/1.jpg', 'set aside')
    shown = cleaner(photos, decisions)._repr_mimebundle_()
    assert '12 photos with their labels' in shown['text/html'] and decisions.counts == {'keep': 11, 'relabel': 0, 'set aside': 1}
    said = capsys.readouterr().out
    assert str(decisions.path) in said and 'decisions.apply(files, labels)' in said
    assert '3 is labelled bird 8%, the model says butterfly 92%' in shown['text/html'] and '2 is labelled bird 15%' in shown['text/html']
    assert rows(decisions.path)[3 - 2][0] == 'bird/0.jpg', 'the number is the line in the list'
    decisions.path.write_text(decisions.path.read_text(encoding='utf-8').replace('bird/0.jpg,keep,', 'bird/0.jpg,relabel,forest'), encoding='utf-8')
    cleaner(photos, decisions).form(3)
    assert decisions.read()['bird/0.jpg'] == ('relabel', 'forest'), 'a second form leaves decisions as they are'
    assert len(json.dumps(shown)) < 84_000


def test_the_widget_is_what_jupyter_shows(photos, decisions):
    shown = cleaner(photos, decisions)._repr_mimebundle_()
    assert 'application/vnd.jupyter.widget-view+json' in (shown[0] if isinstance(shown, tuple) else shown)
