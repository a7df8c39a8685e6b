"""Refuse to build where the links in src/tune are not links: such a build gives an empty wheel without an error."""

from pathlib import Path

from setuptools import setup

if not Path(__file__).with_name("src").joinpath("tune", "engine").is_dir():
    raise SystemExit(
        "src/tune/engine is no directory: this checkout (or zip) has no symbolic links, "
        "and what it builds would be empty. Clone with git, with core.symlinks=true."
    )
setup()
