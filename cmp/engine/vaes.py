"""Another VAE in the place of a base model's own: where its weights are, and what tells it apart."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from cmp.disk.folders import hash_file
from cmp.disk.store import Store
from cmp.disk.tensors import identify
from cmp.errors import NotFound


def vae_file(name: str) -> Path:
    """The weights of a VAE given as a file, as its own folder, or as a pipeline's; raises NotFound."""
    path = Path(name).expanduser()
    inside = ("diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors")
    for file in (path, *(path / name for name in inside)):
        if file.suffix == ".safetensors" and file.is_file():
            return file.absolute()
    raise NotFound(f"there is no VAE at {name!r}", "Give a folder that diffusers wrote (vae/), or the whole pipeline that holds it.")


def digest_vae(file: Path, store: Store) -> str:
    """Of the weights and the settings beside them; each is hashed once and remembered."""
    settings = file.with_name("config.json")
    if not settings.is_file():
        raise NotFound(f"{file} has no config.json beside it", "A VAE without its settings cannot be loaded; give diffusers' folder.")
    return " ".join(store.remembered("file-digest", f"{one}|{identify(one)}", partial(hash_file, one)) for one in (file, settings))
