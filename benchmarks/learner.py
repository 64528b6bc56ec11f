"""What lesson 4's `Learner` costs a step, beside the bare PyTorch loop and fastai's `Learner`: same net, batches and optimiser, same run

python benchmarks/learner.py [--runs 15]        OMP_NUM_THREADS=1 before it: with one thread, as where other programs need the second core

All three train a net of two layers (784, 50, 10) by torch.optim.SGD on the same batches, tensors of MNIST's shape that lie in a list. fastai
runs without its progress bar and its table, ours without its table; both note the loss of each step, the bare loop does not. In each run the
candidates take turns, and the ratios are taken within a run. fastai is also run with its own SGD, and its faster time counts.
"""
import statistics
import time

from common import heading, options, spread, verdict

STEPS = {64: 600, 1024: 150}


def net():
    from torch import nn
    return nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))


def bare(batches):
    "The bare loop"
    import torch
    import torch.nn.functional as F
    model = net()
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    def run():
        model.train()
        for xb, yb in batches:
            loss = F.cross_entropy(model(xb), yb)
            loss.backward()
            opt.step()
            opt.zero_grad()
    return run


def ours(batches, opt_func=None):
    "The `Learner` of lesson 4"
    import torch
    import torch.nn.functional as F

    from topdown.learner import Learner
    learn = Learner(net(), (batches, None), F.cross_entropy, opt_func or torch.optim.SGD, lr=0.01, device='cpu', progress=False)
    return lambda: learn.fit(1)


def fastai(batches, opt_func=None):
    "fastai's `Learner`, without bar and table"
    from functools import partial

    import torch
    import torch.nn.functional as F
    from fastai.learner import DataLoaders, Learner, OptimWrapper
    opt_func = opt_func or partial(OptimWrapper, opt=torch.optim.SGD)
    learn = Learner(DataLoaders(batches, [], device=torch.device('cpu')), net(), F.cross_entropy, opt_func=opt_func, lr=0.01)
    def run():
        with learn.no_logging(): learn.fit(1) # it has no bar, since fastai.callback.progress was not imported
    return run


def main():
    args = options(__doc__.splitlines()[0], 15)
    import torch
    from fastai.optimizer import SGD as fastai_sgd

    from topdown.learner import SGD
    heading('A step of training: bare loop, Learner, fastai', 'topdown-course', 'torch', 'fastai')
    print(f'{torch.get_num_threads()} threads; microseconds a step, median (least to most) of {args.runs} runs')
    torch.manual_seed(0)
    for bs, steps in STEPS.items():
        few = [(torch.rand(bs, 784), torch.randint(10, (bs,))) for _ in range(20)]
        batches = [few[i % 20] for i in range(steps)]
        candidates = {'bare loop': bare(batches), 'Learner': ours(batches), 'Learner, our SGD': ours(batches, SGD),
                      'fastai': fastai(batches), 'fastai, its SGD': fastai(batches, fastai_sgd)}
        taken = {name: [] for name in candidates}
        for run in range(args.runs + 1): # the first only warms up
            names = list(candidates)
            for name in names[run % len(names):] + names[:run % len(names)]: # in turn, each first once
                start = time.perf_counter()
                candidates[name]()
                if run: taken[name].append((time.perf_counter() - start)/steps*1e6)
        print(f'\nbatch size {bs}, {steps} steps a run')
        for name, values in taken.items(): print(f'  {name:<17}{spread(values, 0)}')
        to_bare = [a/b for a, b in zip(taken['Learner'], taken['bare loop'])]
        to_fastai = [a/min(b, c) for a, b, c in zip(taken['Learner'], taken['fastai'], taken['fastai, its SGD'])]
        print(f'  Learner / bare loop, run by run: {spread(to_bare, 3)}')
        print(f'  Learner / fastai, run by run: {spread(to_fastai, 3)}')
        step_ratio, fastai_ratio = {64: ('step_ratio_64', 'fastai_ratio_64'), 1024: ('step_ratio_1024', 'fastai_ratio_1024')}[bs]
        verdict('04', step_ratio, 'sample', statistics.median(to_bare))
        verdict('04', fastai_ratio, 'sample', statistics.median(to_fastai))


if __name__ == '__main__': main()
