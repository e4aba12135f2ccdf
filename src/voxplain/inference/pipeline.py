"""The sliding-window pipeline of one image: stitched logits and their exact gradients."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.errors import ModelError
from voxplain.inference.checkpointing import checkpointed
from voxplain.inference.compute import (
    Compute,
    free_memory_bytes,
    frozen,
    full_precision,
    is_out_of_memory,
)
from voxplain.inference.cotangent import Cotangent
from voxplain.inference.heap import kept_heap
from voxplain.inference.rolling import Emit, RollingSum
from voxplain.inference.slopes import fixed_slopes
from voxplain.models.model import Model
from voxplain.space.box import Box
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowPlan, WindowSettings

Input = Callable[[Box], torch.Tensor]
"""An input volume as a function: box of the padded volume to (n_channels, *box.shape)."""

Job = tuple[int, int, int]
"""A view of the model, a window, and the input that it is cut from."""

WindowMaps = Callable[[Sequence[Job]], list[tuple[int, torch.Tensor]]]
"""Makes maps of a batch of jobs of one view: target, and (n_jobs, n_channels, *window)."""

_MOST = {"cpu": (8, 4 * 64**3), "cuda": (64, 16 * 128**3)}
"""Windows, and voxels, beyond which a larger batch gains nothing."""

_SHARE_BYTES = 128 * 2**20


@dataclass
class Passes:
    """Windows run through the network, counted one by one."""

    n_forward: int = 0
    n_backward: int = 0

    @property
    def total(self) -> int:
        """Forward and backward passes together."""
        return self.n_forward + self.n_backward


class Pipeline:
    """A frozen model over one prepared image. Make it with `open_pipeline`.

    All boxes are in voxels of the *padded* volume (the image, or the window where the image
    is smaller). Classification is one window whose logits have one voxel.

    Attributes
    ----------
    image
        Prepared image on the model's grid.
    plan
        Windows.
    passes
        What has been run so far.
    on_pass
        Called with the number of passes just done.
    graph_bytes
        Memory of one window's graph (the tensors autograd keeps), once one has been run.
    cotangents_at_once
        Cotangents in one backward pass of `voxel_gradients`; None chooses it from the device
        and its free memory; 1 once the network has failed with several.
    """

    def __init__(self, model: Model, image: Volume, compute: Compute) -> None:
        info = model.info
        self.model = model
        self.info = info
        self.image = image
        self.compute = compute
        self.device = compute.torch_device()
        shape = image.grid.shape
        settings = info.window or WindowSettings(size=shape, overlap=0.0, blend="constant")
        self.plan = WindowPlan(shape, settings)
        self.is_dense = info.kind == "segmentation"
        self.inner = self.plan.inner() if self.is_dense else Box.whole((1,) * len(shape))
        self.passes = Passes()
        self.on_pass: Callable[[int], None] = lambda n: None
        self._batch_size = compute.batch_size
        self.graph_bytes: int | None = None
        self.cotangents_at_once: int | None = None
        padded = np.full(
            (image.n_channels, *self.plan.padded_shape), settings.pad_value, image.data.dtype
        )
        padded[(slice(None), *self.plan.inner().slices)] = image.data
        self._padded = torch.from_numpy(padded).to(compute.dtype)
        self._shares: dict[tuple[tuple[int, ...], ...], torch.Tensor] = {}

    # -- inputs ---------------------------------------------------------------------
    def clean(self, box: Box) -> torch.Tensor:
        """Return the prepared image on a box, (n_channels, *box.shape)."""
        return self._padded[(slice(None), *box.slices)]

    def changed(self, data: NDArray[np.floating]) -> Pipeline:
        """Return the pipeline of a changed image; passes of both are counted together.

        Parameters
        ----------
        data
            (n_channels, *image shape) in the model's intensities.
        """
        other = Pipeline(self.model, replace(self.image, data=data), self.compute)
        other.passes, other.on_pass = self.passes, self.on_pass
        other._batch_size, other.graph_bytes = self._batch_size, self.graph_bytes
        other.cotangents_at_once = self.cotangents_at_once
        return other

    # -- windows --------------------------------------------------------------------
    @property
    def n_passes(self) -> int:
        """Forward passes that the logits of one whole input take: windows times views."""
        return len(self.plan) * self.model.n_views

    def output_box(self, window: int) -> Box:
        """Where a window's logits lie: the window itself; the one voxel of a classifier."""
        return self.plan.box(window) if self.is_dense else self.inner

    def windows_for(self, box: Box) -> list[int]:
        """Windows whose logits reach the box."""
        return self.plan.touching(box) if self.is_dense else [0]

    def share(self, window: int) -> torch.Tensor:
        """Weight of one view of a window in the stitched logits, on the window's output box.

        The blend weight over the sum of all blend weights, divided by the number of views.
        """
        n_views = self.model.n_views
        if not self.is_dense:
            return torch.full(self.inner.shape, 1 / n_views, dtype=self.compute.dtype)
        box = self.plan.box(window)
        neighbours = tuple(
            tuple(a - b for a, b in zip(self.plan.starts[other], box.start, strict=True))
            for other in self.plan.touching(box)
        )
        if neighbours not in self._shares:  # windows with alike neighbours have one share
            share = self.plan.weight / (n_views * self.plan.normaliser(box))
            n_kept = _SHARE_BYTES // (share.size * self.compute.dtype.itemsize)
            while len(self._shares) > n_kept:
                del self._shares[next(iter(self._shares))]
            self._shares[neighbours] = torch.from_numpy(share).to(self.compute.dtype)
        return self._shares[neighbours]

    # -- passes ---------------------------------------------------------------------
    def forward(self, batch: torch.Tensor, view: int) -> torch.Tensor:
        """Logits (n, n_classes, *output box) of a batch (n, n_channels, *window)."""
        try:
            with self.compute.autocast():
                logits = self.model.forward(batch, view)
        except (RuntimeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            hint = "" if self.info.window else "; give the card a window that the network takes"
            raise ModelError(
                f"{self.info.name}: the network fails on an input of shape "
                f"{tuple(batch.shape)}: {error}{hint}"
            ) from error
        expected = (len(batch), self.info.n_classes, *(batch.shape[2:] if self.is_dense else ()))
        if tuple(logits.shape) != expected:
            raise ModelError(
                f"{self.info.name}: logits of shape {expected} were expected for input "
                f"{tuple(batch.shape)}, got {tuple(logits.shape)}"
            )
        if not self.is_dense:
            logits = logits.reshape(*logits.shape, *self.inner.shape)
        return logits.to(self.compute.dtype)

    def batch(self, jobs: Sequence[Job], sources: Sequence[Input]) -> torch.Tensor:
        """Windows of the jobs, each cut from its input: (n_jobs, n_channels, *window)."""
        return self.stack([sources[i](self.plan.box(w)) for _, w, i in jobs])

    def stack(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Put windows into one batch on the device, in the layout that runs fastest."""
        batch = torch.stack(list(inputs)).to(self.device, self.compute.dtype)
        return batch.contiguous(memory_format=self.compute.layout(self.info.rank))

    def in_batches(
        self,
        jobs: Sequence[Job],
        run: Callable[[Sequence[Job]], None],
        active: dict[int, list[int]] | None = None,
    ) -> None:
        """Call `run` on consecutive jobs; on out-of-memory halve the batch and repeat it.

        A batch is of one view. With a graph, `active` holds the targets of each window: a
        target's backward pass runs over the whole batch, so windows share one only where they
        share most of their targets.
        """
        done = 0
        while done < len(jobs):
            part = jobs[done : done + self.batch_size(with_graph=active is not None)]
            part = part[: _n_alike(part, active)]
            try:
                run(part)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise ModelError(
                        f"{self.info.name}: one window of {self.plan.settings.size} does not fit "
                        f"in the memory of {self.device}; use another device, a smaller window "
                        "or precision bf16"
                    ) from error
            else:
                done += len(part)
                continue
            # outside the handler, so that the failed pass's tensors are free
            self._batch_size = len(part) // 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            warnings.warn(
                f"out of memory with {len(part)} windows in a pass; going on with "
                f"{self._batch_size}",
                RuntimeWarning,
                stacklevel=2,
            )

    def batch_size(self, *, with_graph: bool) -> int:
        """Windows in one pass: as asked, or as many as half the free memory holds.

        The first pass with a graph holds one window, whose graph is measured.
        """
        if self._batch_size is not None:
            return self._batch_size
        n_windows, n_voxels = _MOST.get(self.device.type, _MOST["cpu"])
        most = min(n_windows, max(1, n_voxels // math.prod(self.plan.settings.size)))
        if not with_graph or most == 1:
            return most
        if self.graph_bytes is None:
            return 1
        fits = free_memory_bytes(self.device) // (4 * self.graph_bytes)
        self._batch_size = max(1, min(most, int(fits)))
        return self._batch_size

    def forward_with_graph(self, leaf: torch.Tensor, view: int = 0) -> torch.Tensor:
        """Logits of a batch; the first time, the memory of the graph is measured."""
        if self.graph_bytes is not None:
            # a first layer may work in place
            return self._connected(self.forward(leaf.clone(), view))
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logits = self.forward(leaf.clone(), view)
        self.graph_bytes = (sum(kept.values()) + logits.nbytes) // len(leaf)
        return self._connected(logits)

    def _connected(self, logits: torch.Tensor) -> torch.Tensor:
        if not logits.requires_grad:
            raise ModelError(
                f"{self.info.name}: the logits do not depend on the input through "
                "differentiable operations (detach, argmax or no_grad in forward?); a "
                "gradient method cannot explain it"
            )
        return logits

    def one_window(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the first window with a graph; logits and the leaf they depend on. Not counted."""
        with torch.enable_grad():
            leaf = self.stack([self.clean(self.plan.box(0))]).requires_grad_()
            return self.forward_with_graph(leaf), leaf

    def logits(self, source: Input, box: Box) -> torch.Tensor:
        """Return the stitched logits L(v) = Σ_w g_w(v)·ℓ_w(v) / Σ_w g_w(v) on a box.

        ℓ_w is the mean over the model's views.

        Parameters
        ----------
        source
            The input volume.
        box
            Voxels of the padded volume.

        Returns
        -------
        torch.Tensor
            (n_classes, *box.shape), on the CPU.

        Notes
        -----
        One forward pass for each view of each window that touches the box; no graph.
        """
        stitched = torch.zeros((self.info.n_classes, *box.shape), dtype=self.compute.dtype)

        def run(jobs: Sequence[Job]) -> None:
            batch = self.stack([source(self.plan.box(w)) for _, w, _ in jobs])
            with torch.no_grad():
                logits = self.forward(batch, jobs[0][0]).cpu()
            for (_, w, _), values in zip(jobs, logits, strict=True):
                output = self.output_box(w)
                common = output.intersect(box)
                assert common is not None
                part = (slice(None), *common.within(output))
                weighted = values[part] * self.share(w)[part[1:]]
                stitched[(slice(None), *common.within(box))] += weighted
            self.count(len(jobs))

        windows = self.windows_for(box)
        self.in_batches([(v, w, 0) for v in range(self.model.n_views) for w in windows], run)
        return stitched

    def gradients(
        self,
        sources: Sequence[Input],
        weights: Sequence[float],
        cotangents: Sequence[Cotangent],
        emit: Emit,
    ) -> None:
        """Give Σ_i weight_i · ∂T/∂x at input i, exactly, for several targets T at once.

        Each view of each window runs forward once with a graph for each input and gets, for
        each target with a non-zero cotangent C there, C·g_w/Σg over the number of views; the sum
        of these gradients is the gradient of the whole stitched pipeline. A window that no
        target reaches is not run.

        Parameters
        ----------
        sources
            Inputs at which the gradient is taken.
        weights
            One factor an input.
        cotangents
            dT/dL, one a target, the same for every input.
        emit
            Receives slabs (n_targets, n_channels, *box.shape) that cover every voxel with a
            non-zero gradient, in order of the first axis, each voxel once.

        Notes
        -----
        Memory: the graph of one batch, and one window's depth of the volume for each target.
        Passes: for each view of each window that is run, one forward an input and one backward
        an input and target.
        """
        active = self.active_windows(cotangents)

        def gradients(jobs: Sequence[Job]) -> list[tuple[int, torch.Tensor]]:
            batch = self.batch(jobs, sources)
            factors = torch.tensor([weights[i] for _, _, i in jobs], dtype=batch.dtype)
            factors = factors.reshape(-1, *[1] * (batch.ndim - 1)).to(self.device)
            targets = targets_in(jobs, active)
            found: list[tuple[int, torch.Tensor]] = []
            with torch.enable_grad():
                leaf = batch.requires_grad_()
                logits = self.forward_with_graph(leaf, jobs[0][0])
            for t in targets:
                outputs = self.outputs(cotangents[t], jobs)
                scale = self.loss_scale(outputs)
                with torch.enable_grad():
                    part = logits[:, cotangents[t].channels]
                (gradient,) = torch.autograd.grad(
                    part, leaf, outputs * scale, retain_graph=t != targets[-1]
                )
                found.append((t, gradient * (factors / scale)))
            return found

        n_targets, n_channels = len(cotangents), self.image.n_channels
        self.sum_windows(active, n_targets, n_channels, len(sources), gradients, emit)

    def sum_windows(
        self,
        active: dict[int, list[int]],
        n_targets: int,
        n_channels: int,
        n_inputs: int,
        maps: WindowMaps,
        emit: Emit,
    ) -> None:
        """Add up maps that are made window by window, each batch with one graph.

        Parameters
        ----------
        active
            Windows to run, each with its targets (see `active_windows`).
        n_targets, n_channels
            Leading axes of what is emitted.
        n_inputs
            Inputs of each window; a job's last number counts them.
        maps
            Takes jobs of one view; gives, for each target of theirs, (n_jobs, n_channels,
            *window). One forward pass a job and one backward pass a job and active target are
            counted.
        emit
            Receives slabs (n_targets, n_channels, *box.shape), each voxel once, in order of
            the first axis.
        """
        if not active:
            return
        plan = self.plan
        reach = plan.box(min(active))
        for w in active:
            reach = reach.union(plan.box(w))
        rolling = RollingSum(
            n_targets, n_channels, reach, plan.settings.size[0], emit,
            self.compute.dtype, self.device,
        )  # fmt: skip

        def run(jobs: Sequence[Job]) -> None:
            for t, values in maps(jobs):
                for (_, w, _), part in zip(jobs, values, strict=True):
                    if t in active[w]:
                        rolling.add(t, plan.box(w), part)
            self.count(len(jobs), sum(len(active[w]) for _, w, _ in jobs))

        for start, row in _rows(plan, active):
            rolling.advance(start)
            views, inputs = range(self.model.n_views), range(n_inputs)
            jobs = [(v, w, i) for v in views for w in row for i in inputs]
            self.in_batches(jobs, run, active)
        rolling.finish()

    def scores(
        self,
        jobs: Sequence[Job],
        sources: Sequence[Input],
        cotangents: Sequence[Cotangent],
        active: dict[int, list[int]],
    ) -> NDArray[np.float64]:
        """Return what each job adds to targets that are linear in the logits: Σ_v C_t(v)·L(v).

        Parameters
        ----------
        jobs
            Of any views and windows of `active`; those of one window should stand together.
        sources
            Inputs that the jobs count.
        cotangents
            Fixed dT/dL, one a target.
        active
            See `active_windows`; a window adds nothing to its other targets.

        Returns
        -------
        numpy.ndarray
            (n_jobs, n_targets). A target's value at an input is the sum over all views and
            windows. One forward pass a job; no graph.
        """
        found = np.zeros((len(jobs), len(cotangents)))
        kept: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        done = 0

        def run(part: Sequence[Job]) -> None:
            nonlocal done
            batch = self.batch(part, sources)
            with torch.no_grad():
                logits = self.forward(batch, part[0][0])
            windows = {w for _, w, _ in part}
            for key in [key for key in kept if key[0] not in windows]:
                del kept[key]
            for row, (_, w, _) in enumerate(part):
                for t in active[w]:
                    if (w, t) not in kept:
                        weights = self.weighted(cotangents[t], w).flatten()
                        places = weights.nonzero()[:, 0]
                        kept[w, t] = places, weights[places].double()
                    places, factors = kept[w, t]
                    values = logits[row, cotangents[t].channels].flatten()[places]
                    found[done + row, t] = float(values.double() @ factors)
            done += len(part)
            self.count(len(part))

        self.in_batches(jobs, run)
        return found

    def count(self, n_forward: int, n_backward: int = 0) -> None:
        """Note passes that were run, and say so to `on_pass`."""
        self.passes.n_forward += n_forward
        self.passes.n_backward += n_backward
        self.on_pass(n_forward + n_backward)

    def active_windows(self, cotangents: Sequence[Cotangent]) -> dict[int, list[int]]:
        """Windows that have to be run, each with the targets that need it."""
        active: dict[int, list[int]] = {}
        for t, cotangent in enumerate(cotangents):
            if cotangent.support is None:
                continue
            for w in self.windows_for(cotangent.support):
                if cotangent.touches(self.output_box(w)):
                    active.setdefault(w, []).append(t)
        return dict(sorted(active.items()))

    def reach(self, boxes: Sequence[Box]) -> Box:
        """Box of all windows whose logits reach one of the boxes; empty for no box."""
        reach: Box | None = None
        for box in boxes:
            windows = self.windows_for(box)
            for w in (windows[0], windows[-1]):  # starts are a product of one list an axis
                reach = self.plan.box(w) if reach is None else reach.union(self.plan.box(w))
        return reach or Box.whole((0,) * len(self.plan.padded_shape))

    def weighted(self, cotangent: Cotangent, window: int) -> torch.Tensor:
        """C·g_w/Σg of the cotangent's channels on the window's output, on the device."""
        values = cotangent.crop(self.output_box(window)).to(self.compute.dtype)
        return values.mul_(self.share(window)).to(self.device)

    def outputs(self, cotangent: Cotangent, jobs: Sequence[Job]) -> torch.Tensor:
        """Return `weighted` for each job, (n_jobs, n of its channels, *output box)."""
        crops = {w: self.weighted(cotangent, w) for w in dict.fromkeys(w for _, w, _ in jobs)}
        return torch.stack([crops[w] for _, w, _ in jobs])

    def loss_scale(self, outputs: torch.Tensor) -> float:
        """Power of two that brings small cotangents into the range of fp16; else 1."""
        largest = float(outputs.abs().max()) if self.compute.precision == "fp16" else 0.0
        return 2.0 ** -math.floor(math.log2(largest)) if largest > 0 else 1.0


def targets_in(jobs: Sequence[Job], active: dict[int, list[int]]) -> list[int]:
    """Targets of any of the jobs' windows, ascending."""
    return sorted({t for _, w, _ in jobs for t in active[w]})


def _n_alike(jobs: Sequence[Job], active: dict[int, list[int]] | None) -> int:
    """Count the leading jobs of one view whose backward passes, together, waste at most 1/5."""
    union: set[int] = set()
    needed = 0
    for n, (view, w, _) in enumerate(jobs):
        if view != jobs[0][0]:
            return n
        if active is None:
            continue
        union.update(active[w])
        needed += len(active[w])
        if len(union) * (n + 1) > 1.2 * needed:
            return n
    return len(jobs)


def _rows(plan: WindowPlan, windows: dict[int, list[int]]) -> Iterator[tuple[int, list[int]]]:
    """Windows by their start along the first axis, ascending."""
    rows: dict[int, list[int]] = {}
    for w in windows:
        rows.setdefault(plan.starts[w][0], []).append(w)
    yield from sorted(rows.items())


@contextmanager
def open_pipeline(model: Model, image: Volume, compute: Compute) -> Iterator[Pipeline]:
    """Prepare an image, freeze the model, and give both back as they were on leaving.

    Parameters
    ----------
    model
        Any model family.
    image
        As it was read; `Model.prepare` brings it to the model's grid.
    compute
        Device, precision, batch size.

    Yields
    ------
    Pipeline
        Valid inside the ``with`` block.
    """
    prepared = model.prepare(image)
    placed = frozen(model.module, compute, model.info.rank)
    faster = fixed_slopes(model.module)
    smaller = checkpointed(model.module) if compute.checkpointing else nullcontext()
    with torch.inference_mode(False), kept_heap(), full_precision(), placed, faster, smaller:
        yield Pipeline(model, prepared, compute)
