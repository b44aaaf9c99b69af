"""Which wells and treatments a set has, and which of their scores it can give: known from its table alone."""

import dataclasses

import numpy as np
import pandas as pd

from bie_jax.config.schema import ConfigError, EvalConfig, ProfileConfig
from bie_jax.evaluation.profiles.confounding import in_one_batch_alone
from bie_jax.evaluation.profiles.groups import group_rows
from bie_jax.evaluation.scores.plan import column
from bie_jax.input import columns

LEAST_CONTROLS = 2  # of a batch that TVN whitens
LEAST_CONTROLS_OF_A_PLATE = 4  # to be told by: two in each half
_OURS = ("images", "wells", "control")  # columns of tables of profiles that no set has given


@dataclasses.dataclass(frozen=True)
class TreatmentPlan:
    """Wells and treatments of a set.

    Attributes:
        images: [n] rows of the set that are part of a well, ascending.
        well_of_image: [n] int64 in [0, W).
        wells: W rows, sorted by plate and well: `plate`, `well`, all columns that the configuration names, as text but
            for concentrations, and `images`, how many a well has.
        controls: [W] bool.
        treated: [W] bool; a well that is neither has no treatment.
        with_controls: [W] bool, wells of plates that have a control.
        treatments: T rows, sorted, of the treatments: their columns, mechanism, compound and concentration where named,
            and `wells`.
        notes: sentences on all that is left out or not as it should be.
    """

    images: np.ndarray
    well_of_image: np.ndarray
    wells: pd.DataFrame
    controls: np.ndarray
    treated: np.ndarray
    with_controls: np.ndarray
    treatments: pd.DataFrame
    notes: tuple[str, ...]


def plan_treatments(metadata: pd.DataFrame, sides: np.ndarray, settings: EvalConfig) -> TreatmentPlan | None:
    """The wells and treatments of a set; None where `settings.profile.treatment` names no column.

    Args:
        metadata: N rows with plate, well, the label column and all columns that the configuration names.
        sides: [N] "train", "val" or "held_out"; what is held out has no part.
        settings: the `eval` group of a configuration.

    Raises:
        ConfigError: a column that is not there, that is not of numbers, or that has two values in a well or a
            treatment; no treated well; or controls asked for that there are none of.
    """
    profile = settings.profile
    if not profile.treatment:
        return None
    images, table, notes = _images(metadata, sides, settings)
    groups = group_rows(table, ("plate", "well"))
    _check_one_value(table, groups.codes, groups.first, groups.names, "a well")
    wells = table.iloc[groups.first].reset_index(drop=True)
    wells["images"] = np.bincount(groups.codes)
    controls = (wells.pop("control") == "yes").to_numpy()
    known = np.all([(wells[name] != "") & wells[name].notna() for name in profile.treatment], axis=0)

    # --- Wells that the steps can do nothing with go
    kept, lost = _wells_with_their_controls(wells, controls, profile)
    notes += lost
    if not kept.any():
        raise ConfigError(
            f"config.eval.profile.steps={profile.steps}: no {_scope_that_needs_controls(profile)} has the negative "
            f"controls that it takes ({settings.label} = {settings.probe_control!r}, config.eval.probe_control)"
        )
    stays = kept[groups.codes]
    images, well_of_image = images[stays], (np.cumsum(kept) - 1)[groups.codes[stays]]
    wells, controls, known = wells[kept].reset_index(drop=True), controls[kept], known[kept]
    treated = known & ~controls
    if not treated.any():
        raise ConfigError(
            f"config.eval.profile.treatment={profile.treatment}: no well has a value in it that is no control"
        )
    if (~known & ~controls).any():
        notes.append(f"{(~known & ~controls).sum()} wells without a treatment take no part in its scores.")
    return TreatmentPlan(
        images=images,
        well_of_image=well_of_image,
        wells=wells,
        controls=controls,
        treated=treated,
        with_controls=wells["plate"].isin(wells.loc[controls, "plate"]).to_numpy(),
        treatments=_treatments(wells.iloc[np.flatnonzero(treated)], profile),
        notes=(*notes, *_warnings(wells, controls, treated, settings)),
    )


def columns_named(profile: ProfileConfig) -> dict[str, str]:
    """Every column of the set that the configuration of profiles names, and the key that names it first."""
    named = {
        **dict.fromkeys(profile.treatment, "treatment"),
        **{name: key for key in ("mechanism", "compound", "concentration") if (name := getattr(profile, key))},
        **dict.fromkeys(profile.batch, "batch"),
        **dict.fromkeys(profile.replicates_differ_in, "replicates_differ_in"),
        **(dict.fromkeys(profile.normalize.scope, "normalize.scope") if "normalize" in profile.steps else {}),
    }
    return {name: f"profile.{key}" for name, key in named.items()}


def _images(
    metadata: pd.DataFrame, sides: np.ndarray, settings: EvalConfig
) -> tuple[np.ndarray, pd.DataFrame, list[str]]:
    """The rows that are part of a well, and what is known of them; notes on those that are not."""
    profile = settings.profile
    table = pd.DataFrame({name: column(metadata, name, "group") for name in ("plate", "well")})
    for name, key in columns_named(profile).items():
        if name in _OURS:
            raise ConfigError(
                f"config.eval.{key}={name!r}: profiles have a column of that name of their own; build the set with "
                "another name for it"
            )
        table[name] = column(metadata, name, key)
    if profile.concentration:
        table[profile.concentration] = _numbers(metadata, profile.concentration)
    control = column(metadata, settings.label, "label") == settings.probe_control
    table["control"] = np.where(control & bool(settings.probe_control), "yes", "no")
    placed = ((table["plate"] != "") & (table["well"] != "")).to_numpy()
    seen = sides != columns.HELD_OUT
    notes = []
    if not placed.all():
        notes.append(f"{(~placed).sum()} images without a plate or a well have no part in profiles.")
    if not seen.all():
        notes.append(f"{(~seen).sum()} images that are held out have no part in profiles.")
    rows = np.flatnonzero(placed & seen)
    if not len(rows):
        raise ConfigError("config.eval.profile.treatment: no image has a plate and a well, and is not held out")
    return rows, table.iloc[rows].reset_index(drop=True), notes


def _numbers(metadata: pd.DataFrame, name: str) -> np.ndarray:
    """A column as [N] float64, NaN where it is empty."""
    text = column(metadata, name, "profile.concentration")
    numbers = np.array([_number(value) for value in text])
    wrong = np.flatnonzero(~np.isfinite(numbers) & (text != ""))
    if len(wrong):
        row = int(wrong[0])
        raise ConfigError(
            f"config.eval.profile.concentration={name!r}: row {row} holds {str(text[row])!r}, which is no number"
        )
    return numbers


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _check_one_value(table: pd.DataFrame, codes: np.ndarray, first: np.ndarray, names: list[str], what: str) -> None:
    """Raise ConfigError for a column that has two values in one group."""
    for name in table.columns:
        values = pd.factorize(table[name])[0]
        mixed = np.flatnonzero(values != values[first][codes])
        if len(mixed):
            which = "controls" if name == "control" else f"column {name!r}"
            raise ConfigError(
                f"config.eval.profile: {names[codes[mixed[0]]]} has several values of {which}; {what} has one"
            )


def _scope_that_needs_controls(profile: ProfileConfig) -> str:
    return " or ".join(["set" if not scope else "/".join(scope) for scope, _ in _needs(profile)])


def _needs(profile: ProfileConfig) -> list[tuple[tuple[str, ...], int]]:
    """(columns of a scope, the controls that each needs)."""
    needs: list[tuple[tuple[str, ...], int]] = []
    if "normalize" in profile.steps and profile.normalize.rows == "controls":
        needs.append((profile.normalize.scope, 1))
    if "sphere" in profile.steps:
        needs.append(((), 2))
    if "tvn" in profile.steps:
        needs.append((profile.batch, LEAST_CONTROLS))
    return needs


def _wells_with_their_controls(
    wells: pd.DataFrame, controls: np.ndarray, profile: ProfileConfig
) -> tuple[np.ndarray, list[str]]:
    """[W] bool, wells of scopes that have the controls which a step takes; notes on the others."""
    kept, notes = np.ones(len(wells), dtype=bool), []
    for scope, least in _needs(profile):
        groups = group_rows(wells, scope)
        count = np.bincount(groups.codes, weights=controls, minlength=len(groups.names))
        few = np.flatnonzero(count < least)
        if len(few):
            more = f" and {len(few) - 3} more" if len(few) > 3 else ""
            named = "; ".join(groups.names[code] for code in few[:3])
            notes.append(
                f"Profiles leave out {np.isin(groups.codes, few).sum()} wells ({named}{more}): fewer than {least} "
                "controls, on which config.eval.profile.steps are fitted."
            )
        kept &= ~np.isin(groups.codes, few)
    return kept, notes


def _treatments(wells: pd.DataFrame, profile: ProfileConfig) -> pd.DataFrame:
    groups = group_rows(wells, profile.treatment)
    of_it = [name for name in (profile.mechanism, profile.compound, profile.concentration) if name]
    names = list(dict.fromkeys([*profile.treatment, *of_it]))
    _check_one_value(wells.loc[:, names], groups.codes, groups.first, groups.names, "a treatment")
    table = wells[names].iloc[groups.first].reset_index(drop=True)
    table["wells"] = np.bincount(groups.codes)
    return table


def _warnings(wells: pd.DataFrame, controls: np.ndarray, treated: np.ndarray, settings: EvalConfig) -> list[str]:
    """What cannot be told apart or compared."""
    profile, notes = settings.profile, []
    if not controls.any():
        notes.append(
            f"Activity and batches are not scored: there are no negative controls ({settings.label} = "
            f"{settings.probe_control!r}, config.eval.probe_control)."
        )
    elif np.unique(wells["plate"][controls], return_counts=True)[1].min() < LEAST_CONTROLS_OF_A_PLATE:
        notes.append(
            f"How far plates can be told is not scored: a plate has fewer than {LEAST_CONTROLS_OF_A_PLATE} control "
            "wells, half of which the steps are fitted to and half of which are asked."
        )
    if profile.batch:
        alone = in_one_batch_alone(wells.iloc[np.flatnonzero(treated)], profile.treatment, profile.batch)
        if alone.any():
            batch = "/".join(profile.batch)
            notes.append(
                f"CONFOUNDED: {alone.sum()} of {len(alone)} treatments have all their wells in one {batch}. What sets "
                f"them apart may be the {batch}, and neither normalization nor a score can tell."
            )
    return notes
