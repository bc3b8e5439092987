"""Say what to install when an optional package is missing."""

from __future__ import annotations


def explain_missing(error: ModuleNotFoundError, package: str, requirement: str) -> None:
    """Say what to install, if `package` is what could not be imported.

    Call it where the import failed, and raise `error` again afterwards. Imports are plain
    statements in the code, so that tools which freeze programs find them.

    Args:
        error: Why a module that needs the package could not be imported.
        package: The package's name.
        requirement: The package with the versions that are supported, as pip reads it.
    """
    if error.name == package:
        error.msg = f'{package} is not installed. To install it: pip install "{requirement}"'
        error.args = (error.msg,)
