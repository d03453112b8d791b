"""SAEs as files: reads every format of the field, finds the SAE that a path or a name on the hub means, and writes.

- `load`: the one reader, for Python and for every option that names an SAE.
- `hub`: downloads one SAE of a repository. `recognise`: which format lies at a path. `formats`: one file for each.
- `tensor_file`, `config_file`: files of tensors, whose headers are read first, and configurations beside them.
- `layout`: where a file has each parameter, and whether its header has all of them in shapes that belong together.
- `sae_from_tensors`: checks every tensor that a reader found, and builds the SAE from them.
- `checkpoint`: checkpoints of train.py.
- `locate`: refuses an SAE that was trained at another site than the one that is measured.
- `site_names`: names of sites in TransformerLens and here.
- `export`: writes files for others, and uploads them.

To add a format, write a file in `formats` with a function `find` (see there), and name it in `recognise`.
"""

from atomlab.interop.export.publish import push_to_hub
from atomlab.interop.export.saebench import to_saebench
from atomlab.interop.export.save import save
from atomlab.interop.load import find_sae, load

__all__ = ["find_sae", "load", "push_to_hub", "save", "to_saebench"]
