"""Published recipes for MNIST beside lesson 4's, on the same digits: accuracy on the validation digits

python benchmarks/mnist.py [--runs 3] [--data FOLDER]

The recipes are those of chapter 4 of Howard and Gugger, Deep Learning for Coders: batches of 256, learning rate 1 (0.1 for the net), weights from
randn for the first, mnist loss on the sigmoid. The book judges 3 against 7 by all threes and sevens of MNIST's 10,000 test digits; here both sides are
judged by the test digits that the folder holds. For all ten digits the book gives no recipe: its net of 30 units is run with ten outputs, by fastai's
`fit_one_cycle`. Ours has 512 units, so a last line shows what fastai reaches with those.
"""
import statistics

from common import heading, options, spread

# question: the published accuracy, epochs of the published recipe, epochs of ours
PUBLISHED = {'3 or 7, one layer by hand': (0.9696, 20, 20), '3 or 7, nn.Linear and SGD': (0.9785, 20, 20),
             '3 or 7, net of 30 units': (0.9828, 40, 20), 'ten digits, first epoch': (0.9733, 1, 1), 'ten digits, at the end': (0.98, 5, 5)}


def train(model, loss, x, y, judge, epochs, lr, bs, momentum=0., falling=False):
    "Accuracy after each epoch of plain SGD; `falling` lets the learning rate fall to 0 within each epoch"
    import torch
    opt, found = torch.optim.SGD(model.parameters(), lr, momentum=momentum, nesterov=momentum > 0), []
    for _ in range(epochs):
        batches = torch.randperm(len(x)).split(bs)
        for i, rows in enumerate(batches):
            if falling: opt.param_groups[0]['lr'] = lr*(1 - i/len(batches))
            loss(model(x[rows]), y[rows]).backward()
            opt.step(); opt.zero_grad()
        with torch.no_grad(): found.append(judge(model))
    return found


def mnist_loss(scores, targets):
    p = scores.sigmoid()
    return (1 - p).where(targets == 1, p).mean()


def layer(n, start):
    "A linear layer with weights that start as `start` says"
    import torch
    made = torch.nn.Linear(n, 1)
    with torch.no_grad():
        for p in made.parameters(): start(p)
    return made


def three_or_seven(x, y, xv, yv):
    "Training threes and sevens with a column of targets, and the function that judges a model"
    keep, kept = (y == 3) | (y == 7), (yv == 3) | (yv == 7)
    xv, three = xv[kept], (yv[kept] == 3)[:, None]
    return x[keep], (y[keep] == 3).float()[:, None], lambda model: ((model(xv) > 0) == three).float().mean().item()


def one_cycle(net, sets, epochs, lr, bs):
    "Accuracy after each epoch of fastai's `fit_one_cycle`, fed the same kind of tensor batches"
    import torch
    from fastai.callback.schedule import Learner
    from fastai.data.core import DataLoaders
    from fastai.metrics import accuracy

    class Batches:
        def __init__(self, x, y, order): self.x, self.y, self.order = x, y, order
        def __len__(self): return -(-len(self.x)//bs)
        def __iter__(self): return ((self.x[rows], self.y[rows]) for rows in self.order(len(self.x)).split(bs))
    dls = DataLoaders(Batches(*sets[:2], torch.randperm), Batches(*sets[2:], torch.arange), device='cpu')
    learn = Learner(dls, net, torch.nn.functional.cross_entropy, metrics=accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, lr)
    return [values[-1] for values in learn.recorder.values]


def run(seed, sets):
    "Question → (published recipe's accuracy here, ours)"
    import torch
    from torch import nn
    from torch.nn.functional import binary_cross_entropy_with_logits as bce, cross_entropy
    from topdown.core import set_seed
    x, y, xv, yv = sets
    x37, t37, judge37 = three_or_seven(*sets)
    n, found = x.shape[1], {}
    def net(width, out): return nn.Sequential(nn.Linear(n, width), nn.ReLU(), nn.Linear(width, out))
    def one(make, *args, **kw): set_seed(seed); return train(make(), *args, **kw)
    def last(make, loss, epochs, lr, bs): return one(make, loss, x37, t37, judge37, epochs, lr, bs)[-1]
    found['3 or 7, one layer by hand'] = (last(lambda: layer(n, torch.nn.init.normal_), mnist_loss, 20, 1., 256),
                                          last(lambda: layer(n, torch.nn.init.zeros_), mnist_loss, 20, 1., 64))
    found['3 or 7, nn.Linear and SGD'] = (last(lambda: nn.Linear(n, 1), mnist_loss, 20, 1., 256), last(lambda: nn.Linear(n, 1), bce, 20, .5, 64))
    found['3 or 7, net of 30 units'] = (last(lambda: net(30, 1), mnist_loss, 40, .1, 256), last(lambda: net(30, 1), bce, 20, .5, 64))
    def judge(model): return (model(xv).argmax(1) == yv).float().mean().item()
    def theirs(width, epochs, lr, bs): set_seed(seed); return one_cycle(net(width, 10), sets, epochs, lr, bs)[-1]
    ours = one(lambda: net(512, 10), cross_entropy, x, y, judge, 5, .1, 32, momentum=0.9, falling=True)
    found['ten digits, first epoch'] = theirs(30, 1, 1e-2, 256), ours[0]
    found['ten digits, at the end'] = theirs(30, 5, 1e-2, 256), ours[-1]
    return found | {'fastai, 512 units': (theirs(512, 1, 3e-3, 64), theirs(512, 5, 3e-3, 64))}


def main():
    args = options(__doc__.splitlines()[0], 3)
    from topdown.data import get
    from topdown.learner import digits
    heading('MNIST from scratch', 'topdown-course', 'torch')
    data = get('mnist')
    sets = digits(data)
    if data.track == 'sample': print('The published figures are of MNIST, not of these digits.')
    rows = [run(42 + i, sets) for i in range(args.runs)]
    print(f'{"":<27} {"published":<22} {"recipe, here":<31} ours, here')
    for name, (published, theirs, ours) in PUBLISHED.items():
        a, b = ([r[name][side] for r in rows] for side in (0, 1))
        kept = statistics.median(b) >= max(published, statistics.median(a)) and ours <= theirs
        print(f'{name:<27} {published:.4f}, {f"{theirs} epochs":<13} {spread(a, 4):<31} {spread(b, 4)}, {f"{ours} epochs":<10} '
              f'{"kept" if kept else "MISSED"}', flush=True)
    one, five = zip(*(r['fastai, 512 units'] for r in rows))
    print(f'ten digits with our 512 units and fastai\'s fit_one_cycle (Adam): {spread(one, 4)} after 1 epoch, {spread(five, 4)} after 5')


if __name__ == '__main__': main()
