"""A folder with a model that needs no training, for tests of what is around a model"""
from pathlib import Path

from topdown.infer import tiny_model as make


def tiny_model(folder, classes=('bird', 'other'), size=64) -> Path:
    "Bright photos are the first class, dark ones the last"
    return make(folder, tuple(classes), size)
