"""Randomness by address: order and augmentation depend on (seed, epoch, step), never on what ran before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def seeded_globals(device: torch.device, *key: int | str) -> Iterator[None]:
    """Seed torch's global generators, which dropout draws from, and put them back afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(keyed_seed(*key))
        yield
