"""The largest values of long rows, faster than by looking at each of them: `torch.topk` costs as much as the products.

Letters: N rows, J values of a row, G values of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GROUP = 32
_WORTH = 8
"""Groups for each value wanted, below which finding the groups costs more than it saves."""


def largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest values of each row and where they are, the largest first, as `torch.topk` finds them.

    The `count` largest values lie in the `count` groups whose own largest values are the largest: only these are
    sorted. Exact; among equal values, others may be chosen than by `torch.topk`, but always the same ones.

    Args:
        values: (N, J).
        count: how many, at most J.

    Returns:
        Values and int64 indices, both (N, count).
    """
    groups = values.shape[1] // _GROUP
    if groups < _WORTH * count:
        found = values.topk(count, dim=1)
        return found.values, found.indices
    grouped = values[:, : groups * _GROUP].view(-1, _GROUP, groups)
    best = grouped.amax(1).topk(count, dim=1).indices
    candidates = grouped.gather(2, best[:, None].expand(-1, _GROUP, -1)).flatten(1)
    found = torch.cat((candidates, values[:, groups * _GROUP :]), 1).topk(count, dim=1)
    place = found.indices
    inside = place // count * groups + best.gather(1, place % count)
    beyond = place - count * _GROUP + groups * _GROUP
    return found.values, torch.where(place < count * _GROUP, inside, beyond)
