"""From an image to pictures in [−1, 1], the same way in training and whenever a run is used."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from voxplain.counterfactual.cut import Fit, fit_of, planes_of
from voxplain.errors import DataError
from voxplain.models import Model, load_model
from voxplain.space import Grid, Volume, atomic_file
from voxplain.space.picture import RGB
from voxplain.space.plane import Plane


@dataclass(frozen=True, eq=False)
class Cut:
    """One slice as a network sees it.

    Parameters
    ----------
    index
        Number of the slice: from the feet, the left or the back.
    plane
        On the prepared image's grid.
    fit
        Where the slice's pixels lie in the picture.
    picture
        (rows, columns) float32 in [−1, 1]; padding is −1.
    inside
        (rows, columns) pixels that are not padding.
    """

    index: int
    plane: Plane
    fit: Fit
    picture: NDArray[np.float32]
    inside: NDArray[np.bool_]


@dataclass(frozen=True)
class Preparation:
    """What is done to an image: a model's preparation, cutting, the window, fitting.

    Parameters
    ----------
    plane
        ``axial``, ``coronal`` or ``sagittal``; pictures are taken as they are.
    size
        Rows and columns of the pictures.
    pixel_mm
        Size of their pixels; None: each slice just fits in.
    low, high
        Intensities that become −1 and 1, after the model's preparation.
    model
        Folder of a model whose preparation comes first, see `prepared`; None: there is none.

    Raises
    ------
    DataError
        If `low` is not below `high`, or they are not finite.
    """

    plane: str
    size: tuple[int, int]
    pixel_mm: float | None
    low: float
    high: float
    model: str | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise DataError(
                f"the intensity window is [{self.low:g}, {self.high:g}], expected low < high: "
                "are the images constant? Else say data.intensity.window"
            )

    @property
    def step(self) -> float:
        """Intensity that a difference of 1 in the picture stands for: (high − low)/2."""
        return (self.high - self.low) / 2

    def intensity(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the intensities low + (x + 1)/2·(high − low) of values of a picture."""
        return np.asarray(self.low + (np.asarray(x) + 1) * self.step)

    def windowed(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return 2·(v − low)/(high − low) − 1, clipped at −1 and 1."""
        scaled = (np.asarray(values, np.float64) - self.low) / self.step - 1
        return np.clip(scaled, -1, 1).astype(np.float32)

    def prepared(self, image: Volume) -> Volume:
        """Return the image that is cut: what a 3D model's preparation makes of it, else itself.

        A 2D model prepares each slice instead, upright as a picture, when it is cut.

        Raises
        ------
        DataError
            If the image has several channels.
        ModelError
            If it does not fit the model.
        """
        _check_channels(image)
        if self._model is None or self.is_flat:
            return image
        made = self._model.prepare(image)
        _check_channels(made)
        return made

    def planes(self, grid: Grid) -> list[Plane]:
        """Return all slices of a prepared image's grid, in the order of their numbers."""
        return planes_of(grid, self.plane)

    def pictures(self, image: Volume, chosen: Sequence[int] | None = None) -> Iterator[Cut]:
        """Cut slices out of an image as it was read and make pictures of them.

        Parameters
        ----------
        image
            Of one channel.
        chosen
            Numbers of slices; None: all.

        Raises
        ------
        DataError
            If the image has several channels, a slice is not there, or the pictures that a 2D
            model prepares are not of `size`.
        ModelError
            If the image does not fit the model.

        Notes
        -----
        Intensities are clipped to the window before they are interpolated.
        """
        return self.cuts(self.prepared(image), chosen)

    def cuts(self, prepared: Volume, chosen: Sequence[int] | None = None) -> Iterator[Cut]:
        """Do what `pictures` does to an image that is `prepared`."""
        for index, plane, fit, values in self.raw(prepared, chosen):
            window = self.windowed(values)
            picture = window if self.is_flat else fit.put(window, -1.0)
            yield Cut(index, plane, fit, picture, fit.inside())

    def raw(
        self, prepared: Volume, chosen: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Plane, Fit, NDArray[Any]]]:
        """Cut slices before the window: number, plane, fit and intensities.

        Intensities are (*fit.native); with a 2D model (*fit.size), as it prepared them.
        """
        planes = self.planes(prepared.grid)
        wanted = range(len(planes)) if chosen is None else chosen
        missing = [i for i in wanted if not 0 <= i < len(planes)]
        if missing:
            raise DataError(
                f"{prepared.name}: no slice {', '.join(map(str, missing))}; slices are numbered "
                f"0 to {len(planes) - 1}"
            )
        for index in wanted:
            plane = planes[index]
            if self.is_flat:
                fit, values = self._prepared_slice(plane, prepared)
            else:
                fit = fit_of(plane, self.size, self.pixel_mm)
                values = plane.take(prepared.data[0])
            yield index, plane, fit, values

    @cached_property
    def _model(self) -> Model | None:
        if self.model is None:
            return None
        model = load_model(self.model)
        if not isinstance(model, Model):
            raise DataError(
                f"{self.model}: consists of {len(model.models)} models that prepare images "
                "differently; choose one of them for data.intensity.model"
            )
        return model

    @property
    def is_flat(self) -> bool:
        """Whether a 2D model prepares each slice by itself."""
        return self._model is not None and self._model.info.rank == 2

    def _prepared_slice(self, plane: Plane, image: Volume) -> tuple[Fit, NDArray[Any]]:
        """Let the 2D model prepare one slice; it must cover the slice, upright, in `size`."""
        assert self._model is not None
        values = plane.take(image.data[0])
        own = plane.grid
        if own.rank == 3:
            pixel = [mm / n for mm, n in zip(plane.size_mm, values.shape, strict=True)]
            own = Grid(values.shape, np.diag([*pixel, 1.0]))
        made = self._model.prepare(Volume(values[None], own, image.channels, image.name))
        _check_channels(made)
        if made.grid.shape != self.size:
            raise DataError(
                f"{self.model} prepares a slice of {own.shape} to {made.grid.shape} and data.size "
                f"is {self.size}; set data.size to what the model makes of the slices"
            )
        if self.pixel_mm is not None:
            raise DataError(f"{self.model} decides the size of pixels; leave out data.pixel_mm")
        covered = own.resize(self.size)
        if not made.grid.matches(covered, atol_mm=max(covered.spacing) / 2):
            raise DataError(f"{self.model} turns or crops pictures, which cannot be undone here")
        rows, columns = own.shape
        return Fit((rows, columns), self.size, (0, 0), self.size), made.data[0]

    def write(self, path: Path) -> None:
        """Write it as JSON that `read_preparation` reads."""
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read_preparation(path: Path) -> Preparation:
    """Read what `Preparation.write` wrote.

    Raises
    ------
    DataError
        If the file is missing, or says something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return TypeAdapter(Preparation).validate_python(values)
    except (OSError, ValueError, ValidationError) as error:
        raise DataError(f"{path}: cannot be read as a preparation: {error}") from None


def check_card(card: str, model: str, where: str) -> None:
    """Check that a classifier prepares images as the pictures of a run are made.

    Parameters
    ----------
    card
        Folder of the classifier.
    model
        Folder of the model that prepares the images, ``data.intensity.model``.
    where
        Key of the configuration that names the classifier, for messages.

    Raises
    ------
    DataError
        If they prepare images differently; in what is told.
    ModelError
        If one cannot be loaded.
    """
    own, made = (_described(folder) for folder in (card, model))
    differs = [key for key in {**made, **own} if made.get(key) != own.get(key)]
    if differs:
        raise DataError(
            f"{where}: {card} prepares images otherwise than data.intensity.model={model} "
            f"({', '.join(differs)}), and pictures are made once; take models that prepare "
            "images alike"
        )


def _described(folder: str) -> Mapping[str, Any]:
    model = load_model(folder)
    if isinstance(model, Model):
        return model.describe_preparation()
    return {"number of models": len(model.models)}


def _check_channels(image: Volume) -> None:
    if image.channels == RGB:
        raise DataError(
            f"{image.name}: expected one channel, got a colour picture (red, green, blue): save it "
            "as grey, e.g. with Pillow Image.open(FILE).convert('L').save(GREY)"
        )
    if image.n_channels != 1:
        raise DataError(
            f"{image.name}: expected one channel, got {image.n_channels} "
            f"({', '.join(image.channels)}); give images of one of them"
        )
