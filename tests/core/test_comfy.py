"""ComfyUI's graphs: what they drew with is found along the links, what is strange in them is named, and none of them hangs or breaks us."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmp.core.comfy import read_comfy
from cmp.core.grids import Sampling
from cmp.core.restored import Restored
from cmp.errors import CmpError, Unreadable

GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 156680208700286, "steps": 20, "cfg": 8, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1,
            "model": ["11", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a shoe", "clip": ["12", 0]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "bad", "clip": ["12", 0]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["8", 0]}},
    "10": {
        "class_type": "LoraLoader",
        "inputs": {"lora_name": "a.safetensors", "strength_model": 0.8, "strength_clip": 0.8, "model": ["4", 0], "clip": ["4", 1]},
    },
    "11": {"class_type": "LoraLoaderModelOnly", "inputs": {"lora_name": "b.safetensors", "strength_model": -1, "model": ["10", 0]}},
    "12": {"class_type": "CLIPSetLastLayer", "inputs": {"stop_at_clip_layer": -2, "clip": ["10", 1]}},
}  # fmt: skip


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def _read(**changes: Any) -> Restored:
    """The graph with inputs changed, as n3__seed=…, or nodes put in its place, as n5={…}."""
    graph = json.loads(json.dumps(GRAPH))
    for name, value in changes.items():
        node, _, key = name.removeprefix("n").partition("__")
        if key:
            graph[node]["inputs"][key] = value
        else:
            graph[node] = value
    return read_comfy(json.dumps(graph))


def test_the_usual_graph_is_restored_in_full() -> None:
    found = _read()
    assert (found.prompt, found.negative, found.seed) == ("a shoe", "bad", 156680208700286)
    assert found.as_sampling() == Sampling(20, 8.0, 512, 768, "DPM++ 2M Karras", 2)
    assert (found.model, found.loras) == ("v1-5.safetensors", (("a.safetensors", 0.8), ("b.safetensors", -1.0)))
    assert found.not_restored == () and found.source == "ComfyUI"


def test_values_are_followed_to_the_nodes_that_hold_them() -> None:
    found = _read(n3__seed=["20", 0], n20={"class_type": "PrimitiveInt", "inputs": {"value": 7}}, n6__text=["21", 0],
                  n21={"class_type": "String", "inputs": {"string": "a star"}})  # fmt: skip
    assert (found.seed, found.prompt) == (7, "a star")


def test_the_advanced_sampler_says_its_seed_otherwise_and_what_it_left_out_is_named() -> None:
    inputs = {**GRAPH["3"]["inputs"], "noise_seed": 9, "start_at_step": 5, "end_at_step": 10000}
    del inputs["seed"], inputs["denoise"]
    found = _read(n3={"class_type": "KSamplerAdvanced", "inputs": inputs})
    assert found.seed == 9 and found.not_restored == ("only the steps 5 to 10000",)


def test_of_two_passes_the_first_is_restored_and_the_second_named() -> None:
    second = {**GRAPH["3"]["inputs"], "steps": 5, "denoise": 0.5, "latent_image": ["31", 0]}
    graph = {
        "1": {"class_type": "KSampler", "inputs": second},
        "31": {"class_type": "LatentUpscale", "inputs": {"samples": ["3", 0]}},
        **GRAPH,
    }
    found = read_comfy(json.dumps(graph))
    assert found.steps == 20 and found.not_restored == ("1 further sampling passes",)


def test_flux_says_its_guidance_in_a_node_of_its_own() -> None:
    guided = {"class_type": "FluxGuidance", "inputs": {"guidance": 3.5, "conditioning": ["6", 0]}}
    nothing = {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["6", 0]}}
    found = _read(n3__positive=["20", 0], n20=guided, n3__negative=["21", 0], n21=nothing, n3__cfg=1)
    assert (found.guidance, found.prompt, found.negative) == (3.5, "a shoe", "") and found.not_restored == ()


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"n3__sampler_name": "dpmpp_3m_sde"}, "'dpmpp_3m_sde'"),
        ({"n3__scheduler": "beta"}, "'beta' of DPM++ 2M"),
        ({"n3__denoise": 0.6}, "denoise 0.6"),
        ({"n3__steps": 0}, "steps '0'"),
        ({"n3__seed": -1}, "seed '-1'"),
        ({"n3__latent_image": ["99", 0]}, "drawn over (nothing)"),
        ({"n5": {"class_type": "LoadImage", "inputs": {}}}, "drawn over (LoadImage)"),
        ({"n5__batch_size": 4}, "which of 4 pictures"),
        ({"n6__text": ["7", 0], "n7__text": ["6", 0]}, "the prompt: it is put together"),
        ({"n3__positive": ["20", 0], "n20": _node("ControlNetApply", conditioning=["6", 0])}, "ControlNetApply on the prompt"),
        ({"n3__model": ["20", 0], "n20": {"class_type": "IPAdapter", "inputs": {"model": ["4", 0]}}}, "IPAdapter on the model"),
        ({"n10__strength_clip": 0.5}, "0.5 of 'a.safetensors' on the text encoder"),
        ({"n8__vae": ["20", 0], "n20": {"class_type": "VAELoader", "inputs": {"vae_name": "kl.pt"}}}, "VAE: kl.pt"),
        ({"n10__lora_name": 7}, "the LoRA '7' at 0.8"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_again_is_named(changes: dict[str, Any], lost: str) -> None:
    assert any(lost in told for told in _read(**changes).not_restored), _read(**changes).not_restored


def test_circles_come_to_an_end() -> None:
    circle = {"class_type": "ConditioningAverage", "inputs": {"conditioning": ["20", 0]}}
    found = _read(n3__positive=["20", 0], n20=circle, n10__model=["11", 0], n12__clip=["12", 0], n3__seed=["21", 0],
                  n21={"class_type": "Seed", "inputs": {"value": ["21", 0]}})  # fmt: skip
    assert "the prompt: no text was found" in found.not_restored and found.seed is None


@pytest.mark.parametrize("text", ["{}", "[]", "7", "{", '{"3": 7}', '{"3": {"class_type": ["KSampler"], "inputs": {}}}', "[" * 100_000])
def test_a_graph_without_a_sampler_is_refused(text: str) -> None:
    with pytest.raises(Unreadable, match="ComfyUI's graph"):
        read_comfy(text)


LINKS = st.lists(st.sampled_from(["3", "6", 0, 1]), max_size=2)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), LINKS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@given(st.data())
def test_any_values_in_a_graph_are_restored_named_or_refused(data: st.DataObject) -> None:
    graph = json.loads(json.dumps(GRAPH))
    for name in data.draw(st.lists(st.sampled_from(sorted(GRAPH)), max_size=5)):
        key = data.draw(st.sampled_from(sorted(GRAPH[name]["inputs"])))
        graph[name]["inputs"][key] = data.draw(VALUES | st.tuples(st.sampled_from(sorted(GRAPH)), st.just(0)).map(list))
    try:
        found = read_comfy(json.dumps(graph))
    except CmpError:
        return
    assert isinstance(found.as_sampling(), Sampling)
    json.dumps(found.as_json())
