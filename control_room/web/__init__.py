"""The control room in a browser: its API, what is told live, and the page.

`app` composes them around what it is given (an archive, tokens); `pilothouse serve` gives it the stack's own.
"""
