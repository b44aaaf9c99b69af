"""All sets of features under all normalizations in one table."""

from collections.abc import Iterator

from bie_jax.evaluation.report.ordering import grouped, leading_split
from bie_jax.evaluation.report.titles import split_title
from bie_jax.evaluation.scores.centroids import Centroids
from bie_jax.evaluation.scores.classification import Classification
from bie_jax.evaluation.scores.file import Scores
from bie_jax.evaluation.scores.keys import LOGISTIC_REGRESSION, MAJORITY, RANDOM_FOREST, TRAINED
from bie_jax.evaluation.scores.normalization import TITLES
from bie_jax.evaluation.scores.score import Entry
from bie_jax.files.foreign_text import in_html


def score_table(scores: Scores) -> str:
    """All feature sets under all normalizations in one table, in the order of `grouped`."""
    splits = list(scores["splits"])
    if not splits:
        return ""
    leading = leading_split(scores)
    splits.sort(key=lambda name: name != leading)
    knn = next((entry["knn"] for entry in scores["feature_sets"].values() if entry["knn"]), None)
    many = any(entry["centroids"] for entry in scores["feature_sets"].values())
    metric = "accuracy" if many else "macro F1"
    group_heads = "".join(
        f'<th colspan="2" scope="colgroup">{in_html(split_title(split))}: {metric}</th>' for split in splits
    )
    pair = ("nearest mean", "among the 10 nearest") if many else ("logistic regression", "random forest")
    heads = "".join(f'<th scope="col">{name}</th>' for _ in splits for name in pair)
    rows = []
    for entries in grouped(scores):
        for entry, mark, opening in row_heads(entries, scores, described=True):
            classifiers = entry["classifiers"]
            cells = []
            for split in splits:
                if many:
                    cells += _centroid_cells(entry["centroids"][split])
                elif MAJORITY in classifiers:
                    cells.append(_score_cell(classifiers[MAJORITY][split]).replace("<td ", '<td colspan="2" ', 1))
                else:
                    cells += [_score_cell(classifiers[name][split]) for name in (LOGISTIC_REGRESSION, RANDOM_FOREST)]
            if entry["knn"]:
                cells.append(
                    f'<td class="score"><b>{entry["knn"]["accuracy"]:.3f}</b>'
                    f"{range_of_draws(entry['knn']['accuracy_of_draws'])}"
                    f"<span>chance {entry['knn']['chance']:.3f}</span></td>"
                )
            else:
                cells.append('<td class="score">–</td>')
            rows.append(f"<tr{mark}>{opening}{''.join(cells)}</tr>")
    neighbors = f"{knn['k']}-NN" if knn else "kNN"
    return (
        '<div class="scroll"><table class="scores"><thead><tr><th rowspan="2" scope="col">features</th>'
        f'{normalization_head(scores, 2)}{group_heads}<th rowspan="2" scope="col">{neighbors}, not same well: '
        f"accuracy</th></tr><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def row_heads(entries: list[Entry], scores: Scores, described: bool) -> Iterator[tuple[Entry, str, str]]:
    """Each entry of a feature set, its row's class, and the cells that open it: the set's own once for all its rows."""
    for i, entry in enumerate(entries):
        mark = ' class="ours"' if entry["feature_set"] == TRAINED else ""
        cells = ""
        if i == 0:
            dim = f" {entry['dim']} features." if entry["dim"] else ""
            text = f"<span>{in_html(entry['description'])}{dim}</span>" if described else ""
            cells = f'<th rowspan="{len(entries)}" scope="rowgroup">{in_html(entry["title"])}{text}</th>'
        if len(scores["normalizations"]) > 1:
            name = TITLES[entry["normalization"]] if MAJORITY not in entry["classifiers"] else "–"
            cells += f'<th class="under" scope="row">{name}</th>'
        yield entry, mark, cells


def normalization_head(scores: Scores, rows: int) -> str:
    """The head of the column of normalizations, where there are several."""
    if len(scores["normalizations"]) == 1:
        return ""
    return f'<th rowspan="{rows}" scope="col">normalized</th>'


def range_of_draws(values: list[float]) -> str:
    """What several seeds gave, where there were several."""
    return f"<span>seeds {min(values):.3f} – {max(values):.3f}</span>" if len(values) > 1 else ""


def _centroid_cells(score: Centroids) -> list[str]:
    return [
        f'<td class="score"><b>{score["accuracy"]:.3f}</b><span>chance {score["chance"]:.2g}</span>'
        f"{range_of_draws(score['accuracy_of_draws'])}</td>",
        f'<td class="score"><b>{score["top_10"]:.3f}</b><span>chance {score["top_10_chance"]:.2g}</span></td>',
    ]


def _score_cell(score: Classification) -> str:
    low, high = score["macro_f1_interval_95"]
    return (
        f'<td class="score"><b>{score["macro_f1"]:.3f}</b><span>{low:.3f} – {high:.3f}</span>'
        f"{range_of_draws(score['macro_f1_of_draws'])}"
        f"<span>bal. acc. {score['balanced_accuracy']:.3f}</span></td>"
    )
