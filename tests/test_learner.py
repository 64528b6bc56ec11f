"""The training loop against PyTorch's own, against interruptions, and against mistakes"""
import ast
import json
import os
import random
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from topdown import learner
from topdown.learner import (SGD, Accumulate, Adam, AdamW, Callback, CancelBatch, CancelEpoch, CancelFit, Checkpoint, DataLoader, EarlyStop, Learner,
                             MixedPrecision, TensorDataset, constant, cosine, one_cycle)
from topdown.settings import CourseError

ROOT = Path(__file__).resolve().parent.parent


pytestmark = pytest.mark.usefixtures('one_thread')


torch.manual_seed(0)
X = torch.rand(400, 20)
Y = (X[:, :10].sum(1) > X[:, 10:].sum(1)).long() + (X[:, 0] > .7).long()


def net(width=16):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, 3))


def loaders(bs=32, **kw): return DataLoader(TensorDataset(X[:320], Y[:320]), bs, shuffle=True, **kw), DataLoader(TensorDataset(X[320:], Y[320:]), 64)


def right(scores, y): return (scores.argmax(1) == y).float().mean()


def make(model=None, dls=None, loss=F.cross_entropy, opt=SGD, **kw):
    return Learner(model or net(), dls or loaders(), loss, opt, **{'device': 'cpu', 'progress': False} | kw)


RULES = {'sgd': (partial(SGD, lr=.1), partial(torch.optim.SGD, lr=.1)),
         'decay': (partial(SGD, lr=.1, wd=.1), partial(torch.optim.SGD, lr=.1, weight_decay=.1)),
         'momentum': (partial(SGD, lr=.05, momentum=.9, wd=.01), partial(torch.optim.SGD, lr=.05, momentum=.9, weight_decay=.01)),
         'adam': (partial(Adam, lr=.01), partial(torch.optim.Adam, lr=.01)),
         'adam, decay': (partial(Adam, lr=.01, wd=.1, betas=(.8, .95)), partial(torch.optim.Adam, lr=.01, weight_decay=.1, betas=(.8, .95))),
         'adamw': (partial(AdamW, lr=.01), partial(torch.optim.AdamW, lr=.01)),
         'adamw, decay': (partial(AdamW, lr=.01, wd=.3), partial(torch.optim.AdamW, lr=.01, weight_decay=.3))}


@pytest.mark.parametrize('ours, theirs', RULES.values(), ids=RULES)
def test_optimisers_equal_pytorchs_over_100_steps(ours, theirs):
    ends = []
    for rule in (ours, theirs):
        torch.manual_seed(3)
        params = [torch.randn(s, requires_grad=True, dtype=torch.float64) for s in ((4, 3), (3,), ())]
        opt = rule(params)
        for step in range(100):
            for p in params: p.grad = torch.randn(p.shape, dtype=torch.float64) + p.detach()
            opt.step()
            opt.zero_grad()
        ends.append(params)
    for a, b in zip(*ends):
        assert a.shape == b.shape and torch.allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('ours, theirs', RULES.values(), ids=RULES)
def test_losses_equal_a_bare_loop_step_by_step(ours, theirs):
    train, valid = loaders()
    model, losses = net(), []
    opt = theirs(model.parameters())
    for _ in range(21):
        for xb, yb in train:
            loss = F.cross_entropy(model(xb), yb)
            loss.backward()
            opt.step()
            opt.zero_grad()
            losses.append(loss.item())
    mine = make(opt=ours.func)
    mine.opt_func = lambda params, lr: ours(params)
    mine.fit(21)
    a, b = torch.tensor(mine.losses), torch.tensor(losses)
    assert a.shape == b.shape == (210,) and torch.allclose(a, b, rtol=1e-5, atol=0)
    same = make(opt=lambda params, lr: theirs(params)) # PyTorch's optimiser inside our loop: not a bit of difference
    same.fit(21)
    assert same.losses == losses


def test_a_parameter_without_gradient_stays():
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    for rule in (SGD, Adam, AdamW):
        opt = rule([a, b], lr=.1)
        a.grad = torch.ones(2)
        opt.step()
        assert b.tolist() == [1, 1] and a[0] < 1
        opt.zero_grad()
        assert a.grad is None


def test_groups_learn_at_their_own_rates():
    a, b = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    opt = SGD([{'params': [a], 'lr': .5}, {'params': [b]}], lr=.1)
    a.grad, b.grad = torch.ones(1), torch.ones(1)
    opt.step()
    assert a.item() == .5 and b.item() == pytest.approx(.9)


def test_one_cycle_equals_pytorchs():
    total = 40
    p = torch.nn.Parameter(torch.ones(1))
    opt = torch.optim.SGD([p], lr=1., momentum=.9)
    s = torch.optim.lr_scheduler.OneCycleLR(opt, .5, total_steps=total, pct_start=.3, div_factor=25, final_div_factor=1e4)
    ours = one_cycle((.3*total - 1)/(total - 1), div=25, div_final=25e4) # PyTorch counts the turn in steps, and the end from the beginning
    for step in range(total):
        factor, momentum = ours(step/(total - 1))
        assert opt.param_groups[0]['lr'] == pytest.approx(.5*factor, rel=1e-6)
        assert opt.param_groups[0]['momentum'] == pytest.approx(momentum, rel=1e-6)
        opt.step()
        if step < total - 1: s.step()


def test_the_schedule_reaches_the_optimiser():
    learn = make(opt=partial(SGD, momentum=.9))
    learn.fit(2, .4, cosine)
    assert learn.lrs[0] == .4 and learn.lrs[-1] == pytest.approx(0) and len(learn.lrs) == len(learn.losses) == 20
    learn.fit_one_cycle(2, .4)
    assert max(learn.lrs) <= .4 and learn.lrs[0] == pytest.approx(.4/25) and min(learn.momenta) >= .85 and learn.momenta[0] == .95
    adam = make(opt=Adam)
    adam.fit_one_cycle(1, .01)
    assert adam.momenta[0] == .95 and adam.opt.param_groups[0]['betas'][1] == .999
    plain = make()
    plain.fit_one_cycle(1, .1)
    assert set(plain.momenta) == {0} # SGD without momentum stays so


def test_orders_follow_from_seed_and_epoch_alone():
    a, b = loaders()[0], loaders()[0]
    first = [xb.clone() for xb, _ in a]
    torch.manual_seed(99)
    assert all(torch.equal(p, q) for p, (q, _) in zip(first, b))
    assert a.epoch == 1 and not torch.equal(first[0], next(iter(a))[0])
    orders = {tuple(DataLoader(TensorDataset(X), 8, shuffle=True, seed=s).order(e).tolist()) for s in range(6) for e in range(6)}
    assert len(orders) == 36 and all(sorted(o) == list(range(400)) for o in orders)


def test_rows_stay_together():
    ds = TensorDataset(torch.arange(50), torch.arange(50)*2, torch.arange(50)*3)
    seen = []
    for a, b, c in DataLoader(ds, 7, shuffle=True):
        assert torch.equal(b, 2*a) and torch.equal(c, 3*a)
        seen += a.tolist()
    assert sorted(seen) == list(range(50))


@pytest.mark.parametrize('make_it, text', [
    (lambda: TensorDataset(), 'no tensors'), (lambda: TensorDataset(X, Y[:5]), '400 and 5 rows'), (lambda: DataLoader(TensorDataset(X[:0])), 'the data set is empty'),
    (lambda: DataLoader(TensorDataset(X), 401, shuffle=True), 'batch size 401 is above the 400 rows .*at most bs=400'),
    (lambda: DataLoader(TensorDataset(X), 401, drop_last=True), 'batch size 401'), (lambda: DataLoader(TensorDataset(X), 0), 'batch size 0'),
    (lambda: DataLoader(TensorDataset(X), -3), 'batch size -3'), (lambda: one_cycle(0), 'found 0'), (lambda: Accumulate(0), r'Accumulate\(0\)'),
    (lambda: EarlyStop(better='up'), "unknown direction 'up'"), (lambda: Checkpoint('x', every=0), 'every=0'), (lambda: make(dls=(1, 2, 3)), 'dls has 3 parts'),
    (lambda: make(dls=([], None)).fit(1), 'no training batches'), (lambda: make().fit(0), 'epochs is 0'), (lambda: SGD([], .1), 'no parameters to train'),
    (lambda: make(nn.Flatten()).fit(1), 'no parameters to train'), (lambda: make(dls=(loaders()[0], None)).validate(), 'no validation batches'),
    (lambda: make(dls=(loaders()[0], [])).fit(1), 'validation batches are empty'), (lambda: make().plot_losses(), 'no training yet'),
    (lambda: make().plot_schedule(), 'no training yet'), (lambda: make().lr_find(start=1, end=.1), 'found start=1'),
    (lambda: make().fit(1, cbs=EarlyStop('acuracy')), "unknown column for EarlyStop 'acuracy'; known: ")])
def test_mistakes_are_explained(make_it, text):
    with pytest.raises(CourseError, match=text): make_it()


@pytest.mark.parametrize('x, y, text', [
    (X, Y + 1, 'label 3 is out of range: the model gives 3 scores, so labels are 0 to 2. '), (X, Y - 1, 'label -1 is out of range'),
    (X.double(), Y, 'inputs are float64, the weights float32'), ((X*255).byte(), Y, 'inputs are uint8, the weights float32'),
    (X.half(), Y, 'inputs are float16'), (X, Y.float(), 'cross_entropy refused targets of float32.*y.long'), (X, Y.int(), 'refused targets of int32')])
def test_kinds_and_labels(x, y, text):
    train = DataLoader(TensorDataset(x, y), 400)
    with pytest.raises(CourseError, match=text): make(dls=(train, None)).fit(1)
    good = make(dls=(loaders()[0], train))
    with pytest.raises(CourseError, match=text): good.validate()


def test_another_device():
    learn = make()
    learn.model.to('meta')
    with pytest.raises(CourseError, match="the batch is on 'cpu' and the weights are on 'meta'.*do not move the model yourself"): learn.fit(1)


def test_labels_are_checked_before_the_first_step_on_a_gpu():
    for loss in (F.cross_entropy, nn.CrossEntropyLoss()):
        learn = make(dls=(DataLoader(TensorDataset(X, torch.where(torch.arange(400) == 399, 7, Y))), None), loss=loss)
        learn.pred, learn.yb = torch.zeros(64, 3), Y[:64]
        with pytest.raises(CourseError, match='label 7 is out of range.* 1 of 400'): learn._check_labels()
        learn.dls = (loaders()[0], None)
        learn._check_labels()
    ignoring = make(dls=([(X, torch.full((400,), -100))], None))
    ignoring.pred, ignoring.yb = torch.zeros(400, 3), torch.full((400,), -100)
    ignoring._check_labels()


def test_an_error_that_is_not_understood_stays_itself():
    with pytest.raises(RuntimeError, match='mat1 and mat2') as e: make(dls=([(X[:, :5], Y)], None)).fit(1)
    assert 'in step 1: inputs (400, 5), targets (400,), output none yet' in e.value.__notes__[0]
    with pytest.raises(CourseError, match=r'gave a tensor of shape \(32,\), and should give one number'):
        make(loss=partial(F.cross_entropy, reduction='none')).fit(1)


def test_a_metric_that_raises_is_named():
    def wrong(scores, y): raise ValueError('no idea')
    with pytest.raises(CourseError, match=r'the metric wrong failed with ValueError: no idea. It was given outputs of shape \(64, 3\) and targets of shape \(64,\)'):
        make(metrics=[right, wrong]).fit(1)
    def many(scores, y): return scores
    with pytest.raises(CourseError, match='the metric many failed'): make(metrics=many).validate()
    with pytest.raises(CourseError, match='the metric right failed'): make(metrics=partial(right, 5, 6, 7)).validate()


def squares(scores, y): return ((scores - F.one_hot(y, 3))**2).sum(1).mean()


def test_a_loss_that_is_no_number_stops_the_training():
    with pytest.raises(CourseError, match=r'the loss became (inf|nan) in step (\d+) \(epoch \d+, batch \d+\), at learning rate 50. Likely causes: .*try 5, or lr_find') as e:
        make(loss=squares).fit(20, 50)
    step, epoch, batch = map(int, re.search(r'step (\d+) \(epoch (\d+), batch (\d+)', str(e.value)).groups())
    assert step == (epoch - 1)*10 + batch
    bad = X.clone()
    bad[37, 3] = float('inf')
    with pytest.raises(CourseError, match=r'in step 2 \(epoch 1, batch 2\), at learning rate 0.1. The cause: 1 of the 640 inputs of this batch is nan or infinite'):
        make(dls=(DataLoader(TensorDataset(bad, Y), 32), None)).fit(1)
    amounts = X.sum(1, keepdim=True).clone()
    amounts[5] = float('nan')
    with pytest.raises(CourseError, match='1 of the 32 targets'):
        make(nn.Linear(20, 1), (DataLoader(TensorDataset(X, amounts), 32), None), F.mse_loss).fit(1)


def test_losses_that_wait_on_a_gpu_are_judged_too():
    learn = make()
    learn.fit(1)
    learn._waiting = [torch.tensor(1.), torch.tensor(float('nan'))]
    with pytest.raises(CourseError, match=r'the loss became nan in step 12 \(epoch 2, batch 2\)'): learn._drain()
    assert learn.losses[-2] == 1


class Log(Callback):
    def __init__(self, order=0): self.order, self.seen = order, []


for _event in learner.EVENTS: setattr(Log, _event, lambda self, learn, e=_event: self.seen.append(e))


def test_moments_come_in_their_order():
    log = Log()
    make(dls=loaders(160)).fit(2, cbs=log)
    step = ['before_batch', 'after_loss', 'after_backward', 'after_step']
    assert log.seen == ['before_fit', *(['before_epoch', *step, *step, 'after_epoch']*2), 'after_fit', 'cleanup_fit']


def test_callbacks_come_by_their_order():
    seen = []
    class Say(Callback):
        def __init__(self, order): self.order = order
        def before_fit(self, learn): seen.append(self.order)
    make(cbs=[Say(5), Say(-1)]).fit(1, cbs=[Say(2)])
    assert seen == [-1, 2, 5]
    with pytest.raises(CourseError, match="unknown moment 'before_step'"): type('Odd', (Callback,), {'before_step': None})


@pytest.mark.parametrize('cancel, event, batches, epochs', [
    (CancelBatch, 'after_loss', 20, 2), (CancelEpoch, 'after_loss', 2, 2), (CancelFit, 'after_loss', 1, 0), (CancelFit, 'before_fit', 0, 0),
    (CancelEpoch, 'before_epoch', 0, 2), (CancelBatch, 'before_batch', 0, 2), (CancelFit, 'after_epoch', 10, 1)])
def test_a_callback_can_stop_everything(cancel, event, batches, epochs):
    def stop(self, learn): raise cancel
    log = Log()
    learn = make()
    before = [p.clone() for p in learn.model.parameters()]
    learn.fit(2, cbs=[log, type('Stop', (Callback,), {event: stop})()])
    assert len(learn.losses) == batches and len(learn.history) == epochs and log.seen[-2:] == ['after_fit', 'cleanup_fit']
    unchanged = all(torch.equal(p, q) for p, q in zip(before, learn.model.parameters()))
    assert unchanged == (event != 'after_epoch')


def test_cleanup_comes_after_an_error_too():
    log = Log()
    with pytest.raises(CourseError): make(dls=([(X, Y + 9)], None)).fit(1, cbs=log)
    assert log.seen[-1] == 'cleanup_fit' and 'after_fit' not in log.seen


class ByHand:
    "A model that is no nn.Module"
    def __init__(self):
        torch.manual_seed(1)
        self.w = torch.randn(20, 3).mul(.1).requires_grad_()
    def parameters(self): return [self.w]
    def __call__(self, x): return x @ self.w


def test_other_models_and_other_loaders(tmp_path):
    learn = make(ByHand(), metrics=right)
    learn.fit(3, keep=tmp_path/'a')
    assert learn.losses[-1] < learn.losses[0] and '60 parameters' in learn.summary()
    again = make(ByHand(), metrics=right)
    again.fit(3, keep=tmp_path/'a')
    assert torch.equal(again.model.w, learn.model.w)
    learn.lr_find()
    two = nn.Bilinear(20, 20, 3)
    both = make(two, (DataLoader(TensorDataset(X, X, Y), 50, shuffle=True), None))
    both.fit(2)
    assert both.predict(X, X).shape == (400, 3)
    torchs = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), 64, shuffle=True)
    make(dls=(torchs, torchs)).fit(1)
    alone = make(dls=[(X, Y)]*3 and ([(X, Y)]*3, None))
    alone.fit(2)
    assert len(alone.losses) == 6 and alone.history == [{'epoch': i + 1, 'train_loss': pytest.approx(sum(alone.losses[3*i:3*i + 3])/3)} for i in range(2)]


def test_validation_counts_rows_and_changes_nothing():
    model = nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Dropout(.5), nn.Linear(8, 3))
    learn = make(model, metrics=[right])
    learn.fit(1)
    before, numbers = {k: t.clone() for k, t in model.state_dict().items()}, torch.get_rng_state()
    odd = learn.validate(DataLoader(TensorDataset(X, Y), 37))
    whole = learn.validate(DataLoader(TensorDataset(X, Y), 400))
    assert odd == pytest.approx(whole, rel=1e-5) and list(odd) == ['valid_loss', 'right']
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items()) and torch.equal(numbers, torch.get_rng_state())
    assert learn.predict(X, bs=33).shape == (400, 3) and torch.equal(learn.predict(X[:7]), learn.predict(X[:7]))


def test_lr_find_puts_everything_back():
    model = nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Dropout(.5), nn.Linear(8, 3))
    learn = make(model, opt=Adam, cbs=[Accumulate(2)])
    learn.fit(2)
    notes, weights = dict(vars(learn)), {k: t.clone() for k, t in model.state_dict().items()}
    numbers, losses = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()), list(learn.losses)
    found = learn.lr_find()
    assert vars(learn) == notes and learn.losses == losses and learn.dls[0].epoch == 2
    assert all(torch.equal(t, weights[k]) for k, t in model.state_dict().items())
    assert random.getstate() == numbers[0] and np.random.get_state()[1].tolist() == numbers[1] and torch.equal(torch.get_rng_state(), numbers[2])
    assert 1e-5 < found.suggestion < 1 and len(found.lrs) == len(found.losses) <= 100 and 'Suggested' in found.alt
    with pytest.raises(CourseError, match='exploded'): make(loss=squares).lr_find(start=1e20, end=1e30)


def test_accumulate_is_the_big_batch():
    for rows, bs, n in ((320, 32, 4), (320, 64, 2), (300, 60, 2)): # 5 batches in twos: the last step has one
        ends = []
        for size, cbs in ((bs*n, []), (bs, [Accumulate(n)])):
            learn = make(dls=(DataLoader(TensorDataset(X[:rows], Y[:rows]), size), None), cbs=cbs)
            learn.fit(3)
            ends.append(learn.model[0].weight)
        assert ends[0].shape == ends[1].shape and torch.allclose(*ends, atol=1e-6)


def test_early_stop_waits_as_long_as_it_was_told(capsys):
    values = iter([.5, .6, .6, .7, .6, .5, .7, .9, .9])
    class Play(Callback):
        def after_epoch(self, learn): learn.history[-1]['score'] = next(values)
    learn = make(cbs=[Play()])
    learn.fit(9, cbs=EarlyStop('score', patience=3))
    assert [h['score'] for h in learn.history] == [.5, .6, .6, .7, .6, .5, .7] # 0.7 again is no improvement
    assert 'stopped after epoch 7: score was best with 0.7000, 3 epochs ago' in capsys.readouterr().out


class OnCPU(MixedPrecision):
    def kind(self, device): return self.wanted


@pytest.mark.parametrize('kind', [torch.bfloat16, torch.float16])
def test_mixed_precision_on_a_processor(kind):
    half = OnCPU(scale=2.**34)
    half.wanted = kind
    seen = []
    class Look(Callback):
        order = 30
        def after_loss(self, learn): seen.append((learn.pred.dtype, torch.is_autocast_enabled('cpu')))
    learn = make(cbs=[half, Look(), Accumulate(2)])
    learn.fit(6)
    full = make(cbs=Accumulate(2))
    full.fit(6)
    assert set(seen) == {(kind, False)} and all(p.dtype == torch.float32 for p in learn.model.parameters())
    assert abs(learn.losses[-1] - full.losses[-1]) < .05
    assert (half.scale == 2.**34) == (kind == torch.bfloat16)
    with pytest.raises(CourseError): make(dls=([(X, Y + 5)], None), cbs=half).fit(1)
    assert not torch.is_autocast_enabled('cpu')


def test_mixed_precision_says_that_it_does_nothing(capsys):
    make(cbs=MixedPrecision).fit(1)
    assert 'everything stays in 32 bits' in capsys.readouterr().out


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
def test_on_a_gpu(tmp_path):
    for cbs in ([], [MixedPrecision()]):
        learn = make(device='cuda', cbs=cbs, opt=AdamW, metrics=right)
        learn.fit_one_cycle(8, .01, keep=tmp_path/str(len(cbs)))
        assert len(learn.losses) == 80 and learn.history[-1]['right'] > .6
        again = make(device='cuda', cbs=cbs, opt=AdamW, metrics=right)
        again.fit_one_cycle(8, .01, keep=tmp_path/str(len(cbs)))
        assert again.losses == learn.losses
    with pytest.raises(CourseError, match='label 3 is out of range'): make(dls=([(X, Y + 1)], None), device='cuda').fit(1)


def test_summary_names_every_layer():
    text = make(nn.Sequential(nn.Linear(20, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 3)))).summary()
    assert re.search(r'^0 +Linear +32 × 4 +84$', text, re.M) and re.search(r'^1\.1 +Linear +32 × 3 +15$', text, re.M) and '99 parameters' in text
    frozen = net()
    frozen[0].requires_grad_(False)
    learn = make(frozen)
    assert '51 are trained and 336 are frozen' in learn.summary() and learn.dls[0].epoch == 0
    before = frozen[0].weight.clone()
    learn.fit(1)
    assert torch.equal(before, frozen[0].weight)


def test_pictures_say_what_they_show():
    learn = make(opt=partial(SGD, momentum=.9))
    learn.fit_one_cycle(2, .1)
    assert re.search(r'in 20 steps, and the validation loss ends at', learn.plot_losses().alt)
    assert 'is largest at step 6' in learn.plot_schedule().alt and 'at least 0.8' in learn.plot_schedule().alt


TABLE = """import torch, sys, time; from torch import nn; import torch.nn.functional as F
from topdown.learner import *
class Slow(Callback):
    def after_step(self, learn): time.sleep(.15)
x, y = torch.rand(64, 4), torch.randint(3, (64,))
learn = Learner(nn.Linear(4, 3), (DataLoader(TensorDataset(x, y), 8), DataLoader(TensorDataset(x, y), 64)), F.cross_entropy, device='cpu', cbs=Slow)
learn.fit(2)"""
LINE = r' +epoch +train_loss +valid_loss +seconds\n( +\d +\d\.\d{4} +\d\.\d{4} +\d+\.\d\d\n?){2}'


def test_the_table_in_a_file_is_lines_and_nothing_else():
    out = subprocess.run([sys.executable, '-c', TABLE], capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(LINE, out), out


@pytest.mark.skipif(os.name == 'nt', reason='a terminal of POSIX systems')
def test_the_table_in_a_terminal_shows_a_bar():
    import pty
    main, other = pty.openpty()
    p = subprocess.Popen([sys.executable, '-c', TABLE], stdout=other)
    os.close(other)
    out = b''
    while True:
        try: part = os.read(main, 1000)
        except OSError: break
        if not part: break
        out += part
    assert p.wait() == 0
    os.close(main)
    text = out.decode().replace('\r\n', '\n')
    assert re.search(r'\repoch 1 of 2 \[#+ *\] batch \d of 8, loss \d\.\d{4}', text)
    seen = '\n'.join(line.split('\r')[-1] for line in text.split('\n')) # what stays on the screen
    assert re.fullmatch(LINE, seen), text


def test_the_table_in_a_notebook_is_one_output_of_text(tmp_path):
    import nbformat
    from nbclient import NotebookClient
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(TABLE)])
    NotebookClient(nb, kernel_name='python3', resources={'metadata': {'path': str(tmp_path)}}).execute()
    output, = nb.cells[0].outputs
    assert list(output['data']) == ['text/plain'] and re.fullmatch(LINE, output['data']['text/plain'])


class PowerFailure(Exception): pass


class Fail(Callback):
    order = 99 # after the checkpoint
    def __init__(self, step): self.step = step or 0
    def after_step(self, learn):
        if learn.step == self.step: raise PowerFailure
    def after_epoch(self, learn):
        if learn.step == -self.step: raise PowerFailure


class Noise(Callback):
    def before_batch(self, learn): learn.xb = [x + .01*random.gauss(0, 1) + .01*np.random.randn() for x in learn.xb]


def torchs(bs): return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X[:320], Y[:320]), bs, shuffle=True)


def long_run(folder, step=None, every=None, opt=AdamW, train=None, cbs=(), epochs=3):
    random.seed(5); np.random.seed(5); torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(.3), nn.Linear(8, 3))
    learn = make(model, (train(80) if train else loaders(80)[0], loaders()[1]), opt=opt, metrics=right, cbs=[Noise(), Fail(step), *cbs])
    learn.fit_one_cycle(epochs, .02, keep=Checkpoint(folder, every))
    return learn


def all_of(learn):
    return [*learn.model.state_dict().values(), *[t for g in learn.opt.param_groups for p in g['params'] for t in learn.opt.state[p].values()],
            learn.losses, learn.lrs, learn.momenta, learn.history, torch.rand(2), random.random(), np.random.rand()]


def equal(a, b): return len(a) == len(b) and all(torch.equal(p, q) if isinstance(p, torch.Tensor) else p == q for p, q in zip(a, b))


KINDS = {'ours': {}, 'each step': {'every': 1}, 'momentum': {'opt': partial(SGD, momentum=.9), 'every': 1}, "PyTorch's optimiser": {'opt': torch.optim.AdamW, 'every': 1},
         "PyTorch's loader": {'train': torchs, 'every': 1}}


@pytest.mark.parametrize('kw', KINDS.values(), ids=KINDS)
def test_interrupted_at_any_step_it_ends_equal(tmp_path, kw, capsys):
    whole = all_of(long_run(tmp_path/'whole', **kw))
    for step in [*range(1, 13), -4, -8, -12]: # 12 steps; negative: after that epoch
        with pytest.raises(PowerFailure): long_run(tmp_path/f'{step}', step, **kw)
        assert equal(all_of(long_run(tmp_path/f'{step}', **kw)), whole), step
    assert 'going on after step 11 of 12' in capsys.readouterr().out or 'every' not in kw


def test_interrupted_again_and_again(tmp_path):
    whole = all_of(long_run(tmp_path/'whole', every=1))
    for step in (2, 3, 7, 11):
        with pytest.raises(PowerFailure): long_run(tmp_path/'run', step, every=1)
    assert equal(all_of(long_run(tmp_path/'run', every=1)), whole)


def test_callbacks_go_on_too(tmp_path, capsys):
    def kinds(): return [Accumulate(3), EarlyStop('right', patience=2)]
    whole = all_of(long_run(tmp_path/'whole', cbs=kinds(), every=1, epochs=8))
    said = re.search('stopped after .*', capsys.readouterr().out)
    for step in (4, 6, 14):
        try: long_run(tmp_path/f'{step}', step, cbs=kinds(), every=1, epochs=8)
        except PowerFailure: pass
        assert equal(all_of(long_run(tmp_path/f'{step}', cbs=kinds(), every=1, epochs=8)), whole)
        assert not said or said[0] in capsys.readouterr().out


def test_a_run_that_is_complete_is_only_loaded(tmp_path, capsys):
    first = long_run(tmp_path/'a')
    again = long_run(tmp_path/'a', step=1) # no step is taken, so it cannot fail
    assert again.losses == first.losses and again.history == first.history and 'is complete' in capsys.readouterr().out
    assert torch.equal(first.model[0].weight, again.model[0].weight) and not list((tmp_path/'a').glob('.*.tmp'))


@pytest.mark.parametrize('change, text', [
    ({'model': net(17)}, r'net 0.weight was float32 \[16, 20\] and is now float32 \[17, 20\]'), ({'opt': Adam}, 'optimiser name was SGD and is now Adam'),
    ({'dls': loaders(64)}, 'data batches was 10 and is now 5'), ({'dls': loaders(seed=3)}, 'data seed was 42 and is now 3'), ({'lr': .2}, 'lr was 0.1 and is now 0.2'),
    ({'epochs': 3}, 'epochs was 2 and is now 3'), ({'schedule': cosine}, 'schedule was'), ({'cbs': Accumulate(2)}, 'callbacks was')])
def test_another_training_is_not_mixed_up(tmp_path, change, text):
    make().fit(2, .1, keep=tmp_path/'a')
    data = (tmp_path/'a'/'checkpoint.safetensors').read_bytes()
    kw = {'epochs': 2, 'lr': .1, 'schedule': constant} | {k: change.pop(k) for k in ('epochs', 'lr', 'schedule') if k in change}
    with pytest.raises(CourseError, match='is of another training: .*' + text + '.* a folder of its own'): make(**change).fit(**kw, keep=tmp_path/'a')
    assert (tmp_path/'a'/'checkpoint.safetensors').read_bytes() == data


def test_damaged_and_older_checkpoints(tmp_path, monkeypatch, capsys):
    make().fit(2, keep=tmp_path/'a')
    file = tmp_path/'a'/'checkpoint.safetensors'
    monkeypatch.setattr(learner.torch, '__version__', '1.0')
    make().fit(2, keep=tmp_path/'a')
    assert 'going on with 1.0: the last digits of the result may differ' in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setattr('topdown.checkpoint._format', 0)
    with pytest.raises(CourseError, match='is of format 1, this version of the course reads format 0'): make().fit(2, keep=tmp_path/'a')
    monkeypatch.undo()
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(CourseError, match='is cut off'): make().fit(2, keep=tmp_path/'a')


def test_left_overs_of_a_killed_write_go_away(tmp_path):
    (tmp_path/'a').mkdir()
    (tmp_path/'a'/'.0123456789ab.tmp').write_bytes(b'half')
    (tmp_path/'a'/'mine.txt').write_text('stays')
    make().fit(1, keep=tmp_path/'a')
    assert sorted(p.name for p in (tmp_path/'a').iterdir()) == ['checkpoint.safetensors', 'mine.txt']


@pytest.mark.skipif(os.name == 'nt', reason='kill -9 of POSIX systems')
def test_killed_from_outside_it_ends_equal():
    r = subprocess.run([sys.executable, ROOT/'benchmarks'/'kill.py', '--runs', '2', '--seed', '1'], capture_output=True, text=True)
    assert r.returncode == 0 and '2 of 2 killed trainings went on and ended equal' in r.stdout, r.stdout + r.stderr


def test_every_public_definition_says_what_it_does():
    "Methods that @patch adds are read by learners too"
    source = (ROOT/'topdown'/'learner.py').read_text(encoding='utf-8')
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith('_') and any(getattr(d, 'id', '') == 'patch' for d in node.decorator_list):
            assert ast.get_docstring(node), node.name


def test_the_state_is_plain_data(tmp_path):
    make().fit(1, keep=tmp_path/'a')
    data = (tmp_path/'a'/'checkpoint.safetensors').read_bytes()
    header = json.loads(data[8:8 + int.from_bytes(data[:8], 'little')])
    assert {'state.model.0.weight'.removeprefix('state.'), '__metadata__'} <= set(header)
