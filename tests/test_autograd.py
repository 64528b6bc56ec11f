"""Our small autograd against PyTorch's, and against nudging"""
import gc
import weakref

import pytest
import torch
from torch.nn import functional as F

from topdown.learner import Var
from topdown.settings import CourseError


def both(f, *shapes, seed=0):
    "Loss and gradients of `f` by our autograd and by PyTorch's, in float64"
    values = [torch.randn(s, generator=torch.Generator().manual_seed(seed + i), dtype=torch.float64) for i, s in enumerate(shapes)]
    ours, theirs = [Var(v.clone()) for v in values], [v.clone().requires_grad_() for v in values]
    a, b = f(*ours), f(*theirs)
    a.backward(); b.backward()
    return a, b, ours, theirs


def agree(f, *shapes):
    a, b, ours, theirs = both(f, *shapes)
    assert a.shape == b.shape and torch.allclose(a.data, b.detach(), rtol=1e-12)
    for v, p in zip(ours, theirs):
        assert v.grad.shape == p.grad.shape == v.shape
        assert torch.allclose(v.grad, p.grad, rtol=1e-10, atol=1e-12)


def log_softmax(v): return v.log_softmax() if isinstance(v, Var) else v.log_softmax(-1)


T, U = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4), torch.tensor([[2.], [3.], [5.]], dtype=torch.float64)

STEPS = {
    'add': (lambda a, b: (a + b).mean(), (3, 4), (3, 4)),
    'add a row': (lambda a, b: ((a + b)*T).mean(), (3, 4), (4,)),
    'add a column': (lambda a, b: ((a + b)*T).mean(), (3, 4), (3, 1)),
    'row plus column': (lambda a, b: ((a + b)*T).mean(), (4,), (3, 1)),
    'add one number': (lambda a, b: ((a + b)*T).mean(), (3, 4), ()),
    'add 1 x 1': (lambda a, b: ((a + b)*T).mean(), (1, 1), (3, 4)),
    'more axes': (lambda a, b: ((a + b)*T).mean(), (2, 1, 3, 4), (5, 1, 4)),
    'multiply': (lambda a, b: (a*b).mean(), (3, 4), (3, 4)),
    'multiply by a row': (lambda a, b: (a*b).mean(), (3, 4), (4,)),
    'multiply by a number': (lambda a, b: (a*b).mean(), (), (3, 4)),
    'constants': (lambda a: (2.*a + 1. - a*T - U + (3. - a)).mean(), (3, 4)),
    'a plain tensor first': (lambda a: (T*a + (U + a) - (T - a)).mean(), (3, 4)),
    'minus': (lambda a, b: ((a - b)*(-a)).mean(), (3, 4), (4,)),
    'matmul': (lambda a, b: ((a @ b)*(a @ b)).mean(), (3, 5), (5, 4)),
    'a batch times weights': (lambda w: ((T @ w)*(T @ w)).mean(), (4, 2)),
    'weights times a batch': (lambda w: ((w @ T)*(w @ T)).mean(), (2, 3)),
    'relu': (lambda a, b: (a.relu()*b).mean(), (30, 4), (30, 4)),
    'log-softmax': (lambda a: (log_softmax(a)*T).mean(), (3, 4)),
    'log-softmax of more axes': (lambda a: (log_softmax(a)*T).mean(), (2, 3, 4)),
    'pick': (lambda a: (a[torch.tensor([0, 2, 2]), torch.tensor([1, 3, 3])]*U[:, 0]).mean(), (3, 4)),
    'used three times': (lambda a: (a*a + a).mean(), (3, 4)),
    'a diamond': (lambda a: (((b := a*2.) + b.relu())*b).mean(), (3, 4)),
    'itself plus itself': (lambda a: (a + a).mean(), (3, 4)),
}


@pytest.mark.parametrize('name', STEPS)
def test_every_step_agrees_with_pytorch(name): agree(*STEPS[name])


def test_a_nudge_agrees():
    def f(w): return (-log_softmax((T @ w).relu())[torch.arange(3), torch.tensor([1, 0, 1])]).mean()
    w = Var(torch.randn(4, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    f(w).backward()
    for i in range(4):
        for j in range(2):
            up, down = w.data.clone(), w.data.clone()
            up[i, j] += 1e-6; down[i, j] -= 1e-6
            assert abs((f(up) - f(down))/2e-6 - w.grad[i, j]) < 1e-8


def test_log_softmax_of_huge_scores():
    v = Var(torch.tensor([[1000., 0., -1000.]]))
    loss = -v.log_softmax()[torch.tensor([0]), torch.tensor([1])].mean()
    loss.backward()
    assert loss.data == 1000 and torch.equal(v.grad, torch.tensor([[1., -1., 0.]]))


def test_gradients_pile_up_and_can_be_cleared():
    a = Var(torch.tensor([1., 2.]))
    for _ in range(3): (a*a).mean().backward()
    assert torch.allclose(a.grad, 3*a.data)
    a.grad = None
    (a*a).mean().backward()
    assert torch.allclose(a.grad, a.data)


def test_backward_twice_through_one_loss():
    a = Var(torch.tensor([1., 2.]))
    loss = ((a*3.).relu()*a).mean()
    loss.backward(); once = a.grad.clone(); loss.backward()
    assert torch.allclose(a.grad, 2*once) # what lies between keeps nothing


def test_gradients_are_their_own():
    a, b = Var(torch.zeros(3)), Var(torch.zeros(3))
    (a + b).mean().backward()
    a.grad *= 100
    assert torch.allclose(b.grad, torch.full((3,), 1/3))


def test_only_what_you_made_keeps_a_gradient():
    a = Var(torch.ones(2)); b = a*2.
    b.mean().backward()
    assert b.grad is None and a.grad is not None


def test_a_very_long_chain():
    a = Var(torch.tensor(1.)); v = a
    for _ in range(20_000): v = v + 0.
    v.backward()
    assert a.grad == 1


def test_many_uses_take_no_longer_than_many_steps():
    a = Var(torch.tensor(1.)); v = a
    for _ in range(60): v = v + v # 2 to the 60 paths, 60 steps
    v.backward()
    assert a.grad == 2.**60


def test_memory_is_given_back_at_once():
    gc.disable()
    try:
        a = Var(torch.zeros(3)); v = (a*2.).relu(); gone = weakref.ref(v)
        loss = v.mean(); loss.backward()
        del v, loss
        assert gone() is None # no cycles: nothing waits for the garbage collector
    finally: gc.enable()


def test_pytorchs_tracking_stays_out():
    p = torch.ones(3, requires_grad=True)
    v = Var(p)
    loss = (v*2.).mean()
    assert not loss.data.requires_grad
    loss.backward()
    assert p.grad is None and torch.allclose(v.grad, torch.full((3,), 2/3))


def test_every_floating_point_type():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        a = Var(torch.tensor([1., -1.], dtype=dtype))
        a.relu().mean().backward()
        assert a.grad.dtype == dtype and a.grad.tolist() == [0.5, 0.]


@pytest.mark.parametrize('wrong, words', [(torch.tensor([1, 2]), 'found torch.int64'), (torch.tensor([True]), 'found torch.bool'),
                                          ([1., 2.], 'found list'), (3., 'found float'), (None, 'found NoneType')])
def test_only_floats_have_gradients(wrong, words):
    with pytest.raises(CourseError, match=f'a Var holds a tensor of floating-point numbers.*{words}'): Var(wrong)


def test_mistakes():
    v = Var(torch.zeros(3, 4))
    with pytest.raises(CourseError, match=r'backward starts from a single number.* has the shape \(3, 4\)'): v.backward()
    with pytest.raises(CourseError, match=r'@ takes tables of shapes \(n, k\) and \(k, m\); found \(3, 4\) and \(3, 4\)'): v @ v
    with pytest.raises(CourseError, match=r'found \(3, 4\) and \(4,\)'): v @ Var(torch.zeros(4))
    with pytest.raises(CourseError, match='is indexed by 2 tensors of positions'): v[0]
    with pytest.raises(CourseError, match='is indexed by 2 tensors of positions'): v[torch.tensor([0])]
    with pytest.raises(IndexError): v[torch.tensor([0]), torch.tensor([4])]
    with pytest.raises(RuntimeError, match='must match'): v + Var(torch.zeros(3))


def test_the_net_trains_as_with_pytorch():
    "200 steps in float32: the same losses, shapes first"
    g = torch.Generator().manual_seed(42)
    x, y = torch.rand(500, 64, generator=g), torch.randint(10, (500,), generator=g)
    start = [torch.randn(64, 30, generator=g)/8, torch.zeros(30), torch.randn(30, 10, generator=g)/30**0.5, torch.zeros(10)]
    ours, theirs, losses = [Var(p.clone()) for p in start], [p.clone().requires_grad_() for p in start], []
    for _ in range(200):
        rows = torch.randint(500, (64,), generator=g)
        both = []
        for w1, b1, w2, b2 in (ours, theirs):
            scores = (x[rows] @ w1 + b1).relu() @ w2 + b2
            both.append(-log_softmax(scores)[torch.arange(64), y[rows]].mean())
            both[-1].backward()
        for p in ours: p.data -= 0.3*p.grad; p.grad = None
        with torch.no_grad():
            for p in theirs: p -= 0.3*p.grad; p.grad = None
        losses.append((both[0].data, both[1].detach()))
    a, b = (torch.stack(each) for each in zip(*losses))
    assert a.shape == b.shape == (200,) and ((a - b).abs() < 1e-5*b).all() and a[-1] < a[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no graphics card here')
def test_on_a_graphics_card():
    a = Var(torch.randn(3, 4, device='cuda'))
    (a.relu() @ torch.ones(4, 2, device='cuda')).mean().backward()
    assert a.grad.is_cuda and F.relu(a.data).shape == a.grad.shape
