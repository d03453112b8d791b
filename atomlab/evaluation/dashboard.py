"""The workspace of wandb on which a run or a sweep is judged: `python -m atomlab.evaluation.dashboard [entity/]project`.

It is saved where there is a key and `pip install '.[dashboards]'` (wandb-workspaces). Otherwise the clicks that make the same
workspace in the browser are printed. `SECTIONS` is both: from top to bottom what is looked at first.
"""

import sys
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from atomlab.training.loggers import AXIS, has_key

NAME = "Atoms"


class Lines(NamedTuple):
    """A line plot against the number of training vectors: metrics of the history."""

    title: str
    metrics: tuple[str, ...]


class Points(NamedTuple):
    """A scatter plot of runs: x and y, and what colours them. A name is of the summary, or `config.` and a key."""

    title: str
    x: str
    y: str
    colour: str | None = None


class Media(NamedTuple):
    """A browser of histograms, tables or figures by their keys."""

    title: str
    keys: tuple[str, ...]


class Closing(NamedTuple):
    """A table of the summary of the chosen runs."""

    key: str


class Parallel(NamedTuple):
    """Parallel coordinates of runs. A name is of the summary, or `config.` and a key."""

    title: str
    columns: tuple[str, ...]


Panel = Lines | Points | Media | Closing | Parallel
_WIDTH, _R2, _L0 = "config.sae.expansion", "table/atoms/r2_s", "table/atoms/l0"
_STABILITY, _LEVEL_4 = "table/atoms/stability_pairwise", "table/atoms/certified_level_4"
SECTIONS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Held out",
        (Lines("R² in the S-norm, validation", ("validation/r2_s",)), Lines("L0, validation", ("validation/l0",))),
    ),
    ("Dead atoms", (Lines("Share of dead atoms", ("train/dead",)),)),
    (
        "Certificates",
        (
            Lines(
                "Level 4, and of random atoms",
                ("validation/certified_level_4", "validation/certified_level_4_random"),
            ),
        ),
    ),
    (
        "Thresholds and firing",
        (Media("Atoms", ("dictionary/threshold", "dictionary/log10_firing", "dictionary/coherence")),),
    ),
    (
        "Throughput",
        (
            Lines("Vectors a second", ("train/tokens_per_second",)),
            Lines("Share of the time that steps wait for data", ("data/wait",)),
        ),
    ),
    (
        "Sweep",
        (
            Points("Held-out R²_S against L0, coloured by width", _L0, _R2, _WIDTH),
            Points("q* over pairs against width", _WIDTH, _STABILITY),
            Closing("table"),
            Parallel(
                "Runs", (_WIDTH, "config.training.sparsity.target", "config.seed", _L0, _R2, _STABILITY, _LEVEL_4)
            ),
        ),
    ),
)


def workspace(entity: str, project: str) -> Any:
    """Builds the workspace; nothing is sent.

    Args:
        entity: user or team of wandb.
        project: of the runs.

    Returns:
        The `wandb_workspaces.workspaces.Workspace`.

    Raises:
        ImportError: wandb-workspaces is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pydantic, at its import, which no user can act on
        import wandb_workspaces.workspaces as ws

    sections = [
        ws.Section(name=name, panels=[_panel(one) for one in panels], is_open=True) for name, panels in SECTIONS
    ]
    return ws.Workspace(
        entity=entity, project=project, name=NAME, sections=sections, settings=ws.WorkspaceSettings(x_axis=AXIS)
    )


def _panel(panel: Panel) -> Any:
    import wandb_workspaces.reports.v2 as wr

    match panel:
        case Lines(title, metrics):
            return wr.LinePlot(title=title, x=AXIS, y=list(metrics))
        case Points(title, x, y, colour):
            return wr.ScatterPlot(
                title=title, x=_of_run(x), y=_of_run(y), z=None if colour is None else _of_run(colour)
            )
        case Media(title, keys):
            return wr.MediaBrowser(title=title, media_keys=list(keys))
        case Closing(key):
            return wr.WeavePanelSummaryTable(table_name=key)
        case Parallel(title, columns):
            return wr.ParallelCoordinatesPlot(
                title=title,
                columns=[wr.interface.ParallelCoordinatesPlotColumn(metric=_of_run(name)) for name in columns],
            )


def _of_run(name: str) -> Any:
    import wandb_workspaces.reports.v2 as wr

    key = name.removeprefix("config.")
    return wr.SummaryMetric(name) if key == name else wr.Config(key)


def clicks(project: str) -> str:
    """Says how to make the workspace in the browser.

    Args:
        project: of the runs.

    Returns:
        One numbered line for each panel.
    """
    lines = [f"In wandb.ai open the project {project}, Workspace, Create new view, and name it {NAME}. Then:"]
    for name, panels in SECTIONS:
        lines.append(f"Add section, and name it {name}.")
        lines += [f"In {name}: {_clicks(panel)}" for panel in panels]
    return "\n".join([lines[0], *(f"{number}. {line}" for number, line in enumerate(lines[1:], 1))])


def _clicks(panel: Panel) -> str:
    match panel:
        case Lines(title, metrics):
            return f"Add panels, Line plot; X axis {AXIS}; Y {', '.join(metrics)}; title “{title}”."
        case Points(title, x, y, colour):
            shade = "" if colour is None else f"; Z axis {colour}"
            return f"Add panels, Scatter plot; X axis {x}; Y axis {y}{shade}; title “{title}”."
        case Media(title, keys):
            return f"Add panels, Media; keys {', '.join(keys)}; title “{title}”."
        case Closing(key):
            return f'Add panels, Query panel; type runs.summary["{key}"].'
        case Parallel(title, columns):
            return f"Add panels, Parallel coordinates; columns {', '.join(columns)}; title “{title}”."


def save(entity: str, project: str) -> str:
    """Saves the workspace in wandb.

    Args:
        entity: user or team; empty takes the one that the key belongs to.
        project: of the runs.

    Returns:
        Its address.

    Raises:
        ImportError: wandb-workspaces is not installed.
        wandb.errors.Error: wandb refused it, or cannot be reached.
    """
    import wandb

    return workspace(entity or str(wandb.Api().default_entity), project).save().url


def main(words: Sequence[str]) -> int:
    """Saves the workspace of the project that the command line names, or prints the clicks; returns the exit code."""
    if len(words) != 1 or words[0].count("/") > 1 or not words[0].split("/")[-1]:
        sys.stderr.write("atomlab: give one project of wandb: python -m atomlab.evaluation.dashboard entity/project\n")
        return 2
    *entity, project = words[0].split("/")
    if not has_key():
        sys.stdout.write(f"There is no key of wandb here (`wandb login` stores one).\n{clicks(project)}\n")
        return 0
    try:
        sys.stdout.write(f"{save(''.join(entity), project)}\n")
    except ImportError:
        sys.stdout.write(f"wandb-workspaces is missing (pip install '.[dashboards]').\n{clicks(project)}\n")
    except Exception as error:  # of wandb, its client, or the network, which have no type in common
        sys.stderr.write(f"atomlab: the workspace could not be saved ({error}): check key, entity and network.\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
