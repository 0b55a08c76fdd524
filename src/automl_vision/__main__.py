"""`python -m automl_vision`."""

from automl_vision.cli.app import program

program()
