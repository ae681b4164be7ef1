"""The console: pages for people, rendered here from the same service that the API asks.

`routes` lists the pages; `login` says who looks; `shell` renders; `live` tells open pages that something changed.
"""
