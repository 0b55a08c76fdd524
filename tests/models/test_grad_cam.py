"""Grad-CAM: it points at what decides, on every backbone, and says nothing where there is nothing to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from automl_vision.data.preprocess import Preprocessing, normalize
from automl_vision.models.backbones import BACKBONES
from automl_vision.models.classifier import Classifier, build_classifier
from automl_vision.models.ensemble import Ensemble, Voter
from automl_vision.models.grad_cam import FEWEST_CELLS, LAST, GradCam, HeatMaps, _as_grid, _cut
from automl_vision.runtime import Runtime

SIDE = 64
PLAIN = Preprocessing(SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Colours(nn.Module):
    """A backbone whose feature map is the image itself, in fields of 8 pixels: what it sees can be told by hand."""

    feature_info = ()

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.gain * F.avg_pool2d(images, 8).relu()

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return features.mean(dim=(2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))


def colours(weight: torch.Tensor | None = None) -> Classifier:
    """Class k is how much of channel k there is."""
    head = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(3) if weight is None else weight)
    return Classifier(Colours(), head)


def patched(*patches: tuple[int, int, int]) -> torch.Tensor:
    """(1, 3, 64, 64) uint8: grey with 16 x 16 patches, each (channel, top, left)."""
    image = torch.full((1, 3, SIDE, SIDE), 100, dtype=torch.uint8)
    for channel, top, left in patches:
        image[0, channel, top : top + 16, left : left + 16] = 255
    return image


def maps(voters: Any, pixels: torch.Tensor, *classes: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return HeatMaps(voters)(lambda side: F.interpolate(pixels, (side, side)), np.array(classes))


def hottest(heat: np.ndarray[Any, np.dtype[np.float32]]) -> tuple[int, int]:
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    return int(row), int(column)


def test_the_map_of_a_class_is_at_its_own_colour() -> None:
    image = patched((0, 8, 40), (1, 40, 0))
    heat = maps([Voter(colours(), PLAIN)], image.expand(2, -1, -1, -1), 0, 1)
    assert heat.shape == (2, SIDE, SIDE)
    assert heat.dtype == np.float32
    assert (heat.min(), heat.max()) == (0.0, 1.0)
    assert 8 <= hottest(heat[0])[0] < 24
    assert 40 <= hottest(heat[0])[1] < 56
    assert 40 <= hottest(heat[1])[0] < 56
    assert hottest(heat[1])[1] < 16


@pytest.mark.parametrize(
    "weight",
    [torch.zeros(3, 3), -torch.eye(3), torch.full((3, 3), torch.nan), torch.full((3, 3), torch.inf)],
    ids=["no gradient", "all against", "nan", "infinite"],
)
def test_what_says_nothing_is_empty_and_not_noise(weight: torch.Tensor) -> None:
    heat = maps([Voter(colours(weight), PLAIN)], patched((0, 8, 40)), 0)
    assert not heat.any()


def test_evidence_that_cancels_out_is_not_blown_up() -> None:
    weight = torch.tensor([[1.0, -1.0, 1e-9], [0, 0, 0], [0, 0, 0]])
    grey = torch.full((1, 3, SIDE, SIDE), 200, dtype=torch.uint8)
    assert not maps([Voter(colours(weight), PLAIN)], grey, 0).any()


def test_a_mirrored_view_counts_as_much_as_the_plain_one() -> None:
    class LeftOnly(Colours):
        """Sees the left half alone."""

        def forward_features(self, images: torch.Tensor) -> torch.Tensor:
            seen = super().forward_features(images)
            return torch.cat([seen[..., : seen.shape[3] // 2], 0 * seen[..., seen.shape[3] // 2 :]], dim=3)

    net = colours()
    net.backbone = LeftOnly()
    image = patched((0, 8, 8), (0, 8, 40))
    plain = maps([Voter(net, PLAIN)], image, 0)[0]
    both = maps([Voter(net, PLAIN, flip=True)], image, 0)[0]
    assert plain[16, 16] == 1
    assert plain[16, 48] == 0
    assert both[16, 16] == both[16, 47] == 1


def test_votes_count_by_their_shares_whatever_the_scale_of_their_scores() -> None:
    image = patched((0, 8, 40), (1, 40, 0))
    loud = 1000 * torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 0]])
    other = torch.tensor([[0.0, 1, 0], [0, 0, 0], [0, 0, 0]])
    small = Preprocessing(32, PLAIN.mean, PLAIN.std)
    heat = maps([Voter(colours(loud), PLAIN, share=0.25), Voter(colours(other), small, share=0.75)], image, 0)[0]
    assert heat.shape == (SIDE, SIDE)
    assert heat[48, 8] > 0.95
    assert heat[16, 48] == pytest.approx(1 / 3, abs=0.02)


def test_nothing_asked_nothing_told() -> None:
    none = torch.zeros(0, 3, SIDE, SIDE, dtype=torch.uint8)
    assert HeatMaps([Voter(colours(), PLAIN)])(lambda side: none, np.array([], dtype=np.int64)).shape == (0, SIDE, SIDE)


# --- real networks ----------------------------------------------------------------------------------------------------


CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
LARGE = 10  # million weights: filling those takes longer than all else
WHOLE_TABLE = [
    pytest.param(name, marks=[pytest.mark.slow] if row.parameters_m > LARGE else []) for name, row in BACKBONES.items()
]


@pytest.mark.parametrize("name", WHOLE_TABLE)
def test_every_backbone_has_a_map_whose_places_are_those_of_the_image(name: str) -> None:
    side = 96
    net = build_classifier(name, 2, resolution=side).eval()
    net.requires_grad_(False)
    cam = GradCam(net, side)
    assert cam.layer is not None
    rows, columns = cam.cells
    assert min(rows, columns) >= FEWEST_CELLS
    plain = torch.randn(8, 3, side, side, generator=torch.Generator().manual_seed(0)) / 4
    shares = []  # what a change in one corner of the image moves in the four corners of the map
    for top, left in CORNERS:
        changed = plain.clone()
        third = changed[..., top * 2 * side // 3 :, left * 2 * side // 3 :][..., : side // 3, : side // 3]
        third += torch.randn(third.shape, generator=torch.Generator().manual_seed(1))
        grids = [_as_grid(net.backbone, _cut(net.backbone, cam.layer, each)[0].detach()) for each in (plain, changed)]
        moved = (grids[0] - grids[1]).abs().sum(dim=(0, 1))
        halves = [each.chunk(2, dim=1) for each in moved.chunk(2, dim=0)]
        shares.append(torch.stack([halves[row][column].mean() for row, column in CORNERS]) / moved.mean())
    assert torch.stack(shares).argmax(dim=0).tolist() == [0, 1, 2, 3]


def test_tokens_that_lead_nowhere_are_passed_by() -> None:
    net = build_classifier("vit_tiny_patch16_224", 2, resolution=64)
    cam = GradCam(net, 64)
    assert (cam.layer, cam.cells) == ("blocks.10", (4, 4))  # of the last map only the token of the class is read


def test_a_fine_enough_map_is_the_last_one() -> None:
    net = build_classifier("mobilenetv3_small_100", 2, resolution=128)
    assert GradCam(net, 128).layer == LAST
    assert GradCam(net, 96).layer != LAST


class Small(nn.Module):
    """Three convolutions to 8 x 8 places."""

    feature_info = ()

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            widths = (3, 8, 16, 16)
            layers = [nn.Conv2d(widths[k], widths[k + 1], 3, stride=2, padding=1) for k in range(3)]
        self.features = nn.Sequential(*(each for layer in layers for each in (layer, nn.ReLU())))

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.features(images)
        return features

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return features.mean(dim=(2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))


@pytest.fixture(scope="module")
def pointed() -> tuple[Classifier, Callable[[int, int], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]]:
    """A small network that learned which of two colours a patch has, and what makes such images."""

    def make(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        random = torch.Generator().manual_seed(seed)
        images = torch.randint(90, 160, (count, 3, 8, 8), dtype=torch.uint8, generator=random)
        images = F.interpolate(images, (SIDE, SIDE))
        labels = torch.arange(count) % 2
        places = torch.randint(0, 3, (count, 2), generator=random) * 20 + 2
        for image, label, (top, left) in zip(images, labels.tolist(), places.tolist(), strict=True):
            image[:, top : top + 20, left : left + 20] = 0
            image[2 * label, top : top + 20, left : left + 20] = 255
        return images, labels, places

    net = Classifier(Small(seed=0), nn.Linear(16, 2))
    images, labels, _ = make(64, seed=1)
    solver = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(30):
        for rows in torch.arange(64).split(16):
            solver.zero_grad()
            F.cross_entropy(net(normalize(images[rows], PLAIN.mean, PLAIN.std)), labels[rows]).backward()
            solver.step()
    return net.eval(), make


def hit_rate(net: Classifier, make: Any) -> float:
    images, labels, places = make(40, seed=2)
    found = map(hottest, maps([Voter(net, PLAIN)], images, *labels.tolist()))
    pairs = zip(found, places.tolist(), strict=True)
    return float(
        np.mean([top <= row < top + 20 and left <= column < left + 20 for (row, column), (top, left) in pairs])
    )


def test_it_points_at_the_patch_that_decides(pointed: Any) -> None:
    assert hit_rate(*pointed) > 0.8  # a tenth by chance


def test_random_weights_look_elsewhere(pointed: Any) -> None:
    """Adebayo et al. 2018: a map that does not depend on the weights explains nothing."""
    _, make = pointed
    torch.manual_seed(0)
    rates = [hit_rate(Classifier(Small(seed), nn.Linear(16, 2)).eval(), make) for seed in range(1, 9)]
    assert np.mean(rates) < 0.5


def test_the_network_is_left_as_it_was_and_says_the_same_again(pointed: Any, cpu: Runtime) -> None:
    net, make = pointed
    images, labels, _ = make(6, seed=4)
    net.backbone.features[0].requires_grad_(False)
    net.zero_grad(set_to_none=True)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    voter = Voter(net, PLAIN, flip=True)
    said = Ensemble([voter], cpu).log_probabilities(lambda side: [images])
    heat = maps([voter], images, *labels.tolist())
    np.testing.assert_array_equal(heat, maps([voter], images, *labels.tolist()))
    np.testing.assert_array_equal(said, Ensemble([voter], cpu).log_probabilities(lambda side: [images]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    frozen = [name for name, each in net.named_parameters() if not each.requires_grad]
    assert frozen == ["backbone.features.0.weight", "backbone.features.0.bias"]
    assert all(each.grad is None for each in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("name", ["tiny_vit_5m", "mobilenetv3_small_100"])
def test_a_network_that_predicted_before_can_be_explained(name: str, cpu: Runtime) -> None:
    net = build_classifier(name, 2, resolution=SIDE, seed=0)
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    voter = Voter(net, PLAIN)
    fresh = maps([voter], images, 0, 1)
    Ensemble([voter], cpu).log_probabilities(lambda side: [images])  # keeps tables that no gradient passes through
    np.testing.assert_array_equal(maps([voter], images, 0, 1), fresh)
    with torch.inference_mode():
        np.testing.assert_array_equal(maps([voter], images, 0, 1), fresh)


def test_hidden_layers_of_a_head_are_explained_too() -> None:
    net = build_classifier("mobilenetv3_small_100", 3, resolution=SIDE, head="mlp:16-gelu", seed=0)
    nn.init.normal_(net.head[-1].weight, generator=torch.Generator().manual_seed(0))  # type: ignore[index,arg-type]
    images = torch.randint(0, 256, (4, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert maps([Voter(net, PLAIN)], images, 0, 1, 2, 0).any()
