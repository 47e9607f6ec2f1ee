"""Sphinx of the slides: `make slides` copies this file beside the deck that distill_lib/report/site/slides.py makes.

sphinx-revealjs bundles reveal.js, sphinx-mathjax-offline MathJax: nothing is fetched when slides are shown.
"""

project = "distill_lib"
author = "The distill_lib founders"

extensions = ["myst_parser", "sphinx_revealjs", "sphinx.ext.mathjax", "sphinx-mathjax-offline"]
myst_enable_extensions = ["dollarmath", "amsmath"]
suppress_warnings = ["myst.header", "myst.xref_missing"]  # links of notebooks lead nowhere in a deck

revealjs_style_theme = "white"
revealjs_static_path = ["static"]
revealjs_css_files = ["slides.css"]
html_favicon = "static/icon.svg"
revealjs_script_conf = {"hash": True, "slideNumber": "c/t", "center": False, "transition": "none"}
revealjs_script_conf |= {"width": 1280, "height": 720}
