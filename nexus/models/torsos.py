"""Torsos for images, and the choice among all torsos by name or by the shape of a state."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nexus.core import ConfigError
from nexus.core.importable import is_import_name
from nexus.core.settings import NetworkSettings
from nexus.models.layers import Bounds, MLPTorso, ValueRange, scale
from nexus.models.own_torso import Scaled, make_own_torso

__all__ = [
    "ConvolutionalTorso",
    "ImageForm",
    "Images",
    "channels_before",
    "image_form",
    "impala_cnn",
    "make_torso",
    "minatar_cnn",
    "nature_cnn",
    "nips_cnn",
    "standardized",
    "torso_of",
]

WIDTHS = {
    "mlp": 128,
    "nature_cnn": 512,
    "nips_cnn": 256,
    "impala_cnn": 256,
    "minatar_cnn": 128,
}  # of the last layer, by default
BFLOAT16_FEATURES = ("avx512_bf16", "amx_bf16")  # processors with one of these multiply bfloat16 faster than float32
SMALLEST_SIDES = {"nature_cnn": 36, "nips_cnn": 20, "impala_cnn": 8, "minatar_cnn": 3}  # the smallest side of an image


Place = Literal["first", "last"]
Channels = Literal["auto", "first", "last"]


class ImageForm(NamedTuple):
    """How states are interpreted as images."""

    shape: tuple[int, int, int]  # C, H, W, with the channels of a stack's images concatenated
    channels: Place  # position of the channels among the last three axes of a state
    guessed: bool  # neither the shape nor a setting determines it


def image_form(state_shape: tuple[int, ...], channels: Channels = "auto") -> ImageForm:
    """Return how states of a shape are interpreted as images; a stack (`[S, C, H, W]`) becomes `S · C` channels.

    Args:
        state_shape: shape of one state, of 3 or 4 dimensions.
        channels: whether the last three of them are `[C, H, W]` or `[H, W, C]`; `auto` infers it from the shape.
    """
    *stack, first, middle, last = state_shape
    place, guessed = found_channels(first, middle, last) if channels == "auto" else (channels, False)
    count, height, width = (first, middle, last) if place == "first" else (last, first, middle)
    return ImageForm((math.prod(stack) * count, height, width), place, guessed)


def found_channels(first: int, middle: int, last: int) -> tuple[Place, bool]:
    """Return the likely position of the channels among three axes, and whether it is a guess.

    Two equal adjacent axes are the sides. A cube is taken to be `[H, W, C]`, the layout of Gymnasium, MiniGrid and
    MinAtar.
    """
    if first == middle != last:
        return "last", False
    if middle == last != first:
        return "first", False
    return ("first" if first < last else "last"), True


def channels_before(state_shape: tuple[int, ...]) -> Channels:
    """Return where agents older than the setting found their channels: at the shorter end, or first."""
    if len(state_shape) not in (3, 4):
        return "auto"
    return "last" if state_shape[-1] < state_shape[-3] else "first"


class Images(nn.Module):
    """Brings images to `[B, C, H, W]` and scales them to [0, 1]: by `span`, or without a span only bytes.

    `image_form` determines how a state is interpreted. On a CPU the memory layout is channels last, which makes
    convolutions, and above all their gradients, faster. If `standardize` is set, each image has mean 0 and standard
    deviation 1 instead of the range [0, 1].

    Args:
        state_shape: shape of one state, of 3 or 4 dimensions.
        channels: position of the channels of an image.
    """

    def __init__(self, state_shape: tuple[int, ...], channels: Channels = "auto") -> None:
        super().__init__()
        self.state_dims = len(state_shape)
        self.shape, place, _ = image_form(state_shape, channels)
        self.channels_last = place == "last"
        self.span: ValueRange | None = None
        self.standardize = False

    def forward(self, states: Tensor) -> Tensor:
        """`[..., *obs] -> [B, C, H, W]`, with all leading axes flattened into the batch."""
        if self.channels_last:
            states = states.movedim(-1, -3)
        images = states.reshape(-1, *self.shape)
        if images.is_cpu and not images.is_contiguous(memory_format=torch.channels_last):
            # Faster than `contiguous(memory_format=...)`, and done while the data are still bytes.
            images = torch.stack(images.unbind(1), -1).movedim(-1, 1)
        images = scale(images, self.span)
        return standardized(images) if self.standardize else images


def standardized(images: Tensor) -> Tensor:
    """Return each image of `[B, C, H, W]` with mean 0 and deviation 1 over all channels; a uniform one becomes 0."""
    if images.is_contiguous():
        return F.layer_norm(images, images.shape[1:])
    pixels = images.movedim(1, -1)  # the memory layout on a CPU
    return F.layer_norm(pixels, pixels.shape[1:]).movedim(-1, 1)


class ConvolutionalTorso(nn.Module):
    """Images, convolutions, and one fully connected layer with ReLU.

    On devices in `bfloat16_on` these layers compute in bfloat16. Weights, features and all that follows stay float32.

    Args:
        images: prepares the states.
        convolutions: from `[B, C, H, W]` to `[B, ...]`.
        features: `D`, units of the fully connected layer.
        layer_norm: whether to use layer norm before its ReLU.
    """

    def __init__(self, images: Images, convolutions: nn.Module, features: int, layer_norm: bool = False) -> None:
        super().__init__()
        self.images = images
        self.bfloat16_on: tuple[str, ...] = ()  # device types
        self.convolutions = convolutions
        with torch.no_grad():
            outputs = convolutions(torch.zeros(1, *self.images.shape)).numel()
        self.linear = nn.Linear(outputs, features)
        self.norm = nn.LayerNorm(features) if layer_norm else None

    def forward(self, states: Tensor) -> Tensor:
        """`[..., *obs] -> [..., D]`."""
        images = self.images(states)
        device = images.device.type
        with torch.autocast(device, torch.bfloat16) if device in self.bfloat16_on else nullcontext():
            layers: Tensor = self.linear(self.convolutions(images).flatten(1))
        features = layers.float()
        features = F.relu(features if self.norm is None else self.norm(features))
        return features.view(*states.shape[: states.ndim - self.images.state_dims], -1)


def nature_cnn(
    state_shape: tuple[int, ...], features: int = 512, layer_norm: bool = False, channels: Channels = "auto"
) -> ConvolutionalTorso:
    """Return the three convolutions of https://doi.org/10.1038/nature14236 and a layer of 512 units."""
    images = Images(state_shape, channels)
    convolutions = with_relus(images.shape, (32, 8, 4), (64, 4, 2), (64, 3, 1))
    return ConvolutionalTorso(images, convolutions, features, layer_norm)


def nips_cnn(
    state_shape: tuple[int, ...], features: int = 256, layer_norm: bool = False, channels: Channels = "auto"
) -> ConvolutionalTorso:
    """Return the two convolutions of https://arxiv.org/abs/1312.5602: a third of the Nature network's arithmetic."""
    images = Images(state_shape, channels)
    convolutions = with_relus(images.shape, (16, 8, 4), (32, 4, 2))
    return ConvolutionalTorso(images, convolutions, features, layer_norm)


def with_relus(image_shape: tuple[int, int, int], *layers: tuple[int, int, int]) -> nn.Sequential:
    """Return convolutions, given as (channels, kernel, stride), each followed by a ReLU.

    Strides that don't divide the remaining size would ignore the right and lower edges of an image: 6 of 42 pixels,
    including the player's paddle in Pong. Zero padding covers the edges; 84 pixels need none.
    """
    inputs, *sides = image_shape
    below, right = (seen_whole(side, layers) - side for side in sides)
    parts: list[nn.Module] = [nn.ZeroPad2d((0, right, 0, below))] if below or right else []
    for channels, kernel, stride in layers:
        parts += [nn.Conv2d(inputs, channels, kernel, stride), nn.ReLU(inplace=True)]
        inputs = channels
    return nn.Sequential(*parts)


def seen_whole(side: int, layers: Sequence[tuple[int, int, int]]) -> int:
    """Return the smallest side, at least `side`, that layers of (channels, kernel, stride) cover without remainder."""
    outputs = side
    for _, kernel, stride in layers:
        outputs = math.ceil(max(outputs - kernel, 0) / stride) + 1
    for _, kernel, stride in reversed(layers):
        outputs = (outputs - 1) * stride + kernel
    return outputs


def impala_cnn(
    state_shape: tuple[int, ...],
    features: int = 256,
    layer_norm: bool = False,
    channels: Channels = "auto",
    width: int = 1,
) -> ConvolutionalTorso:
    """Return the residual network of https://arxiv.org/abs/1802.01561, figure 3, without its LSTM.

    Args:
        state_shape: shape of one state.
        features: units of the fully connected layer.
        layer_norm: whether to use layer norm on that layer.
        channels: position of the channels of an image.
        width: multiplier of the channels 16, 32 and 32.
    """
    images, parts = Images(state_shape, channels), list[nn.Module]()
    inputs = images.shape[0]
    for outputs in (16 * width, 32 * width, 32 * width):
        parts += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.MaxPool2d(3, stride=2, padding=1),
            Residual(outputs),
            Residual(outputs),
        ]
        inputs = outputs
    return ConvolutionalTorso(images, nn.Sequential(*parts, nn.ReLU()), features, layer_norm)


class Residual(nn.Module):
    """x + two 3 × 3 convolutions of x, a ReLU before each.

    Args:
        channels: number of channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W] -> [B, C, H, W]`."""
        out: Tensor = x + self.second(F.relu(self.first(F.relu(x))))
        return out


def minatar_cnn(
    state_shape: tuple[int, ...], features: int = 128, layer_norm: bool = False, channels: Channels = "auto"
) -> ConvolutionalTorso:
    """Return one convolution for images of about 10 × 10, as in https://arxiv.org/abs/1903.03176."""
    images = Images(state_shape, channels)
    convolutions = nn.Sequential(nn.Conv2d(images.shape[0], 16, 3), nn.ReLU())
    return ConvolutionalTorso(images, convolutions, features, layer_norm)


CONVOLUTIONAL = {
    "nature_cnn": nature_cnn,
    "nips_cnn": nips_cnn,
    "impala_cnn": impala_cnn,
    "minatar_cnn": minatar_cnn,
}


def torso_of(settings: NetworkSettings, state_shape: tuple[int, ...]) -> str:
    """Return the name of the torso, resolving `auto` by the shorter side of an image; mlp for other states.

    Raises:
        ConfigError: the requested torso can't handle such states, or they have no channels.
    """
    if is_import_name(settings.torso):
        return settings.torso
    image = len(state_shape) in (3, 4)
    if settings.channels != "auto" and not image:
        raise ConfigError(f"channels = {settings.channels!r}: is only for images, got states of shape {state_shape}")
    side = min(image_form(state_shape, settings.channels).shape[1:]) if image else 0
    if settings.torso == "auto":
        fitting = [name for name in ("nature_cnn", "minatar_cnn") if image and side >= SMALLEST_SIDES[name]]
        return [*fitting, "mlp"][0]
    if settings.torso != "mlp" and side < SMALLEST_SIDES[settings.torso]:
        least = SMALLEST_SIDES[settings.torso]
        raise ConfigError(f"torso = {settings.torso!r}: needs images of {least} x {least} or more, got {state_shape}")
    return settings.torso


def bfloat16_devices(precision: str) -> tuple[str, ...]:
    """Return the device types on which image torsos compute in bfloat16."""
    if precision == "bfloat16":
        return ("cpu", "cuda", "mps")
    # Older torch does not report processor capabilities.
    has: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)() if precision == "auto" else {}
    return ("cpu",) if any(has.get(name) for name in BFLOAT16_FEATURES) else ()


def make_torso(
    settings: NetworkSettings,
    state_shape: tuple[int, ...],
    bounds: Bounds | None = None,
    span: ValueRange | None = None,
    normalized: int = 0,
) -> tuple[nn.Module, int]:
    """Return the torso that the settings describe, and its number of features `D`.

    Args:
        settings: the agent's settings.
        state_shape: shape of one state.
        bounds: bounds of each component of a state, to map them to [-1, 1].
        span: bounds over all components of a state, to map them to [0, 1].
        normalized: the first components of a state that are normalised by running statistics.

    Raises:
        ConfigError: it can't handle such states, or a setting does not apply to it.
    """
    name = torso_of(settings, state_shape)
    if is_import_name(name):
        return make_own_torso(name, Scaled(state_shape, bounds, span, normalized), len(state_shape))
    features = WIDTHS[name] if settings.hidden_dim is None else settings.hidden_dim
    if name == "mlp":
        if settings.precision == "bfloat16":
            raise ConfigError("precision = 'bfloat16': applies only to image torsos; the mlp computes in float32")
        if settings.standardize_images:
            raise ConfigError("standardize_images: applies only to image torsos; for the mlp use scale_observations")
        layers = 2 if settings.hidden_layers is None else settings.hidden_layers
        return MLPTorso(state_shape, features, layers, settings.layer_norm, bounds, span, normalized), features
    if normalized:
        raise ConfigError(f"normalize_observations: {name} scales images already; leave it out")
    if bounds is not None:
        raise ConfigError(
            f"scale_observations: {name} does not scale images this way; use torso mlp, or leave scale_observations out"
        )
    if settings.hidden_layers not in (None, 1):
        raise ConfigError(f"hidden_layers = {settings.hidden_layers}: {name} has 1 after its convolutions")
    torso = CONVOLUTIONAL[name](state_shape, features, settings.layer_norm, settings.channels)
    torso.images.span = span
    torso.images.standardize = settings.standardize_images
    torso.bfloat16_on = bfloat16_devices(settings.precision)
    return torso, features
