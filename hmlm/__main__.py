"""The command: ``hmlm demo``, ``hmlm fit``, ``hmlm explore``, ``hmlm datasets``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hmlm import __version__

METHODS = ("nuts", "reml", "ml", "ols", "em", "gibbs", "laplace", "glm")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 after a sentence on stderr.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Examples
    --------
    >>> from hmlm.__main__ import main
    >>> main(["fit", "nowhere.csv", "y ~ x + (1 | g)", "--method", "reml"])
    2
    """
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("hmlm: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError) as error:
        message = " ".join(str(error).split())
        print(f"hmlm: error: {message}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hmlm",
        description="Bayesian hierarchical models of grouped data, next to their classical "
        "estimates.",
    )
    parser.add_argument("--version", action="version", version=f"hmlm {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo", help="fit a first model in four ways and draw it", description=_demo.__doc__
    )
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("hmlm-demo"),
        metavar="DIR",
        help="folder of the figures (default: %(default)s)",
    )
    _add_sampling(demo, seed=1)
    demo.set_defaults(run=_demo)

    fit = commands.add_parser(
        "fit", help="fit a model to a CSV file", description=_fit.__doc__, allow_abbrev=False
    )
    fit.add_argument("data", metavar="DATA", help="a CSV file, or the name of a data set of hmlm")
    fit.add_argument(
        "formula", metavar="FORMULA", help="for example 'score ~ hours + (hours | school)'"
    )
    fit.add_argument(
        "--method", choices=METHODS, default="nuts", help="how to fit (default: %(default)s)"
    )
    fit.add_argument("--family", default="gaussian", help="of the outcome (default: %(default)s)")
    fit.add_argument("--link", help="of the family (default: the family's own)")
    fit.add_argument("--se", metavar="COLUMN", help="column of known standard errors")
    fit.add_argument(
        "--pooling",
        choices=("partial", "complete", "none"),
        help="let groups share a distribution, ignore them, or fit each on its own "
        "(default: partial; complete with --method ols or glm)",
    )
    fit.add_argument("--weights", metavar="COLUMN", help="column of weights")
    fit.add_argument(
        "--report", type=Path, metavar="FILE", help="write a report to hand out, one .html file"
    )
    _add_sampling(fit, seed=None)
    fit.set_defaults(run=_fit)

    _add_explore(commands)

    datasets = commands.add_parser(
        "datasets", help="list the data sets of hmlm", description=_datasets.__doc__
    )
    datasets.set_defaults(run=_datasets)
    return parser


def _add_explore(commands: Any) -> None:
    explore = commands.add_parser(
        "explore",
        help="move how much groups share, on a page in the browser",
        description=_explore.__doc__,
        allow_abbrev=False,
    )
    explore.add_argument(
        "data", metavar="DATA", help="a CSV file, or the name of a data set of hmlm"
    )
    explore.add_argument(
        "formula",
        metavar="FORMULA",
        nargs="?",
        help="as for `hmlm fit` (default: the one that `hmlm datasets` lists)",
    )
    explore.add_argument("--se", metavar="COLUMN", help="column of known standard errors")
    explore.add_argument("--weights", metavar="COLUMN", help="column of weights")
    explore.add_argument(
        "--group", metavar="COLUMN", help="grouping factor to move (default: the first)"
    )
    explore.add_argument(
        "--port", type=_port, default=0, metavar="N", help="of 127.0.0.1 (default: a free one)"
    )
    explore.add_argument("--no-browser", action="store_true", help="print the address only")
    explore.set_defaults(run=_explore)


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65_535:
        raise argparse.ArgumentTypeError(f"{value} is no port: 0 to 65535")
    return value


def _add_sampling(parser: argparse.ArgumentParser, seed: int | None) -> None:
    parser.add_argument(
        "--draws",
        type=_positive,
        default=1000,
        metavar="N",
        help="draws of each of four chains, after as many to tune the sampler "
        "(default: %(default)s)",
    )
    hint = "a new one each time" if seed is None else seed
    parser.add_argument(
        "--seed", type=int, default=seed, metavar="N", help=f"seed of the sampler (default: {hint})"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def _demo(arguments: argparse.Namespace) -> None:
    """Fit alcohol use of 82 adolescents by NUTS, REML and least squares; print and draw it."""
    from hmlm.demo import run_demo

    run_demo(arguments.output, draws=arguments.draws, seed=arguments.seed)


def _fit(arguments: argparse.Namespace) -> None:
    """Fit a model to a CSV file, print its summary and, if asked to, write a report."""
    from hmlm.model import Model

    if arguments.report is not None:
        from hmlm.report_parts import check_place

        check_place(arguments.report)  # before the fit, which may take long
    data = _read_table(arguments.data)
    model = Model(
        arguments.formula,
        data,
        family=arguments.family,
        link=arguments.link,
        weights=arguments.weights,
        se=arguments.se,
    )
    ignores = arguments.method in ("ols", "glm")
    pooling = arguments.pooling or ("complete" if ignores else "partial")
    fit = model.with_pooling(pooling).fit(
        _method(arguments.method, arguments.draws), random_seed=arguments.seed
    )
    print(fit.summary())
    if arguments.report is not None:
        print(f"\nReport: {_report(fit, arguments.report, arguments.seed)}")


def _explore(arguments: argparse.Namespace) -> None:
    """Open a page on which the sd between groups, its prior and the rows of a model move."""
    from hmlm.datasets import list_datasets
    from hmlm.exploration_server import serve_exploration
    from hmlm.model import Model

    data = _read_table(arguments.data)
    known = {entry["name"]: entry for entry in list_datasets().to_dict("records")}
    bundled = arguments.data in known and not Path(arguments.data).exists()
    if arguments.formula is None and not bundled:
        raise ValueError(
            f"'{arguments.data}' is a file: give a formula as well, for example "
            "'score ~ hours + (hours | school)'."
        )
    formula, family = arguments.formula, "gaussian"
    labels = known[arguments.data]["columns"] if bundled else {}
    if formula is None:
        formula, family = known[arguments.data]["formula"], known[arguments.data]["family"]
    model = Model(formula, data, family=family, se=arguments.se, weights=arguments.weights)

    def tell(address: str) -> None:
        print(f"Explore {formula} at {address} (Ctrl-C ends it).", flush=True)

    serve_exploration(
        model,
        arguments.group,
        labels,
        port=arguments.port,
        browser=not arguments.no_browser,
        tell=tell,
    )
    print("Stopped.")


def _report(fit: Any, path: Path, seed: int | None) -> Path:
    import matplotlib as mpl

    from hmlm.report import write_report

    mpl.use("Agg")
    return write_report(fit, path, random_seed=seed)


def _read_table(name: str) -> Any:
    import pandas as pd

    from hmlm.datasets import list_datasets, load_dataset

    path = Path(name)
    if not path.exists() and name in set(list_datasets()["name"]):
        return load_dataset(name)
    try:
        return pd.read_csv(path)
    except FileNotFoundError:
        raise ValueError(
            f"there is no file '{name}' and no data set of that name: `hmlm datasets` lists those."
        ) from None
    except (ValueError, OSError) as error:
        raise ValueError(f"cannot read '{name}' as CSV: {error}") from error


def _method(name: str, draws: int) -> Any:
    import hmlm

    if name == "nuts":
        return hmlm.NUTS(draws=draws, tune=draws)
    if name == "gibbs":
        return hmlm.Gibbs(draws=draws)
    methods = {"reml": hmlm.REML, "ml": hmlm.ML, "em": hmlm.EM, "ols": hmlm.OLS}
    return (methods | {"laplace": hmlm.Laplace, "glm": hmlm.GLM})[name]()


def _datasets(arguments: argparse.Namespace) -> None:
    """List the data sets that come with hmlm, each with a formula to start from."""
    from hmlm.datasets import list_datasets
    from hmlm.tables import Table

    rows = [
        [
            entry["name"],
            f"{entry['rows']:,}",
            ", ".join(f"{count:,} {group}" for group, count in entry["groups"].items()),
            entry["formula"],
        ]
        for entry in list_datasets().to_dict("records")
    ]
    print(
        Table(
            header=["name", "rows", "groups", "a model to start from"],
            rows=rows,
            notes=["hmlm.load_dataset(name) loads one."],
            left=4,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
