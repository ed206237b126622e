"""The processes of a training run: this one alone, or those that `torchrun` started, through Lightning Fabric.

What objectives call is their own business, so that no wrapper around a module could know when its gradients are
complete: they are added up after the backward pass instead, in one message. Knows nothing of training.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from vostrack.device import choose_device
from vostrack.errors import VostrackError, counted


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together, as one of them sees them.

    Attributes:
        device: of this process.
        rank: of this process; the one with rank 0 leads, and it alone writes files.
        size: number of processes.
        fabric: what they talk through; None for one process.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    fabric: Any = None

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one kind by their sums over all processes; the same order of tensors in all of them."""
        if self.fabric is None:
            return
        flat = self.fabric.all_reduce(torch.cat([tensor.flatten() for tensor in tensors]), reduce_op="sum")
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def totals(self, numbers: Sequence[float]) -> list[float]:
        """Sums of numbers over all processes; exact where only one process has one that is not 0."""
        if self.fabric is None:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        return [float(value) for value in self.fabric.all_reduce(values, reduce_op="sum")]

    def together(self, action: Callable[[], None]) -> None:
        """Do something that may end the run; if it raises in any process, all of them end here.

        Raises:
            KeyboardInterrupt: another process ended.
        """
        error: BaseException | None = None
        try:
            action()
        except BaseException as raised:
            error = raised
        (ended,) = self.totals([float(error is not None)])
        if error is not None:
            raise error
        if ended:
            raise KeyboardInterrupt("another process ended")

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.totals([0.0])


@contextmanager
def join_group(device: str) -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started with this one, if it did.

    Args:
        device: as for `segment`; in a group each process takes a GPU of its own.

    Yields:
        The group.

    Raises:
        VostrackError: Lightning Fabric is missing, the device cannot be had, or there are fewer GPUs than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_WORLD_SIZE" in os.environ else 1
    if size == 1:
        yield ProcessGroup(choose_device(device))
        return
    fabric = _launch(choose_device(device).type, size, int(os.environ["LOCAL_WORLD_SIZE"]))
    yield ProcessGroup(fabric.device, fabric.global_rank, fabric.world_size, fabric)
    # Not after an error: a process that failed must not wait for the others here.
    torch.distributed.destroy_process_group()


def _launch(kind: str, size: int, here: int) -> Any:
    """Connect `size` processes, `here` of which run on this machine."""
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise VostrackError(
            "training in several processes needs Lightning Fabric: pip install 'vostrack[train]'"
        ) from error
    if kind == "mps" or (kind == "cuda" and here > torch.cuda.device_count()):
        have = counted(torch.cuda.device_count(), "CUDA device")
        raise VostrackError(f"{counted(here, 'process')} for {have}: start fewer, or use `device=cpu`")
    # The others wait while the first process decodes footage; when one dies, torchrun ends all of them anyway.
    strategy = DDPStrategy(timeout=timedelta(days=2))
    fabric = Fabric(accelerator=kind, devices=here, num_nodes=size // here, strategy=strategy)
    fabric.launch()
    return fabric
