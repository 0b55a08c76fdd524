"""Published fine-tuning recipes and plain Optuna, each until a deadline: the rivals of benchmarks/duel.py.

All of them start from the weights that come with this project, at one input size, and run on its fast parts (decoded
once, channels last, its weights and layer groups), so that recipes are compared and not loaders. When the time
is up, the best validated checkpoint is shipped, or the last one where a recipe has no validation.
What a recipe leaves to its user is set in its favour: 32 images per step, and as many epochs as fit.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from automl_vision.data.preprocess import Preprocessing, normalize
from automl_vision.models.backbones import backbone, layer_scales, statistics, undecayed
from automl_vision.models.classifier import Classifier, build_classifier, placed
from automl_vision.models.inference import autocast, logits
from automl_vision.models.weights import load_weights, require_weights
from automl_vision.runtime import Runtime

BACKBONE = "efficientnet_lite0"
BATCH = 32
#: Where images are cropped, they are this much larger than what is cut from them (160 to 128 in the BiT rule).
CANVAS = 1.25
#: Share of the training images that choose a checkpoint, as in `search`.
VALIDATION = 0.2

State = dict[str, torch.Tensor]
Schedule = Callable[[float], float]


@dataclass(frozen=True)
class Task:
    """What a recipe is given.

    Attributes:
        images: (n, 3, P, P) uint8, P = `CANVAS` times the input size.
        labels: (n) class indices.
        class_names: C names.
        size: side of the input in pixels.
        runtime: device, precision, threads.
        deadline: monotonic seconds.
        seed: of everything random.
        freeze_norm: keep the statistics of batch norm as pretrained, as our recipes do and the published ones do not.
    """

    images: torch.Tensor
    labels: torch.Tensor
    class_names: tuple[str, ...]
    size: int
    runtime: Runtime
    deadline: float
    seed: int
    freeze_norm: bool = False

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def rows(self, rows: NDArray[np.int64]) -> Task:
        """The same with some of the images only."""
        kept = torch.from_numpy(rows)
        return replace(self, images=self.images[kept], labels=self.labels[kept])

    def split(self) -> tuple[Task, Task]:
        """Training and validation images, stratified."""
        from sklearn.model_selection import train_test_split

        both = train_test_split(
            np.arange(len(self.labels)),
            test_size=max(VALIDATION, len(self.class_names) / len(self.labels)),
            stratify=self.labels.numpy(),
            random_state=self.seed,
        )
        return self.rows(np.sort(both[0])), self.rows(np.sort(both[1]))


@dataclass(frozen=True)
class Shipped:
    """What a recipe came to: weights, and what is worth knowing of how it got there."""

    weights: State
    about: dict[str, Any]


# --- augmentation: (B, 3, P, P) uint8, side, generator -> (B, 3, side, side) uint8 -----------------------------------


def resized(batch: torch.Tensor, size: int, _generator: torch.Generator) -> torch.Tensor:
    """The whole image."""
    return F.interpolate(batch, (size, size), mode="bilinear", antialias=True)


def cropped(batch: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """A random cut, mirrored half of the time (Kolesnikov et al. 2020)."""
    room = batch.shape[-1] - size + 1
    corners = torch.randint(room, (len(batch), 2), generator=generator).tolist()
    cuts = torch.stack([each[:, y : y + size, x : x + size] for each, (y, x) in zip(batch, corners, strict=True)])
    mirrored = torch.rand(len(batch), generator=generator) < 0.5
    cuts[mirrored] = cuts[mirrored].flip(3)
    return cuts


def trivial(batch: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """TrivialAugment, wide (Mueller and Hutter 2021), as torchvision has it."""
    from torchvision.transforms.v2 import TrivialAugmentWide

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        change = TrivialAugmentWide()
        return torch.stack([change(image) for image in resized(batch, size, generator)])


AUGMENTATIONS: dict[str, Callable[[torch.Tensor, int, torch.Generator], torch.Tensor]] = {
    "none": resized,
    "crop": cropped,
    "trivial": trivial,
}


# --- learning-rate schedules: share of the steps that is done -> factor ---------------------------------------------


def one_cycle(peak: float, divided_by: float) -> Schedule:
    """Cosine from 1 / `divided_by` up to 1 at `peak`, then down to 1e-5 (Smith and Topin 2018, as in fastai)."""

    def cosine(start: float, end: float, share: float) -> float:
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))

    def factor(done: float) -> float:
        if done < peak:
            return cosine(1 / divided_by, 1.0, done / peak)
        return cosine(1.0, 1e-5, (done - peak) / (1 - peak))

    return factor


def cosine_after(warm_up: float) -> Schedule:
    """A linear rise, then a cosine to 0."""

    def factor(done: float) -> float:
        if done < warm_up:
            return done / warm_up
        return 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))

    return factor


def bit_stairs(done: float) -> float:
    """BiT's rule: a rise over the first fifth, then a tenth of the rate at 40, 60 and 80 % of the steps."""
    return done / 0.2 if done < 0.2 else 0.1 ** max(0, int(done / 0.2) - 1)


# --- the loop --------------------------------------------------------------------------------------------------------


@dataclass
class Fit:
    """One network and its training; `epoch` is called until it says that time or steps are over.

    Attributes:
        task: what it is trained on.
        net: on the device.
        groups: parameter groups with `lr_scale`.
        schedule: factor on the rate by the share of steps done.
        steps: of the whole schedule.
        validates: images that are validated after an epoch; training leaves time for that before the deadline.
        reserve: seconds that it takes, once it was measured.
    """

    task: Task
    net: nn.Module
    optimizer: torch.optim.Optimizer
    rate: float
    schedule: Schedule
    steps: int
    augment: str = "none"
    smoothing: float = 0.0
    clip: float = 0.0
    validates: int = 0
    reserve: float = 0.0
    done: int = 0
    slowest: float = 0.0

    def epoch(self) -> bool:
        """Train on every image once; False where the deadline or the last step cut it short."""
        training_mode(self.net, self.task)
        order = torch.randperm(len(self.task.labels), generator=self._generator())
        for positions in torch.split(order, BATCH):
            if len(positions) < 2 < len(order):
                continue  # batch norm cannot learn from a single image
            if self.done >= self.steps or self.task.left < 1.2 * self.slowest + self._to_validate():
                return False
            began = time.monotonic()
            self._step(positions)
            self.slowest = max(0.7 * self.slowest, time.monotonic() - began)
        return self.done < self.steps

    def _to_validate(self) -> float:
        return self.reserve or 0.5 * self.slowest * self.validates / BATCH

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.task.seed * 1_000_003 + self.done)

    def _step(self, positions: torch.Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["lr_scale"] * self.schedule((self.done + 0.5) / self.steps)
        loss = loss_of(self.net, self.task, positions, self.augment, self._generator(), self.smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        if self.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        self.optimizer.step()
        self.done += 1


def loss_of(
    net: nn.Module, task: Task, positions: torch.Tensor, augment: str, generator: torch.Generator, smoothing: float
) -> torch.Tensor:
    """Mean cross-entropy of some of the images."""
    pixels = AUGMENTATIONS[augment](task.images[positions], task.size, generator).to(task.runtime.device)
    mean, std = statistics(backbone(BACKBONE))
    inputs = normalize(pixels, mean, std).contiguous(memory_format=torch.channels_last)
    with autocast(task.runtime):
        scores = net(inputs)
    return F.cross_entropy(scores.float(), task.labels[positions].to(scores.device), label_smoothing=smoothing)


def training_mode(net: nn.Module, task: Task) -> None:
    """As `net.train()`, but for batch norm where its statistics stay."""
    net.train()
    for module in net.modules() if task.freeze_norm else ():
        if isinstance(module, nn.BatchNorm2d):  # a head's own one has no statistics to keep, and is one-dimensional
            module.eval()


def network(task: Task) -> Classifier:
    """The pretrained backbone with a new linear head, on the device."""
    row = backbone(BACKBONE)
    weights = load_weights(require_weights(row, offline=True), row)
    net = build_classifier(BACKBONE, len(task.class_names), resolution=task.size, weights=weights, seed=task.seed)
    return placed(net, task.runtime.device)


def groups_of(net: Classifier, layer_decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters by layer, the head with factor 1; no decay on biases and norm layers."""
    scales, exempt = layer_scales(net.backbone, layer_decay), undecayed(net.backbone)
    groups = []
    for name, parameter in net.named_parameters():
        inner = name.removeprefix("backbone.")
        scale = scales[inner] if name.startswith("backbone.") else 1.0
        decay = weight_decay if parameter.ndim > 1 and inner not in exempt else 0.0
        groups.append({"params": [parameter], "lr_scale": scale, "weight_decay": decay})
    return groups


def step_seconds(net: nn.Module, task: Task, augment: str) -> float:
    """Seconds of a training step, measured without changing the network."""
    twin = copy.deepcopy(net)
    training_mode(twin, task)
    positions = torch.arange(min(BATCH, len(task.labels)))
    seconds = math.inf
    for _ in range(2):
        began = time.monotonic()
        loss_of(twin, task, positions, augment, torch.Generator(), 0.0).backward()  # type: ignore[no-untyped-call]
        seconds = time.monotonic() - began
    return seconds


def steps_per_epoch(task: Task) -> int:
    """A last batch of one image is left out."""
    n = len(task.labels)
    return max(1, n // BATCH + (n % BATCH > 1))


def predict(net: nn.Module, task: Task) -> NDArray[np.float32]:
    """(n, C) scores of all images."""
    mean, std = statistics(backbone(BACKBONE))
    batches = (resized(part, task.size, torch.Generator()) for part in torch.split(task.images, 2 * BATCH))
    return logits(net, batches, Preprocessing(size=task.size, mean=mean, std=std), task.runtime)


def accuracy(net: nn.Module, task: Task) -> float:
    """Share of images whose best class is right."""
    return float((predict(net, task).argmax(axis=1) == task.labels.numpy()).mean())


def state_of(net: nn.Module) -> State:
    """A copy on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in net.state_dict().items()}


# --- fastai: fine_tune (Howard and Gugger) ---------------------------------------------------------------------------

_FASTAI_RATE = 2e-3
#: Users say how many epochs; these are many for `fine_tune`, and no less than as many steps.
_FASTAI_EPOCHS, _FASTAI_STEPS = 20, 300


class FastaiHead(nn.Sequential):
    """Two layers with batch norm and dropout, as fastai puts them on a pretrained body."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(
            nn.BatchNorm1d(features),
            nn.Dropout(0.25),
            nn.Linear(features, 512, bias=False),
            nn.ReLU(inplace=True),
            nn.BatchNorm1d(512),
            nn.Dropout(0.5),
            nn.Linear(512, classes, bias=False),
        )
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)


def fastai(task: Task) -> Shipped:
    """`fine_tune`: one frozen epoch, then all layers with rates from a hundredth of the head's; no validation."""
    torch.manual_seed(task.seed)
    net = network(task)
    net.head = FastaiHead(net.head.in_features, len(task.class_names)).to(task.runtime.device)  # type: ignore[arg-type]
    per_epoch = steps_per_epoch(task)
    body = list(net.backbone.parameters())
    norms = {id(p) for m in net.backbone.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    for parameter in body:
        parameter.requires_grad_(id(parameter) in norms)
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    frozen = Fit(task, net, _adam([(trained, 1.0)]), _FASTAI_RATE, one_cycle(0.99, 25.0), per_epoch, augment="none")
    frozen.epoch()
    for parameter in body:
        parameter.requires_grad_(True)
    fitting = int(0.95 * task.left / step_seconds(net, task, "none")) if task.left > 0 else 0
    steps = max(1, min(fitting, max(_FASTAI_EPOCHS * per_epoch, _FASTAI_STEPS)))
    half = len(body) // 2
    parts = [(body[:half], 0.01), (body[half:], 0.1), (list(net.head.parameters()), 1.0)]
    thawed = Fit(task, net, _adam(parts), _FASTAI_RATE / 2, one_cycle(0.3, 5.0), steps)
    while thawed.epoch():
        pass
    return Shipped(state_of(net), {"steps": [frozen.done, thawed.done], "planned": steps})


def _adam(parts: Sequence[tuple[list[nn.Parameter], float]]) -> torch.optim.Optimizer:
    groups = [{"params": parameters, "lr_scale": scale} for parameters, scale in parts]
    return torch.optim.AdamW(groups, lr=_FASTAI_RATE, betas=(0.9, 0.99), eps=1e-5, weight_decay=0.01, fused=True)


# --- AutoGluon MultiModal (Tang et al. 2024) -------------------------------------------------------------------------

_AG_EPOCHS, _AG_PATIENCE, _AG_SOUP = 20, 10, 3


def autogluon(task: Task) -> Shipped:
    """AdamW 1e-4, layer decay .9, cosine over 20 epochs whatever the time, and the greedy soup of the best three."""
    train, val = task.split()
    net = network(task)
    optimizer = torch.optim.AdamW(groups_of(net, layer_decay=0.9, weight_decay=1e-3), lr=1e-4, fused=True)
    steps = _AG_EPOCHS * steps_per_epoch(train)
    fit = Fit(train, net, optimizer, 1e-4, cosine_after(0.1), steps, "trivial", clip=1.0, validates=len(val.labels))
    best: list[tuple[float, int, State]] = []
    stale, going = 0, True
    while going and stale < _AG_PATIENCE:
        going = fit.epoch()
        began = time.monotonic()
        score = accuracy(net, val)
        fit.reserve = (_AG_SOUP + 0.5) * (time.monotonic() - began)
        stale = 0 if not best or score > best[0][0] else stale + 1
        best = sorted([*best, (score, -fit.done, state_of(net))], key=lambda each: each[:2], reverse=True)[:_AG_SOUP]
    weights, members, score = _greedy_soup(net, val, best)
    return Shipped(weights, {"steps": fit.done, "planned": steps, "soup": members, "validation": score})


def _greedy_soup(net: nn.Module, val: Task, ranked: Sequence[tuple[float, int, State]]) -> tuple[State, int, float]:
    """The mean of the best checkpoints; one is added where validation does not fall (Wortsman et al. 2022)."""
    score, _, weights = ranked[0]
    members = 1
    for _, _, more in ranked[1:]:
        if val.left < 0.5:
            break
        tried = {
            k: torch.lerp(t, more[k], 1 / (members + 1)) if t.is_floating_point() else t for k, t in weights.items()
        }
        net.load_state_dict(tried)
        reached = accuracy(net, val)
        if reached >= score:
            score, weights, members = reached, tried, members + 1
    return weights, members, score


# --- the BiT hyper-rule (Kolesnikov et al. 2020) ---------------------------------------------------------------------

_BIT_STEPS = 500


def bit(task: Task) -> Shipped:
    """SGD .003, 500 steps or as many as fit, stairs; the last weights, as the rule has no validation."""
    net = network(task)
    nn.init.zeros_(net.head.weight)  # type: ignore[arg-type]
    nn.init.zeros_(net.head.bias)  # type: ignore[arg-type]
    fitting = int(0.95 * task.left / step_seconds(net, task, "crop"))
    steps = max(1, min(fitting, _BIT_STEPS))
    optimizer = torch.optim.SGD(groups_of(net, 1.0, 0.0), lr=0.003, momentum=0.9, fused=True)
    fit = Fit(task, net, optimizer, 0.003, bit_stairs, steps, augment="crop")
    while fit.epoch():
        pass
    return Shipped(state_of(net), {"steps": fit.done, "planned": steps})


# --- plain Optuna (Akiba et al. 2019) --------------------------------------------------------------------------------

_TRIAL_EPOCHS = 10


def optuna_median(task: Task) -> Shipped:
    """TPE, and the median rule ends what is behind."""
    import optuna

    return _study(task, optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1))


def optuna_hyperband(task: Task) -> Shipped:
    """TPE, and Hyperband's brackets end what is behind."""
    import optuna

    return _study(task, optuna.pruners.HyperbandPruner(min_resource=2, max_resource=_TRIAL_EPOCHS, reduction_factor=3))


def _study(task: Task, pruner: Any) -> Shipped:
    """Trials from pretrained weights with a new head until the time is up; the best validated checkpoint of all."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    train, val = task.split()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=task.seed), pruner=pruner)
    began = time.monotonic()
    best, shipped = -1.0, state_of(network(task))
    to_begin = 2 * (time.monotonic() - began)
    while task.left > to_begin:
        trial = study.ask()
        score = -1.0
        for epoch, (score, net) in enumerate(_epochs(train, val, _drawn(trial)), start=1):
            if score > best:
                best, shipped = score, state_of(net)
            trial.report(score, epoch)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, score)
    states = [trial.state.name for trial in study.trials]
    about = {name: states.count(name) for name in sorted(set(states))}
    return Shipped(shipped, {"trials": about, "validation": best})


def _drawn(trial: Any) -> dict[str, Any]:
    """The space: AutoGluon's for its hyperparameter search, and what regularises."""
    return {
        "optimizer": trial.suggest_categorical("optimizer", ["adamw", "sgd"]),
        "rate": trial.suggest_float("rate", 1e-5, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True),
        "layer_decay": trial.suggest_float("layer_decay", 0.65, 1.0),
        "smoothing": trial.suggest_float("smoothing", 0.0, 0.15),
        "augment": trial.suggest_categorical("augment", sorted(AUGMENTATIONS)),
    }


def _epochs(train: Task, val: Task, drawn: dict[str, Any]) -> Iterator[tuple[float, nn.Module]]:
    """Validation accuracy and network after each epoch, the last of which the deadline may cut."""
    net = network(train)
    groups = groups_of(net, drawn["layer_decay"], drawn["weight_decay"])
    optimizer = (
        torch.optim.AdamW(groups, lr=drawn["rate"], fused=True)
        if drawn["optimizer"] == "adamw"
        else torch.optim.SGD(groups, lr=drawn["rate"], momentum=0.9, nesterov=True, fused=True)
    )
    steps = _TRIAL_EPOCHS * steps_per_epoch(train)
    fit = Fit(
        train,
        net,
        optimizer,
        drawn["rate"],
        cosine_after(0.1),
        steps,
        drawn["augment"],
        drawn["smoothing"],
        clip=5.0,
        validates=len(val.labels),
    )
    going = True
    while going:
        going = fit.epoch()
        began = time.monotonic()
        if not fit.done:
            return
        yield accuracy(net, val), net
        fit.reserve = 1.5 * (time.monotonic() - began)


#: name -> recipe.
RECIPES: dict[str, Callable[[Task], Shipped]] = {
    "fastai": fastai,
    "autogluon": autogluon,
    "bit": bit,
    "optuna_median": optuna_median,
    "optuna_hyperband": optuna_hyperband,
}
