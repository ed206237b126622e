"""Makes a trained network quicker without changing what it computes."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def for_inference(net: nn.Module) -> nn.Module:
    """Fold batch normalisation into the convolutions before it, and lay weights out as the fast kernels want them.

    Args:
        net: with its final weights; changed in place. It cannot be trained or saved afterwards.

    Returns:
        The same network, in evaluation mode.
    """
    net.eval()
    for parent in list(net.modules()):
        for (name, child), (following, norm) in pairwise(list(parent.named_children())):
            if isinstance(child, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(child, norm))
                setattr(parent, following, nn.Identity())
    return net.requires_grad_(False).to(memory_format=torch.channels_last)
