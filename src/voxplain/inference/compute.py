"""Where and how a network runs: device, precision, memory layout, batch size."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import psutil
import torch
from torch import nn

from voxplain.errors import MethodError

Precision = Literal["float32", "float64", "bf16", "fp16"]
MemoryFormat = Literal["auto", "contiguous", "channels_last"]
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """How to run the network. No result depends on `batch_size` or `checkpointing`.

    Parameters
    ----------
    device
        ``auto`` (CUDA if there is one), or a torch device such as ``cpu``, ``cuda:1``.
    precision
        ``float32``; ``float64`` (reference); ``bf16`` or ``fp16``: autocast, faster, with an
        error that ``benchmarks/`` reports.
    batch_size
        Windows in one pass; None chooses it from the free memory.
    memory_format
        Layout of activations; ``auto`` is channels-last on CUDA under autocast, else contiguous.
    checkpointing
        Blocks of the network run forward again in each backward pass, and their activations are
        not kept meanwhile: less memory, more time. See `voxplain.inference.checkpointing`.

    Raises
    ------
    MethodError
        If a value is not one of those above, or the device is not there.
    """

    device: str = "auto"
    precision: Precision = "float32"
    batch_size: int | None = None
    memory_format: MemoryFormat = "auto"
    checkpointing: bool = False

    def __post_init__(self) -> None:
        for name, kind in (("precision", Precision), ("memory_format", MemoryFormat)):
            if getattr(self, name) not in get_args(kind):
                raise MethodError(
                    f"{name} is one of {', '.join(get_args(kind))}; got {getattr(self, name)!r}"
                )
        if self.batch_size is not None and self.batch_size < 1:
            raise MethodError(f"batch_size is at least 1, got {self.batch_size}")
        self.torch_device()

    def torch_device(self) -> torch.device:
        """Device that this runs on."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise MethodError(
                f"unknown device {self.device!r}; use auto, cpu, cuda or cuda:0"
            ) from error
        n_cuda = torch.cuda.device_count()
        is_there = {
            "cpu": True,
            "cuda": (device.index or 0) < n_cuda,
            "mps": torch.backends.mps.is_available(),
        }
        if not is_there.get(device.type, False):
            raise MethodError(
                f"device {self.device!r} was asked for, and torch sees {n_cuda} CUDA device(s) "
                "here; use auto or cpu"
            )
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Type of inputs, logits and sums."""
        return torch.float64 if self.precision == "float64" else torch.float32

    def layout(self, rank: int) -> torch.memory_format:
        """Memory layout of activations for 2 or 3 spatial axes."""
        last = self.memory_format == "channels_last" or (
            self.memory_format == "auto"
            and self.precision in _AUTOCAST
            and self.torch_device().type == "cuda"
        )
        if not last:
            return torch.contiguous_format
        return torch.channels_last if rank == 2 else torch.channels_last_3d

    def autocast(self) -> torch.autocast:
        """Context for forward passes."""
        return torch.autocast(
            self.torch_device().type,
            dtype=_AUTOCAST.get(self.precision, torch.bfloat16),
            enabled=self.precision in _AUTOCAST,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for provenance; without `checkpointing`, which moves no number."""
        values = {**asdict(self), "device": str(self.torch_device())}
        del values["checkpointing"]
        return values


@contextmanager
def frozen(module: nn.Module, compute: Compute, rank: int) -> Iterator[nn.Module]:
    """Lend the network: evaluation mode, no parameter gradients, placed as `compute` says.

    On leaving, also after an error, every tensor, flag and mode is the very one it was.

    Parameters
    ----------
    module
        The user's network; used in place, not copied.
    compute
        Device, type and layout.
    rank
        Spatial axes, for the layout.

    Yields
    ------
    torch.nn.Module
        The same module.
    """
    modes = [(m, m.training) for m in module.modules()]
    parameters = [(p, p.data, p.requires_grad) for p in module.parameters()]
    buffers = [
        (m, name, b) for m in module.modules() for name, b in m._buffers.items() if b is not None
    ]
    layout = compute.layout(rank)
    try:
        for m, _ in modes:
            m.training = False
        for p, data, _ in parameters:
            p.requires_grad_(False)
            p.data = _placed(data, compute, layout)
        for m, name, b in buffers:
            m._buffers[name] = _placed(b, compute, layout).clone()
        yield module
    finally:
        for p, data, wants_grad in parameters:
            p.data = data
            p.requires_grad_(wants_grad)
        for m, name, b in buffers:
            m._buffers[name] = b
        for m, mode in modes:
            m.training = mode


def _placed(tensor: torch.Tensor, compute: Compute, layout: torch.memory_format) -> torch.Tensor:
    dtype = tensor.dtype
    if tensor.is_floating_point():
        dtype = compute.dtype
    n_axes = {torch.channels_last: 4, torch.channels_last_3d: 5}.get(layout)
    keep = layout if tensor.ndim == n_axes else torch.preserve_format
    return tensor.detach().to(compute.torch_device(), dtype, memory_format=keep)


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolve and multiply in true float32 on CUDA (cuDNN's default is TF32); undone after."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.backends.cuda.matmul.allow_tf32 = products


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; on the CPU torch raises a plain RuntimeError."""
    signs = ("DefaultCPUAllocator", "ALLOC_FAILED", "out of memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        sign in str(error) for sign in signs
    )


def peak_memory_bytes(device: torch.device) -> int:
    """Highest memory so far: CUDA's allocator, or the process's resident set."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def free_memory_bytes(device: torch.device) -> int:
    """Memory that can still be taken."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
