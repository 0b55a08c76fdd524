"""`python -m automl_vision`."""

from automl_vision.cli.start import program

program()
