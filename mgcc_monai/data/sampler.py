"""Resumable sampling: two independently cycling streams, each a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from monai.data import CacheDataset, DataLoader
from torch.utils.data import Sampler

from mgcc_monai.distributed import rank_and_size
from mgcc_monai.errors import MGCCError

__all__ = ["ResumableSampler", "SeededCacheDataset", "TwoStreamLoader", "cyclic_loader"]


class ResumableSampler(Sampler[tuple[int, int]]):
    """Cycle through a list, in a new order each time, with a fixed number of images per epoch.

    The k-th image ever drawn is element ``k mod n`` of a permutation that depends only on (seed, ``k div n``). So every
    image is drawn once before any is drawn again, epochs need not divide the list, and a run resumed at any batch
    continues as if never interrupted. In a distributed run the ranks take turns, one batch each.

    Args:
        dataset: the dataset to index, or its length.
        batch_size: images per batch on this rank.
        batches: batches per epoch.
        seed: seed of the order.
        stream: stream number, so that two streams with the same seed differ.

    Raises:
        MGCCError: if the list is shorter than one batch over all ranks. An empty list raises on iteration.
    """

    def __init__(self, dataset: Any, batch_size: int, batches: int, seed: int = 0, stream: int = 0) -> None:
        size = dataset if isinstance(dataset, int) else len(dataset)
        self.size, self.batch_size, self.batches = int(size), int(batch_size), int(batches)
        self.seed, self.stream, self.epoch, self.start = int(seed), int(stream), 0, 0
        self.rank, self.ranks = rank_and_size()
        if 0 < self.size < self.batch_size * self.ranks:
            raise MGCCError(
                f"A list of {self.size} images cannot fill a batch of {self.batch_size * self.ranks}; "
                "lower the batch size or add images."
            )

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Set the epoch (from 0) and the first batch of the next iteration."""
        self.epoch, self.start = int(epoch), int(start)

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield pairs (index in the list, augmentation seed of this draw)."""
        if not self.size:
            raise MGCCError("An empty list cannot fill a batch; add images.")
        cycle, order = -1, np.empty(0, dtype=np.int64)
        for batch in range(self.epoch * self.batches + self.start, (self.epoch + 1) * self.batches):
            first = (batch * self.ranks + self.rank) * self.batch_size
            for position in range(first, first + self.batch_size):
                if position // self.size != cycle:
                    cycle = position // self.size
                    order = np.random.default_rng([self.seed, self.stream, cycle]).permutation(self.size)
                draw = np.random.SeedSequence([self.seed, self.stream, position]).generate_state(1)[0]
                yield int(order[position % self.size]), int(draw)


class SeededCacheDataset(CacheDataset):
    """A cached dataset with random transforms that depend only on the draw, not on workers or earlier draws.

    Index it with a number, or with a pair (number, seed) from a :class:`ResumableSampler`.

    Args:
        data: list of items.
        transform: transforms; those before the first random one are cached.
        cache_num: maximum number of items to keep in memory.
        progress: show a progress bar while caching.
    """

    def __init__(
        self, data: Sequence[Any], transform: Any = None, cache_num: int = 2000, progress: bool = False
    ) -> None:
        super().__init__(data=data, transform=transform, cache_num=cache_num, num_workers=1, progress=progress)

    def __getitem__(self, index: Any) -> Any:
        """Return the item; a pair also seeds the random transforms."""
        if isinstance(index, tuple):
            index, seed = index
            self.transform.set_random_state(seed=seed)
        return super().__getitem__(index)


def cyclic_loader(
    dataset: Any, batch_size: int, batches: int, seed: int = 0, stream: int = 0, num_workers: int = 0
) -> DataLoader:
    """Return MONAI's loader with a :class:`ResumableSampler`; see there for the arguments."""
    sampler = ResumableSampler(dataset, batch_size, batches, seed, stream)
    return DataLoader(dataset, batch_size=batch_size, sampler=sampler, num_workers=num_workers)


class TwoStreamLoader:
    """Batches of two loaders side by side: ``image`` and ``label``, and ``unlabeled_image``.

    Each loader has a :class:`ResumableSampler` with the same number of batches; lists and batch sizes may differ.

    Args:
        labeled: loader of items with ``image`` and ``label``.
        unlabeled: loader of items with ``image``; None for supervised training.
        consistency_weight: final weight of the consistency loss; 0 leaves the unlabelled images out.

    Raises:
        ValueError: if the loaders have different numbers of batches.
    """

    def __init__(
        self, labeled: DataLoader, unlabeled: DataLoader | None = None, consistency_weight: float = 1.0
    ) -> None:
        if unlabeled is not None and len(labeled) != len(unlabeled):
            raise ValueError(
                f"The streams have {len(labeled)} and {len(unlabeled)} batches per epoch; they must agree."
            )
        self.loaders = [labeled] if unlabeled is None or not consistency_weight else [labeled, unlabeled]

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Set the epoch (from 0) and its first batch for both streams, effective at the next iteration."""
        for loader in self.loaders:
            loader.sampler.set_epoch(epoch, start)

    def __len__(self) -> int:
        return len(self.loaders[0])

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for labeled, *unlabeled in zip(*self.loaders):
            batch = dict(labeled)
            for other in unlabeled:
                batch["unlabeled_image"] = other["image"]
            yield batch
