"""What is said of a run, of several beside each other, and of a fleet: read from the archive, worked out, laid out.

`material` reads; `overview`, `comparison`, `likeness` and `fleet` work out and are pure; `*_page` lay out as a
`document`; `html` and `markdown` write that. The command line calls it, and so may a page.
"""
