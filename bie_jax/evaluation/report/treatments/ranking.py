"""Treatments by activity, each with its neighbors and its images beside controls."""

import base64
import io

import numpy as np
import pandas as pd
from PIL import Image

from bie_jax.evaluation.profiles.neighbors import NearestProfiles, nearest_profiles
from bie_jax.evaluation.report.markup import csv_link
from bie_jax.evaluation.report.treatments.content import TreatmentContent
from bie_jax.files.foreign_text import in_html

MOST_ROWS = 100  # of the table on the page; the file behind it has all
NEIGHBORS = 3


def ranking(content: TreatmentContent) -> str:
    """The table, and a file with all treatments."""
    nearest = _nearest(content)
    activity = content.activity
    table = _as_file(content, nearest)
    shown = content.order[:MOST_ROWS]
    mechanism = content.profile.mechanism
    heads = ["", "treatment", *([mechanism] if mechanism else []), "wells"]
    if activity is not None:
        heads += ["activity: mean average precision", "q"]
    heads += ["most similar treatments (cosine)"] * (nearest is not None)
    heads += ["images: its wells above, controls of the same plates below"] * bool(content.exemplars)
    names, rows = content.names, []
    for place, treatment in enumerate(shown):
        facts = content.plan.treatments.iloc[treatment]
        cells = [f'<td>{place + 1}</td><th scope="row">{in_html(names[treatment])}</th>']
        if mechanism:
            cells.append(f"<td>{in_html(facts[mechanism])}</td>")
        cells.append(f"<td>{int(facts['wells'])}</td>")  # a row of numbers alone is of floats
        if activity is not None:
            cells.append(_activity_cells(activity.iloc[treatment]))
        if nearest is not None:
            cells.append(_neighbor_cell(content, nearest, int(treatment), names))
        if content.exemplars:
            cells.append(_image_cell(content, place, names[treatment]))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    note = f" The {len(shown)} most active of {len(names)} are shown." if len(shown) < len(names) else ""
    head = "".join(f'<th scope="col">{in_html(text)}</th>' for text in heads)
    return (
        "<h3>Treatments, the most active first</h3><p>Activity asks whether wells of a treatment are more similar to "
        "each other than to the negative controls of their plates (mean average precision; expected by chance below "
        "it). q: Benjamini-Hochberg over all treatments; it is cautious where a treatment has many wells. Images "
        "are of the wells most similar to the treatment's profile, the first of each; nobody has picked them."
        f"{note} {csv_link('treatments', table)}</p>"
        f'<div class="scroll"><table class="treatments"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>"
    )


def _nearest(content: TreatmentContent) -> NearestProfiles | None:
    features = content.corrected.treatments.features
    if len(features) < 2 or not np.linalg.norm(features, axis=1).all():
        return None
    return nearest_profiles(features, NEIGHBORS)


def _as_file(content: TreatmentContent, nearest: NearestProfiles | None) -> pd.DataFrame:
    """One row a treatment, in the order of activity."""
    table = content.plan.treatments
    if content.activity is not None:
        new = [name for name in content.activity.columns if name not in table.columns]
        table = pd.concat([table, content.activity[new]], axis=1)
    if nearest is not None:
        names = np.array(content.names)
        for i in range(nearest.rows.shape[1]):
            table = table.assign(
                **{f"nearest_{i + 1}": names[nearest.rows[:, i]], f"similarity_{i + 1}": nearest.similarity[:, i]}
            )
    return table.iloc[content.order]


def _activity_cells(row: pd.Series) -> str:
    if not np.isfinite(row["mean_average_precision"]):
        return "<td>–</td><td>–</td>"
    return (
        f'<td class="score"><b>{row["mean_average_precision"]:.3f}</b>'
        f"<span>by chance {row['expected_average_precision']:.3f}</span></td>"
        f"<td>{row['corrected_p_value']:.3g}</td>"
    )


def _neighbor_cell(content: TreatmentContent, nearest: NearestProfiles, treatment: int, names: list[str]) -> str:
    mechanism = content.profile.mechanism
    lines = []
    for other, similarity in zip(nearest.rows[treatment], nearest.similarity[treatment]):
        of_it = f" ({content.plan.treatments[mechanism].iloc[other]})" if mechanism else ""
        lines.append(f"<li>{in_html(names[other] + of_it)} <small>{similarity:.2f}</small></li>")
    return f"<td><ol>{''.join(lines)}</ol></td>"


def _image_cell(content: TreatmentContent, place: int, name: str) -> str:
    if place >= len(content.exemplars):
        return "<td></td>"
    pairs = content.exemplars[place]
    tops = "".join(_picture(content.tiles[pair.treated], f"{name}, well {i + 1}") for i, pair in enumerate(pairs))
    bottoms = "".join(
        _picture(content.tiles[pair.control], f"control of the plate of well {i + 1}")
        for i, pair in enumerate(pairs)
        if pair.control >= 0
    )
    return f'<td class="images"><div>{tops}</div><div>{bottoms}</div></td>'


def _picture(tile: Image.Image, alternative: str) -> str:
    buffer = io.BytesIO()
    tile.save(buffer, "WEBP", quality=80, method=2)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img src="data:image/webp;base64,{data}" width="{tile.width}" height="{tile.height}" '
        f'alt="{in_html(alternative)}">'
    )
