"""faults.md C2: a hook point that passes rows (batch · position, width) is spliced at the right tokens."""

import torch
from transformers import OPTConfig, OPTForCausalLM

from atomlab.activations.model.capture import axis_orders
from atomlab.activations.model.sites import HookPoint
from atomlab.evaluation.rows.splicing import Passage, _logits


def test_rows_are_edited_where_they_are_harvested_and_nowhere_before() -> None:
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48,
        max_position_embeddings=64, word_embed_proj_dim=32, init_std=0.5,
    )  # fmt: skip
    model, point = OPTForCausalLM(config).eval(), HookPoint.parse("model.decoder.layers.1.fc2.input")
    ids = torch.randint(3, 64, (3, 7))
    kind, width = axis_orders(model, [point], ids)[point]
    assert (kind, width) == ("rows", 48)
    edited = torch.zeros(3, 7, dtype=torch.bool)
    edited[1, 4] = True
    passage = Passage({"input_ids": ids}, edited, torch.ones_like(edited), torch.ones_like(edited))
    with torch.inference_mode():
        clean = _logits(model, point, kind, passage, None).view(3, 7, -1)
        same = _logits(model, point, kind, passage, lambda x: x).view(3, 7, -1)
        zero = _logits(model, point, kind, passage, torch.zeros_like).view(3, 7, -1)
    assert torch.equal(same, clean)
    changed = (zero - clean).abs().amax(-1) > 1e-6
    assert torch.equal(changed, edited)  # the last layer's MLP moves its own token alone
