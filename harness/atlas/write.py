"""The files of the atlas in a run directory: `atlas.json` for programs, `atlas.html` and `atlas.md` for people."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.atlas.chart import Chart, causes
from harness.atlas.page import page
from harness.evidence import RunDirectory, write_json, write_whole

JSON, HTML, MARKDOWN = "atlas.json", "atlas.html", "atlas.md"


def write_atlas(run: RunDirectory, chart: Chart) -> str:
    """Write the three files and give the text of the page."""
    text = page(chart)
    write_json(run.path / JSON, chart.as_json())
    write_whole(run.path / MARKDOWN, text)
    write_whole(run.path / HTML, html(chart))
    return text


def html(chart: Chart) -> str:
    """Give the atlas as one HTML page without anything from elsewhere."""
    environment = Environment(
        loader=PackageLoader("harness", "atlas"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    loader = PackageLoader("harness", "report")
    source, _, _ = loader.get_source(environment, "page.css")
    return environment.get_template("atlas.html.j2").render(
        chart=chart,
        numbers=chart.as_json(),
        causes=causes(chart.deviations),
        css=Markup(source),  # noqa: S704 - it is ours
    )
