"""Photos a second, decoded and resized: `load_photos` against fastai's DataBlock pipeline, same files, same run

python benchmarks/decode.py [--runs 5] [--data FOLDER]

Both squeeze each photo to 128 × 128 and hand out batches of 64. Measured twice: up to batches of floats between 0 and 1, which is what the pipeline
gives as it is, and up to batches of bytes, with the pipeline's last step taken out.
"""
import random
import statistics
import time

from common import heading, options, spread, verdict

SIZE, BATCH = 128, 64
PASSES = 4 # over the files in one measurement, so that starting worker processes does not decide


def fastai_speed(files, workers, end):
    "Photos a second through a fastai test DataLoader"
    from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, Resize
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=lambda _: files, get_y=lambda f: f.parent.name, item_tfms=Resize(SIZE, method='squish'))
    dl = block.dataloaders('.', bs=BATCH, num_workers=workers).test_dl(files, num_workers=workers)
    if end == 'bytes': dl.after_batch.fs.clear() # IntToFloatTensor
    start = time.perf_counter()
    n = 0
    for (batch,) in dl:
        n += len(batch)
        assert batch.shape[1:] == (3, SIZE, SIZE) and batch.is_floating_point() == (end == 'floats')
    assert n == len(files)
    return n/(time.perf_counter() - start)


def our_speed(files, workers, end):
    "Photos a second through `load_photos`"
    import numpy as np
    import torch

    from topdown.vision import load_photos
    start = time.perf_counter()
    n = 0
    for i in range(0, len(files), BATCH):
        batch = load_photos(files[i:i + BATCH], SIZE, workers).transpose(0, 3, 1, 2)
        # by NumPy: after a sum, PyTorch's own threads wait for more work for a while, on the cores that load_photos needs next
        if end == 'floats': batch = np.divide(batch, np.float32(255), dtype='float32')
        batch = torch.from_numpy(batch)
        n += len(batch)
        assert batch.shape[1:] == (3, SIZE, SIZE) and batch.is_floating_point() == (end == 'floats')
    assert n == len(files)
    return n/(time.perf_counter() - start)


def main():
    args = options(__doc__.splitlines()[0], 5)
    from topdown.data import get
    heading('Decoding and resizing photos', 'topdown-course', 'fastai', 'torch', 'pillow', 'simplejpeg')
    birds = get('birds')
    ways = [('fastai', w, fastai_speed) for w in (0, 1, 2, 4)] + [('load_photos', w, our_speed) for w in (None, 1, 2, 4)]
    for end in ('floats', 'bytes'):
        print(f'up to batches of {end}:')
        speeds = {(name, w): [] for name, w, _ in ways}
        for _, w, run in ways: run(birds.files[:2*BATCH], w, end)          # warm up: imports, file cache
        for seed in range(args.runs):
            for name, w, run in random.Random(seed).sample(ways, len(ways)): # none always comes after the same other
                time.sleep(1) # until the worker processes of the one before are gone
                speeds[name, w].append(run(birds.files*PASSES, w, end))
        for (name, w), found in speeds.items(): print(f'  {name:<12} workers {"default" if w is None else w:<8} {spread(found, 0)} photos a second')
        best = max((k for k in speeds if k[0] == 'fastai'), key=lambda k: statistics.median(speeds[k]))
        ratios = [a/b for a, b in zip(speeds['load_photos', None], speeds[best])]
        print(f'  load_photos with its default, against fastai at its best ({best[1]} workers), run by run: {spread(ratios)} times', flush=True)
        if end == 'floats': verdict('01', 'photos_a_second_ratio', birds.track, statistics.median(ratios))


if __name__ == '__main__': main()
