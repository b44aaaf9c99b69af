"""Simulation of siRNA-treated cells as idr0093 stained and imaged them. SIMULATED: no image here was ever taken.

The model is a chain of physical steps: a plate layout, cells with a position in the cell cycle, dyes bound
inside them, optics, and a camera. A treatment changes the biology only (cell cycle, sizes, where the dye goes);
what changes counts without biology (stain, lamp, focus) belongs to plate, well and site. README.md lists every
parameter with its reason.
"""

import dataclasses
import functools
import string
from typing import Any

import numpy as np
from scipy import ndimage

CHANNEL_NAMES = ("DNA", "nascent RNA", "PCNA", "protein", "membrane")
DNA, RNA, PCNA, PROTEIN, MEMBRANE = range(5)

# idr0093: CV7000, 20x / 0.75 NA, 6.5 um camera pixels = 0.325 um in the sample; binned 2 x 2 here.
PIXEL_SIZE_UM = 0.65

CONTROL = "scrambled"


@dataclasses.dataclass(frozen=True)
class Phenotype:
    """What a knockdown does at strength 1.

    Multipliers act as `multiplier ** effect`, fractions move linearly from the control's value to the one given
    here, so that effect 0 is the control exactly and every change is monotone in the effect.
    """

    density: float = 1.0  # multiplier, cells per area
    cell_radius: float = 1.0  # multiplier
    nuclear_radius: float = 1.0  # multiplier
    nuclear_roughness: float = 1.0  # multiplier, irregularity of the nuclear outline
    chromatin_contrast: float = 1.0  # multiplier, sd of the DNA texture
    protein: float = 1.0  # multiplier, concentration
    membrane: float = 1.0  # multiplier, dye at the cell's edge
    nucleolar_rna: float = 1.0  # multiplier, nascent rRNA
    nucleoplasmic_rna: float = 1.0  # multiplier, nascent RNA outside the nucleoli
    nucleolus_count: float = 1.0  # multiplier
    nucleolus_radius: float = 1.0  # multiplier
    pcna_foci: float = 1.0  # multiplier, contrast of the replication foci
    s_fraction: float = 0.30  # fraction of cells in S
    g2_fraction: float = 0.18  # fraction of cells in G2
    mitotic_fraction: float = 0.03  # fraction of cells in M
    monopolar: float = 0.0  # fraction of the mitotic cells with a monopolar spindle
    binucleate: float = 0.02  # fraction of interphase cells with two nuclei
    multinucleate: float = 0.005  # fraction of interphase cells with three to six nuclei


# Named after the gene whose published loss-of-function phenotype was the model; "-like" because these are drawings.
PHENOTYPES = {
    CONTROL: Phenotype(),
    # Eg5: no bipolar spindle, monopolar arrest, slippage into multinucleate cells; the screen's transfection control.
    "KIF11-like": Phenotype(
        density=0.40,
        cell_radius=1.30,
        mitotic_fraction=0.22,
        monopolar=0.9,
        multinucleate=0.60,
        nuclear_roughness=1.4,
    ),
    # No entry into mitosis: G2 cells that go on growing.
    "CDK1-like": Phenotype(
        density=0.62,
        cell_radius=1.25,
        nuclear_radius=1.25,
        g2_fraction=0.58,
        s_fraction=0.20,
        mitotic_fraction=0.0,
    ),
    # No cytokinesis: two nuclei in one large cell.
    "ECT2-like": Phenotype(density=0.65, cell_radius=1.25, binucleate=0.65, g2_fraction=0.22),
    # RNA polymerase I: the nucleoli fall silent, round up and shrink.
    "POLR1A-like": Phenotype(
        density=0.85, nucleolar_rna=0.22, nucleolus_count=0.55, nucleolus_radius=0.75, protein=0.93
    ),
    # RNA polymerase II: the nucleoplasm falls silent, chromatin condenses.
    "POLR2A-like": Phenotype(
        density=0.75, nucleoplasmic_rna=0.50, nucleolar_rna=0.95, chromatin_contrast=1.7, nuclear_radius=0.94
    ),
    # Ribonucleotide reductase: forks stall, cells pile up in S with bright replication foci.
    "RRM1-like": Phenotype(
        density=0.72,
        s_fraction=0.72,
        g2_fraction=0.10,
        mitotic_fraction=0.01,
        nuclear_radius=1.10,
        pcna_foci=1.5,
    ),
    # Growth signalling: small cells with small nucleoli.
    "MTOR-like": Phenotype(
        density=0.92,
        cell_radius=0.80,
        nuclear_radius=0.90,
        protein=0.85,
        nucleolus_radius=0.78,
        nucleolar_rna=0.75,
        nucleoplasmic_rna=0.88,
        membrane=1.1,
    ),
}


@dataclasses.dataclass(frozen=True)
class Design:
    """Size of the simulated screen."""

    plates: int = 4
    control_wells: int = 8  # per plate
    wells_per_sirna: int = 2  # per plate
    sites: int = 5  # per well
    image_size: int = 128  # pixels; 83 um
    strengths: tuple[float, ...] = (0.35, 0.65, 1.0)  # one per siRNA: three reagents against each gene
    seed: int = 93

    def __post_init__(self) -> None:
        if not 0 < self.image_size < TEXTURE_SIZE or self.image_size % 2:
            raise ValueError(f"image_size={self.image_size}: expected an even number of pixels under {TEXTURE_SIZE}")

    @property
    def wells(self) -> int:
        """Wells used on each plate."""
        return self.control_wells + self.wells_per_sirna * len(self.strengths) * (len(PHENOTYPES) - 1)

    @property
    def images(self) -> int:
        """Images in the whole set."""
        return self.plates * self.wells * self.sites


@dataclasses.dataclass(frozen=True)
class Plate:
    """Batch effect: everything that one plate's wells share and that is not biology."""

    name: str
    index: int
    stain_gain: tuple[float, ...]  # per channel, about 1
    background_electrons: tuple[float, ...]  # per channel
    density: float  # about 1; how many cells were dispensed
    defocus_px: float  # added to the optics' blur
    illumination_center: tuple[float, float]  # y, x as a fraction of the field
    illumination_loss: float  # fraction of light lost half a field's width from the center


@dataclasses.dataclass(frozen=True)
class Well:
    """One well, one siRNA."""

    plate: Plate
    name: str
    index: int
    treatment: str
    sirna: str
    strength: float
    stain_gain: tuple[float, ...]  # per channel, about 1
    density: float  # about 1


def layout(design: Design) -> list[Well]:
    """Draws every plate: positions at random per plate, so that no treatment keeps a position.

    The outermost rows and columns of the 384-well plate stay empty, as edge wells dry out.
    """
    treatments = [(CONTROL, f"{CONTROL}-si1", 0.0)] * design.control_wells
    for name in PHENOTYPES:
        for k, strength in enumerate(design.strengths, start=1):
            if name != CONTROL:
                treatments += [(name, f"{name}-si{k}", strength)] * design.wells_per_sirna
    inner = [f"{row}{column:02d}" for row in string.ascii_uppercase[1:15] for column in range(2, 24)]
    if len(treatments) > len(inner):
        raise ValueError(
            f"the design needs {len(treatments)} wells on a plate, a 384-well plate has {len(inner)} inner ones; "
            "lower control_wells or wells_per_sirna"
        )

    wells = []
    for p in range(design.plates):
        rng = np.random.default_rng([design.seed, 1, p])
        plate = Plate(
            name=f"SIM{p + 1:03d}",
            index=p,
            stain_gain=tuple(np.exp(rng.normal(0, 0.15, 5)).round(4).tolist()),
            background_electrons=tuple(rng.uniform(15, 45, 5).round(2).tolist()),
            density=round(float(np.exp(rng.normal(0, 0.10))), 4),
            defocus_px=round(float(rng.uniform(0.0, 0.35)), 4),
            illumination_center=tuple(rng.uniform(0.35, 0.65, 2).round(4).tolist()),
            illumination_loss=round(float(rng.uniform(0.08, 0.20)), 4),
        )
        positions = sorted(rng.choice(len(inner), len(treatments), replace=False).tolist())
        assigned = rng.permutation(len(treatments)).tolist()
        for w, (position, t) in enumerate(zip(positions, assigned, strict=True)):
            treatment, sirna, strength = treatments[t]
            wells.append(
                Well(
                    plate=plate,
                    name=inner[position],
                    index=w,
                    treatment=treatment,
                    sirna=sirna,
                    strength=strength,
                    stain_gain=tuple(np.exp(rng.normal(0, 0.04, 5)).round(4).tolist()),
                    density=round(float(np.exp(rng.normal(0, 0.10))), 4),
                )
            )
    return wells


def simulate_site(design: Design, well: Well, site: int) -> tuple[np.ndarray, dict[str, Any]]:
    """One field of one well.

    The random numbers depend on (seed, plate, well, site) alone, so any field can be drawn by itself.

    Returns:
        image: [H, W, 5] uint16, camera counts, and the truth: what was drawn, as numbers.
    """
    rng = np.random.default_rng([design.seed, 2, well.plate.index, well.index, site])
    phenotype = PHENOTYPES[well.treatment]
    size = design.image_size
    cells = _draw_cells(rng, phenotype, well, size)
    electrons = _stain(rng, cells, size, _textures(design.seed))

    gain = np.multiply(well.plate.stain_gain, well.stain_gain)
    electrons *= (FULL_SCALE_ELECTRONS * gain)[:, None, None]
    image = _camera(rng, _optics(rng, electrons, well.plate), well.plate)

    inside = [c for c in cells if 0 <= c.y < size and 0 <= c.x < size]
    interphase = [c for c in inside if c.phase != "M"]
    radii = [n.radius * PIXEL_SIZE_UM for c in interphase for n in c.nuclei]
    truth = {
        "n_cells": len(inside),
        "n_nuclei": sum(max(len(c.nuclei), 1) for c in inside),
        "multinucleate_fraction": _fraction([len(c.nuclei) > 1 for c in interphase]),
        "s_phase_fraction": _fraction([c.phase == "S" for c in inside]),
        "mitotic_fraction": _fraction([c.phase == "M" for c in inside]),
        "nuclear_radius_um": float(np.mean(radii)) if radii else 0.0,
        "cell_radius_um": float(np.mean([c.radius * PIXEL_SIZE_UM for c in interphase])) if interphase else 0.0,
    }
    return np.moveaxis(image, 0, -1).copy(), truth


# --- cells -------------------------------------------------------------------------------------------------------

CELLS_PER_FIELD = 9.5  # of 83 x 83 um: nearly confluent
MARGIN_PX = 24  # cells are drawn this far outside the field, so that the border cuts through some
NUCLEAR_RADIUS_UM = 7.2  # of a G1 cell
CELL_RADIUS_UM = 16.0


@dataclasses.dataclass
class _Nucleus:
    dy: float  # offset from the cell's center, pixels
    dx: float
    radius: float  # pixels
    elongation: float  # ratio of the axes
    angle: float  # radians
    harmonics: np.ndarray  # [3, 2] amplitude and phase of the outline's 2nd to 4th harmonic


@dataclasses.dataclass
class _Cell:
    y: float
    x: float
    effect: float  # the treatment's effect in this cell
    phase: str  # G1, S, G2 or M
    progress: float  # through the phase, 0 to 1
    dna: float  # content, 2 (G1) to 4 (G2 and M)
    radius: float  # pixels
    elongation: float
    angle: float
    nuclei: list[_Nucleus]  # none in M
    monopolar: bool
    expression: np.ndarray  # [5] this cell's staining about 1
    phenotype: Phenotype

    def change(self, name: str) -> float:
        """The treatment's multiplier `name` in this cell."""
        return getattr(self.phenotype, name) ** self.effect


def _fraction(flags: list[bool]) -> float:
    return float(np.mean(flags)) if flags else 0.0


def _draw_cells(rng: np.random.Generator, phenotype: Phenotype, well: Well, size: int) -> list[_Cell]:
    """Cells of one field with its margin, kept apart from each other by their nuclei."""
    control = PHENOTYPES[CONTROL]
    side = size + 2 * MARGIN_PX
    expected = CELLS_PER_FIELD * (side / 128) ** 2
    expected *= well.plate.density * well.density * phenotype.density**well.strength * rng.gamma(25, 1 / 25)
    cells: list[_Cell] = []
    for _ in range(max(1, rng.poisson(expected))):
        # Knockdown varies between cells; some escape it.
        effect = well.strength * min(1.3, rng.gamma(9, 1 / 9)) * (rng.random() > 0.08)

        def fraction(name: str, effect: float = effect) -> float:
            start, end = getattr(control, name), getattr(phenotype, name)
            return start + min(effect, 1.0) * (end - start)

        m, g2, s = fraction("mitotic_fraction"), fraction("g2_fraction"), fraction("s_fraction")
        u, progress = rng.random(), rng.random()
        phase = "M" if u < m else "G2" if u < m + g2 else "S" if u < m + g2 + s else "G1"
        dna = {"G1": 2.0, "S": 2.0 + 2.0 * progress, "G2": 4.0, "M": 4.0}[phase]
        growth = {"G1": 1.0 + 0.12 * progress, "S": 1.12 + 0.08 * progress, "G2": 1.22, "M": 0.80}[phase]
        radius = CELL_RADIUS_UM / PIXEL_SIZE_UM * growth * phenotype.cell_radius**effect * rng.lognormal(0, 0.10)
        multi, bi = fraction("multinucleate"), fraction("binucleate")
        v = rng.random()
        count = 0 if phase == "M" else rng.integers(3, 7) if v < multi else 2 if v < multi + bi else 1
        nuclei = _draw_nuclei(rng, phenotype, effect, int(count), dna)
        # Dart throwing: the last try stands even if it is crowded.
        y = x = 0.0
        for _ in range(12):
            y, x = rng.uniform(-MARGIN_PX, size + MARGIN_PX, 2)
            if all((c.y - y) ** 2 + (c.x - x) ** 2 > (0.45 * (c.radius + radius)) ** 2 for c in cells):
                break
        cells.append(
            _Cell(
                y=y,
                x=x,
                effect=effect,
                phase=phase,
                progress=progress,
                dna=dna * (1.6 if count > 2 else 2.0 if count == 2 else 1.0),
                radius=radius,
                elongation=1.0 if phase == "M" else rng.uniform(1.0, 1.5),
                angle=rng.uniform(0, np.pi),
                nuclei=nuclei,
                monopolar=rng.random() < fraction("monopolar"),
                expression=rng.lognormal(0, [0.06, 0.18, 0.15, 0.12, 0.15]),
                phenotype=phenotype,
            )
        )
    return cells


def _draw_nuclei(
    rng: np.random.Generator, phenotype: Phenotype, effect: float, count: int, dna: float
) -> list[_Nucleus]:
    base = NUCLEAR_RADIUS_UM / PIXEL_SIZE_UM * (dna / 2) ** (1 / 3) * phenotype.nuclear_radius**effect
    roughness = 0.025 * phenotype.nuclear_roughness**effect
    turn = rng.uniform(0, 2 * np.pi)
    nuclei = []
    for k in range(count):
        if count == 1:
            radius, distance = base, rng.uniform(0, 2.5)
        elif count == 2:  # each daughter nucleus is whole
            radius, distance = 0.92 * base, 0.95 * base
        else:  # one genome split unevenly over a clump
            radius, distance = base * rng.uniform(0.40, 0.75), rng.uniform(0.6, 0.95) * base
        angle = turn + 2 * np.pi * k / max(count, 1) + rng.normal(0, 0.15)
        nuclei.append(
            _Nucleus(
                dy=distance * np.sin(angle),
                dx=distance * np.cos(angle),
                radius=radius * rng.lognormal(0, 0.06),
                elongation=rng.uniform(1.0, 1.35),
                angle=rng.uniform(0, np.pi),
                harmonics=np.stack([rng.normal(0, roughness, 3), rng.uniform(0, 2 * np.pi, 3)], axis=-1),
            )
        )
    return nuclei


# --- dyes --------------------------------------------------------------------------------------------------------

# Electrons per pixel of a channel whose dye density is 1.
FULL_SCALE_ELECTRONS = np.array([900.0, 700.0, 600.0, 800.0, 500.0], np.float32)
TEXTURE_SIGMA_PX = (0.8, 1.6, 3.2)
TEXTURE_SIZE = 512


@functools.lru_cache(maxsize=2)
def _textures(seed: int) -> np.ndarray:
    """Bank of smooth noise to cut textures from: [3 scales, 512, 512] float32, mean 0, sd 1."""
    rng = np.random.default_rng([seed, 3])
    white = rng.standard_normal((len(TEXTURE_SIGMA_PX), TEXTURE_SIZE, TEXTURE_SIZE), dtype=np.float32)
    smooth = np.stack([ndimage.gaussian_filter(w, s, mode="wrap") for w, s in zip(white, TEXTURE_SIGMA_PX)])
    return smooth / smooth.std(axis=(1, 2), keepdims=True)


def _cut(rng: np.random.Generator, texture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    y, x = rng.integers(0, TEXTURE_SIZE - np.array(shape))
    return texture[y : y + shape[0], x : x + shape[1]]


def _stain(rng: np.random.Generator, cells: list[_Cell], size: int, textures: np.ndarray) -> np.ndarray:
    """Dye density of every channel: [5, H, W] float32, about 1 where a control cell is bright."""
    dye = np.zeros((5, size, size), np.float32)
    _stain_bodies(rng, cells, dye, textures)
    for cell in cells:
        if cell.phase == "M":
            _stain_mitosis(rng, cell, dye, textures)
        for nucleus in cell.nuclei:
            _stain_nucleus(rng, cell, nucleus, dye, textures)
    return dye


def _stain_bodies(rng: np.random.Generator, cells: list[_Cell], dye: np.ndarray, textures: np.ndarray) -> None:
    """Cytoplasm and membrane. Cells share the plane like Voronoi regions weighted by size, ragged at the edges."""
    size = dye.shape[1]
    warp = 2.2 * np.stack([_cut(rng, textures[2], (size, size)) for _ in range(2)])
    yy, xx = np.mgrid[:size, :size].astype(np.float32) + warp
    # Distance from every cell's center in units of its radius, [cells, H, W].
    scaled = np.empty((len(cells), size, size), np.float32)
    for k, c in enumerate(cells):
        cos, sin = np.cos(c.angle), np.sin(c.angle)
        dy, dx = yy - np.float32(c.y), xx - np.float32(c.x)
        along, across = cos * dx + sin * dy, cos * dy - sin * dx
        scaled[k] = np.sqrt((along * along) / np.float32(c.elongation) + (across * across) * np.float32(c.elongation))
        scaled[k] /= np.float32(c.radius)
    owner = scaled.argmin(axis=0)
    nearest = np.take_along_axis(scaled, owner[None], axis=0)[0]
    np.put_along_axis(scaled, owner[None], np.inf, axis=0)
    second = np.minimum(scaled.min(axis=0), 4.0)

    def per_cell(values: list[float]) -> np.ndarray:
        return np.array(values, np.float32)[owner]

    edge_px = per_cell([c.radius for c in cells]) * np.minimum(1.0 - nearest, 0.5 * (second - nearest))
    covered = np.clip(0.5 + 0.7 * edge_px, 0.0, 1.0)
    thickness = covered * (0.30 + 0.70 * np.clip(1.0 - nearest * nearest, 0.0, 1.0))
    rounded = per_cell([1.9 if c.phase == "M" else 1.0 for c in cells])
    granular = 1.0 + 0.12 * _cut(rng, textures[1], (size, size)) + 0.06 * _cut(rng, textures[0], (size, size))

    protein = per_cell([0.55 * c.change("protein") * c.expression[PROTEIN] for c in cells])
    dye[PROTEIN] += protein * thickness * rounded * granular
    rna = per_cell([0.06 * c.change("nucleoplasmic_rna") * c.expression[RNA] for c in cells])
    dye[RNA] += rna * thickness
    pcna = per_cell([(0.45 if c.phase == "M" else 0.08) * c.expression[PCNA] for c in cells])
    dye[PCNA] += pcna * thickness
    membrane = per_cell([c.change("membrane") * c.expression[MEMBRANE] for c in cells])
    ridge = np.exp(-0.5 * np.square(edge_px / 1.3)) * (edge_px > -4.0)
    ruffle = 1.0 + 0.25 * _cut(rng, textures[1], (size, size))
    dye[MEMBRANE] += membrane * (0.95 * ridge * ruffle + 0.22 * thickness * rounded * granular)


def _patch(
    cell: _Cell, dy: float, dx: float, reach: float, size: int
) -> tuple[slice, slice, np.ndarray, np.ndarray] | None:
    """Window of the field around a point of a cell with coordinates relative to it; None when outside."""
    y, x = cell.y + dy, cell.x + dx
    y0, y1 = max(0, int(y - reach)), min(size, int(y + reach) + 2)
    x0, x1 = max(0, int(x - reach)), min(size, int(x + reach) + 2)
    if y0 >= y1 or x0 >= x1:
        return None
    rows = np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(y)
    columns = np.arange(x0, x1, dtype=np.float32)[None, :] - np.float32(x)
    return slice(y0, y1), slice(x0, x1), rows, columns


def _stain_nucleus(
    rng: np.random.Generator, cell: _Cell, nucleus: _Nucleus, dye: np.ndarray, textures: np.ndarray
) -> None:
    nucleoli = _draw_nucleoli(rng, cell, nucleus)
    window = _patch(cell, nucleus.dy, nucleus.dx, 1.45 * nucleus.radius + 2, dye.shape[1])
    if window is None:
        return
    rows, columns, dy, dx = window
    cos, sin = np.cos(nucleus.angle), np.sin(nucleus.angle)
    along, across = cos * dx + sin * dy, cos * dy - sin * dx
    rho = np.sqrt(along * along / nucleus.elongation + across * across * nucleus.elongation)
    theta = np.arctan2(across, along)
    outline = nucleus.radius * (1.0 + sum(a * np.cos(h * theta + p) for h, (a, p) in zip((2, 3, 4), nucleus.harmonics)))
    inside = np.clip(0.5 + 0.8 * (outline - rho), 0.0, 1.0).astype(np.float32)
    dome = inside * np.sqrt(np.clip(1.15 - np.square(rho / outline), 0.05, None)).astype(np.float32)
    shape = dome.shape

    nucleolar = np.zeros(shape, np.float32)
    for ny, nx, radius in nucleoli:
        nucleolar = np.maximum(nucleolar, np.clip(0.5 + 0.9 * (radius - np.hypot(dy - ny, dx - nx)), 0.0, 1.0))
    nucleolar *= inside

    # DNA: the same content in a larger nucleus is dimmer.
    share = cell.dna / max(len(cell.nuclei), 1)
    area = (nucleus.radius * PIXEL_SIZE_UM / NUCLEAR_RADIUS_UM) ** 2
    contrast = 0.16 * cell.change("chromatin_contrast")
    chromatin = 1.0 + contrast * (0.7 * _cut(rng, textures[1], shape) + 0.5 * _cut(rng, textures[0], shape))
    rim = 1.0 + 0.18 * np.exp(-0.5 * np.square((outline - rho - 1.5) / 1.2))
    dna = 0.42 * share / area * cell.expression[DNA]
    dye[DNA, rows, columns] += dna * dome * np.clip(chromatin * rim, 0.1, None) * (1.0 - 0.45 * nucleolar)

    # Nascent RNA follows cell size (the screen's subject) and is spread over the cell's nuclei.
    scaling = (cell.radius * PIXEL_SIZE_UM / CELL_RADIUS_UM) ** 0.8 * cell.expression[RNA]
    speckle = np.clip(1.0 + 0.22 * _cut(rng, textures[1], shape), 0.1, None)
    dye[RNA, rows, columns] += (
        scaling
        * (0.42 * cell.change("nucleoplasmic_rna") * dome * speckle * (1.0 - nucleolar)
           + 1.05 * cell.change("nucleolar_rna") * nucleolar)
    )  # fmt: skip

    dye[PCNA, rows, columns] += cell.expression[PCNA] * _pcna(rng, cell, nucleus, dy, dx, dome, nucleolar, textures)
    dye[PROTEIN, rows, columns] += cell.change("protein") * cell.expression[PROTEIN] * dome * (0.25 + 0.35 * nucleolar)


def _draw_nucleoli(rng: np.random.Generator, cell: _Cell, nucleus: _Nucleus) -> list[tuple[float, float, float]]:
    """(dy, dx, radius) in pixels, about 3 in a whole nucleus."""
    mean = 3.0 * cell.change("nucleolus_count") * min(1.0, nucleus.radius / 11.0) ** 2
    count = 1 + rng.poisson(max(mean - 1.0, 0.0))
    nucleoli = []
    for _ in range(count):
        distance, angle = nucleus.radius * 0.65 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        radius = 1.55 / PIXEL_SIZE_UM * cell.change("nucleolus_radius") * rng.lognormal(0, 0.20) / count**0.2
        nucleoli.append((distance * np.sin(angle), distance * np.cos(angle), min(radius, 0.5 * nucleus.radius)))
    return nucleoli


def _pcna(
    rng: np.random.Generator,
    cell: _Cell,
    nucleus: _Nucleus,
    dy: np.ndarray,
    dx: np.ndarray,
    dome: np.ndarray,
    nucleolar: np.ndarray,
    textures: np.ndarray,
) -> np.ndarray:
    """PCNA inside a nucleus: even in G1 and G2, in S many small foci early and few large ones late."""
    level = {"G1": 0.22, "S": 0.55, "G2": 0.35, "M": 0.0}[cell.phase]
    even = level * dome * (1.0 - 0.6 * nucleolar) * (1.0 + 0.08 * _cut(rng, textures[1], dome.shape))
    if cell.phase != "S":
        return even
    contrast = 0.55 * cell.change("pcna_foci")
    if cell.progress < 0.5:
        fine = _cut(rng, textures[0], dome.shape)
        return even + contrast * dome * np.clip(fine - 0.4, 0.0, None) * (1.0 - 0.7 * nucleolar)
    foci = np.zeros_like(dome)
    for _ in range(int(rng.integers(6, 14))):
        distance, angle = nucleus.radius * rng.uniform(0.35, 0.9), rng.uniform(0, 2 * np.pi)
        y, x, sigma = distance * np.sin(angle), distance * np.cos(angle), rng.uniform(0.8, 1.5)
        foci += np.exp(-0.5 * (np.square(dy - y) + np.square(dx - x)) / sigma**2)
    return 0.7 * even + 1.4 * contrast * foci * (dome > 0)


def _stain_mitosis(rng: np.random.Generator, cell: _Cell, dye: np.ndarray, textures: np.ndarray) -> None:
    """Condensed chromosomes: a metaphase plate, or the rosette around a monopolar spindle."""
    angle, radius = rng.uniform(0, np.pi), rng.uniform(4.2, 5.4)
    arms, turn = int(rng.integers(8, 13)), rng.uniform(0, 2 * np.pi)
    window = _patch(cell, 0.0, 0.0, 12.0, dye.shape[1])
    if window is None:
        return
    rows, columns, dy, dx = window
    if cell.monopolar:
        rho, theta = np.hypot(dy, dx), np.arctan2(dy, dx)
        ring = np.exp(-0.5 * np.square((rho - radius) / 2.0))
        mass = 0.75 * ring * (1.0 + 0.45 * np.cos(arms * theta + turn) * (rho > 2))
    else:
        along, across = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
        mass = np.exp(-(np.square(along / 7.5) ** 2) - np.square(across / 2.6) ** 2)
    clumps = np.clip(1.0 + 0.15 * _cut(rng, textures[0], mass.shape), 0.1, None)
    dye[DNA, rows, columns] += 2.0 * mass * clumps * cell.expression[DNA]
    dye[PCNA, rows, columns] *= 1.0 - 0.5 * np.clip(mass, 0, 1)


# --- light and camera --------------------------------------------------------------------------------------------

OPTICS_SIGMA_PX = 0.55  # 0.21 wavelength / NA is 0.2 to 0.3 px; the rest is the pixel itself and the section's depth
HAZE_FRACTION = 0.10  # light from out of focus
HAZE_SIGMA_PX = 7.0
COUNTS_PER_ELECTRON = 2.2
OFFSET_COUNTS = 100.0
READ_NOISE_ELECTRONS = 1.6


def _optics(rng: np.random.Generator, electrons: np.ndarray, plate: Plate) -> np.ndarray:
    """Blur, haze, background and the fall-off of the light: expected electrons, [5, H, W] float32."""
    size = electrons.shape[1]
    sigma = OPTICS_SIGMA_PX + plate.defocus_px + abs(rng.normal(0, 0.15))
    # The haze is wide, so it is computed on every second pixel and read back between them.
    sharp = ndimage.gaussian_filter(electrons, (0, sigma, sigma), mode="nearest", truncate=3.0)
    coarse = electrons.reshape(5, size // 2, 2, size // 2, 2).mean(axis=(2, 4))
    haze = ndimage.gaussian_filter(coarse, (0, HAZE_SIGMA_PX / 2, HAZE_SIGMA_PX / 2), mode="nearest", truncate=2.5)
    haze = haze.repeat(2, axis=1).repeat(2, axis=2)
    light = (1 - HAZE_FRACTION) * sharp + HAZE_FRACTION * haze
    light += np.array(plate.background_electrons, np.float32)[:, None, None]

    cy, cx = (np.array(plate.illumination_center) * size).astype(np.float32)
    yy, xx = np.ogrid[:size, :size]
    fall_off = 1.0 - plate.illumination_loss * (np.square(yy - cy) + np.square(xx - cx)) / np.float32((size / 2) ** 2)
    return light * np.clip(fall_off, 0.1, None).astype(np.float32)


def _camera(rng: np.random.Generator, expected: np.ndarray, plate: Plate) -> np.ndarray:
    """Photon noise, read noise, offset, 16-bit counts."""
    electrons = rng.poisson(expected) + READ_NOISE_ELECTRONS * rng.standard_normal(expected.shape, np.float32)
    counts = np.rint(COUNTS_PER_ELECTRON * electrons + OFFSET_COUNTS)
    return np.clip(counts, 0, 65535).astype(np.uint16)
