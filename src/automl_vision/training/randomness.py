"""Randomness by address: order and augmentation depend on (seed, epoch, step), never on what ran before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


def keyed_seed(*key: int | str) -> int:
    """A seed of 63 bits that depends on the whole key and nothing else."""
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def keyed_generator(*key: int | str) -> torch.Generator:
    """A generator on the CPU, so that every device draws the same numbers."""
    return torch.Generator().manual_seed(keyed_seed(*key))


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """(count) a permutation of 0 .. count - 1."""
    return torch.randperm(count, generator=keyed_generator("order", seed, epoch))


@dataclass(frozen=True)
class Draws:
    """Random numbers for the images of a batch, of which perhaps only some are here.

    They are drawn for all images of the batch, so that each gets the same wherever it is and whoever is with it.

    Attributes:
        generator: on the CPU.
        count: images of the whole batch.
        rows: (n) int64, those that are here; None where all are.
    """

    generator: torch.Generator
    count: int
    rows: torch.Tensor | None = None

    def uniform(self, *lead: int) -> torch.Tensor:
        """(*lead, n) float32 in [0, 1)."""
        drawn = torch.rand(*lead, self.count, generator=self.generator)
        return drawn if self.rows is None else drawn[..., self.rows]

    def integers(self, below: int, *trail: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        """(n, *trail) from 0 to `below` - 1."""
        drawn = torch.randint(below, (self.count, *trail), dtype=dtype, generator=self.generator)
        return drawn if self.rows is None else drawn[self.rows]


@contextmanager
def kept_globals(device: torch.device) -> Iterator[None]:
    """Put torch's global generators, which dropout draws from, back afterwards as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def seed_globals(*key: int | str) -> None:
    """Seed torch's global generators of all devices; inside of `kept_globals`."""
    torch.manual_seed(keyed_seed(*key))


@contextmanager
def seeded_globals(device: torch.device, *key: int | str) -> Iterator[None]:
    """Seed torch's global generators, which dropout draws from, and put them back afterwards."""
    with kept_globals(device):
        seed_globals(*key)
        yield
