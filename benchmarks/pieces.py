"""Parts one by one: the EMA module and the optimisers against what people would pick."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rounds import Local, compare, repeated
from steadydescent import optimizers
from steadydescent.dataset_shift.torchvision_shim import import_torchvision
from steadydescent.engine.stack import initial_weights
from steadydescent.engine.stepping import numerics
from steadydescent.weight_averaging import EMA
from training import Settings

BETA, CHECKED = 0.99, 20
EXACT = 1e-4
"""Means of averages or weights after the same updates may differ by rounding alone, relative."""
MODELS = ("names-transformer", "resnet18")
SHAPES: dict[str, Callable[[], nn.Module]] = {
    "10 million weights in 10 layers": lambda: nn.Sequential(
        *[nn.Linear(1000, 1000) for _ in range(10)]
    ),
    "1 000 small tensors": lambda: nn.Sequential(*[nn.Linear(32, 32) for _ in range(500)]),
    "10 million weights, channels_last": lambda: nn.Sequential(
        *[nn.Conv2d(128, 128, 3) for _ in range(68)]
    ).to(
        memory_format=torch.channels_last  # type: ignore[call-overload]
    ),
}
"""Extremes of number, size and layout of tensors."""
OPTIMIZERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "SGD with momentum": (optimizers.Momentum, torch.optim.SGD, {"momentum": 0.9}),
    "Adam": (optimizers.Adam, torch.optim.Adam, {}),
    "AdamW": (optimizers.AdamW, torch.optim.AdamW, {}),
}
"""Name → our class, torch's, and what torch's needs to do the same."""
MORE_OPTIMIZERS = OPTIMIZERS | {
    "SGD": (optimizers.SGD, torch.optim.SGD, {}),
    "Nesterov": (optimizers.Nesterov, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "RMSProp": (optimizers.RMSProp, torch.optim.RMSprop, {}),
}
"""Those of `OPTIMIZERS` and the rest that torch has, too."""
HALF = ", bfloat16"


def model(name: str, device: str) -> nn.Module:
    """A small Transformer of many small tensors, a ResNet-18 of few large ones, or an extreme."""
    if name not in SHAPES and name != "resnet18":
        return initial_weights(name, 0).to(device)
    make = SHAPES.get(name) or partial(import_torchvision().models.resnet18, weights=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().to(device)


def averagers(network: nn.Module) -> dict[str, tuple[nn.Module, Callable[[nn.Module], Any]]]:
    """Four averages with one decay from the first weights on: the module, and what updates it."""
    import_torchvision()  # timm imports it
    from ema_pytorch import EMA as EmaPytorch  # type: ignore[import-untyped] # noqa: N811
    from timm.utils.model_ema import ModelEmaV3
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    ours = EMA(network, BETA)
    timm = ModelEmaV3(network, decay=BETA, foreach=True)
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(BETA), use_buffers=True)
    # no ramp, and every update counts
    whole = {"min_value": BETA, "update_after_step": 0, "update_every": 1}
    lucid = EmaPytorch(network, beta=BETA, use_foreach=True, **whole)
    return {
        "ours": (ours.module, ours.update),
        "timm ModelEmaV3, foreach": (timm.module, timm.update),
        "torch AveragedModel, get_ema_multi_avg_fn": (averaged.module, averaged.update_parameters),
        "ema-pytorch, foreach": (lucid.ema_model, lambda _: lucid.update()),
    }


@torch.no_grad()
def ema_update(name: str, device: str, settings: Settings) -> list[dict[str, Any]]:
    """Updates of the average a second.

    After the same updates the averages' mean absolute weights are compared.
    """
    network = model(name, device)
    averages = averagers(network)
    for _, update in averages.values():  # torch's and ema-pytorch's first update copies
        update(network)
    for parameter in network.parameters():
        parameter.mul_(1.5)
    with numerics():
        contenders = [
            Local(
                peer,
                repeated(partial(update, network)),
                device,
                checked=CHECKED,
                score=partial(magnitude, list(module.parameters())),
            )
            for peer, (module, update) in averages.items()
        ]
        return compare(
            f"EMA update, {name}",
            device,
            "updates/s",
            contenders,
            settings.rounds,
            settings.seconds / 2,
            tolerance=EXACT,
        )


def magnitude(tensors: Sequence[Tensor]) -> float:
    """Mean of the absolute values: equal for averages or weights that went the same way."""
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    return flat.double().abs().mean().item()


def optimizer_step(rule: str, name: str, device: str, settings: Settings) -> list[dict[str, Any]]:
    """Steps a second on a network's weights, against torch's class.

    By its foreach way and by its fused kernel.
    """
    _, torchs, needed = OPTIMIZERS[rule]
    peers = {
        f"torch {torchs.__name__}, {way}": {way: True, **needed} for way in ("foreach", "fused")
    }
    return _raced(
        f"optimizer step, {rule}, {name}", rule, model(name, device), peers, device, settings, EXACT
    )


def optimizer_layout(rule: str, name: str, device: str, settings: Settings) -> list[dict[str, Any]]:
    """Steps a second on weights of one kind, against torch's class as it comes."""
    _, torchs, needed = MORE_OPTIMIZERS[rule]
    weights, peers = model(name.removesuffix(HALF), device), {f"torch {torchs.__name__}": needed}
    if name.endswith(HALF):
        weights = weights.bfloat16()
    tolerance = 100 * EXACT if name.endswith(HALF) else EXACT
    return _raced(
        f"optimizer by layout, {rule}, {name}", rule, weights, peers, device, settings, tolerance
    )


def _raced(
    case: str,
    rule: str,
    first: nn.Module,
    peers: Mapping[str, dict[str, Any]],
    device: str,
    settings: Settings,
    tolerance: float,
) -> list[dict[str, Any]]:
    """Steps on fixed gradients by our class and by torch's with each peer's arguments.

    Weights are compared after.
    """
    ours, torchs, _ = MORE_OPTIMIZERS[rule]
    generator = torch.Generator(device).manual_seed(0)
    slopes = [torch.randn(p.shape, generator=generator, device=device) for p in first.parameters()]
    made = {"ours": ours} | {peer: partial(torchs, **given) for peer, given in peers.items()}
    with numerics():
        contenders = []
        for peer, make in made.items():
            params = _with_gradients(first, slopes)
            step, score = make(params, lr=1e-4).step, partial(magnitude, params)
            contenders.append(Local(peer, repeated(step), device, checked=CHECKED, score=score))
        return compare(
            case,
            device,
            "steps/s",
            contenders,
            settings.rounds,
            settings.seconds / 2,
            tolerance=tolerance,
        )


def _with_gradients(network: nn.Module, slopes: list[Tensor]) -> list[nn.Parameter]:
    """Copies of a network's parameters, each with its gradient."""
    params = list(deepcopy(network).parameters())
    for param, slope in zip(params, slopes, strict=True):
        param.grad = torch.empty_like(param).copy_(slope)
    return params
