"""How Sphinx makes the site: `make docs`, into docs/_build/html, without the network."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import hmlm  # noqa: E402


def read_pictures() -> dict[str, str]:
    """Return what stands for each picture of the gallery where it cannot be seen, by its name."""
    place = ROOT / "tools" / "make_gallery.py"
    spec = importlib.util.spec_from_file_location("make_gallery", place)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(place)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_gallery"] = module
    spec.loader.exec_module(module)
    return {p.name: p.alt for pictures in module.CHAPTERS.values() for p in pictures}


project = "hmlm"
author = "hmlm developers"
copyright = f"the {author}"
version = release = hmlm.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "_templates", "trust/[!i]*.md"]  # trust/index.md includes the rest
templates_path = ["_templates"]
root_doc = "index"
language = "en"
nitpicky = True
default_role = "name"  # the single backquotes of the docstrings: see `name_role`

# Texts and notebooks. The notebooks are shown as they were executed, and never run here.
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, Any] = {}  # no figure needs them, and they would come from a CDN
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

# The reference.
autosummary_generate = True
autosummary_context = {"pictures": read_pictures()}  # for _templates/autosummary/base.rst
autodoc_typehints = "none"  # the docstrings say the types
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
numpydoc_class_members_toctree = False
add_module_names = False

# The look: nothing is fetched when a page is read.
html_theme = "pydata_sphinx_theme"
html_title = "hmlm"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "hmlm"},
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],
    "navigation_with_keys": False,
    "show_nav_level": 1,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "tango",
    "pygments_dark_style": "github-dark",
}
html_sidebars = {page: [] for page in ("index", "gallery/index", "coming_from", "trust/index")}
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
mathjax_path = "mathjax/tex-chtml.js"


# The parts of the site that stand elsewhere in the repository.

PLACES = {  # what a link of README.md and CONTRIBUTING.md leads to, from the folder of the site
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "CITATION.cff": "citing.md",
    "LICENSE": "citing.md",
    "data/README.md": "data.md",
    "notebooks/README.md": "notebooks/index.md",
}
LINK = re.compile(r"(?<=\]\()([^)\s:#]+)(?=\))")
PART = re.compile(r"^% part of ([\w./]+?)(?:: (.+))?$", re.MULTILINE)


def place_of(link: str) -> str:
    """Return where a link of the repository's root leads to in the site."""
    if link.startswith("docs/"):
        return link.removeprefix("docs/")
    return PLACES.get(link, link)


def part_of(name: str, heading: str | None) -> str:
    """Return a file of the repository, or what stands under one of its headings.

    The heading ``-`` is what comes before the first one of the second level.
    """
    text = (ROOT / name).read_text(encoding="utf-8")
    text = LINK.sub(lambda m: place_of(m[1]), text)
    if heading is None:
        return text
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    if heading == "-":
        return re.sub(r"\A# .+\n", "", parts[0])
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    if heading not in found:
        raise ValueError(f"{name} has no heading '## {heading}': it has {sorted(found)}")
    return found[heading].strip("\n")


def put_parts(_app: Any, _name: str, source: list[str]) -> None:
    """Put parts of other files where a page says ``% part of README.md: HEADING``."""
    source[0] = PART.sub(lambda m: part_of(m[1], m[2]), source[0])


def copy_notebooks() -> None:
    """Copy the executed notebooks to where Sphinx reads them, and take away those that are gone."""
    folder = HERE / "notebooks"
    there = {path.name: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    for old in folder.glob("*.ipynb"):
        if old.name not in there:
            old.unlink()
    for name, path in there.items():
        new = folder / name
        if not new.exists() or new.read_bytes() != path.read_bytes():
            shutil.copyfile(path, new)


def copy_mathjax(app: Any, error: Exception | None) -> None:
    """Copy MathJax into the site, from the package that brings it."""
    if error is not None or app.builder.format != "html":
        return
    found = importlib.util.find_spec("sphinx-mathjax-offline")
    if found is None or found.origin is None:
        raise RuntimeError("sphinx-mathjax-offline is not installed: install the group docs.")
    source = Path(found.origin).parent / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    for name in ("tex-chtml.js", "output/chtml/fonts/woff-v2"):
        path = source / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target / name, dirs_exist_ok=True)
        else:
            shutil.copyfile(path, target / name)


# The names in single backquotes: links where the reference has them, code where it has not.


def homes() -> dict[str, str]:
    """Return the public name of each object that has one, by where it is defined."""
    found = {}
    for name in hmlm.__all__:
        value = getattr(hmlm, name)
        home = f"{value.__module__}.{value.__qualname__}"
        if home not in found or value.__qualname__ == name:
            found[home] = f"hmlm.{name}"  # not its second name, as `load` for load_fit
    return found


HOMES = homes()


def public_name(text: str) -> str | None:
    """Return the name under which the reference has an object, or None."""
    name = text.removesuffix("()")
    if name.split(".")[0] in hmlm.__all__:
        name = f"hmlm.{name}"
    for home, public in HOMES.items():
        if name == home or name.startswith(f"{home}."):
            name = public + name[len(home) :]
    parts = name.split(".")
    if parts[0] != "hmlm" or len(parts) < 2 or parts[1] not in hmlm.__all__:
        return None
    value: Any = hmlm
    for part in parts[1:]:
        try:
            value = (
                inspect.getattr_static(value, part) if value is not hmlm else getattr(hmlm, part)
            )
        except AttributeError:
            return None
    own = len(parts) == 2 or (len(parts) == 3 and not parts[2].startswith("_"))
    return name if own else None


def link_to(target: str, shown: Any, docname: str) -> Any:
    """Return a node that Sphinx makes a link to an object of the reference."""
    from sphinx.addnodes import pending_xref

    return pending_xref(
        shown.rawsource,
        shown,
        refdomain="py",
        reftype="obj",
        reftarget=target,
        refexplicit=True,
        refwarn=True,
        refdoc=docname,
    )


def name_role(
    role: str,
    rawtext: str,
    text: str,
    lineno: int,
    inliner: Any,
    options: Any = None,
    content: Any = (),
) -> tuple[list[Any], list[Any]]:
    """Read what a docstring has in single backquotes."""
    from docutils import nodes
    from docutils.utils import unescape

    written = unescape(text)
    shown = nodes.literal(rawtext, written, classes=["name"])
    env = inliner.document.settings.env
    inside = env.ref_context.get("py:class")
    target = public_name(written) or (public_name(f"{inside}.{written}") if inside else None)
    return [shown if target is None else link_to(target, shown, env.current_document.docname)], []


NAMED = re.compile(r"(hmlm\.[\w.]+|plot_\w+|[A-Z]\w+\.\w+|BayesFit|ClassicalFit)(\(.*\))?")


def link_names(app: Any, document: Any) -> None:
    """Make links of code in a line of text that is a public name, or a call of one."""
    from docutils import nodes
    from sphinx.addnodes import pending_xref

    links = nodes.reference | nodes.title | pending_xref
    for shown in list(document.findall(nodes.literal)):
        found = NAMED.fullmatch(shown.astext())
        target = public_name(found[1]) if found else None
        above = shown.parent
        while above is not None and not isinstance(above, links):
            above = above.parent
        if target and above is None:
            shown.replace_self(link_to(target, shown.deepcopy(), app.env.current_document.docname))


def setup(app: Any) -> None:
    """Tell Sphinx of the functions above."""
    from docutils.parsers.rst import roles

    roles.register_local_role("name", name_role)
    copy_notebooks()
    app.connect("source-read", put_parts)
    app.connect("doctree-read", link_names)
    app.connect("build-finished", copy_mathjax)
