# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own checkpoints
#
# Two trainings from start to end: a plain PyTorch loop that also saves checkpoints, and the Hugging
# Face `Trainer`. Both are small enough to train here; nothing is downloaded.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import transformers
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import bayesphase as bp

torch.set_num_threads(1)
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A plain loop
#
# A small network learns handwritten digits, from three seeds. `Recorder` needs three lines: make
# it, record at the steps that you want, and leave the `with` block. The same loop saves a
# checkpoint now and then, as yours may do already.

# %%
images, labels = load_digits(return_X_y=True)
images = torch.as_tensor(images / 16.0, dtype=torch.float32)
labels = torch.as_tensor(labels)
held_out = torch.arange(len(labels)) % 5 == 0
x, y, x_eval, y_eval = images[~held_out], labels[~held_out], images[held_out], labels[held_out]


def train(seed: int, steps: int = 1500) -> None:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    (folder / "runs" / f"seed{seed}").mkdir(parents=True)
    with bp.Recorder(model, run=f"seed{seed}", path=folder / f"seed{seed}.nc") as recorder:
        for step in range(steps + 1):
            if step % 10 == 0:
                with torch.no_grad():
                    scores = model(x_eval)
                recorder.record(
                    step,
                    train_loss=float(cross_entropy(model(x), y)),
                    eval_loss=float(cross_entropy(scores, y_eval)),
                    eval_accuracy=float((scores.argmax(1) == y_eval).double().mean()),
                )
            if step % 100 == 0:
                torch.save(model.state_dict(), folder / "runs" / f"seed{seed}" / f"step{step}.pt")
            batch = torch.randint(len(y), (64,))
            optimiser.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()


for seed in range(3):
    train(seed)
recorded = bp.combine_runs([bp.open_metrics(folder / f"seed{seed}.nc") for seed in range(3)])
findings = bp.inspect(recorded)["findings"]
for where, text in zip(findings["where"].values, findings["text"].values, strict=True):
    print(f"{where} {text}".strip())

# %% [markdown]
# Had there been no recorder, the folder of checkpoints would do. `collect` finds runs and steps by
# their names, runs nothing that the files contain, and when it is called again with the same
# `output` measures only what is new. The numbers are the recorder's.

# %%
collected = bp.collect(folder / "runs", output=folder / "metrics.nc", progressbar=False)
print(collected[["l2_norm", "spectral_norm"]])
both = recorded.sel(step=collected["step"])
assert (collected["l2_norm"].values == both["l2_norm"].values).all()

# %% [markdown]
# From here on it is the same as with the shipped runs. The features are metrics of the weights
# alone; losses are only drawn beside.

# %%
features = bp.features(recorded)
fit = bp.fit(features, 2, draws=300, random_seed=1, progressbar=False)
print(bp.diagnose(fit).attrs["verdict"])
switches = bp.switches(fit)
print(switches[["step", "lower", "upper"]].to_dataframe().dropna())
bp.plot_phases(fit, loss=recorded[["train_loss", "eval_loss"]])
plt.show()

# %% [markdown]
# ## The Hugging Face Trainer
#
# One callback records the weights at the steps at which the trainer logs or evaluates, with all
# that it logged. Here a small BERT, made from its configuration, learns whether the first token of
# eight is above the middle of the vocabulary.


# %%
class Sequences(torch.utils.data.Dataset):
    def __init__(self, n: int, seed: int) -> None:
        self.tokens = torch.randint(0, 20, (n, 8), generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, i: int) -> dict:
        return {"input_ids": self.tokens[i], "labels": (self.tokens[i, 0] >= 10).long()}


transformers.set_seed(0)
model = transformers.BertForSequenceClassification(
    transformers.BertConfig(
        vocab_size=20,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=8,
    )
)
trainer = transformers.Trainer(
    model,
    transformers.TrainingArguments(
        output_dir=str(folder / "bert"),
        max_steps=400,
        logging_steps=4,
        eval_strategy="steps",
        eval_steps=20,
        save_strategy="no",
        learning_rate=3e-4,
        per_device_train_batch_size=16,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    ),
    train_dataset=Sequences(1000, seed=1),
    eval_dataset=Sequences(200, seed=2),
    callbacks=[bp.HFRecorder(folder / "bert.nc")],
)
trainer.remove_callback(transformers.PrinterCallback)  # it would print every log
trainer.train()
bert = bp.open_metrics(folder / "bert.nc")
print(f"{100 * bert.attrs['recording_share']:.0f} % of the time went into recording")
print(bert["parameter"].values)

# %%
fit = bp.fit(bp.features(bert), 2, draws=300, random_seed=1, progressbar=False)
print(bp.diagnose(fit).attrs["verdict"])
bp.plot_phases(fit, loss=bert[["train_loss", "eval_loss"]])
plt.show()
