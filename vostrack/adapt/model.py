"""The appearance model of online adaptation: a U-Net that is trained from scratch on the frames of one clip.

It opens its own gradient scope, so that it can be trained under somebody else's `no_grad`, and takes all its randomness
from a generator of its own. Its state is whole after every step: the same state and training frames give the same
steps, bit by bit, on the same processor with the same number of threads.
Paper: Zhu et al., "Self-supervised Video Object Segmentation" (2020), section 3.3, Eq. 9, and section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from vostrack.adapt.config import AdaptConfig
from vostrack.adapt.frames import TrainingFrames, random_batch, square
from vostrack.device import autocast
from vostrack.errors import OutputError
from vostrack.nets.unet import UNet
from vostrack.ops.color import normalised_rgb
from vostrack.ops.labels import add_channels
from vostrack.ops.losses import dice_loss, partial_cross_entropy


@dataclass(frozen=True)
class ModelState:
    """Everything that decides what the model computes from here on.

    Attributes:
        steps: of the optimiser.
        since_growth: steps since K last changed.
        parameters: of the network, in its order; the last has a number for each channel.
        means: Adam's running mean of each gradient.
        squares: Adam's running mean of each squared gradient.
        buffers: of the network: statistics of its normalisation.
        generator: state of the random generator.
    """

    steps: int
    since_growth: int
    parameters: tuple[Tensor, ...]
    means: tuple[Tensor, ...]
    squares: tuple[Tensor, ...]
    buffers: tuple[Tensor, ...]
    generator: Tensor

    @property
    def count(self) -> int:
        """K, label channels."""
        return len(self.parameters[-1])


class AppearanceModel:
    """Learns what the objects of a clip look like.

    Attributes:
        count: K, label channels.
        steps: optimiser steps so far.
        since_growth: steps since K last changed.
    """

    def __init__(self, config: AdaptConfig, count: int, device: torch.device, state: ModelState | None = None) -> None:
        """A model with random weights, or the one that a state describes.

        Args:
            config: settings.
            count: K, label channels.
            device: where it computes.
            state: of a model with as many channels; its tensors are copied.

        Raises:
            OutputError: the state is that of another network.
        """
        self.config, self.count, self.device = config, count, device
        self.steps = self.since_growth = 0
        self.generator = torch.Generator().manual_seed(config.seed)
        self.net = UNet(count, self.generator).to(device).to(memory_format=torch.channels_last)
        parameters = list(self.net.parameters())
        self._means = [torch.zeros_like(parameter) for parameter in parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in parameters]
        if state is not None:
            self.steps, self.since_growth = state.steps, state.since_growth
            self.generator.set_state(state.generator.cpu())
            _fill([parameter.detach() for parameter in parameters], state.parameters)
            _fill(self._means, state.means)
            _fill(self._squares, state.squares)
            _fill(list(self.net.buffers()), state.buffers)
        self._optimizer = self._adam()

    @property
    def state(self) -> ModelState:
        """Where the model stands; it shares memory with the model, so save or copy it before the next step."""
        return ModelState(
            self.steps,
            self.since_growth,
            tuple(parameter.detach() for parameter in self.net.parameters()),
            tuple(self._means),
            tuple(self._squares),
            tuple(self.net.buffers()),
            self.generator.get_state(),
        )

    def step(self, frames: TrainingFrames) -> float:
        """Train on one batch.

        Args:
            frames: with `count` - 1 ids.

        Returns:
            The loss before the step: cross-entropy and Dice of each image, weighted by the age of its mask.

        Paper: Zhu et al., Eq. 9; section 4.1; appendix B.
        """
        batch = random_batch(frames, self.config, self.generator)
        allowed = batch.allowed.to(self.device)
        self._optimizer.param_groups[0]["lr"] = rate(self.since_growth, self.config)
        self._optimizer.zero_grad(set_to_none=True)
        self.net.train()
        with torch.enable_grad():
            scores = self._scores(batch.images)
            errors = partial_cross_entropy(scores, allowed) + dice_loss(scores.softmax(1), allowed)
            loss = (batch.weights.to(self.device) * errors).mean()
            torch.autograd.backward(loss)
        self._optimizer.step()
        self.steps += 1
        self.since_growth += 1
        return float(loss.detach())

    def probs(self, image: Tensor) -> Tensor:
        """Label probabilities of a frame.

        Args:
            image: uint8 (3, H, W).

        Returns:
            float32 (K, S, S) over the whole frame, stretched to the training size, on the CPU.
        """
        self.net.eval()
        with torch.no_grad():
            return self._scores(square(image, self.config.size)[None])[0].softmax(0).cpu()

    def grow(self, count: int) -> None:
        """Append label channels for objects that appeared later; the learning rate starts again at its top.

        Args:
            count: K' >= K.
        """
        self.net.grow(count)
        self.count, self.since_growth = count, 0
        # The head's weight and bias are the last two parameters, with a row for each channel.
        for moments in (self._means, self._squares):
            moments[-2:] = [add_channels(moment, count) for moment in moments[-2:]]
        self._optimizer = self._adam()

    def _scores(self, images: Tensor) -> Tensor:
        """float32 (B, K, S, S) of images (B, 3, S, S) in [0, 1]."""
        images = normalised_rgb(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        with autocast("auto", self.device):
            scores = self.net(images)
        return cast(Tensor, scores.float())

    def _adam(self) -> torch.optim.Adam:
        """The optimiser as it is after `steps` steps."""
        parameters = list(self.net.parameters())
        optimizer = torch.optim.Adam(parameters, self.config.learning_rate)
        for parameter, mean, squares in zip(parameters, self._means, self._squares, strict=True):
            step = torch.tensor(float(self.steps))
            optimizer.state[parameter] = {"step": step, "exp_avg": mean, "exp_avg_sq": squares}
        return optimizer


def rate(step: int, config: AdaptConfig) -> float:
    """Learning rate of a step, constant after `iterations` of them.

    Paper: Zhu et al., section 4.1, "decaying with the step size of 50".
    Differs: The factor, which the paper does not give, is 0.5; with the usual 0.1 nothing would be learned after 150
        steps, where figure 3 of the paper still shows a change.
    """
    return config.learning_rate * config.decay ** (min(step, config.iterations - 1) // config.decay_every)


def _fill(tensors: list[Tensor], values: tuple[Tensor, ...]) -> None:
    if [tensor.shape for tensor in tensors] != [value.shape for value in values]:
        raise OutputError(
            "cannot resume: the saved network of the adaptation is another one; start again with `overwrite=True`"
        )
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
