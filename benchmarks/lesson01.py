"""Lesson 1's classifier against fastai's `fine_tune(3)`: error rate and seconds, same photos, same split, same run

python benchmarks/lesson01.py [--runs 3] [--data FOLDER]

Both start from photos on disk and end with the error rate on the validation photos. The peer is SqueezeNet 1.1 at 128 pixels (on the sample
track both use the course's small body).
"""
import statistics
import time

from common import heading, options, spread, verdict


def ours(files, labels, train, valid):
    "Error rate and seconds of `PhotoClassifier`"
    from topdown.vision import PhotoClassifier
    start = time.perf_counter()
    model = PhotoClassifier().fit([files[i] for i in train], labels[train])
    seconds = time.perf_counter() - start
    return model.error_rate([files[i] for i in valid], labels[valid]), seconds


def fastai(files, labels, seed):
    "Error rate and seconds of `vision_learner(...).fine_tune(3)`"
    from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, RandomSplitter, Resize, error_rate, vision_learner

    from topdown.core import set_seed
    from topdown.vision import bird_or_other, network
    set_seed(seed)
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=lambda _: files, get_y=bird_or_other,
                      splitter=RandomSplitter(0.2, seed=42), item_tfms=Resize(128, method='squish'))
    start = time.perf_counter()
    learn = vision_learner(block.dataloaders('.', bs=64, num_workers=2), network('squeezenet1_1'), metrics=error_rate)
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(3)
    seconds = time.perf_counter() - start
    with learn.no_bar(): return float(learn.validate()[1]), seconds


def main():
    args = options(__doc__.splitlines()[0], 3)
    import numpy as np
    from topdown.core import split
    from topdown.data import get
    from topdown.vision import bird_or_other
    heading('Is it a bird?', 'topdown-course', 'fastai', 'torch', 'torchvision', 'scikit-learn')
    birds = get('birds')
    labels = np.array([bird_or_other(f) for f in birds.files])
    train, valid = split(birds.files)
    mine, theirs = [], []
    for run in range(args.runs):
        mine.append(ours(birds.files, labels, train, valid))
        theirs.append(fastai(birds.files, labels, seed=run))
        print(f'run {run + 1}: ours {mine[-1][0]:.4f} in {mine[-1][1]:.1f} s, fine_tune(3) {theirs[-1][0]:.4f} in {theirs[-1][1]:.1f} s', flush=True)
    for name, found in (('ours', mine), ('fine_tune(3)', theirs)):
        print(f'{name:<13} error rate {spread([e for e, _ in found], 4)}, seconds {spread([s for _, s in found], 1)}')
    print(f'seconds, fine_tune(3) / ours, run by run: {spread([b[1]/a[1] for a, b in zip(mine, theirs)])}')
    verdict('01', 'training_seconds', birds.track, statistics.median(s for _, s in mine))


if __name__ == '__main__': main()
