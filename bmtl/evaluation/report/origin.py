"""Where the figures come from: the command, the runs, what was set, versions, and the data."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.report.markup import Cell, Markup, code, details, element, facts, number, paragraph, table
from bmtl.evaluation.report.runs import Reading, Run
from bmtl.evaluation.report.score_tables import count


def about(reading: Reading) -> dict[str, Any]:
    """The comparison's attributes; below them those that all runs share, such as the data's name."""
    first = reading.runs[0].about
    shared = {
        name: value for name, value in first.items() if all(run.about.get(name) == value for run in reading.runs[1:])
    }
    own = {} if reading.single else decode_attributes(reading.scores)
    return {**shared, **own}


def command(reading: Reading) -> Markup:
    """What was typed."""
    typed = about(reading).get("command")
    if not typed:
        return paragraph("The files do not say by which command they were made.", class_="note")
    return element("pre", element("code", typed if isinstance(typed, str) else " ".join(map(str, typed))))


def runs(reading: Reading) -> Markup:
    """A row per run."""
    header = ["method", "run", "balancer", "seed", "steps", "ms a step", "validation score ↓", "written (UTC)"]
    rows = [
        [
            run.method,
            run.place,
            str(run.about.get("balancer", "–")),
            _seed(run),
            count(run.steps),
            number(1e3 * run.seconds),
            number(float(run.about.get("validation_score", float("nan")))),
            str(run.about.get("created", "–")).replace("T", " ").removesuffix("+00:00"),
        ]
        for run in reading.runs
    ]
    words = "The finished runs. Times are medians of what each run recorded by itself, on a machine that may have been busy."
    return table(header, rows, words)


def settings(reading: Reading) -> Iterator[Markup]:
    """What all runs have in common, then what differs between methods."""
    flat: dict[str, dict[str, str]] = {}
    for run in reading.runs:
        flat.setdefault(run.method, _settings(run))
    names = list(dict.fromkeys(name for of in flat.values() for name in of))
    if not names:
        yield paragraph("The files hold no configuration.", class_="note")
        return
    common = [name for name in names if len({of.get(name, "–") for of in flat.values()}) == 1]
    varying = [name for name in names if name not in common]
    shared = [[name, next(iter(flat.values()))[name]] for name in common]
    if shared:
        title = "What was set" if len(flat) == 1 else "What was set alike for all methods"
        yield details(title, table(["setting", "value"], shared, f"{title}."))
    if varying:
        rows = [[method, *(of.get(name, "–") for name in varying)] for method, of in flat.items()]
        yield table(["method", *varying], rows, "What differs between the methods.")


def versions(reading: Reading) -> Markup:
    """Versions of bmtl and of the packages below it, as the runs recorded them."""
    found: dict[str, dict[str, None]] = {}
    for run in reading.runs:
        of_run = {"bmtl": run.about.get("bmtl_version", "unknown"), **(run.about.get("package_versions") or {})}
        for name, version in of_run.items():
            found.setdefault(name, {})[str(version)] = None
    rows = [[name, ", ".join(versions)] for name, versions in found.items()]
    return details("Versions of packages", table(["package", "version"], rows, "Installed where the runs were made."))


def data(reading: Reading) -> Iterator[Markup]:
    """Name, fingerprint, and how to cite the data."""
    shared = about(reading)
    pairs = [("Name", str(shared.get("data_name", "not recorded")))]
    prints: dict[str, str] = {}
    for run in reading.runs:
        prints.setdefault(str(run.about.get("data_fingerprint", "not recorded")), run.place)
    if len(prints) == 1:
        pairs.append(("Fingerprint", next(iter(prints))))
    else:
        pairs.append(("Fingerprints", "one a split, below"))
    for title, name in (("Cite as", "data_citation"), ("Licence", "data_licence")):
        if shared.get(name):
            pairs.append((title, str(shared[name])))
    yield facts([(name, code(value) if name == "Fingerprint" else value) for name, value in pairs])
    if len(prints) > 1:
        rows = [[place, value] for value, place in prints.items()]
        words = "SHA-256 of the data of each split; equal prints are equal data."
        yield details("Fingerprints", table(["split", "fingerprint"], rows, words))
    if not shared.get("data_citation"):
        yield paragraph(
            "The files do not say how to cite the data; ",
            code("bmtl.datasets.load(name).citation"),
            " does.",
            class_="note",
        )


def flattened(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and values as text, from mappings inside each other."""
    for name, value in given.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _text(value)


def _settings(run: Run) -> dict[str, str]:
    """What was set, by dotted name; the method's own settings without its name, which is the row's."""
    configuration = dict(run.about.get("configuration") or {})
    method = configuration.pop("method", {})
    own = {name: value for name, value in method.items() if name != "name"} if isinstance(method, Mapping) else {}
    return {**dict(flattened(own)), **dict(flattened(configuration))}


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(map(str, value)) or "none"
    return json.dumps(value)


def _seed(run: Run) -> Cell | str:
    seed = run.about.get("seed")
    return "–" if seed is None else Cell(str(seed), float(seed))
