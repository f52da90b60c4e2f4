"""`pilothouse run -- python train.py`: an unchanged PyTorch script, watched, and steered where that was asked for.

`cli.attach` puts `bootstrap` before the script's Python path and becomes the script. There, `bootstrap.sitecustomize`
waits for PyTorch; when it is imported, `session` begins to watch the steps of its optimizers.
"""
