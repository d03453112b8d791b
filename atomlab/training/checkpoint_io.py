"""Connects Lightning with the file format of checkpoints."""

from pathlib import Path
from typing import Any, final

from lightning.fabric.plugins import CheckpointIO
from torch import Tensor
from torch.utils._pytree import tree_map_only

from atomlab.interop.checkpoint import read_checkpoint
from atomlab.interop.checkpoint_file import write_checkpoint_file


@final
class CheckpointFiles(CheckpointIO):
    """Writes and reads Lightning's checkpoints as safetensors files with a checksum, in place of pickles."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:  # of the signature of Lightning
        """Writes a checkpoint at the path itself; the caller gives a temporary name and renames it.

        Args:
            checkpoint: as Lightning made it.
            path: where to write; its folder is made if it does not exist.
            storage_options: not used.

        Raises:
            OSError: the file cannot be written.
            ValueError: a callback keeps a state that is neither tensors nor JSON.
        """
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint_file(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a checkpoint into memory.

        Args:
            path: of the file.
            map_location: not used; tensors are read on the CPU, and Lightning moves them.
            weights_only: not used; such a file cannot hold anything else.

        Returns:
            The checkpoint. Its tensors no longer need the file.

        Raises:
            FileNotFoundError, ValueError: as `read_checkpoint`.
        """
        return tree_map_only(Tensor, Tensor.clone, read_checkpoint(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a checkpoint, if it is there."""
        Path(path).unlink(missing_ok=True)
