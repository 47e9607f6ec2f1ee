"""The site: notebooks, results, figures and pages of the repository, made ready for Sphinx and built: `make site`."""
