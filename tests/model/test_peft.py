"""Stock PEFT as the judge: every row of a mixed batch equals the same adapter alone."""

import pytest
import torch
from peft import PeftModel

from personalize.model.folder import read_adapter, write_adapter
from personalize.model.rows import AdapterRows
from tests.model.tiny import FAMILIES, random_adapter, random_ids, tiny_base, tiny_module


@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_of_a_mixed_batch_is_its_adapter_alone_in_peft(family, tmp_path):
    base, ids = tiny_base(family), random_ids((4, 12))
    adapters = [random_adapter(base, 1, r=2), None, random_adapter(base, 2, r=8), random_adapter(base, 3, only="dense")]
    if not adapters[3].a:
        adapters[3] = random_adapter(base, 3, only="o_proj")
    with torch.no_grad():
        mixed = base.head(base.hidden(ids, rows=AdapterRows.of(adapters)))
    for row, adapter in enumerate(adapters):
        stock = tiny_module(family)
        if adapter is not None:
            write_adapter(tmp_path / str(row), adapter, base)
            stock = PeftModel.from_pretrained(stock, str(tmp_path / str(row)))
        with torch.no_grad():
            alone = stock(input_ids=ids[row : row + 1]).logits[0]
            plain = base.head(base.hidden(ids[row : row + 1]))[0]
        torch.testing.assert_close(mixed[row], alone, atol=1e-5, rtol=1e-5)
        assert (adapter is None) == bool(torch.allclose(mixed[row], plain, atol=1e-5))


def test_a_folder_written_by_peft_reads_back(tmp_path):
    from peft import LoraConfig, get_peft_model

    base = tiny_base("phi3")
    peft = get_peft_model(tiny_module("phi3"), LoraConfig(r=3, lora_alpha=5, target_modules=["qkv_proj", "down_proj"]))
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    peft.save_pretrained(tmp_path)
    ids = random_ids((1, 9))
    with torch.no_grad():
        ours = base.head(base.hidden(ids, rows=AdapterRows.of([read_adapter(tmp_path, base)])))
        torch.testing.assert_close(ours, peft.eval()(input_ids=ids).logits, atol=1e-5, rtol=1e-5)
