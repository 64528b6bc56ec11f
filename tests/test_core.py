"""Lesson 0's tools where a notebook cannot show them"""
import random

import numpy as np
import pytest
import torch

from topdown.core import device, picture, set_seed, show_images, split
from topdown.settings import CourseError


def test_device_prefers_what_works():
    assert device(works=lambda name: None, candidates=lambda: ['cpu']).type == 'cpu'
    with pytest.warns(UserWarning, match='cuda is there but does not work.*driver too old'):
        assert device(works=lambda name: 'driver too old' if name == 'cuda' else None, candidates=lambda: ['cuda', 'cpu']).type == 'cpu'


def test_the_real_operation_names_its_cause():
    from topdown.core import _works
    assert _works('cpu') is None
    assert 'Error' in _works('cuda:99')


@pytest.mark.skipif(torch.cuda.is_available(), reason='the graphics card here works')
def test_a_card_that_says_it_is_there_and_fails_is_taken_out_of_play(monkeypatch):
    from fastai.torch_core import default_device
    monkeypatch.setenv('KAGGLE_KERNEL_RUN_TYPE', 'Interactive')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)   # as a P100 on Kaggle says
    with pytest.warns(UserWarning, match='cuda is there but does not work.*choose GPU T4'): assert device().type == 'cpu'
    assert not torch.cuda.is_available() and default_device().type == 'cpu'


def test_set_seed_sets_all_three():
    def draw(): return random.random(), np.random.rand(), torch.rand(1).item()
    set_seed(3); first = draw()
    set_seed(3); assert draw() == first
    assert len(set(first)) == 3


@pytest.mark.parametrize('n', [2, 7, 5, 100, 1005])
@pytest.mark.parametrize('seed', [0, 42])
def test_split_is_fastais(n, seed):
    from fastai.data.transforms import RandomSplitter
    if int(0.2*n) == 0:
        with pytest.raises(CourseError, match='empty'): split(range(n), seed=seed)
        return
    theirs = RandomSplitter(0.2, seed=seed)(range(n))
    assert list(split(range(n), seed=seed)) == [list(map(int, part)) for part in theirs]


def test_split_leaves_the_global_dice_alone():
    torch.manual_seed(5); want = torch.rand(1)
    torch.manual_seed(5); split(range(10)); assert torch.equal(torch.rand(1), want)


def test_show_images_says_what_is_wrong():
    with pytest.raises(CourseError, match='no images'): show_images([])
    with pytest.raises(CourseError, match='2 images and 1 titles'): show_images([np.zeros((4, 4))]*2, ['a'])
    with pytest.raises(CourseError, match='alt text'): picture(' ')


def test_alt_text_is_escaped():
    im = show_images([np.zeros((4, 4, 3))], alt='a "quoted" <b>')
    assert 'alt="a &quot;quoted&quot; &lt;b&gt;"' in im._repr_html_() and 'src="data:image/' in im._repr_html_()
