"""Lesson 3: slopes by nudging against autograd, sliders with and without widgets, and the lesson where widgets are missing"""
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from topdown.descent import numeric_gradient, sliders
from topdown.report import failure_text
from topdown.runner import run_notebook
from topdown.settings import CourseError

LESSON = Path(__file__).resolve().parent.parent/'nbs'/'03_how_a_network_learns.ipynb'


def by_autograd(f, x):
    x = x.detach().double().clone().requires_grad_()
    f(x).backward()
    return x.grad


def agree(got, want, bound=1e-7):
    assert got.shape == want.shape and got.dtype == want.dtype
    assert (got - want).abs().max() <= bound


@pytest.fixture
def dice(): return torch.Generator().manual_seed(3)


FUNCTIONS = {
    'square': lambda w: (w**2).sum(), 'mean of sines': lambda w: w.sin().mean(), 'products': lambda w: (w @ w.T).exp().mean(),
    'log softmax': lambda w: -w.log_softmax(-1)[..., 0].mean(), 'broadcast': lambda w: ((w - w.mean(0, keepdim=True))**2).mean(),
    'hinges': lambda w: (w + 0.3).relu().sum(), 'constant': lambda w: torch.tensor(2.0) + 0*w.sum(),
}


@pytest.mark.parametrize('name', FUNCTIONS)
@pytest.mark.parametrize('shape', [(4, 3), (1, 1), (2, 5)])
def test_nudging_agrees_with_autograd(name, shape, dice):
    w = torch.randn(*shape, generator=dice, dtype=torch.float64)
    agree(numeric_gradient(FUNCTIONS[name], w), by_autograd(FUNCTIONS[name], w))


def test_a_two_layer_network_weight_by_weight(dice):
    x, y = torch.randn(20, 6, generator=dice).double(), torch.randint(0, 4, (20,), generator=dice)
    parts = [torch.randn(*s, generator=dice).double()/2 for s in ((6, 8), (8,), (8, 4), (4,))]
    def loss(*p): return -((x @ p[0] + p[1]).relu() @ p[2] + p[3]).log_softmax(1)[range(20), y].mean()
    for i in range(4):
        of_one = lambda w: loss(*parts[:i], w, *parts[i + 1:])
        agree(numeric_gradient(of_one, parts[i]), by_autograd(of_one, parts[i]))


def test_numbers_arrays_and_tensors():
    slope = numeric_gradient(lambda v: v**3, 2)
    assert type(slope) is float and abs(slope - 12) < 1e-7
    assert type(numeric_gradient(math.sin, np.float32(0))) is float
    a = np.array([1, 2, 3])
    g = numeric_gradient(lambda v: (v**2).sum(), a)
    assert g.shape == (3,) and g.dtype == np.float64 and np.allclose(g, 2*a) and a.tolist() == [1, 2, 3]
    t = torch.tensor([[1., 2.]], requires_grad=True)              # float32
    g = numeric_gradient(lambda v: (v**2).sum(), t)
    agree(g, torch.tensor([[2., 4.]], dtype=torch.float64))
    assert not g.requires_grad and t.grad is None
    assert numeric_gradient(lambda v: v**2, torch.tensor(3.)).shape == ()
    assert numeric_gradient(lambda v: v.sum(), np.zeros((0, 3))).shape == (0, 3)
    assert np.allclose(numeric_gradient(lambda v: v[0]*v[1], [2.0, 5.0]), [5, 2])


def test_a_function_that_scribbles_on_its_argument_does_no_harm():
    def f(w):
        total = float((w**2).sum())
        w *= 0
        return total
    x = np.array([1.0, 2.0])
    assert np.allclose(numeric_gradient(f, x), 2*x) and x.tolist() == [1, 2]


def test_a_smaller_nudge_is_not_always_better():
    errors = [abs(numeric_gradient(math.exp, 1.0, step=s) - math.e) for s in (1e-1, 1e-5, 1e-13)]
    assert errors[1] < 1e-8 < errors[0] and errors[1] < 1e-3*errors[2]


@pytest.mark.parametrize('step', [0, -1e-5, math.nan, math.inf, '1', None, True])
def test_steps_that_are_none(step):
    with pytest.raises(CourseError, match='step should be a number above 0'): numeric_gradient(math.sin, 1.0, step=step)


@pytest.mark.parametrize('x', ['1', None, 1j, np.array(['a']), np.array([1j]), True, torch.tensor([1j])])
def test_what_has_no_slope(x):
    with pytest.raises(CourseError, match='slopes are for a number, an array or a tensor of real numbers'): numeric_gradient(lambda v: 1.0, x)


@pytest.mark.parametrize('result', [[1.0, 2.0], np.zeros(3), torch.zeros(2, 2), None, 'one', 1j])
def test_a_function_that_returns_no_number(result):
    with pytest.raises(CourseError, match='should return one number'): numeric_gradient(lambda v: result, np.ones(2))


def test_results_and_places_that_are_not_finite():
    with pytest.raises(CourseError, match=r'returned nan when entry \(1,\) was nudged'): numeric_gradient(lambda v: v[0] + (math.nan if v[1] > 2 else 0), np.array([1.0, 2.0]))
    with pytest.raises(CourseError, match='lost in rounding, or it is not finite'): numeric_gradient(lambda v: 1.0, np.array([1.0, math.nan]))
    with pytest.raises(CourseError, match='lost in rounding'): numeric_gradient(lambda v: v.sum(), torch.tensor([1e30]))


class Drawn:
    "What `draw` returns in these tests"
    def __init__(self, text): self.text = text
    def _repr_html_(self): return f'<img alt="{self.text}">'


def draw(a, n=1):
    if a > 9: raise CourseError(f'a is {a}, which is more than <9>')
    return Drawn(f'a={a} n={n}')


def test_sliders_draw_anew_and_say_what_went_wrong():
    box = sliders(draw, a=(0, 10.0, 0.5, 2), n=(1, 50, 1, 5))
    a, n, shown = box.children
    assert [type(s).__name__ for s in (a, n)] == ['FloatSlider', 'IntSlider'] and shown.value == '<img alt="a=2 n=5">'
    n.value = 50
    assert shown.value == '<img alt="a=2.0 n=50">'
    a.value = 10
    assert 'more than &lt;9&gt;' in shown.value
    a.value, n.value = 99, -3                                     # beyond their ends: they stay at them
    assert (a.value, n.value) == (10, 1)


@pytest.mark.parametrize('given, says', [(dict(), 'no sliders'), (dict(a=(0, 1)), 'a needs four numbers'), (dict(a=3), 'a needs four numbers'),
    (dict(a=(0, 1, 'x', 0)), 'a needs four numbers'), (dict(a=(1, 0, 0.1, 0.5)), 'from a lower to a higher'), (dict(a=(0, 1, 0, 0.5)), 'from a lower to a higher'),
    (dict(a=(0, 1, 0.1, 7)), 'from a lower to a higher'), (dict(a=(0, math.nan, 0.1, 0)), 'from a lower to a higher'), (dict(a=(0, math.inf, 1, 0)), 'from a lower to a higher'),
    (dict(b=(0, 1, 0.1, 0)), 'do not fit the arguments'), (dict(n=(0, 1, 1, 0)), 'do not fit the arguments')])
def test_sliders_that_make_no_sense(given, says):
    with pytest.raises(CourseError, match=says): sliders(draw, **given)


def test_without_widgets_the_picture_stays(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ipywidgets', None)
    assert sliders(draw, a=(0, 10, 1, 2)).text == 'a=2 n=1'
    with pytest.raises(CourseError, match='a needs four numbers'): sliders(draw, a=3)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "Lesson 3, executed where ipywidgets cannot be imported"
    folder = tmp_path_factory.mktemp('lesson03')
    (folder/'ipywidgets.py').write_text("raise ImportError('no widgets here')", encoding='utf-8')
    return run_notebook(LESSON, folder/'run', env={'PYTHONPATH': str(folder), 'TOPDOWN_HOME': str(folder/'home')})


def code_cells(path): return [c for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']


def pictures(cell): return [''.join(o['data']['text/html']) for o in cell['outputs'] if '<img alt=' in ''.join(o.get('data', {}).get('text/html', ''))]


def slider_cells(cells): return [i for i, c in enumerate(cells) if ''.join(c['source']).rstrip().splitlines()[-1:] and ''.join(c['source']).rstrip().splitlines()[-1].startswith('sliders(')]


def test_the_lesson_runs_in_a_minute_without_widgets_and_shows_each_slider_as_a_picture(run):
    assert run.ok, failure_text(run)
    print(f'{run.seconds:.0f} s')
    assert run.seconds < 60
    cells = code_cells(run.notebook)
    found = slider_cells(cells)
    assert len(found) >= 5
    for i in found: assert len(pictures(cells[i])) == 1


def test_every_slider_has_a_static_figure_before_it_in_the_stored_pages():
    cells = code_cells(LESSON)
    last = -1
    for i in slider_cells(cells):
        between = [c for c in cells[last + 1:i] if pictures(c)]
        assert between, f'no figure before the sliders of cell {cells[i]["id"]}'
        assert not cells[i]['outputs'], 'a stored widget cannot be shown'
        last = i
