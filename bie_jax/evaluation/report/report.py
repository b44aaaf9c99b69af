"""`report/index.html`: one file that opens offline, with everything a reader needs to judge a run.

The page is put together from `template/`; style sheet, script, pictures and data are all inside it, and it asks
the network for nothing. Strings out of data and configuration are escaped: a well named `<script>` is shown as such.
"""

import base64
import collections.abc
import dataclasses
import json
import string
from pathlib import Path

import numpy as np
import pandas as pd

from bie_jax.evaluation.report import figures, thumbnails
from bie_jax.evaluation.scores import normalization
from bie_jax.files import integrity
from bie_jax.files.foreign_text import in_html
from bie_jax.training import run_files

TEMPLATE = Path(__file__).parent / "template"
MOST_CATEGORIES = 120  # columns with more values than that are not offered as colors
CLASSIFIER_NAMES = {
    "logistic_regression": "logistic regression",
    "random_forest": "random forest",
    "majority": "majority",
}


@dataclasses.dataclass(frozen=True)
class Projection:
    """A map [n, 2] of the images shown, with the labels of its axes and a sentence on how it was made."""

    title: str
    x_label: str
    y_label: str
    coordinates: np.ndarray
    caption: str


def _image(svg: str, alternative: str) -> str:
    """An SVG as an <img>: its ids cannot clash with those of another picture, nor can it run anything."""
    data = base64.b64encode(svg.encode()).decode()
    return f'<img class="figure" src="data:image/svg+xml;base64,{data}" alt="{in_html(alternative)}">'


def _json(content: object) -> str:
    """JSON for a <script> element: `<` is written as an escape, so that no string can end the element."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def split_title(split: str) -> str:
    """As it stands in tables: `leave_plate_out` -> `leave-plate-out`."""
    titles = {"stratified_k_fold": "stratified k-fold", "unseen_by_encoder": "unseen by the encoder"}
    return titles.get(split, split.replace("_", "-"))


def _leading_split(scores: dict) -> str | None:
    """The grouped split when there is one: that is the honest number, so it comes first everywhere."""
    splits = list(scores["splits"])
    return next((name for name in splits if name.startswith("leave_")), splits[0] if splits else None)


def full_title(entry: dict, scores: dict) -> str:
    """A feature set with its normalization, where there is more than one."""
    if len(scores["normalizations"]) == 1 or "majority" in entry["classifiers"]:
        return entry["title"]
    return f"{entry['title']}, {normalization.TITLES[entry['normalization']]}"


def best_row(scores: dict, trained: bool) -> dict | None:
    """The row of greatest macro F1 in the leading split, of the trained encoder or of all baselines.

    Both are chosen alike: over every normalization and classifier.
    """
    rows = [
        row
        for row in scores["rows"]
        if row["metric"] == "macro_f1"
        and row["split"] == _leading_split(scores)
        and (row["feature_set"] == "trained_encoder") == trained
    ]
    return max(rows, key=lambda row: row["value"], default=None)


def grouped(scores: dict) -> list[list[dict]]:
    """The entries of each feature set, one for each normalization: the trained encoder first, then the baselines, the
    one with the greatest macro F1 in the leading split before the others."""
    groups: dict[str, list[dict]] = {}
    for entry in scores["feature_sets"].values():
        groups.setdefault(entry["feature_set"], []).append(entry)
    split = _leading_split(scores)

    def rank(entries: list[dict]) -> tuple[bool, float]:
        values = [result[split]["macro_f1"] for e in entries for result in e["classifiers"].values() if split in result]
        return entries[0]["feature_set"] != "trained_encoder", -max(values, default=0.0)

    return sorted(groups.values(), key=rank)


def _row_heads(entries: list[dict], scores: dict, described: bool) -> collections.abc.Iterator[tuple[dict, str, str]]:
    """Each entry of a feature set, its row's class, and the cells that open it: the set's own once for all its rows."""
    mark = ' class="ours"' if entries[0]["feature_set"] == "trained_encoder" else ""
    for i, entry in enumerate(entries):
        cells = ""
        if i == 0:
            dim = f" {entry['dim']} features." if entry["dim"] else ""
            text = f"<span>{in_html(entry['description'])}{dim}</span>" if described else ""
            cells = f'<th rowspan="{len(entries)}" scope="rowgroup">{in_html(entry["title"])}{text}</th>'
        if len(scores["normalizations"]) > 1:
            name = normalization.TITLES[entry["normalization"]] if "majority" not in entry["classifiers"] else "–"
            cells += f'<th class="under" scope="row">{name}</th>'
        yield entry, mark, cells


def _normalization_head(scores: dict, rows: int) -> str:
    if len(scores["normalizations"]) == 1:
        return ""
    return f'<th rowspan="{rows}" scope="col">normalized</th>'


def _of_draws(values: list[float]) -> str:
    """What several seeds gave, where there were several."""
    return f"<span>seeds {min(values):.3f} – {max(values):.3f}</span>" if len(values) > 1 else ""


def _score_cell(score: dict) -> str:
    low, high = score["macro_f1_interval_95"]
    return (
        f'<td class="score"><b>{score["macro_f1"]:.3f}</b><span>{low:.3f} – {high:.3f}</span>'
        f"{_of_draws(score['macro_f1_of_draws'])}"
        f"<span>bal. acc. {score['balanced_accuracy']:.3f}</span></td>"
    )


def score_table(scores: dict) -> str:
    """All feature sets under all normalizations in one table, in the order of `grouped`."""
    splits = list(scores["splits"])
    if not splits:
        return ""
    leading = _leading_split(scores)
    splits.sort(key=lambda name: name != leading)
    knn = next((entry["knn"] for entry in scores["feature_sets"].values() if entry["knn"]), None)
    group_heads = "".join(
        f'<th colspan="2" scope="colgroup">{in_html(split_title(split))}: macro F1</th>' for split in splits
    )
    heads = "".join('<th scope="col">logistic regression</th><th scope="col">random forest</th>' for _ in splits)
    rows = []
    for entries in grouped(scores):
        for entry, mark, opening in _row_heads(entries, scores, described=True):
            classifiers = entry["classifiers"]
            cells = []
            for split in splits:
                if "majority" in classifiers:
                    cells.append(_score_cell(classifiers["majority"][split]).replace("<td ", '<td colspan="2" ', 1))
                else:
                    cells += [
                        _score_cell(classifiers[name][split]) for name in ("logistic_regression", "random_forest")
                    ]
            if entry["knn"]:
                cells.append(
                    f'<td class="score"><b>{entry["knn"]["accuracy"]:.3f}</b>'
                    f"{_of_draws(entry['knn']['accuracy_of_draws'])}"
                    f"<span>chance {entry['knn']['chance']:.3f}</span></td>"
                )
            else:
                cells.append('<td class="score">–</td>')
            rows.append(f"<tr{mark}>{opening}{''.join(cells)}</tr>")
    neighbors = f"{knn['k']}-NN" if knn else "kNN"
    return (
        '<div class="scroll"><table class="scores"><thead><tr><th rowspan="2" scope="col">features</th>'
        f'{_normalization_head(scores, 2)}{group_heads}<th rowspan="2" scope="col">{neighbors}, not same well: '
        f"accuracy</th></tr><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def normalization_note(scores: dict) -> str:
    """What the normalizations are, where there is more than one."""
    if len(scores["normalizations"]) == 1:
        return ""
    described = " ".join(
        f"<b>{normalization.TITLES[name]}:</b> {in_html(text)}" for name, text in scores["normalizations"].items()
    )
    return f"<p>{described}</p>"


def plate_table(scores: dict) -> str:
    """How well the plate can be read off the negative controls, per feature set and normalization."""
    groups = [[entry for entry in entries if entry["plate_identity"]] for entries in grouped(scores)]
    groups = [entries for entries in groups if entries]
    if not groups:
        return (
            "<p>Not scored: there are no negative controls on at least two plates "
            "(<code>config.eval.probe_control</code>).</p>"
        )
    first = groups[0][0]["plate_identity"]
    rows = []
    for entries in groups:
        for entry, mark, opening in _row_heads(entries, scores, described=False):
            identity = entry["plate_identity"]
            share, chance = identity["macro_f1"], identity["chance"]
            rows.append(
                f'<tr{mark}>{opening}<td class="score"><b>{share:.3f}</b>{_of_draws(identity["macro_f1_of_draws"])}'
                '</td><td class="meter">'
                f'<div role="img" aria-label="{share:.3f} on a scale from 0 to 1, chance {chance:.3f}">'
                f'<i style="width:{share:.1%}"></i><u style="left:{chance:.1%}"></u></div></td></tr>'
            )
    left_out = (
        " What is normalized per plate is so by all images of the plate but the controls that are tested; where "
        "treatments differ from plate to plate in number or strength, that mean itself moves the controls apart."
        if len(scores["normalizations"]) > 1
        else ""
    )
    return (
        f"<p>Logistic regression guesses the plate of {first['images']} negative-control images from "
        f"{first['plates']} plates "
        f"({in_html(first['split'])}). The controls were treated alike, so what tells their plates apart is batch "
        "effect: <b>lower is better</b>. "
        f"Chance is {first['chance']:.3f} (the line in the bars).{left_out}</p>"
        '<div class="scroll"><table class="plates"><thead><tr><th scope="col">features</th>'
        f'{_normalization_head(scores, 1)}<th scope="col">macro F1</th>'
        '<th scope="col">0 to 1</th></tr></thead><tbody>' + "".join(rows) + "</tbody></table></div>"
    )


def _interval_figure(scores: dict) -> str:
    split = _leading_split(scores)
    if split is None:
        return ""
    rows = []
    for entries in grouped(scores):
        marks = [
            figures.ScoreMark(
                CLASSIFIER_NAMES[name],
                normalization.TITLES[entry["normalization"]],
                results[split]["macro_f1"],
                *results[split]["macro_f1_interval_95"],
            )
            for entry in entries
            for name, results in entry["classifiers"].items()
        ]
        ours = entries[0]["feature_set"] == "trained_encoder"
        rows.append({"title": entries[0]["title"], "marks": marks, "highlight": ours})
    title = f"Macro F1 of {scores['label']}, {split_title(split)}, by features"
    svg = figures.score_intervals(rows, 1 / scores["splits"][split]["classes"], title, scores["interval_over"])
    return _image(svg, title)


def configuration_table(config: dict) -> str:
    """The run's configuration, one table per group, nested keys with dots."""

    def flat(group: dict, prefix: str = "") -> list[tuple[str, object]]:
        rows = []
        for key, value in group.items():
            rows += flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
        return rows

    tables = []
    for name, group in config.items():
        rows = flat(group) if isinstance(group, dict) else [("", group)]
        body = "".join(f"<tr><th scope='row'>{in_html(key)}</th><td>{in_html(value)}</td></tr>" for key, value in rows)
        tables.append(f"<table class='config'><caption>{in_html(name)}</caption><tbody>{body}</tbody></table>")
    return "<div class='configs'>" + "".join(tables) + "</div>"


def read_metrics(path: Path) -> list[dict]:
    """The lines of `metrics.jsonl`, none where it was removed; a last one that a killed run left unfinished is dropped.

    Raises:
        DamagedFileError: if it is not what was written.
    """
    if not path.is_file():
        return []
    lines = integrity.read_log(path, run_files.RESTORE_LOG).decode().splitlines()
    records = []
    for i, line in enumerate(lines):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            if i < len(lines) - 1:
                raise
    return records


def _training_section(workdir: Path) -> str:
    records = read_metrics(workdir / "metrics.jsonl")
    validation = [record for record in records if "val/loss" in record]
    best = min(validation, key=lambda record: record["val/loss"])["epoch"] if validation else None
    svg = figures.loss_curves(records, best)
    if svg is None:
        return "<p>No metrics were logged.</p>"
    last = records[-1]
    mark = f" The dashed line marks the lowest validation loss, at epoch {best:.3g}." if best is not None else ""
    return (
        f"<p>{last['step']} steps, {last['epoch']:.3g} epochs. Each panel is one term, unweighted and per batch for "
        f"training, over all validation images for validation.{mark}</p>"
        f"<figure>{_image(svg, 'Loss terms and learning rate against the epoch')}</figure>"
    )


def _reconstruction_section(
    workdir: Path,
    channel_names: list[str],
    pixel_size_um: float | None,
    metadata_of: collections.abc.Callable[[int], str],
) -> str:
    path = workdir / "reconstructions.npz"
    if not path.is_file():
        return "<p>This run has left no reconstructions.</p>"
    with np.load(path, allow_pickle=False) as stored:
        images, restored, rows = stored["image"], stored["reconstruction"], stored["index"]
    count = min(len(images), 4 if images.shape[1] <= 128 else 2)
    images, restored = images[:count].astype(np.float32), restored[:count].astype(np.float32)
    flat = images.reshape(-1, images.shape[-1])
    limits = np.percentile(flat, (0.5, 99.8), axis=0).T  # [C, 2]
    limits[:, 1] = np.where(
        limits[:, 1] > limits[:, 0], limits[:, 1], limits[:, 0] + 1
    )  # a blank channel is shown black
    difference = np.percentile(np.abs(restored - images).reshape(-1, images.shape[-1]), 99.5, axis=0)
    difference = np.where(difference > 0, difference, 1)
    parts = []
    for image, other, row in zip(images, restored, rows):
        what = metadata_of(int(row))
        svg = figures.reconstruction(image, other, channel_names, pixel_size_um, limits, difference)
        error = float(((other - image) ** 2).mean())
        parts.append(
            f"<figure>{_image(svg, f'Input, reconstruction and difference of {what}')}"
            f"<figcaption>{in_html(what)}. Mean squared error over all channels {error:.3f}.</figcaption></figure>"
        )
    return (
        "<p>Validation images, center-cropped as the model saw them. Intensities are normalized, in the units the "
        "model works in; the range shown from black to white "
        "stands over each column and is the same for input and reconstruction (0.5th to 99.8th percentile of the "
        "inputs on this page). "
        "The difference is reconstruction minus input: red where too bright, blue where too dark.</p>"
        f"<div class='pictures {'wide' if images.shape[-1] > 3 else ''}'>{''.join(parts)}</div>"
    )


def _gallery(pictures: list[figures.Picture]) -> str:
    return "".join(
        f"<h3>{in_html(picture.title)}</h3><figure>{_image(picture.svg, picture.title)}"
        f"<figcaption>{in_html(picture.caption)}</figcaption></figure>"
        for picture in pictures
    )


def invariance_table(rows: list[dict], most_side_px: int) -> str:
    """What changes to an outline, or to its picture, do to the embedding and to a classifier's score."""
    if not rows:
        return ""
    body = []
    for row in rows:
        f1 = "–" if row["macro_f1"] is None else f"{row['macro_f1']:.3f}"
        mean, greatest = ("–" if row[key] is None else f"{row[key]:.2%}" for key in ("embedding", "embedding_max"))
        lost = f" ({row['lost']} too small to draw)" if row["lost"] else ""
        body.append(
            f'<tr><th scope="row">{in_html(row["of"])}: {in_html(row["change"])}{lost}</th>'
            f'<td class="score"><b>{mean}</b></td><td class="score"><b>{greatest}</b></td>'
            f'<td class="score"><b>{f1}</b></td></tr>'
        )
    return (
        "<h3>What changes the embedding</h3><p>The distance of a changed object's embedding from its own, as a share "
        "of the RMS distance between two objects: mean over objects and angles, and the angle with the greatest mean. "
        "F1 is macro F1 on the changed objects, by logistic regression that has learnt from other objects, "
        f"unchanged. An outline is changed itself; a mask is drawn from it, at most {most_side_px} px long, and traced "
        "anew.</p>"
        '<div class="scroll"><table class="plates"><thead><tr><th scope="col">change</th>'
        '<th scope="col">mean</th><th scope="col">greatest</th><th scope="col">macro F1</th></tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def codebook_statistics(code_counts: np.ndarray) -> tuple[int, int, float]:
    """Codes used, codes there are, and perplexity 2^entropy (mean over groups) of counts [G, K]."""
    shares = code_counts / np.maximum(code_counts.sum(axis=1, keepdims=True), 1)
    logs = np.log2(np.where(shares > 0, shares, 1))
    perplexity = float(np.mean(2.0 ** -(shares * logs).sum(axis=1)))
    return int((code_counts > 0).sum()), int(code_counts.size), perplexity


def _codebook_section(workdir: Path) -> tuple[str, str | None]:
    path = workdir / "codebook.npz"
    if not path.is_file():
        return "<p>This model has no codebook.</p>", None
    with np.load(path, allow_pickle=False) as stored:
        counts = stored["code_counts"]
        positions, bits = int(stored["positions"]), float(stored["capacity_bits"])
    used, there, perplexity = codebook_statistics(counts)
    groups, codes = counts.shape
    where = "one codebook" if groups == 1 else f"{groups} groups, each with its own codebook"
    plural = "position" if positions == 1 else "positions"
    per_group = "" if groups == 1 else " per group"
    text = (
        f"<p><b>{used} of {there} codes</b> are in use ({where} of {codes} codes). Perplexity {perplexity:.1f} of "
        f"{codes}: the number of codes that, used evenly, would carry as much information. "
        f"Each image is written in {positions} {plural}{per_group}, a capacity of {bits:.0f} bits.</p>"
        f"<figure>{_image(figures.codebook_use(counts), 'Share of each code')}</figure>"
    )
    return text, f"{used} / {there}"


def _entry(row: dict, scores: dict) -> dict:
    """The feature set under its normalization that a row is of."""
    return next(
        entry
        for entry in scores["feature_sets"].values()
        if all(entry[key] == row[key] for key in ("feature_set", "normalization"))
    )


def _cards(scores: dict, codes: str | None) -> str:
    cards = []
    split = _leading_split(scores)
    ours, best = best_row(scores, trained=True), best_row(scores, trained=False)
    trained = scores["feature_sets"]["trained_encoder"]
    if ours is not None and best is not None and split is not None:
        trained = _entry(ours, scores)
        cards.append(
            (
                f"{ours['value']:.3f}",
                f"macro F1, {split_title(split)}",
                f"{full_title(trained, scores)}, {CLASSIFIER_NAMES[ours['classifier']]}; 95 % interval "
                f"{ours['low']:.3f} – {ours['high']:.3f}",
            )
        )
        lead = best["value"] - ours["value"]
        verdict = f"{abs(lead):.3f} {'ahead of' if lead > 0 else 'behind'}" if lead else "level with"
        cards.append(
            (
                f"{best['value']:.3f}",
                "best baseline",
                f"{full_title(_entry(best, scores), scores)}, {CLASSIFIER_NAMES[best['classifier']]}: {verdict} the "
                "trained encoder, each at its best",
            )
        )
    if trained["knn"]:
        cards.append(
            (
                f"{trained['knn']['accuracy']:.3f}",
                f"{trained['knn']['k']}-NN accuracy",
                f"{full_title(trained, scores)}, not same well; chance {trained['knn']['chance']:.3f}",
            )
        )
    if trained["plate_identity"]:
        identity = trained["plate_identity"]
        cards.append(
            (
                f"{identity['macro_f1']:.3f}",
                "plate identity",
                f"{full_title(trained, scores)}, from controls, lower is better; chance {identity['chance']:.3f}",
            )
        )
    if codes:
        cards.append((codes, "codes in use", "over all embedded images"))
    return "".join(
        f"<div class='card'><b>{in_html(a)}</b><span>{in_html(b)}</span><small>{in_html(c)}</small></div>"
        for a, b, c in cards
    )


def color_columns(metadata: pd.DataFrame, label: str, control: str) -> list[dict]:
    """What points can be colored by: the label, plate, well, site, split, and further columns with few values.

    Args:
        metadata: of the images shown.
        label: the label column; it comes first.
        control: value of the label drawn in grey, or "".

    Returns:
        For each column its `name`, its `categories` and the `codes` [n] into them; `neutral` is the index of the
        controls or -1.
    """
    fixed = [name for name in dict.fromkeys((label, "plate", "well", "site", "split")) if name in metadata]
    columns = []
    for name in [*fixed, *(column for column in metadata.columns if column not in fixed)]:
        values = metadata[name]
        few = 2 <= values.nunique() <= MOST_CATEGORIES
        if name not in fixed and (not few or pd.api.types.is_float_dtype(values)):
            continue
        numeric = pd.api.types.is_numeric_dtype(values)
        names = sorted(values.dropna().unique()) if numeric else sorted(values.fillna("").astype(str).unique())
        text = values.fillna("").astype(str)
        categories = [str(value) for value in names]
        if numeric and bool((text == "").any()):
            categories.append("")
        neutral = categories.index(control) if name == label and control in categories else -1
        codes = pd.Categorical(text, categories=categories).codes.tolist()
        columns.append({"name": str(name), "categories": categories, "codes": codes, "neutral": neutral})
    return columns


def write_report(
    workdir: Path,
    *,
    config: dict,
    scores: dict,
    metadata: pd.DataFrame,
    projections: list[Projection],
    tiles: list,
    pictures: list[figures.Picture],
    control: str,
) -> Path:
    """Write `report/index.html`.

    Args:
        workdir: where `metrics.jsonl`, and where there are any `reconstructions.npz` and `codebook.npz`, are read.
        config: the resolved configuration.
        scores: the content of `scores.json`.
        metadata: one row per image shown, with plate, well, site and the label column.
        projections: maps of the images shown.
        tiles: thumbnails of the images shown, squares of one size.
        pictures: of shapes, in place of the reconstructed images.
        control: label of the negative controls, or "".

    Returns:
        The path of the page.

    Raises:
        ValueError: maps, thumbnails and metadata of different lengths.
    """
    lengths = {len(metadata), len(tiles), *(len(projection.coordinates) for projection in projections)}
    if len(lengths) != 1:
        raise ValueError(
            f"metadata, thumbnails and maps must show the same images, their lengths are {sorted(lengths)}"
        )
    data = scores["set"]
    # The index of a reconstruction is a row of the set; the metadata here are of the sampled rows, which keep their
    # number as a column.
    by_row = {int(row): i for i, row in enumerate(metadata["row"])} if "row" in metadata else {}

    labels = metadata[scores["label"]].fillna("").astype(str).to_numpy()

    def metadata_of(row: int) -> str:
        if row not in by_row:
            return f"Image {row}"
        values = metadata.iloc[by_row[row]]
        where = f"Plate {values['plate']}, well {values['well']}, site {values['site']}"
        label = str(labels[by_row[row]])
        return f"{where}, {label}" if label else where

    codebook, codes = _codebook_section(workdir)
    atlas, columns = thumbnails.pack_atlas(tiles)
    shown = metadata.drop(columns="row") if "row" in metadata else metadata
    page_data = {
        "count": len(metadata),
        "columns": color_columns(shown, scores["label"], control),
        "projections": [
            {
                "title": p.title,
                "xLabel": p.x_label,
                "yLabel": p.y_label,
                "caption": p.caption,
                "xy": np.round(p.coordinates.astype(float), 3).tolist(),
            }
            for p in projections
        ],
        "atlas": {"columns": columns, "side": tiles[0].width},
        "label": scores["label"],
        "featureSets": [
            {
                "title": full_title(entry, scores),
                "draws": entry["draws"],
                "results": [
                    {"classifier": CLASSIFIER_NAMES[name], "split": split_title(split), **result}
                    for name, splits in entry["classifiers"].items()
                    for split, result in sorted(splits.items(), key=lambda item: item[0] != _leading_split(scores))
                ],
            }
            for entries in grouped(scores)
            for entry in entries
            if entry["classifiers"]
        ],
    }
    total = data["images"]
    sampling = (
        f"All {total} images are shown."
        if len(metadata) == total
        else f"{len(metadata)} of {total} images are shown, drawn at random without regard to labels "
        "(config.eval.max_report_points)."
    )
    colors = thumbnails.channel_colors(len(data["channels"]))
    colors_of = "".join(
        f'<span><i style="background:{color}"></i>{in_html(name)}</span>'
        for name, color in zip(data["channels"], colors)
    )
    height, width, count = data["image_shape"]
    um = data["pixel_size_um"]
    extent = "pixel size unknown" if um is None else f"{width * um:.4g} × {height * um:.4g} µm"
    if data["kind"] == "shapes":
        facts = f"{total} outlines of {height} points."
        thumbnail_key = "<b>Thumbnails:</b> each outline, filled, at one size; the yellow dot is its first point."
    else:
        facts = (
            f"{total} images of {data['plates']} plates and {data['wells']} wells; {width} × {height} px "
            f"({extent}), {count} channels: {', '.join(data['channels'])}."
        )
        thumbnail_key = (
            f"<b>Colors of the thumbnails:</b> {colors_of} Every channel is scaled alike in all images, from the "
            "set's 1st to its 99.9th percentile; the channels are joined by screen blending."
        )
    banner = (
        '<p class="banner" role="note"><b>SIMULATED DATA.</b> These images were generated by a program. '
        "The scores say whether the software works; they say nothing about biology.</p>"
        if data["simulated"]
        else ""
    )
    notes = "".join(f"<li>{in_html(note)}</li>" for note in scores["notes"])
    leading = _leading_split(scores)
    if leading is not None and leading.startswith("leave_"):
        group = leading.removeprefix("leave_").removesuffix("_out")
        trust = f"Leaving each {group} out in turn is the number to trust: images of one {group} resemble each other"
    else:
        trust = "No whole plates are left out here, so what images of one plate share flatters all scores"
    values = {
        "trust": in_html(trust),
        "resampled": "whole wells" if scores["interval_over"] == "wells" else "single images",
        "title": in_html(workdir.resolve().name),
        "css": (TEMPLATE / "report.css").read_text(),
        "js": (TEMPLATE / "report.js").read_text(),
        "data": _json(page_data),
        "banner": banner,
        "set_name": in_html(data["name"]),
        "set_description": in_html(data["description"]),
        "facts": in_html(facts),
        "model": in_html(scores["model"]),
        "cards": _cards(scores, codes),
        "sampling": in_html(sampling),
        "thumbnail_key": thumbnail_key,
        "pictures_title": "Shapes, and back from the embedding"
        if data["kind"] == "shapes"
        else "Reconstructions, channel by channel",
        "atlas": atlas,
        "score_figure": _interval_figure(scores),
        "score_table": score_table(scores),
        "label": in_html(scores["label"]),
        "notes": f"<ul class='notes'>{notes}</ul>" if notes else "",
        "transductive": in_html(scores["transductive"]),
        "normalizations": normalization_note(scores),
        "confusion_hidden": "" if page_data["featureSets"] else "hidden",
        "plates": plate_table(scores),
        "reconstructions": _gallery(pictures)
        + invariance_table(scores["invariances"], config["eval"]["invariance_side_px"])
        if data["kind"] == "shapes"
        else _reconstruction_section(workdir, data["channels"], um, metadata_of),
        "codebook": codebook,
        "training": _training_section(workdir),
        "configuration": configuration_table(config),
    }
    page = string.Template((TEMPLATE / "report.html").read_text()).substitute(values)
    folder = workdir / "report"
    content = page.encode("utf-8")
    integrity.write_unverified(folder / "index.html", lambda partial: partial.write_bytes(content), len(content))
    return folder / "index.html"
