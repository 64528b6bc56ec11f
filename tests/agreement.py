"""Do PyTorch, ONNX Runtime and the browser give the same answers to the same photos?"""
import shutil
from pathlib import Path

import numpy as np
from pages import RUNTIME, answers_in_browser, opened, runs_in_browser

from topdown import publish
from topdown.app import export_onnx, load_model, photo_onnx
from topdown.infer import OnnxModel, photo_pixels


def matrix(answers, classes): return np.array([[a[c] for c in classes] for a in answers], 'float32')


def agree(home, files, tmp_path):
    "PyTorch, ONNX Runtime and the browser on the same photos; how far full precision and the page's own file are from PyTorch"
    model, page = load_model(home), tmp_path/'page'
    proto = photo_onnx(model)
    built = publish.build(model, tmp_path/'app', runtime=RUNTIME, network=False)
    assert not built.missing, built.missing
    shutil.copytree(built.path/'page', page)
    full = OnnxModel(export_onnx(model, page, proto=proto)) # the same page with the network in full precision
    pixels = np.stack([photo_pixels(f, model.size) for f in files])
    expected = np.concatenate([model.probabilities(pixels[i:i + 32]) for i in range(0, len(pixels), 32)])
    found = {'onnx': np.concatenate([full.probabilities(pixels[i:i + 1]) for i in range(len(pixels))])}
    with opened(page) as tab:
        found |= {'browser': runs_in_browser(tab, pixels), 'browser, bytes': matrix(answers_in_browser(tab, files), model.classes)}
    with opened(built.path/'page') as tab: found['page'] = matrix(answers_in_browser(tab, files), model.classes)
    found['onnx, bytes'] = matrix([full.predict(Path(f).read_bytes()) for f in files], model.classes)
    assert all(v.shape == expected.shape for v in found.values())
    changed = {k: int((v.argmax(1) != expected.argmax(1)).sum()) for k, v in found.items()}
    return {k: float(abs(v - expected).max()) for k, v in found.items()}, changed
