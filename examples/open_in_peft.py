"""Open a user's adapter in plain PEFT, without this SDK at run time: a version is an ordinary PEFT folder.

personalize versions export alice alice.zip
python examples/open_in_peft.py alice.zip [VERSION] [MODEL]
"""

import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTION = [{"role": "user", "content": "Tell me about rivers."}]


def main(archive: str, version: str | None = None, model: str | None = None) -> None:
    base_path = model or pocket()
    tokenizer = AutoTokenizer.from_pretrained(base_path)
    base = AutoModelForCausalLM.from_pretrained(base_path, dtype=torch.float32)
    prompt = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    print("base model:\n" + answer(base, tokenizer, prompt))
    with tempfile.TemporaryDirectory() as folder:
        adapter = unpack(Path(archive), Path(folder), version)
        personal = PeftModel.from_pretrained(base, str(adapter))
        print(f"\n{adapter.name}:\n" + answer(personal, tokenizer, prompt))


def answer(model, tokenizer, prompt) -> str:
    """Return the greedy reply."""
    with torch.inference_mode():
        ids = model.generate(**prompt, max_new_tokens=150, do_sample=False)
    return tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)


def unpack(archive: Path, into: Path, version: str | None) -> Path:
    """Unpack an export and return the folder of a version, the newest by default."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(into)
    folders = {number(path.parent): path.parent for path in into.rglob("adapter_config.json")}
    if not folders:
        raise SystemExit(f"{archive} holds no version")
    wanted = max(folders) if version is None else int(version)
    if wanted not in folders:
        raise SystemExit(f"{archive} holds the versions {sorted(folders)}, not {wanted}")
    return folders[wanted]


def number(folder: Path) -> int:
    """Return the version in a folder's name, ``u_<user>@<number>-<digest>``."""
    return int(folder.name.partition("@")[2].partition("-")[0])


def pocket() -> str:
    """Return the path of the embedded model; any other base is named on the command line."""
    from personalize.pocket import path

    return str(path())


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
