"""What the JSON files of a run folder hold, a module for each file.

The documents are plain dicts; these are their types, each with what it means and the range of its values.
`ff.schemas` makes workflow/schemas/*.json of them. What was not measured is None, null in the file, never 0.
"""
