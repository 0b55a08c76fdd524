"""Pushing a folder to the Hugging Face hub: the only door to its uploads."""

from __future__ import annotations

import os
from pathlib import Path

from automl_vision.errors import UsageError
from automl_vision.models.weights import hub_endpoint, transport_errors

TOKEN = "HF_TOKEN"  # noqa: S105 - the name of a variable # nosec B105


def push(folder: Path, repository: str) -> str:
    """Upload all files of a folder as one commit; a repository that is not there yet is made, and made private.

    The token comes from the environment (`HF_TOKEN`) and is shown nowhere.

    Args:
        folder: what to upload.
        repository: USER/NAME.

    Returns:
        the address of the repository.

    Raises:
        UsageError: there is no token, the hub refuses, or it cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    unreachable: tuple[type[BaseException], ...] = (OSError, *transport_errors())
    require_token()
    api = HfApi(endpoint=hub_endpoint(), token=os.environ[TOKEN])
    try:
        made = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, commit_message="Upload a model exported by automl-vision"
        )
    except HFValidationError:
        raise UsageError("this is no repository", value=repr(repository), fix="write it like USER/NAME") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no answer")
        raise UsageError(
            "the hub refused the model",
            value=f"{hub_endpoint()}/{repository} (status {status})",
            fix=f"check that the token in {TOKEN} may write there; the folder is complete and can be pushed later",
        ) from None
    except unreachable as error:
        raise UsageError(
            "the hub cannot be reached",
            value=f"{hub_endpoint()} ({type(error).__name__})",
            fix="try again later; the folder is complete and can be pushed then",
        ) from None
    return f"{hub_endpoint()}/{made.repo_id}"


def require_token() -> None:
    """Raise UsageError where the environment has no token."""
    if not os.environ.get(TOKEN, "").strip():
        raise UsageError(
            "pushing needs a token", value=f"{TOKEN} is not set", fix=f"set {TOKEN} to a token that may write"
        )
