"""Laws of the two streams: what comes when is a function of (seed, epoch), whatever process or worker asks."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, Lambdad, RandFlipd, RandGaussianNoised, RandRotate90d

from mgcc_monai.data import ResumableSampler, SeededCacheDataset, TwoStreamLoader
from mgcc_monai.errors import MGCCError


def drawn(sampler: ResumableSampler, epochs: int, first: int = 0) -> list[tuple[int, int]]:
    pairs = []
    for epoch in range(first, first + epochs):
        sampler.set_epoch(epoch)
        pairs += list(sampler)
    return pairs


def on_rank(rank: int, ranks: int, **arguments: int) -> ResumableSampler:
    sampler = ResumableSampler(**arguments)
    sampler.rank, sampler.ranks = rank, ranks
    return sampler


@pytest.mark.parametrize("size, batch_size, batches", [(7, 2, 3), (10, 4, 5), (5, 5, 1), (100, 3, 7), (3, 1, 8)])
def test_every_image_once_a_cycle_across_epochs(size, batch_size, batches):
    sampler = ResumableSampler(size, batch_size, batches, seed=5)
    cycles = 4
    epochs = -(-cycles * size // (batch_size * batches))
    indices = [index for index, _ in drawn(sampler, epochs)]
    assert len(indices) == epochs * len(sampler) == epochs * batch_size * batches
    orders = [tuple(indices[k * size : (k + 1) * size]) for k in range(cycles)]
    assert all(sorted(order) == list(range(size)) for order in orders)
    assert len(set(orders)) > 1, "a new order each cycle"


def test_function_of_seed_and_epoch():
    arguments = {"dataset": 11, "batch_size": 3, "batches": 4, "seed": 9}
    whole = drawn(ResumableSampler(**arguments), epochs=6)
    assert drawn(ResumableSampler(**arguments), epochs=3, first=3) == whole[3 * 12 :]
    sampler = ResumableSampler(**arguments)
    torch.manual_seed(1)
    iterator = iter(sampler)
    next(iterator)  # given up in the middle, as a stopped run does
    torch.manual_seed(2)
    assert drawn(sampler, epochs=6) == whole
    assert list(sampler) == list(sampler), "without set_epoch an epoch repeats"


@pytest.mark.parametrize("start", range(5))
def test_an_epoch_begun_at_a_batch_is_the_rest_of_it(start):
    """On every rank; and the next epoch begins at its first batch again."""
    arguments = {"dataset": 31, "batch_size": 3, "batches": 4, "seed": 9}
    for rank in (0, 1):
        sampler = on_rank(rank, 2, **arguments)
        sampler.set_epoch(2)
        whole = list(sampler)
        sampler.set_epoch(2, start)
        assert list(sampler) == whole[3 * start :] and len(sampler) == 12
        sampler.set_epoch(3)
        assert len(list(sampler)) == 12


def test_seeds_and_streams_differ():
    base = {"dataset": 50, "batch_size": 5, "batches": 10}
    orders = {
        tuple(ResumableSampler(**base, seed=seed, stream=stream)) for seed, stream in ((0, 0), (1, 0), (0, 1), (1, 1))
    }
    assert len(orders) == 4


def test_every_drawing_has_its_own_augmentation():
    pairs = drawn(ResumableSampler(6, 2, 9), epochs=20)
    assert Counter(seed for _, seed in pairs).most_common(1)[0][1] == 1
    assert all(type(index) is int and type(seed) is int and 0 <= seed < 2**32 for index, seed in pairs)


@pytest.mark.parametrize("size", [8, 13, 40])
def test_two_ranks_are_one_process_with_the_double_batch(size):
    common = {"dataset": size, "batches": 5, "seed": 3}
    ranks = [drawn(on_rank(rank, 2, batch_size=3, **common), epochs=4) for rank in (0, 1)]
    single = drawn(ResumableSampler(batch_size=6, **common), epochs=4)
    for batch in range(20):
        shares = [pairs[batch * 3 : batch * 3 + 3] for pairs in ranks]
        assert shares[0] + shares[1] == single[batch * 6 : batch * 6 + 6]
    assert not set(ranks[0]) & set(ranks[1])


def test_list_that_cannot_fill_a_batch_is_told():
    ResumableSampler(4, 4, 1)
    with pytest.raises(MGCCError, match="3 images cannot fill a batch of 4"):
        ResumableSampler(3, 4, 1)
    empty = ResumableSampler(0, 1, 1)  # of a stream that is not used
    with pytest.raises(MGCCError, match="An empty list cannot fill a batch"):
        next(iter(empty))


def items(count: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [{"image": torch.rand(1, 6, 6, generator=generator), "number": i} for i in range(count)]


def augmentation() -> Compose:
    return Compose(
        [
            Lambdad("image", lambda x: x * 2),
            RandFlipd("image", prob=0.5, spatial_axis=0),
            RandRotate90d("image", prob=0.5),
            RandGaussianNoised("image", prob=1.0, std=0.3),
        ]
    )


def images(dataset: SeededCacheDataset, sampler: ResumableSampler, workers: int) -> torch.Tensor:
    loader = DataLoader(dataset, batch_size=sampler.batch_size, sampler=sampler, num_workers=workers)
    return torch.cat([batch["image"].as_subclass(torch.Tensor) for batch in loader])


def test_same_drawing_same_image_whatever_came_before():
    dataset = SeededCacheDataset(items(4), augmentation())
    first = dataset[(2, 77)]["image"].clone()
    assert not torch.equal(dataset[(2, 78)]["image"], first)
    assert not torch.equal(dataset[(1, 77)]["image"], first)
    torch.manual_seed(123)
    for i in range(4):
        dataset[i]  # draws on
    assert torch.equal(dataset[(2, 77)]["image"], first)
    assert torch.equal(SeededCacheDataset(items(4), augmentation(), cache_num=0)[(2, 77)]["image"], first)
    assert not torch.equal(dataset[2]["image"], dataset[2]["image"]), "by number alone it draws anew"


def test_workers_change_nothing():
    sampler = ResumableSampler(6, 2, 5, seed=1)
    sampler.set_epoch(2)
    alone = images(SeededCacheDataset(items(6), augmentation()), sampler, workers=0)
    helped = images(SeededCacheDataset(items(6), augmentation()), sampler, workers=2)
    assert torch.equal(alone, helped)
    sampler.set_epoch(3)
    assert not torch.equal(images(SeededCacheDataset(items(6), augmentation()), sampler, workers=0), alone)


def streams(labelled: int, unlabelled: int, sizes: tuple[int, int], batches: int) -> TwoStreamLoader:
    loaders = []
    for stream, (count, size) in enumerate(((labelled, sizes[0]), (unlabelled, sizes[1]))):
        data = [{**item, "label": item["image"] > 0.5} for item in items(count)]
        sampler = ResumableSampler(count, size, batches, stream=stream)
        loaders.append(DataLoader(SeededCacheDataset(data, augmentation()), batch_size=size, sampler=sampler))
    return TwoStreamLoader(*loaders)


@pytest.mark.parametrize("labelled, unlabelled, sizes", [(5, 30, (4, 4)), (2, 9, (1, 7)), (20, 3, (7, 1))])
def test_streams_of_any_length_and_batch(labelled, unlabelled, sizes):
    loader = streams(labelled, unlabelled, sizes, batches=6)
    batches = list(loader)
    assert len(loader) == len(batches) == 6
    for batch in batches:
        assert batch["image"].shape == batch["label"].shape == (sizes[0], 1, 6, 6)
        assert batch["unlabeled_image"].shape == (sizes[1], 1, 6, 6)
        assert len(batch["number"]) == sizes[0], "of the unlabelled stream only the image is taken"


def test_epoch_is_set_in_both_streams_from_the_next_iteration_on():
    loader = streams(8, 8, (2, 2), batches=2)
    first = list(loader)
    loader.set_epoch(1)
    second = list(loader)
    loader.set_epoch(0)
    again = list(loader)
    for key in ("image", "unlabeled_image"):
        assert not torch.equal(first[0][key], second[0][key])
        assert all(torch.equal(a[key], b[key]) for a, b in zip(first, again))


def test_without_unlabelled_stream():
    both = streams(6, 6, (2, 2), batches=3)
    alone = TwoStreamLoader(both.loaders[0])
    assert len(alone) == 3
    for batch, pair in zip(alone, both):
        assert "unlabeled_image" not in batch
        assert torch.equal(batch["image"], pair["image"])


def test_streams_of_unequal_epochs_are_refused():
    short, long = streams(6, 6, (2, 2), batches=3), streams(6, 6, (2, 2), batches=4)
    with pytest.raises(ValueError, match="3 and 4 batches"):
        TwoStreamLoader(short.loaders[0], long.loaders[1])
