"""A training step with lesson 4's own autograd against the same step with PyTorch's: time, one net, the same batches, one process

python benchmarks/autograd.py [--runs 7] [--data FOLDER]

Both compute the loss of the net of two layers, its gradients and a step of plain SGD, eagerly, on tensors that are in memory. The sides take turns.
"""
import statistics
import time

from common import heading, options, spread, verdict

STEPS = 200


def batches(x, y, bs):
    "The same random batches for both sides"
    import torch
    luck = torch.Generator().manual_seed(42)
    return [(x[rows], y[rows]) for rows in torch.randint(len(x), (STEPS, bs), generator=luck)]


def ours(start, dealt):
    "Milliseconds a step, and the last loss, with `Var`"
    import torch
    from topdown.learner import Var
    ps = w1, b1, w2, b2 = [Var(p.clone()) for p in start]
    begun = time.perf_counter()
    for xb, yb in dealt:
        scores = (xb @ w1 + b1).relu() @ w2 + b2
        loss = -scores.log_softmax()[torch.arange(len(yb)), yb].mean()
        loss.backward()
        for p in ps: p.data -= 0.1*p.grad; p.grad = None
    return 1000*(time.perf_counter() - begun)/STEPS, loss.data.item()


def pytorch(start, dealt):
    "The same with PyTorch's autograd and its own cross entropy"
    import torch
    from torch.nn.functional import cross_entropy
    ps = w1, b1, w2, b2 = [p.clone().requires_grad_() for p in start]
    begun = time.perf_counter()
    for xb, yb in dealt:
        loss = cross_entropy((xb @ w1 + b1).relu() @ w2 + b2, yb)
        loss.backward()
        with torch.no_grad():
            for p in ps: p -= 0.1*p.grad; p.grad = None
    return 1000*(time.perf_counter() - begun)/STEPS, loss.item()


def main():
    args = options(__doc__.splitlines()[0], 7)
    import torch
    from topdown.core import set_seed
    from topdown.data import get
    from topdown.learner import digits
    heading('Our own autograd', 'topdown-course', 'torch')
    data = get('mnist')
    x, y, *_ = digits(data)
    n, worst = x.shape[1], 0
    for hidden, bs in ((50, 64), (256, 64), (50, 1024)):
        set_seed(42)
        start = [torch.randn(n, hidden)/n**0.5, torch.zeros(hidden), torch.randn(hidden, 10)/hidden**0.5, torch.zeros(10)]
        dealt = batches(x, y, bs)
        ours(start, dealt[:10]); pytorch(start, dealt[:10]) # to warm up
        rounds = [(ours(start, dealt), pytorch(start, dealt)) for _ in range(args.runs)]
        (_, a), (_, b) = rounds[-1]
        if abs(a - b) > 1e-4*b: raise SystemExit(f'the last losses differ: ours {a}, PyTorch {b}')
        ratio = [mine/theirs for (mine, _), (theirs, _) in rounds]
        print(f'{n}-{hidden}-10, batch {bs:>4}: ours {spread([m for (m, _), _ in rounds])} ms, PyTorch {spread([t for _, (t, _) in rounds])} ms, '
              f'ours / PyTorch {spread(ratio)}', flush=True)
        worst = max(worst, statistics.median(ratio))
    verdict('04', 'autograd_ratio', data.track, worst)


if __name__ == '__main__': main()
