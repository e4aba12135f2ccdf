"""One imaginary chest: the solids that make it, drawn from a seed, and how they are painted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxplain.demo.canvas import Canvas
from voxplain.demo.shapes import FAR_MM, Beads, Ellipsoid, Floats, Waves, rotation
from voxplain.demo.torso import CAGE_POWER, body_distance, cage_axes, cage_distance

FAT, MUSCLE = -95.0, 52.0


@dataclass(frozen=True)
class _Place:
    """Points in the body's frame and the fields that several solids need there."""

    points: Floats
    cage: Floats
    heart: Floats
    fine: Floats
    coarse: Floats


class Anatomy:
    """Size, pose and solids of one imaginary patient.

    The body's frame has its origin in the middle of the chest, x to the patient's right, y to
    the front, z to the head, in mm of an average adult; `to_body` leads there from the
    patient's own millimetres through pose, size and a smooth wobble.

    Parameters
    ----------
    seed
        Seed of every draw.
    lesion
        Whether there is a nodule in a lung; None: drawn, one patient in two.
    """

    def __init__(self, seed: int, lesion: bool | None = None) -> None:
        rng = np.random.default_rng([seed, 1])
        self.size = rng.uniform([0.92, 0.92, 0.93], [1.06, 1.08, 1.06])
        self.girth_mm = float(rng.uniform(-5, 9))
        self.pose = rotation(*np.deg2rad(rng.uniform(-3, 3, 3)))
        self.middle = rng.uniform([-6, -6, -8], [6, 6, 8])
        self.wobble = [Waves.draw(rng, 110, 240) for _ in range(3)]
        self.wobble_mm = float(rng.uniform(1.5, 3.0))
        self.texture = Waves.draw(rng, 12, 40, 12)
        self.tissue = Waves.draw(rng, 9, 30, 12)
        self._draw_bones(rng)
        self._draw_chest(rng)
        self._draw_belly(rng)
        self._draw_intensities(rng)
        self._draw_nodule(rng, lesion)

    # -- drawing ---------------------------------------------------------------------
    def _draw_bones(self, rng: np.random.Generator) -> None:
        self.scoliosis_mm = float(rng.uniform(-4, 4))
        pitch = 23.0
        levels = np.arange(-150.0 + rng.uniform(0, pitch), 150, pitch)
        self.levels = levels
        processes = []
        for z in levels:
            x = float(self._spine_x(np.array(z)))
            processes.append(Beads.tube([[x, -84, z - 2], [x, -101, z - 13]], [5.0, 4.5]))
            for side in (-1, 1):
                lamina, tip = [x + side * 9, -79, z], [x + side * 32, -86, z + 4]
                processes.append(Beads.tube([lamina, tip], [5.0, 4.5]))
        self.processes = Beads.join(processes)
        tops = 112 - 20.5 * np.arange(12) + rng.uniform(-4, 4)
        self.ribs = Beads.join([self._rib(i, z, s) for i, z in enumerate(tops) for s in (-1, 1)])
        self.scapulae = Beads.join([self._scapula(s, rng.uniform(-6, 6)) for s in (-1, 1)])

    def _rib(self, index: int, top: float, side: int) -> Beads:
        last = [30, 26, 24, 24, 24, 26, 30, 38, 46, 54, 95, 120][index]
        theta = np.deg2rad(np.linspace(166, last, 24))
        drop = [26, 40, 50, 56, 60, 62, 62, 60, 56, 48, 34, 24][index]
        along = (np.pi - theta) / np.pi
        z = top - drop * along**1.2 * (1 - 0.15 * along)
        a, b, centre = cage_axes(z)
        x = side * (a + 1) * np.sin(theta) ** (2 / CAGE_POWER)
        y = np.sign(np.cos(theta)) * (b + 1) * np.abs(np.cos(theta)) ** (2 / CAGE_POWER)
        joint = [side * 17.0, -64.0, top + 3]
        path = np.vstack([joint, np.stack([x, y + centre, z], axis=-1)])
        return Beads.tube(path, 5.4)

    def _scapula(self, side: int, shift: float) -> Beads:
        rows = []
        for z in np.arange(-18.0, 98.0, 3.0):
            wide = np.interp(z, [-18, 60, 98], [4, 26, 14])
            theta = np.deg2rad(np.arange(138 - wide, 138 + wide * 0.55, 1.2))
            a, b, centre = cage_axes(np.full_like(theta, min(z, 40)))
            x = side * (a + 17) * np.sin(theta) ** (2 / CAGE_POWER)
            y = np.sign(np.cos(theta)) * (b + 15) * np.abs(np.cos(theta)) ** (2 / CAGE_POWER)
            rows.append(np.stack([x, y + centre, np.full_like(theta, z + shift)], axis=-1))
        plate = np.concatenate(rows)
        ridge = Beads.tube(
            [
                [side * 92, -93, 62 + shift],
                [side * 122, -72, 78 + shift],
                [side * 140, -36, 92 + shift],
            ],
            [5.0, 6.0, 10.0],
        )
        return Beads.join([Beads(plate, np.full(len(plate), 4.2)), ridge])

    def _draw_chest(self, rng: np.random.Generator) -> None:
        shift = rng.uniform(-5, 5, 3)
        grow = rng.uniform(0.9, 1.12)
        self.heart = Ellipsoid(
            np.array([-24, 22, -24]) + shift, np.array([56, 42, 44]) * grow, rng.uniform(0.3, 0.6)
        )
        self.ventricles = [
            Ellipsoid(np.array([-44, 22, -30]) + shift, np.array([26, 17, 24]) * grow, 0.5),
            Ellipsoid(np.array([-14, 40, -30]) + shift, np.array([28, 15, 24]) * grow, 0.4),
            Ellipsoid(np.array([10, 14, -14]) + shift, np.array([18, 20, 24]) * grow, 0.0),
            Ellipsoid(np.array([-14, -4, -6]) + shift, np.array([26, 13, 16]) * grow, 0.0),
        ]
        wide = rng.uniform(0.9, 1.15)
        arch = rng.uniform(-6, 6)
        self.aorta = Beads.tube(
            [
                [4, 18, -8],
                [16, 25, 22],
                [10, 14, 54 + arch],
                [-10, -6, 70 + arch],
                [-25, -30, 58 + arch],
                [-26, -46, 30],
                [-24, -48, -20],
                [-20, -45, -80],
                [-12, -42, -150],
            ],
            np.array([15, 15, 14, 13.5, 13, 12, 11.5, 11, 10.5]) * wide,
        )
        carina = [4.0, -26.0, 44 + float(rng.uniform(-5, 5))]
        air = rng.uniform(0.92, 1.12)
        right = np.add(carina, [[0, 0, 0], [18, -3, -14], [38, -6, -32]])
        left = np.add(carina, [[0, 0, 0], [-26, -4, -17], [-48, -8, -30]])
        self.trachea = Beads.join(
            [
                Beads.tube([[0, -14, 150], [1, -20, 100], carina], 8.5 * air),
                Beads.tube(right, np.array([7, 6.6, 5]) * air),
                Beads.tube(left, np.array([6.6, 6.2, 5]) * air),
            ]
        )
        self.esophagus = Beads.tube(
            [
                [-2, -31, 150],
                [-5, -37, 90],
                [-4, -40, 30],
                [-3, -38, -30],
                [-12, -28, -66],
                [-26, -12, -88],
            ],
            np.array([6.5, 7, 7, 7.5, 8, 8]) * rng.uniform(0.92, 1.12),
        )
        self.esophagus_air = Beads(self.esophagus.centres, self.esophagus.radii * 0.0 + 2.2)
        self.great_vessels = Beads.join(
            [
                Beads.tube([[24, 8, 96], [25, 6, 50], [22, 4, 0]], 8.5),
                Beads.tube([[24, 8, 96], [-10, 26, 108], [-40, 10, 120]], 6.0),
                Beads.tube([[-14, 34, 0], [-16, 20, 24], [-14, 2, 34]], [13, 12.5, 11]),
                Beads.tube([[-14, 2, 34], [14, -8, 28], [44, -22, 18]], [10, 9.5, 6]),
                Beads.tube([[-14, 2, 34], [-36, -20, 34], [-50, -30, 20]], [10, 9, 6]),
                Beads.tube([[6, 6, 74 + arch], [12, 2, 100], [20, -4, 140]], 5.5),
                Beads.tube([[-14, -10, 78 + arch], [-16, -12, 110], [-22, -14, 140]], 4.8),
                Beads.tube([[28, 4, -30], [30, 0, -80], [26, -18, -150]], 10.5),
            ]
        )
        self.lung_vessels = Beads.join([self._vessel_tree(rng, side) for side in (-1, 1)])

    @staticmethod
    def _vessel_tree(rng: np.random.Generator, side: int) -> Beads:
        hilum = np.array([side * 44.0, -24.0, 16.0])
        branches = []
        for _ in range(13):
            theta, height = rng.uniform(0.15, np.pi - 0.15), rng.uniform(-92, 96)
            a, b, _ = cage_axes(np.array([height]))
            end = np.array([side * a[0] * np.sin(theta), b[0] * np.cos(theta), height]) * 0.9
            bend = (hilum + end) / 2 + rng.uniform(-10, 10, 3)
            branches.append(Beads.tube([hilum, bend, end], [4.6, 3.0, 1.1]))
            for share in (0.35, 0.5, 0.65, 0.8):
                start = bend + (end - bend) * (share - 0.3)
                tip = start + rng.uniform(-1, 1, 3) * np.array([26, 30, 34])
                branches.append(Beads.tube([start, tip], [2.3, 0.9], 2.5))
        return Beads.join(branches)

    def _draw_belly(self, rng: np.random.Generator) -> None:
        breath = rng.uniform(-9, 9)
        right, left = -118 + breath, -126 + breath
        self.domes = [
            Ellipsoid([60, -2, right], [84, 92, 74]),
            Ellipsoid([-66, -2, left], [80, 92, 70]),
        ]
        self.liver = [
            Ellipsoid([62, -2, right], [82, 90, 72]),
            Ellipsoid([0, 42, right + 4], [64 * rng.uniform(0.85, 1.15), 36, 46]),
        ]
        self.liver_vessels = Beads.join(
            [
                Beads.tube([[30, 0, right + 34], [52, 18, right + 20], [86, 26, right]], [5, 4, 2]),
                Beads.tube(
                    [[30, 0, right + 34], [60, -20, right + 16], [92, -30, right]], [5, 4, 2]
                ),
                Beads.tube([[30, 0, right + 34], [30, 30, right + 12], [8, 50, right]], [5, 4, 2]),
            ]
        )
        self.stomach = Ellipsoid(
            np.array([-50, 14, left + 22]) + rng.uniform(-5, 5, 3),
            np.array([38, 46, 40]) * rng.uniform(0.88, 1.12),
            rng.uniform(-0.3, 0.3),
        )
        self.stomach_air_y = float(rng.uniform(18, 34))
        self.colon = Beads.tube(
            [
                [-96, 8, -150],
                [-104, 18, left + 10],
                [-84, 38, left + 34],
                [-60, 62, left + 14],
                [-10, 72, left - 8],
                [60, 60, left - 20],
            ],
            rng.uniform(13, 17),
        )
        self.spleen = Ellipsoid(
            np.array([-92, -40, left + 8]) + rng.uniform(-4, 4, 3),
            np.array([24, 42, 46]) * rng.uniform(0.88, 1.12),
            rng.uniform(-0.7, -0.35),
        )

    def _draw_intensities(self, rng: np.random.Generator) -> None:
        contrast = rng.uniform(0, 1)
        self.hu = {
            "lung": rng.uniform(-870, -790),
            "blood": 45 + 130 * contrast + rng.uniform(-5, 5),
            "aorta": 50 + 190 * contrast + rng.uniform(-8, 8),
            "myocardium": 48 + 55 * contrast,
            "liver": rng.uniform(48, 62) + 45 * contrast,
            "spleen": rng.uniform(44, 54) + 75 * contrast,
            "stomach": rng.uniform(5, 35),
            "muscle": MUSCLE + rng.uniform(-6, 8),
            "marrow": rng.uniform(130, 260),
            "cortex": rng.uniform(430, 700),
            "nodule": rng.uniform(20, 70),
        }

    def _draw_nodule(self, rng: np.random.Generator, lesion: bool | None) -> None:
        side = rng.choice([-1, 1])
        theta, depth = rng.uniform(0.6, 2.4), rng.uniform(0.6, 0.8)
        height, radius = rng.uniform(5, 80), rng.uniform(7, 13)
        squeeze = rng.uniform(0.8, 1.15, 3)
        wanted = bool(rng.uniform() < 0.5) if lesion is None else lesion
        a, b, centre = cage_axes(np.array([height]))
        place = [
            side * depth * a[0] * np.sin(theta),
            centre[0] + depth * b[0] * np.cos(theta),
            height,
        ]
        self.nodule = Ellipsoid(place, radius * squeeze) if wanted else None

    # -- geometry ---------------------------------------------------------------------
    def to_body(self, world: NDArray[np.float64]) -> Floats:
        """Positions (n, 3) in the patient's mm to the body's frame, float32."""
        upright = (world - self.middle) @ self.pose
        points = (upright / self.size).astype(np.float32)
        shift = np.stack([wave.at(points) for wave in self.wobble]).T
        return np.asfortranarray(points + np.float32(self.wobble_mm) * shift)

    def _spine_x(self, z: Floats) -> Floats:
        """Sideways place of the spine at heights `z`."""
        return np.asarray(self.scoliosis_mm * np.sin((z + 140) / 280 * np.pi))

    def width_mm(self) -> float:
        """Width of the body at its widest."""
        return float(2 * (166 + self.girth_mm) * self.size[0])

    def depth_mm(self) -> float:
        """Depth of the body at its deepest."""
        return float(2 * (113 + self.girth_mm) * self.size[1])

    def paint(self, world: NDArray[np.float64], edge_mm: float) -> Canvas:
        """Intensities (HU, without noise) and labels at positions (n, 3) in mm."""
        points = self.to_body(world)
        at = _Place(
            points,
            cage=cage_distance(points),
            heart=self.heart.distance(points),
            fine=self.tissue.at(points),
            coarse=self.texture.at(points),
        )
        canvas = Canvas(len(points), edge_mm)
        self._paint_table(canvas, (world - self.middle) @ self.pose)
        self._paint_wall(canvas, at)
        self._paint_cavities(canvas, at)
        self._paint_mediastinum(canvas, at)
        self._paint_bones(canvas, at)
        return canvas

    # -- painting ---------------------------------------------------------------------
    def _paint_table(self, canvas: Canvas, upright: NDArray[np.float64]) -> None:
        back = -117.0 * self.size[1] - self.girth_mm - 6
        x, y = upright[:, 0], upright[:, 1] - 0.0011 * upright[:, 0] ** 2
        top = np.maximum(np.abs(y - (back - 6)) - 6, np.abs(x) - 190).astype(np.float32)
        canvas.paint(top, -120.0)
        canvas.tint(top + 3, -880.0)

    def _paint_wall(self, canvas: Canvas, at: _Place) -> None:
        x, y, z = at.points.T
        body = body_distance(at.points) - np.float32(self.girth_mm)
        grain = 12 * at.fine
        muscle = self.hu["muscle"] + grain
        canvas.paint(body, 30.0)
        canvas.tint(body + 2.5, FAT + 0.8 * grain)
        inside = body + 7
        canvas.tint(np.maximum(at.cage - 9, inside), muscle)
        for side in (-1, 1):
            for solid in (
                Ellipsoid([side * 62, 88, 62], [56, 15, 48], side * -0.35),
                Ellipsoid([side * 118, -52, 52], [26, 40, 70], side * 0.5),
                Ellipsoid([side * 134, -20, -10], [13, 46, 70], side * 0.1),
                Ellipsoid([side * 48, -96, 70], [52, 10, 60], side * 0.15),
            ):
                canvas.tint(np.maximum(solid.distance(at.points), inside), muscle)
        spine = self._spine_x(z)
        for side in (-1, 1):
            ellipse = np.hypot((x - spine - side * 25) / 20, (y + 93) / 13)
            canvas.paint((ellipse - 1) * 13, muscle + 4, "autochthon")

    def _paint_cavities(self, canvas: Canvas, at: _Place) -> None:
        x, y, z = at.points.T
        dome = _union(self.domes, at.points)
        canvas.paint(at.cage + 5, FAT + 20 + 14 * at.fine)
        belly = np.maximum(np.maximum(dome, at.cage + 5), 4 - at.heart)
        gap = np.maximum(3.0, 25 - 0.0030 * (y + 20) ** 2)
        spine = np.hypot(x - self._spine_x(z), y + 62) - 27
        lung = np.maximum.reduce([at.cage + 8, -dome, 5 - at.heart, -spine])
        vessels = self.lung_vessels.distance(at.points, lung < 4)
        parenchyma = self.hu["lung"] + 22 * at.coarse - 0.45 * y
        # the right side has positive x
        for name, side in (("lung_right", 1), ("lung_left", -1)):
            apex = z - 121 + 0.007 * (x - side * 48) ** 2 + 0.004 * (y + 15) ** 2
            part = np.maximum.reduce([lung, gap - side * (x - 1), apex])
            canvas.paint(part, parenchyma, name)
            canvas.tint(np.maximum(vessels, part), 20.0)
            if self.nodule is not None:
                canvas.paint(
                    np.maximum(self.nodule.distance(at.points), part + 1),
                    self.hu["nodule"],
                    "nodule",
                )
        canvas.paint(belly, 40.0)
        canvas.tint(belly + 3, FAT)
        grain = 8 * at.fine
        inner = belly + 3.5
        colon = np.maximum(self.colon.distance(at.points), inner)
        canvas.paint(colon, 40.0)
        canvas.tint(colon + 3, -180 + 160 * at.coarse)
        liver = np.maximum(_union(self.liver, at.points), inner)
        canvas.paint(
            np.maximum(self.spleen.distance(at.points), inner), self.hu["spleen"] + grain, "spleen"
        )
        stomach = np.maximum(self.stomach.distance(at.points), inner)
        canvas.paint(stomach, 45.0, "stomach")
        canvas.tint(stomach + 3, self.hu["stomach"] + grain)
        canvas.tint(np.maximum(stomach + 3, self.stomach_air_y - y), -960.0)
        canvas.paint(liver, self.hu["liver"] + grain, "liver")
        canvas.tint(
            np.maximum(self.liver_vessels.distance(at.points), liver),
            0.5 * (self.hu["blood"] + 110),
        )

    def _paint_mediastinum(self, canvas: Canvas, at: _Place) -> None:
        canvas.paint(self.great_vessels.distance(at.points), self.hu["blood"])
        canvas.paint(at.heart, self.hu["myocardium"], "heart")
        for chamber in self.ventricles:
            deep = np.maximum(chamber.distance(at.points), at.heart + 5)
            canvas.tint(deep, self.hu["blood"] + 6 * at.fine)
        canvas.paint(self.esophagus.distance(at.points), 40.0, "esophagus")
        canvas.tint(self.esophagus_air.distance(at.points), -350.0)
        canvas.paint(self.aorta.distance(at.points), self.hu["aorta"], "aorta")
        trachea = self.trachea.distance(at.points)
        canvas.tint(np.where(trachea < FAR_MM, trachea - 2, FAR_MM), 20.0)
        canvas.paint(trachea, -985.0, "trachea")

    def _paint_bones(self, canvas: Canvas, at: _Place) -> None:
        x, y, z = at.points.T
        marrow, cortex = self.hu["marrow"], self.hu["cortex"]
        shoulder = self.scapulae.distance(at.points, at.cage > 0)
        canvas.paint(shoulder, cortex * 0.85, "scapulae")
        ribs = self.ribs.distance(at.points, np.abs(at.cage) < 24)
        canvas.paint(ribs, cortex, "ribs")
        canvas.tint(ribs + 3.2, marrow)
        self._paint_sternum(canvas, at)
        offset = x - self._spine_x(z)
        column = (np.hypot(offset / 18, (y + 54) / 14) - 1) * 14
        pitch = self.levels[1] - self.levels[0]
        phase = np.abs((z - self.levels[0] + pitch / 2) % pitch - pitch / 2)
        disc = 8.2 - phase  # negative inside the disc
        cord = np.hypot(offset, y + 74)
        arch = np.abs(cord - 10.5) - 3.5
        bone = np.minimum(np.minimum(column, arch), self.processes.distance(at.points))
        canvas.paint(bone, cortex * 0.8, "vertebrae")
        canvas.tint(column + 2.5, marrow + 30 * at.coarse)
        canvas.tint(np.maximum(column, disc), 85.0)
        canvas.paint(cord - 7.5, 12.0, "spinal_cord")
        canvas.tint(cord - 4.5, 38.0)

    def _paint_sternum(self, canvas: Canvas, at: _Place) -> None:
        x, y, z = at.points.T
        _, b, centre = cage_axes(z)
        half = np.interp(z, [-50, -30, 55, 82], [10, 17, 15, 28]).astype(np.float32)
        depth = np.abs(y - (centre + b + 1))
        plate = np.maximum.reduce([np.abs(x) - half, depth - 6.5, np.abs(z - 18) - 62])
        canvas.paint(plate, self.hu["cortex"] * 0.8, "sternum")
        canvas.tint(plate + 3, self.hu["marrow"])


def _union(solids: list[Ellipsoid], points: Floats) -> Floats:
    return np.asarray(np.minimum.reduce([solid.distance(points) for solid in solids]))
