"""Tiny CLIP models and image encoders with random weights, saved as transformers saves them, and pictures to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

TOKENIZER = Path(__file__).resolve().parents[1] / "data" / "corpus" / "bases" / "sd_nano" / "tokenizer"
SIDE = 16
_SMALL: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_SEEN: dict[str, Any] = {"image_size": SIDE, "patch_size": 8}


def tiny_clip(folder: Path, seed: int = 0, *, pickled: bool = False) -> Path:
    """A CLIP model with a real tokenizer and its image processor's settings."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = {**_SMALL, "vocab_size": len(tokenizer), "max_position_embeddings": 16, **ends}
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=_SMALL | _SEEN, projection_dim=12)).eval()
    for parameter in model.parameters():  # as they come they are so small that all pictures look alike
        parameter.data = torch.randn_like(parameter) * 0.3
    model.logit_scale.data.fill_(2.5)
    model.save_pretrained(folder)
    if pickled:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def tiny_encoder(folder: Path, kind: str = "Dinov2", seed: int = 0) -> Path:
    """A vision transformer of transformers: Dinov2, ViT or SiglipVision."""
    import torch
    import transformers

    config = getattr(transformers, f"{kind}Config")(**_SMALL, **_SEEN, mlp_ratio=2) if kind == "Dinov2" else None
    config = config or getattr(transformers, f"{kind}Config")(**_SMALL, **_SEEN)
    torch.manual_seed(seed)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    model.save_pretrained(folder)
    told = {"image_processor_type": "ViTImageProcessor", "size": {"height": SIDE, "width": SIDE}, "do_normalize": True}
    told |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_rescale": True, "rescale_factor": 1 / 255, "do_resize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    return folder


def draw_picture(path: Path, seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Path:
    """A PNG of coarse random patches, so that scaling it loses little."""
    from PIL import Image

    patches = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(patches).resize(size, Image.Resampling.NEAREST).save(path)
    return path
