"""Lists of recommendations: the measures against scikit-learn and against counting by hand, score tables, and sampled negatives"""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import ndcg_score

from topdown.collab import DotProduct, RatingDecay, Ratings, Watched, rank_metrics, score_table
from topdown.learner import Adam, Callback, Checkpoint, Learner
from topdown.settings import CourseError


pytestmark = pytest.mark.usefixtures('one_thread')


def tables(people=40, items=30, wanted=.2, known=.3, seed=0):
    g = torch.Generator().manual_seed(seed)
    scores, relevant, seen = (torch.rand(people, items, generator=g) for _ in range(3))
    return scores, relevant < wanted, seen < known


def by_counting(scores, relevant, seen, k):
    "The same measures with loops and Python's own numbers"
    rows, listed = [], set()
    for s, r, known in zip(scores.tolist(), relevant.tolist(), seen.tolist()):
        new = [i for i in range(len(s)) if not known[i]]
        total = sum(r[i] for i in new)
        if not total: continue
        best = sorted(new, key=lambda i: -s[i])[:k]
        listed |= set(best)
        gain = sum(r[i]/np.log2(place + 2) for place, i in enumerate(best))
        most = sum(1/np.log2(place + 2) for place in range(min(k, total)))
        rows.append((sum(r[i] for i in best)/k, sum(r[i] for i in best)/total, gain/most))
    return dict(zip(('precision', 'recall', 'ndcg'), np.mean(rows, 0))) | {'people': len(rows), 'items': len(listed)}


@pytest.mark.parametrize('k', [1, 3, 10, 29, 30])
@pytest.mark.parametrize('seed', range(3))
def test_measures_are_those_found_by_counting(k, seed):
    "Also where fewer than k items are left, and where somebody wants nothing"
    scores, relevant, seen = tables(seed=seed)
    relevant[:4], seen[4:6] = False, True
    seen[6, 2:] = True
    assert rank_metrics(scores, relevant, seen, k) == pytest.approx(by_counting(scores, relevant, seen, k), abs=1e-6)


@pytest.mark.parametrize('k', [1, 5, 10, 30])
def test_ndcg_is_that_of_scikit_learn(k):
    scores, relevant, _ = tables(wanted=.4)
    assert relevant.any(1).all()
    assert rank_metrics(scores, relevant, k=k)['ndcg'] == pytest.approx(ndcg_score(relevant, scores, k=k), abs=1e-6)


def test_ndcg_of_what_is_not_seen_is_that_of_scikit_learn():
    scores, relevant, seen = tables()
    rows = [ndcg_score(r[~known][None], s[~known][None], k=10) for s, r, known in zip(scores, relevant, seen) if r[~known].any()]
    found = rank_metrics(scores, relevant, seen)
    assert found['ndcg'] == pytest.approx(np.mean(rows), abs=1e-6) and found['people'] == len(rows)


def test_the_best_and_the_worst_order():
    _, relevant, seen = tables(wanted=.5, known=0)
    best, worst = rank_metrics(relevant.float(), relevant, seen), rank_metrics((~relevant).float(), relevant, seen)
    assert best['ndcg'] == pytest.approx(1) and worst['ndcg'] < .5
    assert rank_metrics(relevant.float(), relevant, k=30)['recall'] == rank_metrics((~relevant).float(), relevant, k=30)['recall'] == 1


def test_only_the_order_matters():
    scores, relevant, seen = tables()
    expected = rank_metrics(scores, relevant, seen)
    for same in (scores*100 - 7, scores.double(), scores.sigmoid(), scores.argsort(1).argsort(1), scores.numpy()):
        assert rank_metrics(same, relevant, seen) == pytest.approx(expected)
    by = torch.randperm(len(scores), generator=torch.Generator().manual_seed(1))
    assert rank_metrics(scores[by], relevant[by], seen[by]) == pytest.approx(expected)


def test_what_is_seen_is_never_listed_and_no_hit():
    scores, relevant, seen = tables()
    assert rank_metrics(scores + 10*seen, relevant, seen) == rank_metrics(scores - 10*seen, relevant, seen)
    assert rank_metrics(scores, relevant | seen, seen) == rank_metrics(scores, relevant & ~seen, seen)
    seen[:, 7:] = True
    assert rank_metrics(scores, relevant, seen)['items'] <= 7


def test_tables_stay_as_they_are():
    scores, relevant, seen = tables()
    copies = [t.clone() for t in (scores, relevant, seen)]
    rank_metrics(scores, relevant, seen)
    assert all(torch.equal(*pair) for pair in zip(copies, (scores, relevant, seen)))


S, R, _ = tables()


@pytest.mark.parametrize('args, kw, message', [
    ((S[0], R[0]), {}, r'should be a table, a row for each person; found the shape \(30,\)'),
    ((S, R[:, :5]), {}, r'relevant should be true or false for each of the \(40, 30\) scores; found bool of shape \(40, 5\)'),
    ((S, R.float()), {}, 'relevant should be true or false .* found float32'),
    ((S, R, R[:3]), {}, r'seen should be true or false .* found bool of shape \(3, 30\)'),
    ((S, R), {'k': 0}, 'k=0: a list of 30 items has 1 to 30 places'),
    ((S, R), {'k': 31}, 'k=31: a list of 30 items has 1 to 30 places'),
    ((S, R), {'k': 2.5}, 'k=2.5'),
    ((torch.where(R, torch.nan, S), R), {}, r'of 1,200 scores are nan, which has no place in an order'),
    ((S, torch.zeros_like(R)), {}, 'none of 40 people has a relevant item'),
    ((S, R, R), {}, 'none of 40 people has a relevant item that they have not seen'),
    ((S[:0], R[:0]), {}, 'none of 0 people')])
def test_tables_that_do_not_fit(args, kw, message):
    with pytest.raises(CourseError, match=message): rank_metrics(*args, **kw)


@pytest.mark.parametrize('y_range', [(.5, 5.5), (0, 1), None])
def test_score_table_says_what_the_model_says(y_range):
    model = DotProduct(6, 9, factors=3, y_range=y_range, mean=.5 if y_range == (0, 1) else 3.5)
    with torch.no_grad():
        for t in (model.users, model.items): t.add_(torch.randn(t.shape, generator=torch.Generator().manual_seed(0)))
    table = score_table(model)
    user, item = torch.meshgrid(torch.arange(6), torch.arange(9), indexing='ij')
    assert table.shape == (6, 9) and not table.requires_grad
    torch.testing.assert_close(table, model(user.flatten(), item.flatten()).detach().view(6, 9), rtol=1e-5, atol=1e-5)


def two_camps(people=60, items=40, each=12, seed=0):
    "Half of the people watch the first half of the items only, the others the second"
    g, pairs = torch.Generator().manual_seed(seed), []
    for p in range(people):
        half = items//2*(p % 2)
        pairs += [(p, half + i) for i in torch.randperm(items//2, generator=g)[:each].tolist()]
    users, films = zip(*pairs)
    return Ratings([*users, people], [*films, items], [3]*(len(pairs) + 1), scale=(1, 5)).rows(range(len(pairs))) # and one item unwatched


def test_watched_deals_each_pair_once_with_its_negatives():
    r = two_camps()
    dl = Watched(r, negatives=3, bs=100)
    batches = list(dl)
    assert len(batches) == len(dl) == -(-len(r)//100)
    real, drawn = [], []
    for user, item, target in batches:
        assert user.shape == item.shape == target.shape and target.dtype == torch.float32 and user.dtype == item.dtype == torch.int64
        n = int(target.sum())
        assert len(user) == 4*n and target[:n].all() and torch.equal(user, user[:n].repeat(4))
        real += zip(user[:n].tolist(), item[:n].tolist())
        drawn.append(item[n:])
    assert sorted(real) == sorted(zip(r.user.tolist(), r.item.tolist()))
    counts = torch.bincount(torch.cat(drawn), minlength=len(r.items))
    assert len(counts) == len(r.items) and counts.min() > 0 and counts.max() < 3*counts.float().mean() # all items, about equally often


def test_watched_is_a_function_of_seed_and_epoch():
    r = two_camps()
    def epoch(n, **kw):
        dl = Watched(r, **kw)
        dl.epoch = n
        return [torch.stack([t.float() for t in b]) for b in dl]
    a = Watched(r)
    first, second = ([torch.stack([t.float() for t in b]) for b in a] for _ in range(2))
    assert a.epoch == 2
    for got, want in ((first, epoch(0)), (second, epoch(1))): assert all(torch.equal(*pair) for pair in zip(got, want))
    assert not torch.equal(first[0], second[0]) and not torch.equal(first[0], epoch(0, seed=1)[0])
    state = torch.random.get_rng_state()
    next(iter(Watched(r)))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize('kw, message', [({'negatives': 0}, 'negatives=0'), ({'bs': 0}, 'batch size 0')])
def test_watched_refuses(kw, message):
    with pytest.raises(CourseError, match=message): Watched(two_camps(), **kw)


def watcher(r, cbs=()):
    model = DotProduct(len(r.users), len(r.items), factors=4, y_range=None, mean=0)
    return Learner(model, (Watched(r, bs=64), None), F.binary_cross_entropy_with_logits, Adam, lr=.03, cbs=[RatingDecay(.005), *cbs],
                   device='cpu', progress=False)


def test_a_model_of_what_is_watched_tells_camps_apart():
    "And popularity, which is the same for all, cannot"
    r = two_camps()
    known, held = r.rows(range(0, len(r), 2)), r.rows(range(1, len(r), 2))
    def marks(part):
        t = torch.zeros(len(r.users), len(r.items), dtype=torch.bool)
        t[part.user, part.item] = True
        return t
    learn = watcher(known)
    learn.fit_one_cycle(20)
    popular = torch.bincount(known.item, minlength=len(r.items)).float().expand(len(r.users), -1)
    ours, theirs = (rank_metrics(s, marks(held), marks(known)) for s in (score_table(learn.model), popular))
    assert ours['ndcg'] > 1.3*theirs['ndcg'] and ours['precision'] > 1.3*theirs['precision']


class Killed(Callback):
    "Ends the training in the middle of an epoch, if it is to"
    order = 99
    def __init__(self, at=None): self.at = at
    def after_step(self, learn):
        if learn.step == self.at: raise KeyboardInterrupt


def test_a_training_on_what_is_watched_goes_on_exactly(tmp_path):
    r = two_camps()
    whole, broken, later = (watcher(r, [Killed(at)]) for at in (None, 17, None))
    whole.fit_one_cycle(3)
    assert whole.batches == 12 # 17 is in the middle of an epoch
    with pytest.raises(KeyboardInterrupt): broken.fit_one_cycle(3, keep=Checkpoint(tmp_path, every=5))
    later.fit_one_cycle(3, keep=Checkpoint(tmp_path, every=5))
    assert torch.equal(score_table(whole.model), score_table(later.model))
