"""Sphinx of the site: `make site` copies this file beside the sources that distill_lib/report/site makes.

All that a page needs is bundled, MathJax included: nothing is fetched when a page is viewed.
"""

project = "distill_lib"
author = "The distill_lib founders"
html_title = "distill_lib"

extensions = [
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
]

nb_execution_mode = "off"  # published outputs are shown, none are made
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # the words of the glossary are small headings below a large one
bibtex_bibfiles = ["references.bib"]

html_theme = "sphinx_book_theme"
html_theme_options = {
    "navbar_persistent": [],  # the search stands in the column of chapters
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
html_static_path = ["static"]
html_css_files = ["style.css"]
html_favicon = "static/icon.svg"
html_context = {"default_mode": "auto"}  # an empty one is an error in the console of every page
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
