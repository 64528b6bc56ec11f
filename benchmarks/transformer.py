"""Lesson 7: our transformer beside PyTorch's layers, writing with and without the cache, and LSTM against GPT with three seeds

python benchmarks/transformer.py [--runs 15] [--data FOLDER] [--only step cache models] [--no-write]

step: a training step (forward, loss, backward, AdamW) of the lesson's GPT and of the same net made of nn.TransformerEncoderLayer, in turn, same
weights and batch; the ratio of the medians. For the lesson's size and for one 384 wide, 6 layers deep. cache: 256 tokens written with and without the cache, width 384,
6 layers, context 256; and the lesson's own size. models: GPT and LSTM as in 07c, one pair for each of three seeds, bits a character. Results go to
results/transformer.json, unless --no-write says no. One thread: OMP_NUM_THREADS=1. Times of step and cache are the processor's (time.process_time),
so that other programs disturb less; with one thread and nothing else running, they are those of the clock.
"""
import math
import statistics
import time

from common import heading, keep, options, spread, verdict

SIZES = {'lesson': dict(vocab=65, width=96, layers=2, heads=4, context=64), 'large': dict(vocab=65, width=384, layers=6, heads=6, context=256)}
ROWS = {'lesson': 16, 'large': 2}


def plain(gpt):
    "The same net of PyTorch's own layers, with the same weights"
    import torch
    from torch import nn
    s = gpt.settings
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.places = nn.Embedding(s['vocab'], s['width']), nn.Embedding(s['context'], s['width'])
            self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(s['width'], s['heads'], 4*s['width'], 0., 'gelu', batch_first=True, norm_first=True)
                                        for _ in range(s['layers']))
            self.norm = nn.LayerNorm(s['width'])
            self.register_buffer('mask', ~torch.ones(s['context'], s['context']).tril().bool())
        def forward(self, ids):
            T = ids.shape[1]
            x = self.tokens(ids) + self.places.weight[:T]
            for block in self.blocks: x = block(x, self.mask[:T, :T])
            return self.norm(x) @ self.tokens.weight.T
    peer = Plain()
    with torch.no_grad():
        for mine, other in ((gpt.tokens, peer.tokens), (gpt.places, peer.places), (gpt.norm, peer.norm)): other.load_state_dict(mine.state_dict())
        for b, p in zip(gpt.blocks, peer.blocks):
            p.self_attn.in_proj_weight.copy_(b.attend.qkv.weight); p.self_attn.in_proj_bias.copy_(b.attend.qkv.bias)
            for mine, other in ((b.attend.out, p.self_attn.out_proj), (b.think[0], p.linear1), (b.think[2], p.linear2), (b.norm1, p.norm1), (b.norm2, p.norm2)):
                other.load_state_dict(mine.state_dict())
    return peer


def step(runs):
    "Ratio of our training step to PyTorch's layers'"
    import torch
    from torch.nn import functional as F
    from topdown.transformer import GPT
    found = {}
    for size, settings in SIZES.items():
        torch.manual_seed(0)
        ours = GPT(**settings)
        nets = {'ours': ours, 'plain': plain(ours)}
        ids = torch.randint(settings['vocab'], (ROWS[size], settings['context'] + 1))
        scores = [net(ids[:, :-1]) for net in nets.values()]
        assert torch.allclose(*scores, atol=1e-4)
        opts = {name: torch.optim.AdamW(net.parameters(), 1e-4) for name, net in nets.items()}
        took = {name: [] for name in nets}
        for i in range(runs + 2):
            for name in (nets if i % 2 else reversed(nets)):
                start = time.process_time()
                F.cross_entropy(nets[name](ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
                opts[name].step(); opts[name].zero_grad()
                if i > 1: took[name].append(1000*(time.process_time() - start))
        ratio = statistics.median(took['ours'])/statistics.median(took['plain'])
        found[size] = {'ours_ms': statistics.median(took['ours']), 'plain_ms': statistics.median(took['plain']), 'ratio': ratio}
        print(f"step, {size}: ours {spread(took['ours'], 1)} ms, PyTorch's layers {spread(took['plain'], 1)} ms, ratio {ratio:.3f}", flush=True)
    return found


def cache(runs):
    "How much faster 256 tokens are with the cache"
    import torch
    from topdown.transformer import GPT, generate
    found = {}
    for size, settings in SIZES.items():
        torch.manual_seed(0)
        model, start, took = GPT(**settings), torch.tensor([1]), {True: [], False: []}
        generate(model, start, 5)
        for i in range(max(1, min(runs, 3))):
            for cached in (True, False):
                began = time.process_time()
                generate(model, start, 255 if settings['context'] == 256 else 256, cache=cached)
                took[cached].append(time.process_time() - began)
        gain = statistics.median(took[False])/statistics.median(took[True])
        found[size] = {'with_s': statistics.median(took[True]), 'without_s': statistics.median(took[False]), 'gain': gain}
        print(f'cache, {size}: with {spread(took[True])} s, without {spread(took[False])} s, gain {gain:.1f}', flush=True)
    return found


def models(seeds=(42, 43, 44)):
    "Bits a character of GPT and LSTM, trained as in 07c"
    from topdown.core import set_seed
    from topdown.data import get
    from topdown.language import Bigrams, LanguageModel, Vocab, bits_per_char, lm_batches, lm_loss
    from topdown.learner import AdamW, Learner
    from topdown.transformer import GPT
    dataset = get('tinyshakespeare')
    play = (dataset.path/'input.txt').read_text(encoding='utf-8')
    vocab = Vocab.of(play)
    ids = vocab.encode(play)
    earlier, later = ids[:int(0.9*len(ids))], ids[int(0.9*len(ids)):]
    kinds = {'GPT': lambda: GPT(len(vocab), width=96, layers=2, heads=4, context=64),
             'LSTM': lambda: LanguageModel(len(vocab), width=64, hidden=192, carry=False)}
    found = {'bigrams': bits_per_char(Bigrams(earlier, len(vocab)), later, bs=32, seq=64)} | {k: {'bits': [], 'seconds': []} for k in kinds}
    for seed in seeds:
        for kind, make in kinds.items():
            set_seed(seed)
            model = make()
            learn = Learner(model, lm_batches(earlier, bs=16, seq=64, shuffle=True), lm_loss, AdamW, device='cpu', progress=False)
            start = time.perf_counter()
            learn.fit_one_cycle(2, 0.01)
            found[kind]['seconds'].append(time.perf_counter() - start)
            found[kind]['bits'].append(bits_per_char(model, later, bs=32, seq=64))
            print(f'{kind}, seed {seed}: {found[kind]["bits"][-1]:.3f} bits a character, {found[kind]["seconds"][-1]:.0f} s', flush=True)
    for kind in kinds: print(f'{kind}: {spread(found[kind]["bits"], 3)} bits, {statistics.median(found[kind]["bits"])*math.log(2):.3f} nats')
    return found | {'track': dataset.track}


def main():
    args = options(__doc__.splitlines()[0], 15, parts=['step', 'cache', 'models'])
    import torch
    from topdown.settings import track
    torch.set_num_threads(1)
    heading('Transformer: a training step, writing, and the LSTM', 'topdown-course', 'torch')
    found = {}
    if 'step' in args.only:
        found['step'] = step(args.runs)
        verdict('07c', 'step_of_pytorch', 'sample', max(v['ratio'] for v in found['step'].values()))
    if 'cache' in args.only:
        found['cache'] = cache(args.runs)
        verdict('07c', 'cache_speedup', 'sample', found['cache']['large']['gain'])
    if 'models' in args.only:
        found[f'models_{track()}'] = models()
    keep('transformer', found, args)


if __name__ == '__main__': main()
