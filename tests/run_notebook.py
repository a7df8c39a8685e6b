"""Runs a notebook in a kernel, as a program: `python run_notebook.py NOTEBOOK OUTPUT`, in the notebook's folder.

A process of its own: what nbclient leaves in one when a test's time is over (a loop that was cut off in the middle,
handlers for Ctrl-C, a kernel to wait for at the end) would hold up the whole run.
"""

import sys
from pathlib import Path

import nbclient
import nbformat

notebook = nbformat.read(sys.argv[1], as_version=4)
resources = {"metadata": {"path": str(Path.cwd())}}
nbclient.NotebookClient(notebook, timeout=70, kernel_name="python3", resources=resources).execute()
nbformat.write(notebook, sys.argv[2])
