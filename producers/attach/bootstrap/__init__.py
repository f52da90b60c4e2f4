"""A folder for the Python path: its `sitecustomize` is what an unchanged script's Python finds first."""
