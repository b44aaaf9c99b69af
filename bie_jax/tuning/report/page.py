"""`index.html` of a sweep: one file that opens offline, beside the reports of its trials."""

import math
import string
from pathlib import Path
from urllib.parse import quote

from bie_jax.config.schema import Config
from bie_jax.evaluation.report.markup import svg_image
from bie_jax.evaluation.report.page import SIMULATED
from bie_jax.evaluation.report.page import TEMPLATE as REPORT_TEMPLATE
from bie_jax.files import integrity
from bie_jax.files.foreign_text import in_html
from bie_jax.tuning.folder import PAGE, TRIALS, SweepFolder
from bie_jax.tuning.importance import importances
from bie_jax.tuning.ranking import Ranking, Row, sentences
from bie_jax.tuning.report.figures import importance_bars, learning_curves, parallel_coordinates
from bie_jax.tuning.sweep import Sweep
from bie_jax.tuning.trials import written
from bie_jax.tuning.values import read_scores

_TEMPLATE = Path(__file__).parent / "template.html"


def write_page(sweep: Sweep, folder: SweepFolder, ranking: Ranking, base: Config) -> Path:
    """Write the page, whole or not at all.

    Args:
        sweep: what was tried.
        folder: of the sweep.
        ranking: of its settings.
        base: the configuration that it starts from.

    Returns:
        Its path.
    """
    scored = [row for row in ranking.rows if row.values]
    workdirs: dict[int, list[Path]] = {row.number: [] for row in ranking.rows}
    for trial, record in ranking.records:
        workdirs[record["number"]].append(folder.workdir(trial))
    curves = learning_curves(ranking.rows, workdirs, sweep.metric)
    shares = importances(sweep, ranking.rows)
    none = "<p>Too few trials for this yet.</p>"
    values = {
        "title": in_html(folder.path.name),
        "css": (REPORT_TEMPLATE / "report.css").read_text(),
        "lead": in_html(
            f"{base.data.name}, {base.model.name}. {len(ranking.rows)} settings of {', '.join(sweep.axes)}; seeds "
            f"{', '.join(map(str, sweep.seeds))}."
        ),
        "banner": SIMULATED if _is_simulated(ranking, folder) else "",
        "cards": _cards(ranking, str(sweep.metric)),
        "sentences": "".join(f"<p>{in_html(sentence)}</p>" for sentence in sentences(ranking)),
        "table": _table(sweep, ranking),
        "parallel": _figure(parallel_coordinates(sweep, scored), "Parallel coordinates") if scored else none,
        "importance": _figure(importance_bars(shares), "Importance of each axis") if shares else none,
        "curves": _figure(curves, "Learning curves of all trials") if curves else none,
        "trials": _trials(folder, ranking),
    }
    page = string.Template(_TEMPLATE.read_text()).substitute(values).encode("utf-8")
    path = folder.path / PAGE
    integrity.write_unverified(path, lambda partial: partial.write_bytes(page), len(page))
    return path


def _is_simulated(ranking: Ranking, folder: SweepFolder) -> bool:
    """Whether a scored trial says so of its set."""
    scored = (folder.workdir(trial) for trial, record in ranking.records if record["state"] == "finished")
    first = next(scored, None)
    return first is not None and bool(read_scores(first)["set"]["simulated"])


def _figure(svg: str, alternative: str) -> str:
    return f"<figure>{svg_image(svg, alternative)}</figure>"


def _cards(ranking: Ranking, metric: str) -> str:
    chosen = ranking.chosen
    if chosen is None:
        return ""
    titles = ", ".join(dict.fromkeys(chosen.titles.values()))
    cards = [(f"{chosen.chosen_by:.3f}", "score that chose", f"{metric}, of {titles}; it flatters the chosen one")]
    if chosen.held_out is not None:
        parts = ", ".join("+".join(part) for part in chosen.titles)
        cards.append((f"{chosen.held_out:.3f}", "held out", f"the same on {parts}, which nothing that chose has seen"))
    if chosen.optimism is not None:
        cards.append((f"{chosen.optimism:+.3f}", "optimism", "by which choosing flatters the chosen one"))
    best = ranking.rows[0]
    random, baseline = best.mean("random_weights"), best.mean("best_baseline")
    if random is not None and baseline is not None:
        cards.append((f"{random:.3f}", "random weights", "the chosen network untrained, by the score that chose"))
        cards.append((f"{baseline:.3f}", "best baseline", "of all that needs no training, by the score that chose"))
    return "".join(
        f"<div class='card'><b>{in_html(a)}</b><span>{in_html(b)}</span><small>{in_html(c)}</small></div>"
        for a, b, c in cards
    )


def _table(sweep: Sweep, ranking: Ranking) -> str:
    heads = [
        "",
        *sweep.axes,
        "score that chose",
        "difference to the first, paired",
        "random weights",
        "best baseline",
        "held out",
        "epochs",
        "seconds",
        "",
    ]
    head = "".join(f'<th scope="col">{in_html(title)}</th>' for title in heads)
    body = "".join(_line(place, row) for place, row in enumerate(ranking.rows, 1))
    return (
        f'<div class="scroll"><table class="scores"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _line(place: int, row: Row) -> str:
    mean, spread = row.mean("value"), row.spread()
    low_high = "" if row.interval is None else f"<span>{row.interval[0]:+.3g} – {row.interval[1]:+.3g}</span>"
    each = "" if len(row.values) < 2 else f"<span>{min(row.values):.3f} – {max(row.values):.3f}</span>"
    cells = [
        "" if mean is None else f"<b>{mean:.4g}</b>{'' if spread is None else f' ± {spread:.2g}'}{each}",
        "" if row.difference is None else f"<b>{row.difference:+.3g}</b>{low_high}",
        *(_number(row.mean(name)) for name in ("random_weights", "best_baseline", "held_out", "epochs")),
        f"{row.seconds:.0f}",
    ]
    part = f"{len(row.units)} of {row.planned} units. " if len(row.units) < row.planned else ""
    setting = "".join(f'<th scope="row">{in_html(written(value))}</th>' for value in row.setting.values())
    scores = "".join(f'<td class="score">{cell}</td>' for cell in cells)
    mark = ' class="ours"' if place == 1 else ""
    return f"<tr{mark}><td>{place}</td>{setting}{scores}<td>{in_html(part + row.why)}</td></tr>"


def _trials(folder: SweepFolder, ranking: Ranking) -> str:
    lines = []
    for trial, record in ranking.records:
        report = folder.workdir(trial) / "report" / "index.html"
        name = in_html(trial.name)
        shown = f'<a href="{TRIALS}/{quote(trial.name)}/report/index.html">{name}</a>' if report.is_file() else name
        value = "" if record["value"] is None else f"{record['value']:.4g}"
        log = f'<a href="{TRIALS}/{quote(trial.name)}.log">log</a>' if folder.log(trial).is_file() else ""
        cells = [record["state"], value, f"{record['seconds']:.0f}", log, in_html(record["why"])]
        lines.append(f'<tr><th scope="row">{shown}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    heads = "".join(f'<th scope="col">{title}</th>' for title in ("trial", "state", "score", "seconds", "", "why"))
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4g}"
