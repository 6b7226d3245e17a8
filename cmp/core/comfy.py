"""Settings out of ComfyUI's `prompt` chunk: the graph as its API takes it, {"3": {"class_type": "KSampler", "inputs": {…}}, …}.

An input is a value or a link ["4", 1] to another node's output. The graph is whatever somebody made; nothing in it is trusted to be there,
to be of its type, or to end: links are followed with a bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cmp.core.restored import Finding, Restored, read_object
from cmp.core.samplers import from_comfy
from cmp.errors import Unreadable

MOST_LINKS = 200  # followed from one input
_SAMPLERS = ("KSampler", "KSamplerAdvanced")
_TEXTS = ("CLIPTextEncode", "CLIPTextEncodeSDXL", "CLIPTextEncodeFlux")
_PASSES = ("Reroute", "FluxGuidance", "ModelSamplingSD3", "ModelSamplingFlux")  # what they change is read, or belongs to the model

Node = Mapping[str, Any]


def read_comfy(text: str) -> Restored:
    """What the graph's sampler drew with; raises Unreadable where there is no KSampler in it.

    Of several samplers that counts which begins with an empty picture; what follows on it is named.
    """
    told = read_object(text, "ComfyUI's graph")
    graph = {name: node for name, node in told.items() if isinstance(node, dict) and isinstance(node.get("inputs"), dict)}
    samplers = [node for node in graph.values() if node.get("class_type") in _SAMPLERS]
    if not samplers:
        raise Unreadable(
            "ComfyUI's graph in the picture has no KSampler", "Only graphs that sample with KSampler or KSamplerAdvanced are read."
        )
    sampler = next((node for node in samplers if _class(_linked(graph, node, "latent_image")).startswith("Empty")), samplers[0])
    finding = Finding("ComfyUI")
    if len(samplers) > 1:
        finding.lose(f"{len(samplers) - 1} further sampling passes")
    _sampling(finding, graph, sampler)
    _latent(finding, graph, sampler)
    for name, target in (("positive", "prompt"), ("negative", "negative")):
        _prompt(finding, graph, sampler, name, target)
    _model(finding, graph, sampler)
    _vae(finding, graph, sampler)
    return finding.restored()


def _class(node: Node | None) -> str:
    found = node.get("class_type") if node else None
    return found if isinstance(found, str) else ""


def _linked(graph: Mapping[str, Node], node: Node, name: str) -> Node | None:
    """The node that an input comes from; None if it is a value or leads nowhere."""
    link = node["inputs"].get(name)
    return graph.get(str(link[0])) if isinstance(link, list) and link and isinstance(link[0], (str, int)) else None


def _value(graph: Mapping[str, Node], node: Node, *names: str) -> Any:
    """A value of the first of these inputs that is there; one that comes from a node which only holds a value is taken from there."""
    for _ in range(MOST_LINKS):
        name = next((name for name in names if name in node["inputs"]), None)
        if name is None:
            return None
        if not isinstance(node["inputs"][name], list):
            return node["inputs"][name]
        source = _linked(graph, node, name)
        if source is None:
            return None
        node, names = source, (name, "value", "seed", "text", "string", "int", "float", "")
    return None


def _chain(graph: Mapping[str, Node], node: Node | None, *names: str) -> Iterator[Node]:
    """The nodes one behind the other, from this one along the first of these inputs that is a link; each once. A Reroute's is named ""."""
    seen: list[Node] = []
    while node is not None and len(seen) < MOST_LINKS and not any(node is earlier for earlier in seen):
        seen.append(node)
        yield node
        here = node
        node = next((found for name in names if (found := _linked(graph, here, name))), None)


def _sampling(finding: Finding, graph: Mapping[str, Node], sampler: Node) -> None:
    finding.keep("seed", _value(graph, sampler, "seed", "noise_seed"))
    steps = _value(graph, sampler, "steps")
    finding.keep("steps", steps)
    finding.keep("guidance", _value(graph, sampler, "cfg"))
    name, schedule = (str(_value(graph, sampler, key)) for key in ("sampler_name", "scheduler"))
    found, lost = from_comfy(name, schedule)
    finding.keep("scheduler", found)
    if lost:
        finding.lose(lost)
    denoise = _value(graph, sampler, "denoise")
    if isinstance(denoise, (int, float)) and denoise < 1:
        finding.lose(f"denoise {denoise}: drawn over another picture")
    start, end = _value(graph, sampler, "start_at_step"), _value(graph, sampler, "end_at_step")
    if (isinstance(start, int) and start > 0) or (isinstance(end, int) and isinstance(steps, int) and end < steps):
        finding.lose(f"only the steps {start} to {end}")


def _latent(finding: Finding, graph: Mapping[str, Node], sampler: Node) -> None:
    latent = _linked(graph, sampler, "latent_image")
    if latent is None or not _class(latent).startswith("Empty"):
        finding.lose(f"the picture that was drawn over ({_class(latent) or 'nothing'})")
        return
    for name in ("width", "height"):
        finding.keep(name, _value(graph, latent, name))
    count = _value(graph, latent, "batch_size")
    if isinstance(count, int) and count > 1:
        finding.lose(f"which of {count} pictures of one batch it is")


def _prompt(finding: Finding, graph: Mapping[str, Node], sampler: Node, name: str, target: str) -> None:
    for node in _chain(graph, _linked(graph, sampler, name), "conditioning", name, "conditioning_1", "conditioning_to", ""):
        kind = _class(node)
        if kind in _TEXTS:
            _text(finding, graph, node, target)
            return
        if kind == "FluxGuidance" and target == "prompt":
            finding.keep("guidance", _value(graph, node, "guidance"))
        elif kind == "ConditioningZeroOut":
            return  # no prompt at all
        elif kind not in _PASSES:
            finding.lose(f"{kind or 'a node'} on the {target}")
    finding.lose(f"the {'negative prompt' if target == 'negative' else target}: no text was found")


def _text(finding: Finding, graph: Mapping[str, Node], node: Node, target: str) -> None:
    texts = [found for key in ("text", "text_g", "text_l", "clip_l", "t5xxl") if isinstance(found := _value(graph, node, key), str)]
    if not texts:
        finding.lose(f"the {target}: it is put together from other nodes")
        return
    finding.prompt(target, texts[0], foreign=True)
    if len(set(texts)) > 1:
        finding.lose(f"a second text for the {target}: {texts[1]}")
    for clip in _chain(graph, _linked(graph, node, "clip"), "clip"):
        layer = _value(graph, clip, "stop_at_clip_layer") if _class(clip) == "CLIPSetLastLayer" else None
        if isinstance(layer, int) and not isinstance(layer, bool):
            finding.keep("clip_skip", -layer)
            return


def _model(finding: Finding, graph: Mapping[str, Node], sampler: Node) -> None:
    loras: list[tuple[Any, Any]] = []
    for node in _chain(graph, _linked(graph, sampler, "model"), "model", ""):
        kind = _class(node)
        if kind in ("LoraLoader", "LoraLoaderModelOnly"):
            name, strength, words = (_value(graph, node, key) for key in ("lora_name", "strength_model", "strength_clip"))
            loras.append((name, strength))
            if words not in (None, strength):
                finding.lose(f"the strength {str(words)[:40]} of {str(name)[:80]!r} on the text encoder")
        elif found := _value(graph, node, "ckpt_name", "unet_name"):
            finding.keep("model", found)
        elif kind not in _PASSES:
            finding.lose(f"{kind or 'a node'} on the model")
    for lora in reversed(loras):  # the one next to the model is worn first
        finding.wear(*lora)


def _vae(finding: Finding, graph: Mapping[str, Node], sampler: Node) -> None:
    for node in graph.values():
        loader = _linked(graph, node, "vae") if _class(node) == "VAEDecode" and _linked(graph, node, "samples") is sampler else None
        if _class(loader) == "VAELoader" and loader is not None:
            finding.lose(f"VAE: {_value(graph, loader, 'vae_name')}")
